//! One guarded connection: it runs a statement in a role, within a time and a memory bound.

use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use kernel::EnvId;
use serde_json::Value;
use sqlx::sqlite::{LockedSqliteHandle, SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Either, Executor as _, Row as _};
use sqlx::{Column as _, SqlSafeStr as _};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::engine_error::{self, Told};
use super::error::Error;
use super::feed::Feed;
use super::guard::{self, Bounds, Broken, Failed, Kept, Noting, Rejected, Statement};
use super::limits::{Limits, Room};
use super::policy::{Refusal, Role};
use super::rows::Rows;
use super::template::{self, APPLICATION, LAYOUT};
use super::values;
use super::watch::Watch;
use super::writer::Switch;

/// What a statement gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// The names of the columns; empty where the statement returns no rows.
    pub columns: Vec<String>,
    /// The rows, a value for each column.
    pub rows: Vec<Vec<Value>>,
    /// How many rows were inserted, changed or deleted.
    pub changed: u64,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads, in one role after the other.
    Reader,
    /// Writes, in one role after the other.
    Writer,
    /// Reads for the data plane, in its role for life, and keeps the statements compiled.
    RowsReader,
    /// Writes for the data plane, likewise.
    RowsWriter,
}

impl Kind {
    const fn reads(self) -> bool {
        matches!(self, Kind::Reader | Kind::RowsReader)
    }

    /// The role it keeps for life.
    const fn role(self) -> Option<Role> {
        match self {
            Kind::Reader | Kind::Writer => None,
            Kind::RowsReader => Some(Role::Rows),
            Kind::RowsWriter => Some(Role::Turn),
        }
    }
}

/// Who runs the statements.
enum Engine {
    Driver(SqliteConnection),
    Kept(Kept),
}

impl Engine {
    fn driver(&mut self) -> Result<&mut SqliteConnection, Error> {
        match self {
            Engine::Driver(driver) => Ok(driver),
            Engine::Kept(_) => Err(Error::Refused(Refusal::Kind)),
        }
    }
}

/// How much of a text is a statement to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// All of it, one statement.
    One,
    /// Its first statement. The engine takes the same text, which is not to be copied for each of many statements.
    First(&'a CStr),
}

/// A text of at most this many bytes compiles in no time.
const SHORT: usize = 200;

/// After how many of the engine's operations the bounds are looked at.
const OPERATIONS: i32 = 200;

pub(super) struct Connection {
    engine: Engine,
    watch: Arc<Watch>,
    role: Option<Role>,
    /// What the engine was told last, where statements of this connection write.
    room: Option<Room>,
    /// Of the events that statements of this connection note, where it writes.
    noting: Option<Arc<Noting>>,
    env: EnvId,
    path: PathBuf,
    limits: Arc<Limits>,
}

