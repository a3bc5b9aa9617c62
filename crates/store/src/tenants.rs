//! Tenants.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use kernel::{Slug, TenantId, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe};

use crate::rows::{parsed, text, text_or_null, time, time_or_null};
use crate::{DEFAULT_PLAN, Error, Result, Store, plans};

/// Where a tenant is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantState {
    /// It can be used.
    Active,
    /// Its credentials open nothing and its apps answer nobody, until it is resumed.
    Suspended,
    /// The same, until it is restored or removed for good.
    Deleted,
}

impl TenantState {
    const ALL: [TenantState; 3] = [TenantState::Active, TenantState::Suspended, TenantState::Deleted];

    /// The name in the database and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TenantState::Active => "active",
            TenantState::Suspended => "suspended",
            TenantState::Deleted => "deleted",
        }
    }
}

impl FromStr for TenantState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let state = Self::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| format!("{text:?} is not a state"))
    }
}

/// A customer of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its short name, unique on the platform.
    pub slug: Slug,
    /// Its name for people.
    pub name: String,
    /// Where it is in its life.
    pub state: TenantState,
    /// What the operator's own system calls it, unique on the platform.
    pub external_id: Option<String>,
    /// Its tags, name to value.
    pub tags: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// When its state changed, if it did.
    pub changed: Option<Timestamp>,
    /// From when on it may be removed for good, where it is deleted.
    pub purge: Option<Timestamp>,
    /// The name of its plan.
    pub plan: String,
    /// What is its own of its limits, as JSON.
    pub limits: String,
}

impl Tenant {
    /// An active one without anything else.
    #[must_use]
    pub fn new(slug: Slug, name: String, id: TenantId, created: Timestamp) -> Self {
        let (external_id, tags, changed, purge) = (None, BTreeMap::new(), None, None);
        let (plan, limits) = (DEFAULT_PLAN.to_owned(), NO_LIMITS.to_owned());
        let state = TenantState::Active;
        Self { id, slug, name, state, external_id, tags, created, changed, purge, plan, limits }
    }
}

/// What an insertion found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settling {
    /// The row is written.
    Made,
    /// There is a tenant with that external id: this one.
    Same(Box<Tenant>),
    /// Another tenant has that slug.
    SlugTaken,
    /// There is no plan of that name.
    NoPlan,
}

impl Settling {
    /// Whether the row is written.
    #[must_use]
    pub fn is_made(&self) -> bool {
        *self == Self::Made
    }
}

/// Which tenants to list.
#[derive(Debug, Clone, Default)]
pub struct TenantFilter {
    /// Those with each of these tags.
    pub tags: BTreeMap<String, String>,
    /// The one with this external id.
    pub external_id: Option<String>,
}

const COLUMNS: &str = "SELECT id, slug, name, state, external_id, tags, created, changed, purge, plan, limits FROM tenants WHERE ";

/// None but those of the plan.
const NO_LIMITS: &str = "{}";

/// The tenants.
pub struct Tenants<'a>(pub(crate) &'a Store);

