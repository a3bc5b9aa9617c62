//! Whole databases of environments: copied as they are at one moment, put back, and worked on where nobody serves them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernel::{Env, EnvId};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::Databases;
use super::connection::{Connection, Kind, Outcome};
use super::environments::Lease;
use super::error::Error;
use super::events;
use super::fate::{Fate, fate, people};
use super::feed::Feed;
use super::guard;
use super::limits::Room;
use super::policy::Role;
use super::template::TABLES;

/// The turn to write, held by somebody who wants nothing to change.
pub(crate) struct Quiet {
    env: EnvId,
    lease: Lease,
}

/// A copy that has its moment and not yet all of its bytes.
pub(crate) struct Copying {
    lease: Lease,
    env: EnvId,
    to: PathBuf,
}

impl Databases {
    /// The turn to write in `env`; nothing changes there until it is dropped.
    ///
    /// # Errors
    /// `Busy` where others hold it for longer than a call may wait.
    pub(crate) async fn quiet(&self, env: &Env) -> Result<Quiet, Error> {
        Ok(Quiet { env: env.id(), lease: self.environments.writer(env.id(), Kind::Writer).await? })
    }

    /// Begins a copy at the path `to`, of this moment: `quiet` may end with this call, and others write on.
    ///
    /// # Errors
    /// Of the engine; the disk.
    pub(crate) async fn begin_copy(&self, env: &Env, quiet: &mut Quiet, to: &Path) -> Result<Copying, Error> {
        quiet.shorten_log().await;
        let mut lease = self.environments.reader(env.id(), Kind::Reader).await?;
        let limit = self.environments.limits().statement;
        let connection = lease.connection()?;
        // As long as this is read, what is in the log now stays there, and nothing newer comes into the file.
        connection.run(Role::Platform, "BEGIN", &[], limit).await?;
        connection.run(Role::Platform, "SELECT count(*) FROM sqlite_schema", &[], limit).await?;
        let (from, log) = (with_suffix(&self.environments.path(env.id()), "-wal"), with_suffix(to, "-wal"));
        blocking(move || match std::fs::copy(from, log) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await?;
        Ok(Copying { lease, env: env.id(), to: to.to_owned() })
    }

    /// Puts the database at `from` in place of the environment's, in one transaction: whoever reads sees the one or
    /// the other.
    ///
    /// # Errors
    /// Of the engine; then nothing has changed.
    pub(crate) async fn put_back(&self, quiet: &mut Quiet, from: &Path) -> Result<(), Error> {
        let limit = self.environments.limits().migration;
        let connection = quiet.lease.connection()?;
        connection.run(Role::Platform, "PRAGMA synchronous = FULL", &[], limit).await?;
        let reshaping = self.environments.feed(quiet.env).reshape();
        connection.whole(|handle| guard::replace(handle, from)).await?;
        drop(reshaping);
        // It has grown by a whole database.
        quiet.shorten_log().await;
        Ok(())
    }

    /// Opens a database that no environment is served from. `env` is whose it is, for errors.
    ///
    /// # Errors
    /// `Damaged`, `Newer`, or of the engine.
    pub(crate) async fn open_loose(&self, env: EnvId, path: &Path) -> Result<Loose, Error> {
        let limits = self.environments.shared_limits();
        let mut loose = Loose(Connection::open(env, path, Kind::Writer, &limits, unwatched()).await?);
        loose.run("PRAGMA synchronous = OFF", &[]).await?;
        Ok(loose)
    }

    /// How large a database may be, in bytes.
    pub(crate) fn most_bytes(&self) -> u64 {
        u64::from(Room::Reserve.pages(self.environments.limits())) * 4_096
    }

    /// The bytes of the environment's database file.
    pub(crate) fn bytes(&self, env: EnvId) -> u64 {
        std::fs::metadata(self.environments.path(env)).map_or(0, |found| found.len())
    }

    /// Lays the database at `past` beside the environment's own, for comparing them.
    ///
    /// # Errors
    /// Of the engine.
    pub(crate) async fn beside(&self, env: EnvId, past: &Path) -> Result<Loose, Error> {
        let (limits, path) = (self.environments.shared_limits(), self.environments.path(env));
        let mut connection = Connection::open(env, &path, Kind::Reader, &limits, unwatched()).await?;
        connection.whole(|handle| guard::attach(handle, past)).await?;
        Ok(Loose(connection))
    }
}

impl Quiet {
    /// What rows of a table of ours are there now: the columns' names and the rows.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn all(&mut self, table: &str) -> Result<Outcome, Error> {
        let connection = self.lease.connection()?;
        let limit = connection.limits().migration;
        connection.run(Role::Platform, &format!("SELECT * FROM {table}"), &[], limit).await
    }

    /// Takes the log into the file and cuts it off, unless somebody reads who needs it. It is a matter of time alone.
    async fn shorten_log(&mut self) {
        let Ok(connection) = self.lease.connection() else { return };
        let (limit, turn) = (connection.limits().migration, connection.limits().turn.as_millis());
        for sql in [
            "PRAGMA busy_timeout = 0",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            &format!("PRAGMA busy_timeout = {turn}"),
        ] {
            if let Err(error) = connection.run(Role::Platform, sql, &[], limit).await {
                tracing::debug!(%error, "the log of a database stays as long as it is");
            }
        }
    }

    /// Ends the turn.
    pub fn end(self) {
        self.lease.settle();
    }
}

