//! The keys that sign tokens, sealed.

use kernel::Timestamp;
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
        let row = sqlx::query(
            "SELECT id, purpose, public, sealed, created FROM signing_keys WHERE purpose = $1 AND current = 1",
        )
        .bind(key.purpose.as_str())
        .fetch_one(write.connection())
        .await?;
        write.commit().await?;
        signing_key(&row)
    }

    /// The current key of a purpose.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn current(&self, purpose: &str) -> Result<Option<SigningKeyRow>> {
        let row = sqlx::query(
            "SELECT id, purpose, public, sealed, created FROM signing_keys WHERE purpose = $1 AND current = 1",
        )
        .bind(purpose)
        .fetch_optional(self.0.reader())
        .await?;
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
