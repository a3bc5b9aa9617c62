//! Domains that environments claim, and which of them are proven.

use kernel::{EnvId, Slug, TenantId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::rows::{number, parsed, text, time, time_or_null};
use crate::{Result, Store};

/// A domain that an environment says is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainClaim {
    /// The domain, in lower case and ASCII.
    pub name: String,
    /// The environment.
    pub env: EnvId,
    /// What its owner publishes to prove it.
    pub token: String,
    /// Whether browsers are told to come by HTTPS only.
    pub hsts: bool,
    /// When it was claimed.
    pub claimed: Timestamp,
    /// When its proof was last looked for.
    pub checked: Timestamp,
    /// Since when it is proven; of all claims of one name at most one is.
    pub proven: Option<Timestamp>,
    /// Since when the proof of a proven domain is not found any more.
    pub missing: Option<Timestamp>,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is the environment's, as it is kept now.
    Kept(DomainClaim),
    /// The domain is proven for another environment.
    Taken,
    /// The environment has as many as it may.
    TooMany,
    /// The environment is not a ready one.
    NoEnvironment,
}

/// A proven domain's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenFor {
    /// The environment.
    pub env: EnvId,
    /// Its slug.
    pub slug: Slug,
    /// Its tenant.
    pub tenant: TenantId,
    /// Whether browsers are told to come by HTTPS only.
    pub hsts: bool,
}

/// The domains.
pub struct Domains<'a>(pub(crate) &'a Store);

