//! What gateways that share a database tell each other: that something has ended which they may have in memory.

use kernel::Timestamp;
use sqlx::Row;

use crate::connection::{Engine, Write};
use crate::rows::text;
use crate::{Result, Store};

/// So many that have ended are told one by one.
const MOST: i64 = 200;

/// What has ended, where it is no credential and no environment.
pub(crate) const OPERATOR_KEYS: &str = "operator keys";
/// All plans.
pub const PLANS: &str = "plans";
/// The plan of one tenant or environment, whose id follows.
pub const PLAN_OF: &str = "plan of ";
pub(crate) const SIGNING_KEYS: &str = "signing keys";

/// The count of what has ended, and for a while what it was.
pub struct News<'a>(pub(crate) &'a Store);

impl News<'_> {
    /// How much has ended so far. Whatever was known before a larger number may hold no more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn number(&self) -> Result<i64> {
        let row = sqlx::query("SELECT number FROM news WHERE name = 'credentials'")
            .fetch_one(self.0.reader())
            .await?;
        Ok(row.try_get(0)?)
    }

    /// What has ended after one number up to another: ids of credentials and of environments, or words for what is
    /// neither. `None` where that is too much, or not known any more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn between(&self, after: i64, to: i64) -> Result<Option<Vec<String>>> {
        if to < after || to - after > MOST {
            return Ok(None);
        }
        let rows = sqlx::query("SELECT what FROM ended WHERE number > $1 AND number <= $2 ORDER BY number")
            .bind(after)
            .bind(to)
            .fetch_all(self.0.reader())
            .await?;
        if rows.len() as i64 != to - after {
            return Ok(None);
        }
        rows.iter().map(|row| text(row, "what")).collect::<Result<_>>().map(Some)
    }

    /// Forgets what has ended by then. Who has not heard of it forgets all there is.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, before: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM ended WHERE at <= $1")
            .bind(before.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// Whether others than this program may write to the database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.engine() == Engine::Postgres
    }
}

impl Write {
    /// Tells every gateway, when this transaction commits. To be done before anything else of it: who ends something waits
    /// for one row, and with none of what another one waits for.
    pub(crate) async fn tell(&mut self, ended: &str) -> Result<()> {
        let row =
            sqlx::query("UPDATE news SET number = number + 1 WHERE name = 'credentials' RETURNING number")
                .fetch_one(self.connection())
                .await?;
        sqlx::query("INSERT INTO ended (number, what, at) VALUES ($1, $2, $3)")
            .bind(row.try_get::<i64, _>(0)?)
            .bind(ended)
            .bind(Timestamp::now().as_micros())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