impl Connection {
    /// Opens the database file of `env` at `path`.
    ///
    /// # Errors
    /// `Damaged` where it is not a database of ours, `Newer` where a later program has changed it.
    pub async fn open(
        env: EnvId,
        path: &Path,
        kind: Kind,
        limits: &Arc<Limits>,
        feed: Arc<Feed>,
    ) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .busy_timeout(limits.turn)
            .statement_cache_capacity(0)
            .row_buffer_size(8)
            .foreign_keys(true)
            .pragma("trusted_schema", "0")
            // 256 KiB for each connection, so that many open environments stay small.
            .pragma("cache_size", "-256")
            // In memory they count against the memory bound; as files nothing would bound them.
            .pragma("temp_store", "2")
            // A little more than what comes together between checkpoints: a log that is cut short must grow again.
            .pragma("journal_size_limit", "4194304")
            .pragma("max_page_count", limits.pages.to_string())
            .pragma("query_only", if kind.reads() { "1" } else { "0" })
            // Whoever needs more says so for each transaction.
            .pragma("synchronous", "NORMAL")
            .disable_statement_logging();
        let sqlx =
            options.connect().await.map_err(|error| engine_error::of_engine(env, Told::nothing(), error))?;
        let watch = Arc::new(Watch::new(limits.memory_bytes));
        let mut connection = Self {
            engine: Engine::Driver(sqlx),
            watch,
            role: None,
            room: (!kind.reads()).then_some(Room::Quota),
            noting: None,
            env,
            path: path.to_owned(),
            limits: Arc::clone(limits),
        };
        connection.defend().await?;
        match connection.marks().await? {
            (APPLICATION, LAYOUT) => {}
            (APPLICATION, older) if older < LAYOUT => {
                connection.query_only(Switch::Off).await?;
                connection.room = Some(Room::Quota);
                template::upgrade(&mut connection).await?;
                if kind.reads() {
                    connection.room = None;
                    connection.query_only(Switch::On).await?;
                }
            }
            (APPLICATION, _) => return Err(Error::Newer(env)),
            _ => return Err(Error::Damaged(env)),
        }
        if !kind.reads() {
            let mut handle = connection.engine.driver()?.lock_handle().await.map_err(Error::Engine)?;
            let told = guard::tell(&mut handle, feed);
            drop(handle);
            let no_memory = |code| Error::Engine(sqlx::Error::Protocol(format!("no memory: {code}")));
            connection.noting = Some(told.map_err(no_memory)?);
        }
        if let Some(role) = kind.role() {
            return connection.keep(role).await;
        }
        Ok(connection)
    }

    /// For life in this role, with its statements kept.
    async fn keep(mut self, role: Role) -> Result<Self, Error> {
        let mut handle = self.engine.driver()?.lock_handle().await.map_err(Error::Engine)?;
        guard::assume(&mut handle, role, &self.limits);
        drop(handle);
        let engine = match self.engine {
            Engine::Driver(driver) => {
                let bounds = (Arc::clone(&self.limits), self.room);
                Engine::Kept(Kept::new(driver, Arc::clone(&self.watch), bounds, self.noting.clone()).await?)
            }
            kept @ Engine::Kept(_) => kept,
        };
        Ok(Self { engine, role: Some(role), ..self })
    }

    /// The marks in the file's header: whose it is, and the layout of the platform's tables.
    async fn marks(&mut self) -> Result<(i64, i64), Error> {
        let sql = "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version";
        let found = self.run(Role::Platform, sql, &[], self.limits.statement).await?.rows;
        let mark = |at: usize| found.first().and_then(|row| row.get(at)?.as_i64()).unwrap_or_default();
        Ok((mark(0), mark(1)))
    }

    async fn query_only(&mut self, switch: Switch) -> Result<(), Error> {
        let sql = match switch {
            Switch::On => "PRAGMA query_only = 1",
            Switch::Off => "PRAGMA query_only = 0",
        };
        self.run(Role::Platform, sql, &[], self.limits.statement).await.map(drop)
    }

    async fn defend(&mut self) -> Result<(), Error> {
        let watch = Arc::clone(&self.watch);
        let mut handle = self.engine.driver()?.lock_handle().await.map_err(Error::Engine)?;
        guard::harden(&mut handle)
            .map_err(|code| Error::Engine(sqlx::Error::Protocol(format!("a defence is refused: {code}"))))?;
        handle.set_progress_handler(OPERATIONS, move || watch.goes_on());
        Ok(())
    }

    /// How deep functions have set each other off until the statements that follow.
    pub fn at_depth(&self, depth: u8) {
        if let Some(noting) = &self.noting {
            noting.at_depth(depth);
        }
    }

    /// To be called after a commit: has those hear of it who deliver events, where some were noted.
    pub fn committed(&self) {
        if let Some(noting) = &self.noting {
            noting.committed();
        }
    }

    /// The bounds it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The watch over whatever statement runs; stops it from outside.
    pub fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// Prepares `sql` under `role`, as much of it as `text` says.
    pub async fn inspect(&mut self, role: Role, sql: &str, text: Text<'_>) -> Result<Statement, Error> {
        if sql.len() > self.limits.sql_bytes && role != Role::Platform {
            return Err(Error::TextTooLong { bytes: sql.len(), most: self.limits.sql_bytes });
        }
        let room = if role == Role::Platform { Room::Reserve } else { Room::of(sql) };
        let mut handle = self.engine.driver()?.lock_handle().await.map_err(Error::Engine)?;
        if self.room.is_some_and(|told| told != room) {
            guard::give_room(&mut handle, &self.limits, room)
                .map_err(|code| engine_error::of_code(self.env, Told::nothing(), code, "", None))?;
            (self.role, self.room) = (None, Some(room));
        }
        if self.role != Some(role) {
            guard::assume(&mut handle, role, &self.limits);
            self.role = Some(role);
        }
        let copied;
        let ended = match text {
            Text::First(ended) => ended,
            Text::One => {
                copied = CString::new(sql).map_err(|nul| zero_byte(nul.nul_position()))?;
                &copied
            }
        };
        let inspected = apart(sql, || guard::inspect(&mut handle, role, ended));
        let statement = inspected.map_err(|rejected| match rejected {
            Rejected::Refused(refusal) => Error::Refused(refusal),
            Rejected::TooSlow => Error::TooSlow(guard::COMPILING),
            Rejected::Engine { code, message, at } => {
                let told = Told { sql, stop: self.watch.stopped(), limit: self.watch.limit() };
                engine_error::of_code(self.env, told, code, &message, at)
            }
        })?;
        if room == Room::Quota && self.room.is_some() && !statement.read_only {
            let full = guard::is_full(&mut handle, &self.limits);
            guard::assume(&mut handle, role, &self.limits);
            match full {
                Ok(false) => {}
                Ok(true) => return Err(Error::Quota { bytes: self.limits.database_bytes() }),
                Err(code) => return Err(engine_error::of_code(self.env, Told::nothing(), code, "", None)),
            }
        }
        match (text, sql.get(statement.end..)) {
            (Text::First(_), _) => Ok(statement),
            (Text::One, _) if statement.empty => Err(Error::Empty),
            (Text::One, Some(rest)) if apart(rest, || guard::is_blank(&mut handle, role, rest)) => {
                Ok(statement)
            }
            (Text::One, _) => Err(Error::Several),
        }
    }

    /// Runs a statement that was inspected under the current role, and hands each row to `each` until it breaks.
    ///
    /// # Returns
    /// How many rows it changed.
    pub async fn step(
        &mut self,
        statement: &Statement,
        sql: &str,
        params: &[Value],
        each: impl FnMut(&SqliteRow) -> Result<ControlFlow<()>, Error>,
    ) -> Result<u64, Error> {
        let sql = sql.get(..statement.end).unwrap_or(sql);
        let arguments = values::bind(&statement.parameters, params)?;
        let changed = self.drive(sql, arguments, each).await?;
        // Of a statement that changes no rows the engine tells an earlier one's count.
        Ok(if statement.changes_schema || statement.read_only { 0 } else { changed })
    }

    /// Runs a statement of the data plane, under the role that this connection keeps, within the bounds that `how` says.
    /// A statement that is known is not compiled again.
    pub async fn step_kept(&self, sql: String, params: Vec<Value>, how: Bounds) -> Result<Rows, Error> {
        if sql.len() > self.limits.sql_bytes {
            return Err(Error::TextTooLong { bytes: sql.len(), most: self.limits.sql_bytes });
        }
        let Engine::Kept(kept) = &self.engine else { return Err(Error::Refused(Refusal::Kind)) };
        let limit = how.limit;
        let result = kept.run(sql, params, how).await.map_err(|failed| match failed {
            Failed::Engine { code, message, stop } => {
                let told = Told { sql: "", stop, limit };
                full(&self.path, &self.limits, engine_error::of_code(self.env, told, code, &message, None))
            }
            Failed::Statement(error) => error,
            Failed::Slow => Error::TooSlow(limit),
            Failed::Busy => Error::Busy,
            Failed::Gone => Error::Engine(sqlx::Error::WorkerCrashed),
        });
        if matches!(result, Err(Error::Refused(_))) {
            kept.spoil();
        }
        result
    }

    /// Whether it was opened for a database as large as it may be by these.
    pub fn is_within(&self, limits: &Limits) -> bool {
        self.limits.pages == limits.pages
    }

    /// Whether the next caller may use it.
    pub fn is_sound(&self) -> bool {
        match &self.engine {
            Engine::Driver(_) => !self.watch.abandoned(),
            Engine::Kept(kept) => !self.watch.abandoned() && kept.is_sound(),
        }
    }

    async fn drive(
        &mut self,
        sql: &str,
        arguments: SqliteArguments,
        mut each: impl FnMut(&SqliteRow) -> Result<ControlFlow<()>, Error>,
    ) -> Result<u64, Error> {
        let (env, path, watch) = (self.env, self.path.as_path(), Arc::clone(&self.watch));
        let limits = Arc::clone(&self.limits);
        let told = |error| {
            let told = Told { sql, stop: watch.stopped(), limit: watch.limit() };
            full(path, &limits, engine_error::of_engine(env, told, error))
        };
        let query = sqlx::query_with(AssertSqlSafe(sql).into_sql_str(), arguments);
        let mut stream = self.engine.driver()?.fetch_many(query.persistent(false));
        let mut changed = None;
        while let Some(item) = stream.try_next().await.map_err(told)? {
            match item {
                Either::Left(done) => changed = Some(changed.unwrap_or(0) + done.rows_affected()),
                Either::Right(row) => {
                    if each(&row)?.is_break() {
                        return Ok(changed.unwrap_or(0));
                    }
                }
            }
        }
        // A driver's thread that dies ends the rows as if there were no more.
        changed.ok_or(Error::Engine(sqlx::Error::WorkerCrashed))
    }

    /// Runs one statement within `limit` and collects what it gives.
    pub async fn run(
        &mut self,
        role: Role,
        sql: &str,
        params: &[Value],
        limit: Duration,
    ) -> Result<Outcome, Error> {
        let watch = self.watch();
        watch
            .within(limit, async {
                let statement = self.inspect(role, sql, Text::One).await?;
                let mut rows = Vec::new();
                let mut columns = statement.columns.clone();
                let changed = self
                    .step(&statement, sql, params, |row| {
                        if rows.is_empty() {
                            columns = names(row);
                        }
                        rows.push(values::row(row)?);
                        Ok(ControlFlow::Continue(()))
                    })
                    .await?;
                Ok(Outcome { columns, rows, changed })
            })
            .await
    }

    /// Works on the whole database, on this thread. The connection has no role after this.
    pub async fn whole<T>(
        &mut self,
        work: impl FnOnce(&mut LockedSqliteHandle<'_>) -> Result<T, Broken>,
    ) -> Result<T, Error> {
        self.role = None;
        let mut handle = self.engine.driver()?.lock_handle().await.map_err(Error::Engine)?;
        let many = Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
        let done = if many { tokio::task::block_in_place(|| work(&mut handle)) } else { work(&mut handle) };
        done.map_err(|broken| match broken {
            Broken::File(error) if error.kind() == std::io::ErrorKind::StorageFull => Error::DiskFull,
            Broken::File(error) => Error::File(error),
            Broken::Engine(code) => {
                let error = engine_error::of_code(self.env, Told::nothing(), code, "", None);
                full(&self.path, &self.limits, error)
            }
        })
    }

    /// Whether a transaction is open.
    pub async fn in_transaction(&mut self) -> Result<bool, Error> {
        if let Engine::Kept(kept) = &self.engine {
            return Ok(kept.in_transaction());
        }
        let mut handle = self.engine.driver()?.lock_handle().await.map_err(Error::Engine)?;
        Ok(guard::in_transaction(&mut handle))
    }

    /// Closes the connection and waits until its thread has ended.
    pub async fn close(self) {
        let closed = match self.engine {
            Engine::Driver(driver) => driver.close().await,
            Engine::Kept(kept) => kept.close().await,
        };
        if let Err(error) = closed {
            tracing::warn!(env.id = %self.env, error = %error, "a database connection did not close cleanly");
        }
    }
}

/// The engine's texts end with the first zero byte.
pub(super) fn zero_byte(at: usize) -> Error {
    Error::Statement { message: "the text holds a zero byte".to_owned(), at: Some(at), hint: None }
}

/// Does `work`, which compiles `sql`, without holding up the runtime's other tasks where that may take long.
fn apart<T>(sql: &str, work: impl FnOnce() -> T) -> T {
    let many = Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
    if many && sql.len() > SHORT { tokio::task::block_in_place(work) } else { work() }
}

/// The engine says the same of a full disk and of a full database, and not how large that may be.
fn full(path: &Path, limits: &Limits, error: Error) -> Error {
    const NEXT_TO_NOTHING: u64 = 16 << 20;
    match (&error, rustix::fs::statvfs(path)) {
        (Error::Quota { .. }, Ok(disk)) if disk.f_bavail.saturating_mul(disk.f_frsize) < NEXT_TO_NOTHING => {
            Error::DiskFull
        }
        (Error::Quota { .. }, _) => Error::Quota { bytes: limits.database_bytes() },
        _ => error,
    }
}

/// The names of a row's columns.
pub(super) fn names(row: &SqliteRow) -> Vec<String> {
    row.columns().iter().map(|column| column.name().to_owned()).collect()
}
