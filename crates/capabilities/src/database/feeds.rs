//! Watching tables: what is committed there from then on is in the environment's log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::{Env, EnvId};

use super::Databases;
use super::connection::Kind;
use super::error::Error;
use super::events::Noted;
use super::feed::{Columns, Feed};

/// The log of each environment that was asked for.
#[derive(Default)]
pub(super) struct Feeds {
    all: Mutex<HashMap<EnvId, Arc<Feed>>>,
    /// Who hears of events of functions.
    pub noted: Arc<Noted>,
}

impl Feeds {
    pub fn of(&self, env: EnvId) -> Arc<Feed> {
        let mut feeds = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(feeds.entry(env).or_insert_with(|| Arc::new(Feed::of(env, &self.noted))))
    }

    pub fn forget(&self, env: EnvId) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&env);
    }
}

/// How often a schema that goes on changing is read again.
const ATTEMPTS: usize = 10;

impl Databases {
    /// Tells of which environments events were committed that functions are to hear of.
    #[must_use]
    pub fn noted(&self) -> Arc<Noted> {
        self.environments.noted()
    }

    /// The log of an environment's changes.
    pub(crate) fn feed(&self, env: EnvId) -> Arc<Feed> {
        self.environments.feed(env)
    }

    /// Watches these tables. When this returns, every change that is committed later is in the log, unless
    /// [`Feed::rest`] was called.
    ///
    /// # Errors
    /// Of the engine; `Busy` where somebody writes for longer than a call may wait.
    pub(crate) async fn watch(&self, env: &Env, tables: &[&str]) -> Result<(), Error> {
        let feed = self.feed(env.id());
        let mut is_new = false;
        for table in tables {
            for _ in 0..ATTEMPTS {
                if feed.watches(table) {
                    break;
                }
                let schema = feed.schema();
                let columns = self.columns(env, table).await?;
                is_new |= feed.watch(schema, table, columns);
            }
            if !feed.watches(table) {
                return Err(Error::Busy);
            }
        }
        if is_new {
            // Whoever writes now may have begun before.
            self.environments.writer(env.id(), Kind::Writer).await?.give_back();
        }
        Ok(())
    }

    /// The columns of a table, those too that are computed.
    async fn columns(&self, env: &Env, table: &str) -> Result<Columns, Error> {
        let sql = "SELECT name FROM pragma_table_xinfo(?1) ORDER BY cid";
        let rows = self.platform_query(env, sql, &[table.into()]).await?;
        Ok(rows.iter().filter_map(|row| Some(row.first()?.as_str()?.to_owned())).collect())
    }
}
