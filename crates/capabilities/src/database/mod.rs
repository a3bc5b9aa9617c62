//! The database of an environment: one SQLite file each, guarded, bounded, one writer at a time.

mod allowances;
mod connection;
mod copy;
mod effects;
mod engine_error;
mod environments;
mod error;
mod events;
mod fate;
mod feed;
mod feeds;
mod guard;
mod limits;
mod list_turns;
mod load;
mod migrate;
mod noted;
mod page;
mod policy;
mod postgresisms;
mod rebuild;
mod rows;
mod schema;
mod search;
mod template;
mod values;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernel::{Env, EnvId};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

pub use self::connection::Outcome;
pub use self::effects::Effect;
pub use self::error::Error;
pub use self::events::Noted;
pub use self::limits::Limits;
pub use self::load::{Format, Load, Loaded, OnConflict};
pub use self::migrate::{Applied, Migrate, Migrated, Mode};
pub use self::page::{Page, Query};
pub use self::policy::{Refusal, Role};
pub use self::schema::{COUNTED, Column, ForeignKey, Index, Named, Schema, Table};
pub use self::writer::{Durability, Switch, Writer};

pub(crate) use self::copy::{Loose, Quiet, make_servable};
pub(crate) use self::error::CHECK;
pub(crate) use self::fate::{Fate, of_now, people};
pub(crate) use self::feed::{Before, Changed, Entry, Feed, Since};
pub(crate) use self::limits::PARAMETERS;
pub(crate) use self::list_turns::Client;
pub(crate) use self::noted::marked;
pub(crate) use self::policy::hides_function;
pub(crate) use self::rebuild::{Along, Maker};
pub(crate) use self::rows::{Among, Cell, Row, Rows, RowsTurn, RowsWriter, RunRows};
pub(crate) use self::schema::quoted;
pub(crate) use self::search::{create_search, fill_search, search_name};

use self::connection::Kind;
use self::environments::Environments;
use self::schema::Counting;
use self::watch::{Stop, Watch};
use crate::quotas::{Quota, Quotas};

/// The databases of all environments of this process. Clones share everything.
#[derive(Clone)]
pub struct Databases {
    environments: Arc<Environments>,
    template: Arc<OnceCell<Vec<u8>>>,
}

/// How many tokens the rows that `RETURNING` gives may be.
const RETURNED: usize = 3_500;

impl Databases {
    /// The databases below `root`, one directory for each environment.
    #[must_use]
    pub fn new(root: PathBuf, limits: Limits) -> Self {
        Self { environments: Arc::new(Environments::new(root, limits, None)), template: Arc::default() }
    }

    /// The same with `quotas` to say what each environment may have.
    #[must_use]
    pub fn with_quotas(root: PathBuf, limits: Limits, quotas: Arc<dyn Quotas>) -> Self {
        let environments = Environments::new(root, limits, Some(quotas));
        Self { environments: Arc::new(environments), template: Arc::default() }
    }

    /// What an environment may have, where that is not as configured.
    pub(crate) async fn quota(&self, env: EnvId) -> Quota {
        self.environments.quota(env).await
    }

    /// The largest database of an environment, in bytes.
    pub async fn most(&self, env: EnvId) -> u64 {
        self.quota(env).await.database_bytes.unwrap_or_else(|| self.environments.limits().database_bytes())
    }

    /// How large the database of an environment is in which nothing is, in bytes.
    ///
    /// # Errors
    /// Where the first one cannot be made.
    pub async fn empty(&self) -> Result<u64, Error> {
        Ok(self.template.get_or_try_init(template::prepare).await?.len() as u64)
    }

    /// How much of that is taken, in bytes; what was removed takes nothing.
    ///
    /// # Errors
    /// Of the engine; `Unknown` where there is no such environment.
    pub async fn used(&self, env: &Env) -> Result<u64, Error> {
        let sql = "SELECT (SELECT page_count FROM pragma_page_count()) * page_size \
             - (SELECT freelist_count FROM pragma_freelist_count()) * page_size FROM pragma_page_size()";
        let rows = self.platform_query(env, sql, &[]).await?;
        Ok(rows.first().and_then(|row| row.first()?.as_u64()).unwrap_or_default())
    }

