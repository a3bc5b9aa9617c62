//! The data plane's own connections: one role for life, statements kept compiled, one hop for each.
//!
//! What they commit survives the process being killed; after a power loss the last commits may be missing, and
//! nothing is damaged.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kernel::Env;
use serde_json::Value;

use super::Databases;
use super::connection::Kind;
use super::environments::{Lease, SharedTurn};
use super::error::Error;
use super::guard::{Bounds, Queue};
use super::list_turns::Client;
use super::policy::Role;
use super::writer::Writer;

/// The rows that a statement gave, copied out of the engine.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    width: usize,
    held: Vec<Held>,
    bytes: Vec<u8>,
    cut: bool,
}

#[derive(Debug)]
enum Held {
    Null,
    Int(i64),
    Real(f64),
    Text(Range<usize>),
    Blob(Range<usize>),
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'r> {
    held: &'r [Held],
    bytes: &'r [u8],
}

/// What a row has in one of its columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'r> {
    Null,
    Int(i64),
    Real(f64),
    Text(&'r str),
    /// Bytes, or a text that is not UTF-8.
    Blob(&'r [u8]),
}

impl Rows {
    pub(super) fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    pub(super) fn null(&mut self) {
        self.held.push(Held::Null);
    }

    pub(super) fn int(&mut self, value: i64) {
        self.held.push(Held::Int(value));
    }

    pub(super) fn real(&mut self, value: f64) {
        self.held.push(Held::Real(value));
    }

    pub(super) fn text(&mut self, value: &[u8]) {
        let at = self.hold(value);
        self.held.push(Held::Text(at));
    }

    pub(super) fn blob(&mut self, value: &[u8]) {
        let at = self.hold(value);
        self.held.push(Held::Blob(at));
    }

    fn hold(&mut self, value: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        start..self.bytes.len()
    }

    /// How many bytes its texts and blobs are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// Whether there were more rows than the bytes that were allowed.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.held.chunks_exact(self.width.max(1)).map(|held| Row { held, bytes: &self.bytes })
    }
}

impl<'r> Row<'r> {
    /// What is in the column at `index`, from 0; nothing beyond the last.
    pub fn cell(&self, index: usize) -> Cell<'r> {
        let of = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        match self.held.get(index) {
            Some(Held::Int(value)) => Cell::Int(*value),
            Some(Held::Real(value)) => Cell::Real(*value),
            Some(Held::Text(range)) => {
                std::str::from_utf8(of(range)).map_or(Cell::Blob(of(range)), Cell::Text)
            }
            Some(Held::Blob(range)) => Cell::Blob(of(range)),
            Some(Held::Null) | None => Cell::Null,
        }
    }
}

impl Databases {
    /// As [`Databases::read_rows`], for a statement that may read many rows: it leaves one reader to the others, and each
    /// of `clients` a turn to others than itself.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn list_rows(
        &self,
        env: &Env,
        clients: &[Client],
        sql: String,
        params: Vec<Value>,
        most: usize,
    ) -> Result<Rows, Error> {
        let _turn = self.environments.list_turn(env.id(), clients).await?;
        self.read_rows(env, sql, params, most).await
    }

    /// Reads with one statement of the data plane, whose parameters are bare `?`, until its rows are more than `most`
    /// bytes.
    ///
    /// # Errors
    /// Of the engine; a column or a table that is gone meanwhile is `Statement`.
    pub(crate) async fn read_rows(
        &self,
        env: &Env,
        sql: String,
        params: Vec<Value>,
        most: usize,
    ) -> Result<Rows, Error> {
        let mut lease = self.environments.reader(env.id(), Kind::RowsReader).await?;
        let connection = lease.connection()?;
        let bounds = Bounds { most, limit: connection.limits().statement, queue: None, depth: 0 };
        let read = connection.step_kept(sql, params, bounds).await;
        lease.settle();
        read
    }

    /// The right to write for the data plane, in the same turn as [`Databases::writer`]; `depth` is how many times functions
    /// have set each other off until here.
    ///
    /// # Errors
    /// `Busy` where others hold it for longer than a call may wait.
    pub(crate) async fn rows_writer(&self, env: &Env, depth: u8) -> Result<RowsWriter, Error> {
        let lease = self.environments.writer(env.id(), Kind::RowsWriter).await?;
        Ok(RowsWriter { lease: Some(lease), until: None, working: false, depth })
    }

    /// The right to make changes by themselves for the data plane, beside others who do; nobody else writes until the
    /// last of them is done.
    ///
    /// # Errors
    /// As [`Databases::rows_writer`].
    pub(crate) async fn rows_turn(&self, env: &Env, depth: u8) -> Result<RowsTurn, Error> {
        let until = tokio::time::Instant::now() + self.environments.limits().turn;
        let turn = Arc::new(self.environments.shared_turn(env.id()).await?);
        Ok(RowsTurn { turn, until, depth })
    }
}

