//! The one writer of an environment, held for as long as a transaction needs it.

use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::sync::Arc;

use kernel::EnvId;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::connection::{Outcome, Text, names, zero_byte};
use super::environments::Lease;
use super::error::Error;
use super::events;
use super::feed::Feed;
use super::guard::Statement;
use super::limits::Limits;
use super::policy::Role;
use super::schema::{self, Counting, Schema};
use super::values;

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The machine losing power: the commit waits for the disk.
    Full,
    /// The process being killed. After a power loss the last commits may be missing, and nothing is damaged.
    Normal,
}

/// How many tokens the rows of one statement may be, lest they fill the memory; about a megabyte.
const RETURNED: usize = 350_000;

/// Whether the engine does something by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// The exclusive right to write to one environment's database. Dropped with a transaction open, it rolls back.
pub struct Writer {
    env: EnvId,
    limits: Arc<Limits>,
    lease: Option<Lease>,
    cancel: CancellationToken,
    state: State,
    /// Set while the engine works for us, and for ever where that was broken off.
    working: bool,
    /// Settings that differ from those every caller expects.
    unusual: [bool; 2],
    changed_schema: bool,
    /// Whether the platform or a caller has changed the schema: who watches tables hears of it.
    reshaped: bool,
    /// Whether the triggers that note events have to be laid before the commit.
    lifted: bool,
    /// How deep functions have set each other off until here.
    depth: u8,
    feed: Arc<Feed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Open,
    /// The engine has rolled back by itself, after an error it could not undo alone.
    Lost,
}

impl Writer {
    pub(super) fn new(env: EnvId, limits: Arc<Limits>, lease: Lease, feed: Arc<Feed>) -> Self {
        Self {
            env,
            limits,
            lease: Some(lease),
            cancel: CancellationToken::new(),
            state: State::Idle,
            working: false,
            unusual: [false; 2],
            changed_schema: false,
            reshaped: false,
            lifted: false,
            depth: 0,
            feed,
        }
    }

    /// The environment.
    #[must_use]
    pub const fn env(&self) -> EnvId {
        self.env
    }

    /// Whether a transaction is open: the engine ends one by itself where a statement cannot be undone alone.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Starts no further statement once `cancel` is cancelled.
    pub fn heed(&mut self, cancel: &CancellationToken) {
        self.cancel = cancel.clone();
    }

    /// Opens a transaction that is alone in writing.
    ///
    /// # Errors
    /// Where one is open already.
    pub async fn begin(&mut self, durability: Durability) -> Result<(), Error> {
        if self.state != State::Idle {
            return Err(Error::Transaction("open already"));
        }
        let synchronous = match durability {
            Durability::Full => "PRAGMA synchronous = FULL",
            Durability::Normal => "PRAGMA synchronous = NORMAL",
        };
        self.own(synchronous).await?;
        let depth = self.depth;
        self.lease()?.connection()?.at_depth(depth);
        self.own("BEGIN IMMEDIATE").await?;
        // Nothing may come between: whoever goes away there would leave it open.
        self.state = State::Open;
        self.changed_schema = false;
        self.reshaped = false;
        self.lifted = false;
        Ok(())
    }

    /// The same for what functions do that have set each other off until here so many times; before it begins.
    pub(crate) fn at_depth(&mut self, depth: u8) {
        self.depth = depth;
    }

    /// Has nothing be an event of what changes from here to the end of the transaction.
    ///
    /// # Errors
    /// Of the engine alone.
    pub(crate) async fn lift_events(&mut self) -> Result<(), Error> {
        self.working = true;
        events::lift(self.lease()?.connection()?).await?;
        self.working = false;
        self.lifted = true;
        Ok(())
    }

    /// Has events be noted as the release wants it that is current in the transaction.
    ///
    /// # Errors
    /// `Listened` where a function listens to a table that is not there.
    pub(crate) async fn lay_events(&mut self) -> Result<(), Error> {
        self.working = true;
        let laid = events::lay(self.lease()?.connection()?).await;
        self.working = false;
        self.lifted = false;
        laid
    }

    /// Runs one statement in the open transaction. Use [`Role::Platform`] for `_steading_` tables alone, without
    /// a WITH clause: a statement on the app's tables sets off the app's triggers.
    ///
    /// # Errors
    /// What the guard or the engine holds against it; the statement is undone, the transaction stays open
    /// where the engine can keep it.
    pub async fn run(&mut self, role: Role, sql: &str, params: &[Value]) -> Result<Outcome, Error> {
        let (_, outcome) = self.statement(role, sql, params, Text::One).await?;
        Ok(outcome)
    }

