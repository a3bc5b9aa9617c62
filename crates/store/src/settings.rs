//! The platform's own settings, by name.

use sqlx::Row;

use crate::{Result, Store};

/// The settings.
pub struct Settings<'a>(pub(crate) &'a Store);

impl Settings<'_> {
    /// The value of `name`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, name: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
            .bind(name)
            .fetch_optional(self.0.reader())
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Sets `name` where it is not set yet, and gives what it is then.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get_or_set(&self, name: &str, value: &str) -> Result<String> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(value)
            .execute(write.connection())
            .await?;
        let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
            .bind(name)
            .fetch_one(write.connection())
            .await?;
        write.commit().await?;
        Ok(row.try_get(0)?)
    }
}