impl Tenants<'_> {
    /// Adds a tenant, tags included.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn insert(&self, tenant: &Tenant) -> Result<Settling> {
        let mut write = self.0.begin_write().await?;
        if tenant.plan != DEFAULT_PLAN || tenant.limits != NO_LIMITS {
            write.tell(&plans::of_tenant(tenant.id)).await?;
            if !plans::hold(write.connection(), &tenant.plan).await? {
                return Ok(Settling::NoPlan);
            }
        }
        let done = sqlx::query(
            "INSERT INTO tenants (id, slug, name, state, external_id, tags, created, plan, limits) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.id.to_string())
        .bind(tenant.slug.as_str())
        .bind(tenant.name.as_str())
        .bind(tenant.state.as_str())
        .bind(tenant.external_id.as_deref())
        .bind(written(&tenant.tags)?)
        .bind(tenant.created.as_micros())
        .bind(tenant.plan.as_str())
        .bind(tenant.limits.as_str())
        .execute(write.connection())
        .await?;
        if done.rows_affected() == 0 {
            let Some(external_id) = &tenant.external_id else { return Ok(Settling::SlugTaken) };
            let same = sqlx::query(AssertSqlSafe(format!("{COLUMNS}external_id = $1")))
                .bind(external_id.as_str())
                .fetch_optional(write.connection())
                .await?;
            let same = same.as_ref().map(read).transpose()?;
            return Ok(same.map_or(Settling::SlugTaken, |same| Settling::Same(Box::new(same))));
        }
        tag(write.connection(), tenant.id, &tenant.tags).await?;
        write.commit().await?;
        Ok(Settling::Made)
    }

    /// The tenant with this id or slug.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn find(&self, id_or_slug: &str) -> Result<Option<Tenant>> {
        let row = sqlx::query(AssertSqlSafe(format!("{COLUMNS}id = $1 OR slug = $1")))
            .bind(id_or_slug)
            .fetch_optional(self.0.reader())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// At most `limit` tenants made after `after`, oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(
        &self,
        filter: &TenantFilter,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<Tenant>> {
        let mut sql = format!("{COLUMNS}id > $1 AND ($2 IS NULL OR external_id = $2)");
        for at in 0..filter.tags.len() {
            let (name, value) = (4 + at * 2, 5 + at * 2);
            let _ = write!(
                sql,
                " AND EXISTS (SELECT 1 FROM tenant_tags t \
                 WHERE t.tenant = tenants.id AND t.name = ${name} AND t.value = ${value})"
            );
        }
        sql.push_str(" ORDER BY id LIMIT $3");
        let mut query = sqlx::query(AssertSqlSafe(sql))
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(filter.external_id.as_deref())
            .bind(i64::from(limit));
        for (name, value) in &filter.tags {
            query = query.bind(name.as_str()).bind(value.as_str());
        }
        query.fetch_all(self.0.reader()).await?.iter().map(read).collect()
    }

    /// Changes what a tenant is called, and its tags, each where it is given; `false` where there is no such tenant.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn change(
        &self,
        id: TenantId,
        name: Option<&str>,
        tags: Option<&BTreeMap<String, String>>,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let tags_text = tags.map(written).transpose()?;
        let done = sqlx::query(
            "UPDATE tenants SET name = COALESCE($2, name), tags = COALESCE($3, tags) WHERE id = $1",
        )
        .bind(id.to_string())
        .bind(name)
        .bind(tags_text)
        .execute(write.connection())
        .await?;
        if let Some(tags) = tags.filter(|_| done.rows_affected() == 1) {
            sqlx::query("DELETE FROM tenant_tags WHERE tenant = $1")
                .bind(id.to_string())
                .execute(write.connection())
                .await?;
            tag(write.connection(), id, tags).await?;
        }
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Moves a tenant from one state to another, with all its environments: those of an active one can be used and others
    /// cannot. `purge` is when it may be removed for good. `false` where it was in another state, or that time has come.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn settle(
        &self,
        id: TenantId,
        from: TenantState,
        to: TenantState,
        at: Timestamp,
        purge: Option<Timestamp>,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        write.tell(&id.to_string()).await?;
        let done = sqlx::query(
            "UPDATE tenants SET state = $3, changed = $4, purge = $5 WHERE id = $1 AND state = $2 \
             AND (purge IS NULL OR purge > $4 OR $3 = 'deleted')",
        )
        .bind(id.to_string())
        .bind(from.as_str())
        .bind(to.as_str())
        .bind(at.as_micros())
        .bind(purge.map(Timestamp::as_micros))
        .execute(write.connection())
        .await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        let environments = match to {
            TenantState::Active => {
                "UPDATE environments SET state = 'ready' WHERE tenant = $1 AND state = 'suspended'"
            }
            TenantState::Suspended | TenantState::Deleted => {
                "UPDATE environments SET state = 'suspended' WHERE tenant = $1 AND state = 'ready'"
            }
        };
        sqlx::query(environments).bind(id.to_string()).execute(write.connection()).await?;
        write.commit().await?;
        Ok(true)
    }

    /// The deleted tenants that may be removed for good at `now`, at most so many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn due(&self, now: Timestamp, most: u32) -> Result<Vec<Tenant>> {
        let sql = format!("{COLUMNS}state = 'deleted' AND purge <= $1 ORDER BY purge LIMIT $2");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(now.as_micros())
            .bind(i64::from(most))
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Removes a deleted tenant that may be removed at `now` and has no environments any more, with its credentials; `false`
    /// where it is not so. What it has used is kept.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, id: TenantId, now: Timestamp) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        write.tell(&id.to_string()).await?;
        let locked = sqlx::query(
            "UPDATE tenants SET state = state WHERE id = $1 AND state = 'deleted' AND purge <= $2 \
             AND NOT EXISTS (SELECT 1 FROM environments e WHERE e.tenant = tenants.id)",
        )
        .bind(id.to_string())
        .bind(now.as_micros())
        .execute(write.connection())
        .await?;
        if locked.rows_affected() != 1 {
            return Ok(false);
        }
        for sql in [
            "DELETE FROM runs WHERE tenant = $1",
            "DELETE FROM members WHERE tenant = $1",
            "DELETE FROM keys WHERE tenant = $1",
            "DELETE FROM tenants WHERE id = $1",
        ] {
            sqlx::query(sql).bind(id.to_string()).execute(write.connection()).await?;
        }
        write.commit().await?;
        Ok(true)
    }
}

fn written(tags: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(tags).map_err(|e| Error::Unreadable { what: "tags", source: e.into() })
}

async fn tag(connection: &mut AnyConnection, id: TenantId, tags: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in tags {
        sqlx::query("INSERT INTO tenant_tags (tenant, name, value) VALUES ($1, $2, $3)")
            .bind(id.to_string())
            .bind(name.as_str())
            .bind(value.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn read(row: &AnyRow) -> Result<Tenant> {
    let tags = serde_json::from_str(&text(row, "tags")?)
        .map_err(|e| Error::Unreadable { what: "tags", source: e.into() })?;
    Ok(Tenant {
        id: parsed(row, "id")?,
        slug: parsed(row, "slug")?,
        name: text(row, "name")?,
        state: parsed(row, "state")?,
        external_id: text_or_null(row, "external_id")?,
        tags,
        created: time(row, "created")?,
        changed: time_or_null(row, "changed")?,
        purge: time_or_null(row, "purge")?,
        plan: text(row, "plan")?,
        limits: text(row, "limits")?,
    })
}