impl Copying {
    /// Brings the rest, and makes one durable file of it.
    ///
    /// # Errors
    /// Of the engine; the disk.
    pub async fn finish(mut self) -> Result<(), Error> {
        let mut file = std::fs::File::create_new(&self.to).map_err(Error::File)?;
        let connection = self.lease.connection()?;
        let limit = connection.limits().statement;
        connection.whole(|handle| guard::read_file(handle, |part| file.write_all(part))).await?;
        connection.run(Role::Platform, "COMMIT", &[], limit).await?;
        self.lease.settle();
        drop(file);
        settle(self.env, &self.to, SqliteJournalMode::Delete).await
    }
}

/// What a database that nobody is served from tells, and to nobody.
pub(super) fn unwatched() -> Arc<Feed> {
    Arc::new(Feed::new())
}

/// A database that nobody is served from.
pub(crate) struct Loose(pub(super) Connection);

impl Loose {
    /// Runs one statement of the platform's own.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn run(&mut self, sql: &str, params: &[Value]) -> Result<Outcome, Error> {
        let limit = self.0.limits().migration;
        self.0.run(Role::Platform, sql, params, limit).await
    }

    /// The rows that one statement of the platform's own gives.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
        Ok(self.run(sql, &[]).await?.rows)
    }

    /// Empties our tables that are not to go where this database goes.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn keep(&mut self, kept: impl Fn(Fate) -> bool) -> Result<(), Error> {
        self.run("PRAGMA secure_delete = ON", &[]).await?;
        events::lift(&mut self.0).await?;
        for (table, sql) in TABLES {
            if sql.starts_with("CREATE TABLE") && !kept(fate(table)) {
                self.run(&format!("DELETE FROM {table}"), &[]).await?;
            }
        }
        Ok(())
    }

    /// Has events be noted as its live release wants it.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn lay_events(&mut self) -> Result<(), Error> {
        events::lay(&mut self.0).await
    }

    /// Lays the database at `other`, which nobody is served from, beside this one, as `beside`.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn lay_beside(&mut self, other: &Path) -> Result<(), Error> {
        self.0.whole(|handle| guard::attach(handle, other)).await
    }

    /// Makes the users who are in both what they are in the one that lies beside, with all that is theirs. The others stay
    /// as they are here, without an address that is somebody else's there.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn keep_people(&mut self) -> Result<(), Error> {
        const USER: &str = "_steading_user";
        let there = format!("(SELECT id FROM beside.{USER})");
        let here = format!("(SELECT id FROM main.{USER})");
        for (table, column) in people().filter(|(table, _)| *table != USER) {
            self.run(&format!("DELETE FROM main.{table} WHERE {column} IN {there}"), &[]).await?;
            let sql = format!(
                "INSERT OR REPLACE INTO main.{table} SELECT * FROM beside.{table} WHERE {column} IN {here}"
            );
            self.run(&sql, &[]).await?;
        }
        for sql in [
            format!(
                "UPDATE main.{USER} SET email = NULL, password = NULL WHERE id NOT IN {there} AND email IN \
                 (SELECT email FROM beside.{USER} WHERE id IN {here})"
            ),
            // Two who have changed places are never both at one.
            format!("UPDATE main.{USER} SET email = NULL WHERE id IN {there}"),
            format!(
                "UPDATE main.{USER} AS u SET (email, password, role, claims, disabled, created_at, last_seen_at) = \
                 (SELECT email, password, role, claims, disabled, created_at, last_seen_at FROM beside.{USER} b \
                 WHERE b.id = u.id) WHERE id IN {there}"
            ),
        ] {
            self.run(&sql, &[]).await?;
        }
        Ok(())
    }

    /// Puts rows into a table of ours.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn fill(&mut self, table: &str, rows: &Outcome) -> Result<(), Error> {
        let columns: Vec<_> = rows.columns.iter().map(|name| super::quoted(name)).collect();
        let places: Vec<_> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
        let sql = format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), places.join(", "));
        for row in &rows.rows {
            self.run(&sql, row).await?;
        }
        Ok(())
    }

    /// Closes it.
    pub async fn close(self) {
        self.0.close().await;
    }
}

/// Makes the database at `path` one that an environment can be served from.
///
/// # Errors
/// Of the engine; the disk.
pub(crate) async fn make_servable(env: EnvId, path: &Path) -> Result<(), Error> {
    settle(env, path, SqliteJournalMode::Wal).await
}

/// Takes what is in the log of the database at `path` into its file, which is on the disk when this returns and has
/// no log beside it.
async fn settle(env: EnvId, path: &Path, mode: SqliteJournalMode) -> Result<(), Error> {
    let failed = |error: sqlx::Error| match error {
        sqlx::Error::Database(_) => Error::Damaged(env),
        other => Error::Engine(other),
    };
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        // What is not whole when the power goes is thrown away.
        .synchronous(SqliteSynchronous::Off)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(failed)?;
    // By itself: as an option it would come before the one above, and wait for the disk four times.
    let sql = match mode {
        SqliteJournalMode::Wal => "PRAGMA journal_mode = WAL",
        _ => "PRAGMA journal_mode = DELETE",
    };
    connection.execute(sql).await.map_err(failed)?;
    connection.close().await.map_err(failed)?;
    let (path, log) = (path.to_owned(), with_suffix(path, "-wal"));
    blocking(move || {
        if log.exists() {
            return Err(std::io::Error::other("the log of a copied database could not be taken in"));
        }
        std::fs::File::open(path)?.sync_all()
    })
    .await
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))).map_err(|error| {
        if error.kind() == std::io::ErrorKind::StorageFull { Error::DiskFull } else { Error::File(error) }
    })
}
