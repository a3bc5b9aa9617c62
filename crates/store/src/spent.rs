//! Ids that count no longer, kept until they would have ended by themselves.

use kernel::Timestamp;

use crate::{Result, Store};

/// Confirmations that were used and tokens that were revoked.
pub struct Spent<'a>(pub(crate) &'a Store);

impl Spent<'_> {
    /// Spends `id`; `false` where it was spent before. Of many at once, one is told `true`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn spend(&self, id: &str, expires: Timestamp) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query("INSERT INTO spent (id, expires) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(id)
            .bind(expires.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether `id` is spent.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn contains(&self, id: &str) -> Result<bool> {
        let found = sqlx::query("SELECT 1 FROM spent WHERE id = $1").bind(id).fetch_optional(self.0.reader());
        Ok(found.await?.is_some())
    }

    /// Forgets what has ended by itself; gives how many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, now: Timestamp) -> Result<u64> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query("DELETE FROM spent WHERE expires <= $1")
            .bind(now.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(done.rows_affected())
    }
}