    /// Runs the statements of `sql` one after the other in the open transaction, without parameters; rows they
    /// return are left out.
    ///
    /// # Returns
    /// How many statements there were.
    ///
    /// # Errors
    /// `Script` naming the first that fails; what ran before it stays until the caller rolls back.
    pub async fn script(&mut self, role: Role, sql: &str) -> Result<usize, Error> {
        let mut script = Script::new(sql)?;
        while self.next(role, &mut script).await?.is_some() {}
        Ok(script.number)
    }

    /// Runs the next statement of a script; `None` at its end.
    pub(super) async fn next(&mut self, role: Role, script: &mut Script<'_>) -> Result<Option<Done>, Error> {
        let (rest, ended) = script.rest();
        let result = self.statement(role, rest, &[], Text::First(ended)).await;
        let (statement, outcome) = result.map_err(|source| script.failed(source))?;
        script.at += statement.end;
        if statement.empty {
            return Ok(None);
        }
        script.number += 1;
        Ok(Some(Done {
            altered: statement.altered,
            changes_schema: statement.changes_schema,
            changed: outcome.changed,
        }))
    }

    async fn statement(
        &mut self,
        role: Role,
        sql: &str,
        params: &[Value],
        text: Text<'_>,
    ) -> Result<(Statement, Outcome), Error> {
        match self.state {
            State::Open => {}
            State::Idle => return Err(Error::Transaction("not open")),
            State::Lost => return Err(Error::Transaction("rolled back already")),
        }
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        // Rewriting a table is the platform's, and takes as long as a migration that does it.
        let limit = match role {
            Role::Migrator | Role::Platform => self.limits.migration,
            Role::Reader | Role::Writer | Role::Rows | Role::Turn => self.limits.statement,
        };
        self.working = true;
        let connection = self.lease.as_mut().ok_or(Error::Transaction("over"))?.connection()?;
        let watch = connection.watch();
        let result = watch
            .within(limit, async {
                let statement = connection.inspect(role, sql, text).await?;
                let mut outcome = Outcome { columns: statement.columns.clone(), ..Outcome::default() };
                if statement.empty {
                    return Ok((statement, outcome));
                }
                let Outcome { rows, columns, .. } = &mut outcome;
                let mut returned = 0;
                let changed = connection
                    .step(&statement, sql, params, |row| {
                        if text != Text::One {
                            return Ok(ControlFlow::Continue(()));
                        }
                        if rows.is_empty() {
                            *columns = names(row);
                        }
                        let row = values::row(row)?;
                        returned += values::tokens(&row);
                        if returned > RETURNED && role != Role::Platform {
                            return Err(Error::WideReturning);
                        }
                        rows.push(row);
                        Ok(ControlFlow::Continue(()))
                    })
                    .await?;
                outcome.changed = changed;
                Ok((statement, outcome))
            })
            .await;
        if watch.abandoned() {
            return result;
        }
        match &result {
            Ok((statement, _)) => {
                self.reshaped |= statement.changes_schema;
                self.changed_schema |= statement.changes_schema && role != Role::Platform;
            }
            Err(_) if !connection.in_transaction().await? => self.state = State::Lost,
            Err(_) => {}
        }
        self.working = false;
        result
    }

    /// The schema as the open transaction sees it, or as it is committed.
    ///
    /// # Errors
    /// Of the engine alone.
    pub async fn schema(&mut self) -> Result<Schema, Error> {
        self.schema_counting(Counting::Impression).await
    }

    /// The schema with its rows counted as `counting` says.
    pub(super) async fn schema_counting(&mut self, counting: Counting) -> Result<Schema, Error> {
        self.working = true;
        let schema = schema::read(self.lease()?.connection()?, counting).await?;
        self.working = false;
        Ok(schema)
    }

    /// The connection itself, for the modules beside this one.
    pub(super) fn lease(&mut self) -> Result<&mut Lease, Error> {
        self.lease.as_mut().ok_or(Error::Transaction("over"))
    }

    /// Makes everything since [`Writer::begin`] permanent.
    ///
    /// # Errors
    /// Where a caller's statement has touched the platform's tables by a way around the guard, or the engine
    /// cannot commit; the transaction is rolled back then.
    pub async fn commit(&mut self) -> Result<(), Error> {
        match self.state {
            State::Open => {}
            State::Idle => return Err(Error::Transaction("not open")),
            State::Lost => return Err(Error::Transaction("rolled back already")),
        }
        let committed = match self.seal().await {
            Ok(()) => {
                let _reshaped = self.reshaped.then(|| Arc::clone(&self.feed).reshape());
                self.own("COMMIT").await.map(drop)
            }
            Err(error) => Err(error),
        };
        match committed {
            Ok(()) => {
                self.state = State::Idle;
                self.lease()?.connection()?.committed();
                Ok(())
            }
            Err(error) => {
                self.rollback().await?;
                Err(error)
            }
        }
    }

