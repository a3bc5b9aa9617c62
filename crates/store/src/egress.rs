//! Where sandboxes of an environment may go, of what the operator allows to all.

use kernel::EnvId;
use sqlx::Row;

use crate::{Result, Store};

/// The lists of environments that have one.
pub struct Egress<'a>(pub(crate) &'a Store);

impl Egress<'_> {
    /// The hosts, a line each; `None` where all that the operator allows are allowed.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, env: EnvId) -> Result<Option<Vec<String>>> {
        let row = sqlx::query("SELECT allow FROM egress WHERE env = $1")
            .bind(env.to_string())
            .fetch_optional(self.0.reader())
            .await?;
        let hosts = row.map(|row| row.try_get::<String, _>(0)).transpose()?;
        Ok(hosts.map(|hosts| hosts.lines().map(str::to_owned).collect()))
    }

    /// Sets them, or goes back to all; `false` where the environment is not a ready one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set(&self, env: EnvId, allow: Option<&[String]>) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let there = sqlx::query("SELECT 1 FROM environments WHERE id = $1 AND state = 'ready'")
            .bind(env.to_string())
            .fetch_optional(write.connection())
            .await?
            .is_some();
        if there {
            sqlx::query("DELETE FROM egress WHERE env = $1")
                .bind(env.to_string())
                .execute(write.connection())
                .await?;
        }
        if let Some(allow) = allow.filter(|_| there) {
            sqlx::query("INSERT INTO egress (env, allow) VALUES ($1, $2)")
                .bind(env.to_string())
                .bind(allow.join("\n"))
                .execute(write.connection())
                .await?;
        }
        write.commit().await?;
        Ok(there)
    }
}