impl Domains<'_> {
    /// Keeps a claim; of one that is there the token, the times and the proof stay, and `hsts` is taken over where it
    /// is given. An environment has at most `most`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn claim(
        &self,
        env: EnvId,
        name: &str,
        token: &str,
        hsts: Option<bool>,
        most: i64,
        now: Timestamp,
    ) -> Result<Claimed> {
        let mut write = self.0.begin_write().await?;
        // The row of the environment is held, so that of two claims at once the second one counts the first.
        let ready = sqlx::query("UPDATE environments SET state = state WHERE id = $1 AND state = 'ready'")
            .bind(env.to_string())
            .execute(write.connection())
            .await?;
        if ready.rows_affected() == 0 {
            return Ok(Claimed::NoEnvironment);
        }
        let foreign =
            sqlx::query("SELECT 1 FROM domains WHERE name = $1 AND env <> $2 AND proven IS NOT NULL")
                .bind(name)
                .bind(env.to_string())
                .fetch_optional(write.connection())
                .await?;
        if foreign.is_some() {
            return Ok(Claimed::Taken);
        }
        let others = sqlx::query("SELECT COUNT(*) FROM domains WHERE env = $1 AND name <> $2")
            .bind(env.to_string())
            .bind(name)
            .fetch_one(write.connection())
            .await?
            .try_get::<i64, _>(0)?;
        if others >= most {
            return Ok(Claimed::TooMany);
        }
        let row = sqlx::query(
            "INSERT INTO domains (name, env, token, hsts, claimed, checked) VALUES ($1, $2, $3, $4, $5, 0) \
             ON CONFLICT (name, env) DO UPDATE SET hsts = CASE WHEN $6 = 1 THEN excluded.hsts ELSE domains.hsts END \
             RETURNING name, env, token, hsts, claimed, checked, proven, missing",
        )
        .bind(name)
        .bind(env.to_string())
        .bind(token)
        .bind(i64::from(hsts.unwrap_or_default()))
        .bind(now.as_micros())
        .bind(i64::from(hsts.is_some()))
        .fetch_one(write.connection())
        .await?;
        write.commit().await?;
        claim(&row).map(Claimed::Kept)
    }

    /// An environment's claims, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, env: EnvId) -> Result<Vec<DomainClaim>> {
        let sql = "SELECT name, env, token, hsts, claimed, checked, proven, missing FROM domains \
                   WHERE env = $1 ORDER BY name";
        let rows = sqlx::query(sql).bind(env.to_string()).fetch_all(self.0.reader()).await?;
        rows.iter().map(claim).collect()
    }

    /// One claim of an environment.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, env: EnvId, name: &str) -> Result<Option<DomainClaim>> {
        let sql = "SELECT name, env, token, hsts, claimed, checked, proven, missing FROM domains \
                   WHERE env = $1 AND name = $2";
        let row = sqlx::query(sql).bind(env.to_string()).bind(name).fetch_optional(self.0.reader()).await?;
        row.as_ref().map(claim).transpose()
    }

    /// Whose a proven domain is; `None` where nobody has proven it, or its environment is going.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn proven_for(&self, name: &str) -> Result<Option<ProvenFor>> {
        let sql = "SELECT e.id AS env, e.slug AS slug, e.tenant AS tenant, d.hsts AS hsts FROM domains d \
                   JOIN environments e ON e.id = d.env \
                   WHERE d.name = $1 AND d.proven IS NOT NULL AND e.state = 'ready'";
        let row = sqlx::query(sql).bind(name).fetch_optional(self.0.reader()).await?;
        let read = |row: AnyRow| {
            Ok(ProvenFor {
                env: parsed(&row, "env")?,
                slug: parsed(&row, "slug")?,
                tenant: parsed(&row, "tenant")?,
                hsts: number(&row, "hsts")? == 1,
            })
        };
        row.map(read).transpose()
    }

    /// Notes that the proof of a claim, with this very token, was found. `false` where the claim is gone or another
    /// environment was quicker; of many at once one is told `true`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn prove(&self, env: EnvId, name: &str, token: &str, now: Timestamp) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "UPDATE domains SET checked = $4, missing = NULL, proven = COALESCE(proven, $4) \
             WHERE name = $1 AND env = $2 AND token = $3 \
             AND NOT EXISTS (SELECT 1 FROM domains o WHERE o.name = $1 AND o.env <> $2 AND o.proven IS NOT NULL)",
        )
        .bind(name)
        .bind(env.to_string())
        .bind(token)
        .bind(now.as_micros())
        .execute(write.connection())
        .await;
        match done {
            Ok(done) => {
                write.commit().await?;
                Ok(done.rows_affected() == 1)
            }
            // The index that holds one proof for each name: another transaction was quicker.
            Err(sqlx::Error::Database(said)) if said.is_unique_violation() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes that the proof of a claim was looked for and not found. One that is missing since before `patience`
    /// stops to count; `true` where it did.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn unproven(
        &self,
        env: EnvId,
        name: &str,
        now: Timestamp,
        patience: Timestamp,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "UPDATE domains SET checked = $3, missing = CASE WHEN proven IS NULL THEN NULL ELSE COALESCE(missing, $3) END \
             WHERE name = $1 AND env = $2",
        )
        .bind(name)
        .bind(env.to_string())
        .bind(now.as_micros())
        .execute(write.connection())
        .await?;
        let withdrawn = sqlx::query(
            "UPDATE domains SET proven = NULL, missing = NULL, claimed = $3 \
             WHERE name = $1 AND env = $2 AND missing IS NOT NULL AND missing <= $4",
        )
        .bind(name)
        .bind(env.to_string())
        .bind(now.as_micros())
        .bind(patience.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(withdrawn.rows_affected() == 1)
    }

    /// Notes that a claim was looked at, whatever came of it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn looked_at(&self, env: EnvId, name: &str, now: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("UPDATE domains SET checked = $3 WHERE name = $1 AND env = $2")
            .bind(name)
            .bind(env.to_string())
            .bind(now.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// At most `limit` claims to look at: unproven ones that were made after `young` and looked at before `soon`, and
    /// proven ones looked at before `late`. Those that wait longest come first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn to_check(
        &self,
        young: Timestamp,
        soon: Timestamp,
        late: Timestamp,
        limit: i64,
    ) -> Result<Vec<(DomainClaim, TenantId)>> {
        let sql = "SELECT d.name AS name, d.env AS env, d.token AS token, d.hsts AS hsts, d.claimed AS claimed, \
                   d.checked AS checked, d.proven AS proven, d.missing AS missing, e.tenant AS tenant FROM domains d \
                   JOIN environments e ON e.id = d.env WHERE e.state = 'ready' AND \
                   ((d.proven IS NULL AND d.claimed > $1 AND d.checked <= $2) \
                   OR (d.proven IS NOT NULL AND d.checked <= $3)) ORDER BY d.checked LIMIT $4";
        let rows = sqlx::query(sql)
            .bind(young.as_micros())
            .bind(soon.as_micros())
            .bind(late.as_micros())
            .bind(limit)
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(|row| Ok((claim(row)?, parsed(row, "tenant")?))).collect()
    }

    /// Removes a claim, and the certificates of the domain that are the environment's; `false` where there is none.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, env: EnvId, name: &str) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        for sql in [
            "DELETE FROM certificates WHERE name = $1 AND env = $2",
            "DELETE FROM domains WHERE name = $1 AND env = $2",
        ] {
            let done = sqlx::query(sql).bind(name).bind(env.to_string()).execute(write.connection()).await?;
            if sql.contains("FROM domains") && done.rows_affected() == 0 {
                return Ok(false);
            }
        }
        write.commit().await?;
        Ok(true)
    }
}

fn claim(row: &AnyRow) -> Result<DomainClaim> {
    Ok(DomainClaim {
        name: text(row, "name")?,
        env: parsed(row, "env")?,
        token: text(row, "token")?,
        hsts: number(row, "hsts")? == 1,
        claimed: time(row, "claimed")?,
        checked: time(row, "checked")?,
        proven: time_or_null(row, "proven")?,
        missing: time_or_null(row, "missing")?,
    })
}