    /// Makes the empty database of a new environment, and its directory where there is none.
    ///
    /// # Errors
    /// `Exists` where it has one.
    pub async fn create(&self, env: EnvId) -> Result<(), Error> {
        self.template.get_or_try_init(template::prepare).await?;
        let (template, path) = (Arc::clone(&self.template), self.environments.path(env));
        let placed = tokio::task::spawn_blocking(move || match template.get() {
            Some(bytes) => template::place(bytes, &path),
            None => Ok(()),
        })
        .await;
        match placed.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists(env)),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Err(Error::DiskFull),
            Err(error) => Err(Error::File(error)),
        }
    }

    /// Makes the database of an environment whose creation an earlier process has not finished, where it is not
    /// there, and removes what that process left half written. For the start, before anything is created.
    ///
    /// # Errors
    /// As [`Databases::create`], and where the disk fails; none where the database is there.
    pub async fn recreate(&self, env: EnvId) -> Result<(), Error> {
        let path = self.environments.path(env);
        let swept =
            tokio::task::spawn_blocking(move || template::sweep(path.parent().unwrap_or(&path))).await;
        swept.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))).map_err(Error::File)?;
        match self.create(env).await {
            Err(Error::Exists(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Closes the database of an environment whose directory is about to be removed. What runs on it is waited
    /// for, as long as one statement may take.
    ///
    /// # Errors
    /// None today; a database that does not close cleanly is logged, and is closed all the same.
    pub async fn remove(&self, env: EnvId) -> Result<(), Error> {
        self.environments.remove(env).await;
        Ok(())
    }

    /// How many environments' databases are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.environments.count()
    }

    /// Closes every database that is open; for the end of the process.
    pub async fn close(&self) {
        self.environments.close_all().await;
    }

    /// Runs one statement that changes rows or adds to the schema, as a transaction that waits for the disk.
    ///
    /// # Errors
    /// What the guard or the engine holds against the statement; then nothing is changed.
    pub async fn execute(
        &self,
        env: &Env,
        sql: &str,
        params: &[Value],
        cancel: &CancellationToken,
    ) -> Result<Outcome, Error> {
        let mut writer = self.writer(env).await?;
        writer.heed(cancel);
        let watch = writer.lease()?.connection()?.watch();
        let work = async {
            writer.begin(Durability::Full).await?;
            let result = async {
                let outcome = writer.run(Role::Writer, sql, params).await?;
                if outcome.rows.iter().map(|row| values::tokens(row)).sum::<usize>() > RETURNED {
                    return Err(Error::WideReturning);
                }
                writer.commit().await?;
                Ok(outcome)
            }
            .await;
            if result.is_err() {
                writer.rollback().await?;
            }
            result
        };
        or_cancelled(cancel, &watch, work).await
    }

    /// Runs one statement of the platform's own that reads, `_steading_` tables included.
    ///
    /// # Errors
    /// Of the engine alone.
    pub async fn platform_query(
        &self,
        env: &Env,
        sql: &str,
        params: &[Value],
    ) -> Result<Vec<Vec<Value>>, Error> {
        let mut lease = self.environments.reader(env.id(), Kind::Reader).await?;
        let limit = self.environments.limits().statement;
        let result = lease.connection()?.run(Role::Platform, sql, params, limit).await;
        lease.settle();
        result.map(|outcome| outcome.rows)
    }

    /// The schema as it is committed.
    ///
    /// # Errors
    /// Of the engine alone.
    pub async fn schema(&self, env: &Env) -> Result<Schema, Error> {
        let mut lease = self.environments.reader(env.id(), Kind::Reader).await?;
        let limit = self.environments.limits().statement;
        let connection = lease.connection()?;
        // One transaction, so that all parts are of one moment. After an error the connection is closed with it.
        connection.run(Role::Platform, "BEGIN", &[], limit).await?;
        let schema = schema::read(connection, Counting::Impression).await?;
        connection.run(Role::Platform, "COMMIT", &[], limit).await?;
        lease.settle();
        Ok(schema)
    }

    /// The right to write, when it is this caller's turn.
    ///
    /// # Errors
    /// `Busy` where others hold it for longer than a call may wait.
    pub async fn writer(&self, env: &Env) -> Result<Writer, Error> {
        let lease = self.environments.writer(env.id(), Kind::Writer).await?;
        let feed = self.environments.feed(env.id());
        Ok(Writer::new(env.id(), self.environments.shared_limits(), lease, feed))
    }
}

/// Runs `work` to its end, which comes soon after `cancel`: the statement that `watch` watches is stopped.
async fn or_cancelled<T>(
    cancel: &CancellationToken,
    watch: &Watch,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = cancel.cancelled() => {}
    }
    loop {
        watch.stop(Stop::Cancelled);
        // The next statement of the same work begins unstopped.
        tokio::select! {
            result = &mut work => return result,
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
}
