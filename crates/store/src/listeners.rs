//! Environments whose functions are told of events, and who tells them: of many programs at once one does.

use kernel::{EnvId, TenantId, Timestamp};

use crate::rows::parsed;
use crate::{Result, Store};

/// The environments whose functions listen.
pub struct Listeners<'a>(pub(crate) &'a Store);

impl Listeners<'_> {
    /// Notes a ready environment as one of them.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn add(&self, env: EnvId) -> Result<()> {
        let there = sqlx::query("SELECT 1 FROM listeners WHERE env = $1").bind(env.to_string());
        if there.fetch_optional(self.0.reader()).await?.is_some() {
            return Ok(());
        }
        let sql = "INSERT INTO listeners (env, until) SELECT id, 0 FROM environments WHERE id = $1 AND state = 'ready' \
                   ON CONFLICT DO NOTHING";
        self.change(sql, env, &[]).await.map(drop)
    }

    /// Forgets one, unless somebody has the turn to tell its functions.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, env: EnvId, now: Timestamp) -> Result<()> {
        let there = sqlx::query("SELECT 1 FROM listeners WHERE env = $1").bind(env.to_string());
        if there.fetch_optional(self.0.reader()).await?.is_none() {
            return Ok(());
        }
        self.change("DELETE FROM listeners WHERE env = $1 AND until <= $2", env, &[now]).await.map(drop)
    }

    /// All of them that are ready.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn all(&self) -> Result<Vec<(TenantId, EnvId)>> {
        self.those(
            "SELECT e.tenant AS tenant, l.env AS env FROM listeners l JOIN environments e ON e.id = l.env \
                    WHERE e.state = 'ready'",
            None,
        )
        .await
    }

    /// Those of them whose functions somebody has told until they died over it, or let go of with something waiting.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn left(&self, now: Timestamp) -> Result<Vec<(TenantId, EnvId)>> {
        self.those(
            "SELECT e.tenant AS tenant, l.env AS env FROM listeners l JOIN environments e ON e.id = l.env \
                    WHERE e.state = 'ready' AND l.until > 0 AND l.until <= $1",
            Some(now),
        )
        .await
    }

    async fn those(&self, sql: &'static str, now: Option<Timestamp>) -> Result<Vec<(TenantId, EnvId)>> {
        let query = now.into_iter().fold(sqlx::query(sql), |query, now| query.bind(now.as_micros()));
        let rows = query.fetch_all(self.0.reader()).await?;
        rows.iter().map(|row| Ok((parsed(row, "tenant")?, parsed(row, "env")?))).collect()
    }

    /// Takes the turn to tell an environment's functions until `until`, where nobody has it: of many at once one does.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn take(&self, env: EnvId, now: Timestamp, until: Timestamp) -> Result<bool> {
        // Who waits for the turn asks again and again: a write would hold others up each time.
        let free = sqlx::query("SELECT 1 FROM listeners WHERE env = $1 AND until <= $2");
        let free = free.bind(env.to_string()).bind(now.as_micros());
        if free.fetch_optional(self.0.reader()).await?.is_none() {
            return Ok(false);
        }
        let sql = "UPDATE listeners SET until = $3 WHERE env = $1 AND until <= $2";
        self.change(sql, env, &[now, until]).await
    }

    /// Has the turn that ends at `was` end at `until`; `false` where it is not the caller's any more. It ends at 0 where
    /// nothing waits.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn renew(&self, env: EnvId, was: Timestamp, until: Timestamp) -> Result<bool> {
        self.change("UPDATE listeners SET until = $3 WHERE env = $1 AND until = $2", env, &[was, until]).await
    }

    async fn change(&self, sql: &'static str, env: EnvId, times: &[Timestamp]) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let mut query = sqlx::query(sql).bind(env.to_string());
        for at in times {
            query = query.bind(at.as_micros());
        }
        let changed = query.execute(write.connection()).await?;
        write.commit().await?;
        Ok(changed.rows_affected() == 1)
    }
}
