//! The data plane's own connections: one role for life, statements kept compiled, one hop for each.
//!
//! What they commit survives the process being killed; after a power loss the last commits may be missing, and
//! nothing is damaged.

use std::ops::ControlFlow;
use std::time::Instant;

use kernel::Env;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row as _, Sqlite, TypeInfo as _, ValueRef as _};

use super::Databases;
use super::connection::Kind;
use super::environments::Lease;
use super::error::Error;

/// A row that a statement gives.
pub(crate) struct Row<'r>(&'r SqliteRow);

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

impl<'r> Row<'r> {
    /// What is in the column at `index`, from 0.
    ///
    /// # Errors
    /// Where there is no such column.
    pub fn cell(&self, index: usize) -> Result<Cell<'r>, Error> {
        let raw = self.0.try_get_raw(index).map_err(Error::Engine)?;
        if raw.is_null() {
            return Ok(Cell::Null);
        }
        let kind = raw.type_info().into_owned();
        let cell = match kind.name() {
            "INTEGER" => <i64 as Decode<'_, Sqlite>>::decode(raw).map(Cell::Int),
            "REAL" => <f64 as Decode<'_, Sqlite>>::decode(raw).map(Cell::Real),
            "TEXT" => <&'r [u8] as Decode<'_, Sqlite>>::decode(raw)
                .map(|bytes| std::str::from_utf8(bytes).map_or(Cell::Blob(bytes), Cell::Text)),
            _ => <&'r [u8] as Decode<'_, Sqlite>>::decode(raw).map(Cell::Blob),
        };
        cell.map_err(|source| Error::Engine(sqlx::Error::Decode(source)))
    }
}

/// Whether the connection is better opened anew: the engine does not look whether the schema has changed before it
/// asks the guard, so that what was refused would stay so.
const fn is_stale(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Refused(_)))
}

impl Databases {
    /// Reads with one statement of the data plane, whose parameters are bare `?`, and hands each row to `each`
    /// until it breaks.
    ///
    /// # Errors
    /// Of the engine; a column or a table that is gone meanwhile is `Statement`.
    pub(crate) async fn read_rows(
        &self,
        env: &Env,
        sql: &str,
        params: &[Value],
        mut each: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut lease = self.environments.reader(env.id(), Kind::RowsReader).await?;
        let connection = lease.connection()?;
        let (watch, limit) = (connection.watch(), connection.limits().statement);
        let read = watch.within(limit, connection.step_kept(sql, params, |row| each(&Row(row)))).await;
        if !is_stale(&read) {
            lease.settle();
        }
        read
    }

    /// The right to write for the data plane, in the same turn as [`Databases::writer`].
    ///
    /// # Errors
    /// `Busy` where others hold it for longer than a call may wait.
    pub(crate) async fn rows_writer(&self, env: &Env) -> Result<RowsWriter, Error> {
        let lease = self.environments.writer(env.id(), Kind::RowsWriter).await?;
        Ok(RowsWriter { lease: Some(lease), until: None, working: false })
    }
}

/// The exclusive right to write for the data plane. Each statement is a transaction of its own unless one is open;
/// dropped with one open, it rolls back.
pub(crate) struct RowsWriter {
    lease: Option<Lease>,
    /// Until when the open transaction may last, where one is open.
    until: Option<Instant>,
    /// Set while the engine works for us, and for ever where the connection is not to be used again.
    working: bool,
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
        self.run("BEGIN IMMEDIATE", &[], |_| Ok(ControlFlow::Continue(()))).await?;
        let limit = self.lease()?.connection()?.limits().statement;
        self.until = Instant::now().checked_add(limit);
        Ok(())
    }

    /// Runs one statement of the data plane, whose parameters are bare `?`, and hands each row to `each`. One that
    /// changes rows has changed all of them before it gives the first.
    ///
    /// # Errors
    /// Of the engine; the statement is undone then. An error of `each` undoes nothing by itself.
    pub async fn run(
        &mut self,
        sql: &str,
        params: &[Value],
        mut each: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let until = self.until;
        self.working = true;
        let connection = self.lease()?.connection()?;
        let (watch, most) = (connection.watch(), connection.limits().statement);
        let limit = until.map_or(most, |until| until.saturating_duration_since(Instant::now()));
        let result = watch.within(limit, connection.step_kept(sql, params, |row| each(&Row(row)))).await;
        self.working = watch.abandoned() || is_stale(&result);
        // What is left of the transaction's time is not what the caller was given.
        result.map_err(|error| if matches!(error, Error::TooSlow(_)) { Error::TooSlow(most) } else { error })
    }

    /// Makes everything since [`RowsWriter::begin`] permanent.
    ///
    /// # Errors
    /// Where the engine cannot commit; the transaction is over then too, and has changed nothing.
    pub async fn commit(mut self) -> Result<(), Error> {
        // On failure the connection is closed with the transaction in it.
        self.run("COMMIT", &[], |_| Ok(ControlFlow::Continue(()))).await?;
        self.until = None;
        Ok(())
    }

    /// Undoes everything since [`RowsWriter::begin`].
    ///
    /// # Errors
    /// Where the engine cannot; the connection is closed then, which undoes it too.
    pub async fn rollback(mut self) -> Result<(), Error> {
        if self.lease()?.connection()?.in_transaction().await? {
            self.until = Some(Instant::now() + self.lease()?.connection()?.limits().statement);
            self.run("ROLLBACK", &[], |_| Ok(ControlFlow::Continue(()))).await?;
        }
        self.until = None;
        Ok(())
    }

    fn lease(&mut self) -> Result<&mut Lease, Error> {
        self.lease.as_mut().ok_or(Error::Transaction("over"))
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
