//! The keys that sign tokens, sealed.

use kernel::{EnvId, Timestamp};
use sqlx::any::AnyRow;

use crate::rows::{text, time};
use crate::{Result, Store};

/// One signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// Its `kid`.
    pub id: String,
    /// What it signs for.
    pub purpose: String,
    /// Its public half, as its maker writes it.
    pub public: String,
    /// Its private half, sealed.
    pub sealed: String,
    /// When it was made.
    pub created: Timestamp,
}

const CURRENT: &str =
    "SELECT id, purpose, public, sealed, created FROM signing_keys WHERE purpose = $1 AND current = 1";

/// The signing keys. One of each purpose is current.
pub struct SigningKeys<'a>(pub(crate) &'a Store);

impl SigningKeys<'_> {
    /// Adds a current key where the purpose has none, and gives the one it has then.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get_or_insert(&self, key: &SigningKeyRow) -> Result<SigningKeyRow> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "INSERT INTO signing_keys (id, purpose, public, sealed, created, current) \
             VALUES ($1, $2, $3, $4, $5, 1) ON CONFLICT DO NOTHING",
        )
        .bind(key.id.as_str())
        .bind(key.purpose.as_str())
        .bind(key.public.as_str())
        .bind(key.sealed.as_str())
        .bind(key.created.as_micros())
        .execute(write.connection())
        .await?;
        let row = sqlx::query(CURRENT).bind(key.purpose.as_str()).fetch_one(write.connection()).await?;
        write.commit().await?;
        signing_key(&row)
    }

    /// As [`SigningKeys::get_or_insert`], a key that goes with its environment; `None` where that is not a ready
    /// one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get_or_insert_of(&self, env: EnvId, key: &SigningKeyRow) -> Result<Option<SigningKeyRow>> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "INSERT INTO signing_keys (id, purpose, public, sealed, created, current, env) \
             SELECT $1, $2, $3, $4, $5, 1, $6 \
             WHERE EXISTS (SELECT 1 FROM environments WHERE id = $6 AND state = 'ready') \
             ON CONFLICT DO NOTHING",
        )
        .bind(key.id.as_str())
        .bind(key.purpose.as_str())
        .bind(key.public.as_str())
        .bind(key.sealed.as_str())
        .bind(key.created.as_micros())
        .bind(env.to_string())
        .execute(write.connection())
        .await?;
        let row = sqlx::query(CURRENT).bind(key.purpose.as_str()).fetch_optional(write.connection()).await?;
        write.commit().await?;
        row.as_ref().map(signing_key).transpose()
    }

    /// The current key of a purpose.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn current(&self, purpose: &str) -> Result<Option<SigningKeyRow>> {
        let row = sqlx::query(CURRENT).bind(purpose).fetch_optional(self.0.reader()).await?;
        row.as_ref().map(signing_key).transpose()
    }
}

fn signing_key(row: &AnyRow) -> Result<SigningKeyRow> {
    Ok(SigningKeyRow {
        id: text(row, "id")?,
        purpose: text(row, "purpose")?,
        public: text(row, "public")?,
        sealed: text(row, "sealed")?,
        created: time(row, "created")?,
    })
}