    async fn seal(&mut self) -> Result<(), Error> {
        if self.changed_schema {
            // A column more, or less, is one of its events too.
            self.lift_events().await?;
            self.working = true;
            schema::sealed(self.lease()?.connection()?).await?;
            self.working = false;
        }
        if self.lifted { self.lay_events().await } else { Ok(()) }
    }

    /// Undoes everything since [`Writer::begin`]; nothing where no transaction is open.
    ///
    /// # Errors
    /// Of the engine alone.
    pub async fn rollback(&mut self) -> Result<(), Error> {
        if self.state == State::Idle {
            return Ok(());
        }
        self.working = true;
        let open = self.lease()?.connection()?.in_transaction().await?;
        if open {
            self.own("ROLLBACK").await?;
        }
        self.working = false;
        self.state = State::Idle;
        Ok(())
    }

    /// Enforces foreign keys, or not; outside a transaction. A table that others refer to can only be rebuilt
    /// without.
    ///
    /// # Errors
    /// Where a transaction is open.
    pub async fn foreign_keys(&mut self, switch: Switch) -> Result<(), Error> {
        let sql = match switch {
            Switch::On => "PRAGMA foreign_keys = ON",
            Switch::Off => "PRAGMA foreign_keys = OFF",
        };
        self.setting(0, sql, switch == Switch::Off).await
    }

    /// Lets `ALTER TABLE … RENAME` leave alone what refers to the table, or not; outside a transaction.
    ///
    /// # Errors
    /// Where a transaction is open.
    pub async fn legacy_alter_table(&mut self, switch: Switch) -> Result<(), Error> {
        let sql = match switch {
            Switch::On => "PRAGMA legacy_alter_table = ON",
            Switch::Off => "PRAGMA legacy_alter_table = OFF",
        };
        self.setting(1, sql, switch == Switch::On).await
    }

    async fn setting(&mut self, place: usize, sql: &str, unusual: bool) -> Result<(), Error> {
        if self.state != State::Idle {
            return Err(Error::Transaction("open already"));
        }
        self.unusual[place] = true;
        self.own(sql).await?;
        self.unusual[place] = unusual;
        Ok(())
    }

    /// The rows whose references point at nothing, as `(table, rows)`.
    ///
    /// # Errors
    /// Of the engine alone.
    pub async fn broken_references(&mut self) -> Result<Vec<(String, u64)>, Error> {
        let found = self
            .own("SELECT \"table\", count(*) FROM pragma_foreign_key_check GROUP BY 1 ORDER BY 1")
            .await?;
        Ok(found
            .rows
            .iter()
            .map(|row| (row[0].as_str().unwrap_or_default().to_owned(), row[1].as_u64().unwrap_or_default()))
            .collect())
    }

    /// Runs a statement of this module's own.
    async fn own(&mut self, sql: &str) -> Result<Outcome, Error> {
        self.working = true;
        let limit = self.limits.migration;
        let outcome = self.lease()?.connection()?.run(Role::Platform, sql, &[], limit).await?;
        self.working = false;
        Ok(outcome)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let known = self.state == State::Idle && !self.working && self.unusual == [false; 2];
        // Without being given back the connection is closed, and its transaction rolled back.
        if let Some(lease) = self.lease.take().filter(|_| known) {
            lease.give_back();
        }
    }
}

/// A text of several statements, and how far it has run.
pub(super) struct Script<'a> {
    sql: &'a str,
    /// The same as the engine takes it.
    ended: CString,
    at: usize,
    number: usize,
}

/// What the next statement of a script did.
pub(super) struct Done {
    pub altered: Option<String>,
    pub changes_schema: bool,
    pub changed: u64,
}

impl<'a> Script<'a> {
    /// # Errors
    /// Where it holds a zero byte.
    pub fn new(sql: &'a str) -> Result<Self, Error> {
        let ended = CString::new(sql).map_err(|nul| {
            let source = Box::new(zero_byte(nul.nul_position()));
            Error::Script { number: 1, source }
        })?;
        Ok(Self { sql, ended, at: 0, number: 0 })
    }

    fn rest(&self) -> (&'a str, &CStr) {
        let at = self.at.min(self.sql.len());
        (self.sql.get(at..).unwrap_or_default(), &self.ended.as_c_str()[at..])
    }

    /// Whether no statement has run.
    pub const fn is_empty(&self) -> bool {
        self.number == 0
    }

    /// The error with the place of its statement in the whole text.
    fn failed(&self, source: Error) -> Error {
        let source = match source {
            Error::Transaction(_) | Error::Cancelled => return source,
            Error::Statement { message, at, hint } => {
                Error::Statement { message, at: at.map(|at| self.at + at), hint }
            }
            other => other,
        };
        Error::Script { number: self.number + 1, source: Box::new(source) }
    }
}
