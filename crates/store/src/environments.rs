//! Environments: their names, states and tags.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use kernel::{EnvId, Slug, TenantId, Timestamp};
use sqlx::AnyConnection;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::rows::{number, parsed, text, text_or_null, time};
use crate::{DEFAULT_PLAN, Error, Result, Store, plans};

/// Where an environment is in its life. Its row is written before its files are made, and goes after they went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvState {
    /// Its files are being made.
    Creating,
    /// It can be used.
    Ready,
    /// It cannot, for its tenant is not active.
    Suspended,
    /// Its files are being removed.
    Deleting,
}

impl EnvState {
    const ALL: [EnvState; 4] = [EnvState::Creating, EnvState::Ready, EnvState::Suspended, EnvState::Deleting];

    /// The name in the database and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            EnvState::Creating => "creating",
            EnvState::Ready => "ready",
            EnvState::Suspended => "suspended",
            EnvState::Deleting => "deleting",
        }
    }
}

impl FromStr for EnvState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let state = Self::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| format!("{text:?} is not a state"))
    }
}

/// One environment's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its id.
    pub id: EnvId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The first label of its host, unique on the platform.
    pub slug: Slug,
    /// Its name for people.
    pub name: String,
    /// Where it is in its life.
    pub state: EnvState,
    /// What it was made from.
    pub template: String,
    /// Its plan.
    pub plan: String,
    /// Its tags, name to value.
    pub tags: BTreeMap<String, String>,
    /// What the tenant's own system calls it, unique in the tenant.
    pub external_id: Option<String>,
    /// When it was made.
    pub created: Timestamp,
}

/// What an insertion found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insertion {
    /// The row is written.
    Made,
    /// The tenant has an environment with that external id: this one.
    Same(Box<Environment>),
    /// Another environment has that slug.
    SlugTaken,
    /// There is no plan of that name.
    NoPlan,
    /// The tenant has as many as it may have.
    Full,
}

/// Which environments to list.
#[derive(Debug, Clone, Default)]
pub struct EnvironmentFilter {
    /// Those with each of these tags.
    pub tags: BTreeMap<String, String>,
    /// The one with this external id.
    pub external_id: Option<String>,
}

const COLUMNS: &str = "SELECT id, tenant, slug, name, state, template, plan, tags, external_id, created \
     FROM environments WHERE ";

/// The environments.
pub struct Environments<'a>(pub(crate) &'a Store);

