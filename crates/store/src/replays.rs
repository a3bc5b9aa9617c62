//! Calls with an idempotency key: who claimed it, and what came out.

use kernel::{KeyId, TenantId, Timestamp};

use crate::rows::{hex, text, text_or_null, time};
use crate::{Result, Store};

/// What an idempotency key stands for, and who asks.
#[derive(Debug, Clone)]
pub struct ClaimKey<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// The credential.
    pub credential: KeyId,
    /// What the caller sent.
    pub name: &'a str,
    /// SHA-256 of the request.
    pub digest: &'a [u8; 32],
}

/// What a claim found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is the claimer's.
    First,
    /// It was claimed and finished with this output.
    Done(String),
    /// This owner claimed it and has not finished.
    Running,
    /// Another owner claimed it and never finished, or this one gave it up: the outcome is not known.
    Unfinished,
    /// It stands for another request.
    Other,
}

/// The memory of calls with an idempotency key.
pub struct Replays<'a>(pub(crate) &'a Store);

impl Replays<'_> {
    /// Claims `key` for `owner` (one life of one program) until `expires`. A claim made before `stale` that never
    /// finished counts as given up. Of many claims at once one is `First`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn claim(
        &self,
        key: &ClaimKey<'_>,
        owner: &str,
        now: Timestamp,
        stale: Timestamp,
        expires: Timestamp,
    ) -> Result<Claim> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "INSERT INTO replays (tenant, credential, name, digest, owner, claimed, expires) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (tenant, credential, name) DO UPDATE SET digest = excluded.digest, \
             owner = excluded.owner, output = NULL, claimed = excluded.claimed, expires = excluded.expires \
             WHERE replays.expires <= $6",
        )
        .bind(key.tenant.to_string())
        .bind(key.credential.to_string())
        .bind(key.name)
        .bind(hex(key.digest))
        .bind(owner)
        .bind(now.as_micros())
        .bind(expires.as_micros())
        .execute(write.connection())
        .await?;
        if done.rows_affected() == 1 {
            write.commit().await?;
            return Ok(Claim::First);
        }
        let row = sqlx::query(
            "SELECT digest, owner, output, claimed FROM replays \
             WHERE tenant = $1 AND credential = $2 AND name = $3",
        )
        .bind(key.tenant.to_string())
        .bind(key.credential.to_string())
        .bind(key.name)
        .fetch_optional(write.connection())
        .await?;
        // Where the row has gone since, the first call has just failed; to its twin it was still running.
        let Some(row) = row else { return Ok(Claim::Running) };
        if text(&row, "digest")? != hex(key.digest) {
            return Ok(Claim::Other);
        }
        if let Some(output) = text_or_null(&row, "output")? {
            return Ok(Claim::Done(output));
        }
        let running = text(&row, "owner")? == owner && time(&row, "claimed")? > stale;
        Ok(if running { Claim::Running } else { Claim::Unfinished })
    }

    /// Keeps the output of a claimed call; without one, frees the key.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn finish(&self, key: &ClaimKey<'_>, output: Option<&str>) -> Result<()> {
        let sql = match output {
            Some(_) => {
                "UPDATE replays SET output = $5 \
                 WHERE tenant = $1 AND credential = $2 AND name = $3 AND digest = $4 AND output IS NULL"
            }
            None => {
                "DELETE FROM replays \
                 WHERE tenant = $1 AND credential = $2 AND name = $3 AND digest = $4 AND output IS NULL"
            }
        };
        let mut query = sqlx::query(sql)
            .bind(key.tenant.to_string())
            .bind(key.credential.to_string())
            .bind(key.name)
            .bind(hex(key.digest));
        if let Some(output) = output {
            query = query.bind(output);
        }
        let mut write = self.0.begin_write().await?;
        query.execute(write.connection()).await?;
        write.commit().await
    }

    /// Forgets what has expired; gives how many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, now: Timestamp) -> Result<u64> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query("DELETE FROM replays WHERE expires <= $1")
            .bind(now.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(done.rows_affected())
    }
}
