//! How strongly all sandboxes of an environment must be kept apart at least, as its tenant demands.

use kernel::EnvId;
use sqlx::Row;

use crate::{Result, Store};

/// The demands of environments that have one.
pub struct Demands<'a>(pub(crate) &'a Store);

impl Demands<'_> {
    /// The least isolation, by its name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, env: EnvId) -> Result<Option<String>> {
        let row = sqlx::query("SELECT isolation FROM demands WHERE env = $1")
            .bind(env.to_string())
            .fetch_optional(self.0.reader())
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Sets it, or takes it back; `false` where the environment is not a ready one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set(&self, env: EnvId, isolation: Option<&str>) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let there = sqlx::query("SELECT 1 FROM environments WHERE id = $1 AND state = 'ready'")
            .bind(env.to_string())
            .fetch_optional(write.connection())
            .await?
            .is_some();
        if there {
            sqlx::query("DELETE FROM demands WHERE env = $1")
                .bind(env.to_string())
                .execute(write.connection())
                .await?;
        }
        if let Some(isolation) = isolation.filter(|_| there) {
            sqlx::query("INSERT INTO demands (env, isolation) VALUES ($1, $2)")
                .bind(env.to_string())
                .bind(isolation)
                .execute(write.connection())
                .await?;
        }
        write.commit().await?;
        Ok(there)
    }
}