/// Whoever runs statements of the data plane that may change rows.
pub(crate) trait RunRows: Send {
    /// Runs one statement, whose parameters are bare `?`.
    ///
    /// # Errors
    /// Of the engine; the statement is undone then.
    fn run(&mut self, sql: String, params: Vec<Value>) -> impl Future<Output = Result<Rows, Error>> + Send;
}

/// The right to make changes of which each statement is a transaction of its own, in a queue with others.
pub(crate) struct RowsTurn {
    turn: Arc<SharedTurn>,
    until: tokio::time::Instant,
    depth: u8,
}

impl RunRows for RowsTurn {
    async fn run(&mut self, sql: String, params: Vec<Value>) -> Result<Rows, Error> {
        let connection = self.turn.connection()?;
        let queue = Some(Queue { turn: Arc::clone(&self.turn), until: self.until });
        let bounds =
            Bounds { most: usize::MAX, limit: connection.limits().statement, queue, depth: self.depth };
        connection.step_kept(sql, params, bounds).await
    }
}

/// The app's rows in a transaction that other statements take part in.
pub(crate) struct Among<'a>(pub &'a mut Writer);

impl RunRows for Among<'_> {
    async fn run(&mut self, sql: String, params: Vec<Value>) -> Result<Rows, Error> {
        let outcome = self.0.run(Role::Rows, &sql, &params).await?;
        let mut rows = Rows::new(outcome.columns.len());
        for value in outcome.rows.iter().flatten() {
            match value {
                Value::Null | Value::Array(_) => rows.null(),
                Value::Bool(value) => rows.int(i64::from(*value)),
                Value::Number(number) => match number.as_i64() {
                    Some(whole) => rows.int(whole),
                    None => rows.real(number.as_f64().unwrap_or_default()),
                },
                Value::String(text) => rows.text(text.as_bytes()),
                Value::Object(blob) => {
                    let bytes =
                        blob.get("base64").and_then(Value::as_str).and_then(|it| STANDARD.decode(it).ok());
                    rows.blob(&bytes.unwrap_or_default());
                }
            }
        }
        Ok(rows)
    }
}

/// The exclusive right to write for the data plane. Each statement is a transaction of its own unless one is open;
/// dropped with one open, it rolls back. What belongs together is changed by this one; a change by itself takes a
/// [`RowsTurn`].
pub(crate) struct RowsWriter {
    lease: Option<Lease>,
    /// Until when the open transaction may last, where one is open.
    until: Option<Instant>,
    /// Set while the engine works for us, and for ever where the connection is not to be used again.
    working: bool,
    depth: u8,
}

impl RowsWriter {
    /// Opens a transaction that is alone in writing. All its statements together may take as long as one alone.
    ///
    /// # Errors
    /// Of the engine; where one is open already.
    pub async fn begin(&mut self) -> Result<(), Error> {
        if self.until.is_some() {
            return Err(Error::Transaction("open already"));
        }
        self.run("BEGIN IMMEDIATE".to_owned(), Vec::new()).await?;
        let limit = self.lease()?.connection()?.limits().statement;
        self.until = Instant::now().checked_add(limit);
        Ok(())
    }

    /// Makes everything since [`RowsWriter::begin`] permanent.
    ///
    /// # Errors
    /// Where the engine cannot commit; the transaction is over then too, and has changed nothing.
    pub async fn commit(mut self) -> Result<(), Error> {
        // On failure the connection is closed with the transaction in it.
        self.run("COMMIT".to_owned(), Vec::new()).await?;
        self.until = None;
        Ok(())
    }

    /// Undoes everything since [`RowsWriter::begin`].
    ///
    /// # Errors
    /// Where the engine cannot; the connection is closed then, which undoes it too.
    pub async fn rollback(mut self) -> Result<(), Error> {
        if self.working {
            return Ok(());
        }
        // The engine has rolled back by itself after an error that it could not undo alone.
        if self.lease()?.connection()?.in_transaction().await? {
            self.until = None;
            self.run("ROLLBACK".to_owned(), Vec::new()).await?;
        }
        self.until = None;
        Ok(())
    }

    fn lease(&mut self) -> Result<&mut Lease, Error> {
        self.lease.as_mut().ok_or(Error::Transaction("over"))
    }
}

impl RunRows for RowsWriter {
    async fn run(&mut self, sql: String, params: Vec<Value>) -> Result<Rows, Error> {
        let (until, depth) = (self.until, self.depth);
        self.working = true;
        let connection = self.lease()?.connection()?;
        let most = connection.limits().statement;
        let limit = until.map_or(most, |until| until.saturating_duration_since(Instant::now()));
        let bounds = Bounds { most: usize::MAX, limit, queue: None, depth };
        let result = connection.step_kept(sql, params, bounds).await;
        self.working = !connection.is_sound();
        // What is left of the transaction's time is not what the caller was given.
        result.map_err(|error| if matches!(error, Error::TooSlow(_)) { Error::TooSlow(most) } else { error })
    }
}

impl Drop for RowsWriter {
    fn drop(&mut self) {
        // Without being given back the connection is closed, and its transaction rolled back.
        if let Some(lease) = self.lease.take().filter(|_| !self.working && self.until.is_none()) {
            lease.give_back();
        }
    }
}
