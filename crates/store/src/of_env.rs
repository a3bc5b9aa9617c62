//! One text that an environment may have, in a table of its own.

use kernel::EnvId;
use sqlx::Row;

use crate::{Result, Store};

/// The statements of such a table. Each takes the environment first.
pub(crate) struct OfEnv {
    /// Reads the text.
    pub get: &'static str,
    /// Removes it.
    pub remove: &'static str,
    /// Adds it.
    pub add: &'static str,
}

impl OfEnv {
    /// The text; `None` where there is none.
    pub async fn get(&self, store: &Store, env: EnvId) -> Result<Option<String>> {
        let row = sqlx::query(self.get).bind(env.to_string()).fetch_optional(store.reader()).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Sets it, or takes it back; `false` where the environment is not a ready one.
    pub async fn set(&self, store: &Store, env: EnvId, text: Option<&str>) -> Result<bool> {
        let mut write = store.begin_write().await?;
        let there = sqlx::query("SELECT 1 FROM environments WHERE id = $1 AND state = 'ready'")
            .bind(env.to_string())
            .fetch_optional(write.connection())
            .await?
            .is_some();
        if there {
            sqlx::query(self.remove).bind(env.to_string()).execute(write.connection()).await?;
        }
        if let Some(text) = text.filter(|_| there) {
            sqlx::query(self.add).bind(env.to_string()).bind(text).execute(write.connection()).await?;
        }
        write.commit().await?;
        Ok(there)
    }
}
