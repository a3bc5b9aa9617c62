//! The keys that sign tokens, sealed.

use std::str::FromStr;

use kernel::{EnvId, Timestamp};
use sqlx::any::AnyRow;

use crate::connection::Write;
use crate::news::SIGNING_KEYS;
use crate::rows::{parsed, text, text_or_null, time, time_or_null};
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
    /// The data key that it is sealed with; `None` is the one from before there were any.
    pub data_key: Option<String>,
}

/// Where a signing key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningState {
    /// It is known already, and signs after the active one.
    Next,
    /// It signs.
    Active,
    /// It signs no more; what it has signed holds until it ends.
    Retired,
}

impl SigningState {
    const ALL: [SigningState; 3] = [SigningState::Next, SigningState::Active, SigningState::Retired];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SigningState::Next => "next",
            SigningState::Active => "active",
            SigningState::Retired => "retired",
        }
    }
}

impl FromStr for SigningState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let state = Self::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| format!("{text:?} is not a state of a signing key"))
    }
}

/// A signing key, and where it is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The key.
    pub key: SigningKeyRow,
    /// Where it is.
    pub state: SigningState,
    /// Since when it signs, where it does or did; none for one from before that was noted.
    pub activated: Option<Timestamp>,
    /// Since when it does not, where it did.
    pub retired: Option<Timestamp>,
}

const CURRENT: &str = "SELECT id, purpose, public, sealed, created, data_key FROM signing_keys WHERE purpose = $1 AND current = 1";

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
            "INSERT INTO signing_keys (id, purpose, public, sealed, created, current, data_key) \
             VALUES ($1, $2, $3, $4, $5, 1, CAST($6 AS TEXT)) ON CONFLICT DO NOTHING",
        )
        .bind(key.id.as_str())
        .bind(key.purpose.as_str())
        .bind(key.public.as_str())
        .bind(key.sealed.as_str())
        .bind(key.created.as_micros())
        .bind(key.data_key.as_deref())
        .execute(write.connection())
        .await?;
        let row = sqlx::query(CURRENT).bind(key.purpose.as_str()).fetch_one(write.connection()).await?;
        write.commit().await?;
        signing_key(&row)
    }

    /// As [`SigningKeys::get_or_insert`], a key that goes with its environment; `None` where that is not a ready
    /// one, or its data key seals no more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get_or_insert_of(&self, env: EnvId, key: &SigningKeyRow) -> Result<Option<SigningKeyRow>> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "INSERT INTO signing_keys (id, purpose, public, sealed, created, current, env, data_key) \
             SELECT $1, $2, $3, $4, $5, 1, $6, CAST($7 AS TEXT) \
             WHERE EXISTS (SELECT 1 FROM environments WHERE id = $6 AND state = 'ready') \
             AND (CAST($7 AS TEXT) IS NULL OR EXISTS (SELECT 1 FROM data_keys WHERE id = CAST($7 AS TEXT) AND current = 1)) \
             ON CONFLICT DO NOTHING",
        )
        .bind(key.id.as_str())
        .bind(key.purpose.as_str())
        .bind(key.public.as_str())
        .bind(key.sealed.as_str())
        .bind(key.created.as_micros())
        .bind(env.to_string())
        .bind(key.data_key.as_deref())
        .execute(write.connection())
        .await?;
        let row = sqlx::query(CURRENT).bind(key.purpose.as_str()).fetch_optional(write.connection()).await?;
        write.commit().await?;
        row.as_ref().map(signing_key).transpose()
    }

    /// All keys of a purpose: the active one, the next one, and those that are retired, latest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn all(&self, purpose: &str) -> Result<Vec<Kept>> {
        let rows = sqlx::query(
            "SELECT id, purpose, public, sealed, created, data_key, state, activated, retired FROM signing_keys \
             WHERE purpose = $1 ORDER BY state, retired DESC, id",
        )
        .bind(purpose)
        .fetch_all(self.0.reader())
        .await?;
        let kept = |row: &AnyRow| {
            Ok(Kept {
                key: signing_key(row)?,
                state: parsed(row, "state")?,
                activated: time_or_null(row, "activated")?,
                retired: time_or_null(row, "retired")?,
            })
        };
        rows.iter().map(kept).collect()
    }

    /// Adds the key that signs next, where the purpose has none.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn prepare(&self, key: &SigningKeyRow) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        add_next(&mut write, key).await?;
        write.commit().await
    }

    /// Retires the key `active`, has the next one sign, and adds the one after it. `false` where `active` is not the active
    /// one (any more): somebody was quicker.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn rotate(&self, active: &str, after: &SigningKeyRow, now: Timestamp) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        // The private half is of no use any more.
        let done = sqlx::query(
            "UPDATE signing_keys SET current = NULL, state = 'retired', sealed = '', retired = $3 \
             WHERE purpose = $1 AND id = $2 AND current = 1",
        )
        .bind(after.purpose.as_str())
        .bind(active)
        .bind(now.as_micros())
        .execute(write.connection())
        .await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        let done = sqlx::query(
            "UPDATE signing_keys SET current = 1, state = 'active', activated = $2 \
             WHERE purpose = $1 AND state = 'next'",
        )
        .bind(after.purpose.as_str())
        .bind(now.as_micros())
        .execute(write.connection())
        .await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        add_next(&mut write, after).await?;
        write.tell(SIGNING_KEYS).await?;
        write.commit().await?;
        Ok(true)
    }

    /// Forgets the keys that were retired by `before`; gives how many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, purpose: &str, before: Timestamp) -> Result<u64> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "DELETE FROM signing_keys WHERE purpose = $1 AND state = 'retired' AND retired <= $2",
        )
        .bind(purpose)
        .bind(before.as_micros())
        .execute(write.connection())
        .await?;
        if done.rows_affected() > 0 {
            write.tell(SIGNING_KEYS).await?;
        }
        write.commit().await?;
        Ok(done.rows_affected())
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

async fn add_next(write: &mut Write, key: &SigningKeyRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO signing_keys (id, purpose, public, sealed, created, state, data_key) \
         VALUES ($1, $2, $3, $4, $5, 'next', CAST($6 AS TEXT)) ON CONFLICT DO NOTHING",
    )
    .bind(key.id.as_str())
    .bind(key.purpose.as_str())
    .bind(key.public.as_str())
    .bind(key.sealed.as_str())
    .bind(key.created.as_micros())
    .bind(key.data_key.as_deref())
    .execute(write.connection())
    .await?;
    Ok(())
}

fn signing_key(row: &AnyRow) -> Result<SigningKeyRow> {
    Ok(SigningKeyRow {
        id: text(row, "id")?,
        purpose: text(row, "purpose")?,
        public: text(row, "public")?,
        sealed: text(row, "sealed")?,
        created: time(row, "created")?,
        data_key: text_or_null(row, "data_key")?,
    })
}
