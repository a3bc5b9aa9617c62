//! An environment's secrets, sealed.

use kernel::{EnvId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::rows::{number, text, time};
use crate::{Result, Store};

/// What may be known of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: String,
    /// How many times it was set.
    pub version: i64,
    /// When it was last set.
    pub updated: Timestamp,
}

/// A secret with its sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: String,
    /// Its value, sealed.
    pub sealed: String,
    /// The data key that it is sealed with; `None` is the one from before there were any.
    pub data_key: Option<String>,
}

/// The secrets.
pub struct Secrets<'a>(pub(crate) &'a Store);

impl Secrets<'_> {
    /// Sets a secret; `None` where the environment is not a ready one, or its data key seals no more. The version grows by one each time.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set(&self, env: EnvId, secret: &SealedSecret, now: Timestamp) -> Result<Option<SecretRow>> {
        let mut write = self.0.begin_write().await?;
        let row = sqlx::query(
            "INSERT INTO secrets (env, name, kind, sealed, version, updated, data_key) \
             SELECT $1, $2, $3, $4, 1, $5, CAST($6 AS TEXT) \
             WHERE EXISTS (SELECT 1 FROM environments WHERE id = $1 AND state = 'ready') \
             AND (CAST($6 AS TEXT) IS NULL OR EXISTS (SELECT 1 FROM data_keys WHERE id = CAST($6 AS TEXT) AND current = 1)) \
             ON CONFLICT (env, name) DO UPDATE SET kind = excluded.kind, sealed = excluded.sealed, \
             data_key = excluded.data_key, version = secrets.version + 1, updated = excluded.updated \
             RETURNING name, kind, version, updated",
        )
        .bind(env.to_string())
        .bind(secret.name.as_str())
        .bind(secret.kind.as_str())
        .bind(secret.sealed.as_str())
        .bind(now.as_micros())
        .bind(secret.data_key.as_deref())
        .fetch_all(write.connection())
        .await?;
        write.commit().await?;
        row.first().map(known).transpose()
    }

    /// What may be known of an environment's secrets, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, env: EnvId) -> Result<Vec<SecretRow>> {
        let rows =
            sqlx::query("SELECT name, kind, version, updated FROM secrets WHERE env = $1 ORDER BY name")
                .bind(env.to_string())
                .fetch_all(self.0.reader())
                .await?;
        rows.iter().map(known).collect()
    }

    /// One secret with its sealed value.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn sealed(&self, env: EnvId, name: &str) -> Result<Option<SealedSecret>> {
        let row =
            sqlx::query("SELECT name, kind, sealed, data_key FROM secrets WHERE env = $1 AND name = $2")
                .bind(env.to_string())
                .bind(name)
                .fetch_optional(self.0.reader())
                .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(SealedSecret {
            name: row.try_get("name")?,
            kind: row.try_get("kind")?,
            sealed: row.try_get("sealed")?,
            data_key: row.try_get("data_key")?,
        }))
    }

    /// Removes a secret; `false` where there is none.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn delete(&self, env: EnvId, name: &str) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query("DELETE FROM secrets WHERE env = $1 AND name = $2")
            .bind(env.to_string())
            .bind(name)
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

fn known(row: &AnyRow) -> Result<SecretRow> {
    Ok(SecretRow {
        name: text(row, "name")?,
        kind: text(row, "kind")?,
        version: number(row, "version")?,
        updated: time(row, "updated")?,
    })
}