impl Environments<'_> {
    /// Writes the row of a new environment, tags included.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn insert(&self, env: &Environment) -> Result<Insertion> {
        self.insert_within(env, None).await
    }

    /// As [`Environments::insert`], where its tenant has at most `most` then, those that are being deleted left out.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn insert_within(&self, env: &Environment, most: Option<u64>) -> Result<Insertion> {
        let mut write = self.0.begin_write().await?;
        if env.plan != DEFAULT_PLAN {
            write.tell(&plans::of_environment(env.id)).await?;
            if !plans::hold(write.connection(), &env.plan).await? {
                return Ok(Insertion::NoPlan);
            }
        }
        if most.is_some() {
            // Who makes another one of this tenant waits here.
            sqlx::query("UPDATE tenants SET state = state WHERE id = $1")
                .bind(env.tenant.to_string())
                .execute(write.connection())
                .await?;
        }
        let tags = serde_json::to_string(&env.tags)
            .map_err(|e| Error::Unreadable { what: "tags", source: e.into() })?;
        let done = sqlx::query(
            "INSERT INTO environments \
             (id, tenant, slug, name, state, template, plan, tags, external_id, created) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        )
        .bind(env.id.to_string())
        .bind(env.tenant.to_string())
        .bind(env.slug.as_str())
        .bind(env.name.as_str())
        .bind(env.state.as_str())
        .bind(env.template.as_str())
        .bind(env.plan.as_str())
        .bind(tags)
        .bind(env.external_id.as_deref())
        .bind(env.created.as_micros())
        .execute(write.connection())
        .await?;
        if done.rows_affected() == 0 {
            return match &env.external_id {
                Some(external_id) => same(write.connection(), env.tenant, external_id).await,
                None => Ok(Insertion::SlugTaken),
            };
        }
        if let Some(most) = most {
            let there = sqlx::query(
                "SELECT COUNT(*) AS n FROM environments WHERE tenant = $1 AND state <> 'deleting'",
            )
            .bind(env.tenant.to_string())
            .fetch_one(write.connection())
            .await?;
            if u64::try_from(number(&there, "n")?).unwrap_or_default() > most {
                return Ok(Insertion::Full);
            }
        }
        for (name, value) in &env.tags {
            sqlx::query("INSERT INTO environment_tags (env, name, value) VALUES ($1, $2, $3)")
                .bind(env.id.to_string())
                .bind(name.as_str())
                .bind(value.as_str())
                .execute(write.connection())
                .await?;
        }
        write.commit().await?;
        Ok(Insertion::Made)
    }

    /// The environment with this id or slug, in whatever state.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn find(&self, id_or_slug: &str) -> Result<Option<Environment>> {
        let sql = selecting("id = $1 OR slug = $1");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id_or_slug).fetch_optional(self.0.reader()).await?;
        row.as_ref().map(environment).transpose()
    }

    /// At most `limit` of the tenant's environments made after `after`, oldest first, those that are being
    /// deleted left out.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(
        &self,
        tenant: TenantId,
        filter: &EnvironmentFilter,
        after: Option<EnvId>,
        limit: u32,
    ) -> Result<Vec<Environment>> {
        let mut sql =
            selecting("tenant = $1 AND id > $2 AND state <> 'deleting' AND ($3 IS NULL OR external_id = $3)");
        for at in 0..filter.tags.len() {
            let (name, value) = (5 + at * 2, 6 + at * 2);
            let _ = write!(
                sql,
                " AND EXISTS (SELECT 1 FROM environment_tags t \
                 WHERE t.env = environments.id AND t.name = ${name} AND t.value = ${value})"
            );
        }
        sql.push_str(" ORDER BY id LIMIT $4");
        let mut query = sqlx::query(AssertSqlSafe(sql))
            .bind(tenant.to_string())
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(filter.external_id.as_deref())
            .bind(i64::from(limit));
        for (name, value) in &filter.tags {
            query = query.bind(name.as_str()).bind(value.as_str());
        }
        query.fetch_all(self.0.reader()).await?.iter().map(environment).collect()
    }

    /// Every environment that is being created or deleted.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn unfinished(&self) -> Result<Vec<Environment>> {
        let sql = selecting("state IN ('creating', 'deleting') ORDER BY id");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(self.0.reader()).await?;
        rows.iter().map(environment).collect()
    }

    /// Moves an environment from creating to ready, or to suspended where its tenant is; `false` where it was not being
    /// created.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn ready(&self, id: EnvId) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        // Whoever changes the tenant's state waits for this, or has changed it.
        let mut made = 0;
        for sql in [
            "UPDATE tenants SET state = state WHERE id = (SELECT tenant FROM environments WHERE id = $1)",
            "UPDATE environments SET state = CASE WHEN \
             (SELECT t.state FROM tenants t WHERE t.id = environments.tenant) = 'active' \
             THEN 'ready' ELSE 'suspended' END WHERE id = $1 AND state = 'creating'",
        ] {
            let done = sqlx::query(sql).bind(id.to_string()).execute(write.connection()).await?;
            made = done.rows_affected();
        }
        write.commit().await?;
        Ok(made == 1)
    }

    /// Moves an environment to deleting, and ends its keys. Its external id is free from here on, its slug when
    /// the row is gone. `false` where it was being deleted already, or is not there.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn begin_delete(&self, id: EnvId) -> Result<bool> {
        self.begin(id, None).await
    }

    /// As [`Environments::begin_delete`] for one whose tenant is deleted and may be removed for good at `now`; `false` where it is
    /// not so, or it is being deleted already.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn doom(&self, id: EnvId, now: Timestamp) -> Result<bool> {
        self.begin(id, Some(now)).await
    }

    /// Begins a deletion; with `purge`, only where the tenant may be removed for good at that time.
    async fn begin(&self, id: EnvId, purge: Option<Timestamp>) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        // Whoever changes the tenant's state waits for this, or has changed it.
        write.tell(&id.to_string()).await?;
        let done = sqlx::query(
            "UPDATE environments SET state = 'deleting', external_id = NULL WHERE id = $1 AND state <> 'deleting' \
             AND ($2 IS NULL OR EXISTS (SELECT 1 FROM tenants t \
             WHERE t.id = environments.tenant AND t.state = 'deleted' AND t.purge <= $2))",
        )
        .bind(id.to_string())
        .bind(purge.map(Timestamp::as_micros))
        .execute(write.connection())
        .await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        for ends in ["DELETE FROM runs WHERE env = $1", "DELETE FROM keys WHERE env = $1"] {
            sqlx::query(ends).bind(id.to_string()).execute(write.connection()).await?;
        }
        write.commit().await?;
        Ok(true)
    }

    /// At most `limit` of a tenant's environments after `after`, those that are being made or deleted, too.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_tenant(
        &self,
        tenant: TenantId,
        after: Option<EnvId>,
        limit: u32,
    ) -> Result<Vec<Environment>> {
        let rows = sqlx::query(AssertSqlSafe(selecting("tenant = $1 AND id > $2 ORDER BY id LIMIT $3")))
            .bind(tenant.to_string())
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(environment).collect()
    }

    /// Every environment whose tenant is not active.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn suspended(&self) -> Result<Vec<EnvId>> {
        let rows = sqlx::query("SELECT id FROM environments WHERE state = 'suspended'");
        rows.fetch_all(self.0.reader()).await?.iter().map(|row| parsed(row, "id")).collect()
    }

    /// Removes the row of an environment that is being deleted, with its secrets.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, id: EnvId) -> Result<bool> {
        self.change("DELETE FROM environments WHERE id = $1 AND state = 'deleting'", id).await
    }

    async fn change(&self, sql: &'static str, id: EnvId) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(sql).bind(id.to_string()).execute(write.connection()).await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

async fn same(connection: &mut AnyConnection, tenant: TenantId, external_id: &str) -> Result<Insertion> {
    let row = sqlx::query(AssertSqlSafe(selecting("tenant = $1 AND external_id = $2")))
        .bind(tenant.to_string())
        .bind(external_id)
        .fetch_optional(connection)
        .await?;
    Ok(match row {
        Some(row) => Insertion::Same(Box::new(environment(&row)?)),
        None => Insertion::SlugTaken,
    })
}

fn selecting(condition: &'static str) -> String {
    format!("{COLUMNS}{condition}")
}

fn environment(row: &AnyRow) -> Result<Environment> {
    let tags = serde_json::from_str(&text(row, "tags")?)
        .map_err(|e| Error::Unreadable { what: "tags", source: e.into() })?;
    Ok(Environment {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        slug: parsed(row, "slug")?,
        name: text(row, "name")?,
        state: parsed(row, "state")?,
        template: text(row, "template")?,
        plan: text(row, "plan")?,
        tags,
        external_id: text_or_null(row, "external_id")?,
        created: time(row, "created")?,
    })
}
