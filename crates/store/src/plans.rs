//! Plans: bundles of limits, and who has which.

use kernel::{EnvId, TenantId, Timestamp};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use crate::news::{PLAN_OF, PLANS};
use crate::rows::{number, parsed, text, time};
use crate::{Result, Store};

/// The plan of whoever has no other.
pub const DEFAULT_PLAN: &str = "default";

/// A bundle of limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its limits, as JSON.
    pub limits: String,
    /// When it was last set.
    pub updated: Timestamp,
}

/// A tenant whose limits are not those of the default plan alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The tenant.
    pub tenant: TenantId,
    /// Its plan.
    pub plan: String,
    /// What is its own of it, as JSON.
    pub limits: String,
}

/// What became of a plan that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanRemoval {
    /// It is gone.
    Removed,
    /// There is none of that name.
    Unknown,
    /// So many tenants and environments have it.
    Used(u64),
}

/// The plans.
pub struct Plans<'a>(pub(crate) &'a Store);

impl Plans<'_> {
    /// All plans, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self) -> Result<Vec<Plan>> {
        let rows = sqlx::query("SELECT name, limits, updated FROM plans ORDER BY name")
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(plan).collect()
    }

    /// Sets a plan, in the place of the one of its name. Every gateway hears of it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set(&self, plan: &Plan) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        write.tell(PLANS).await?;
        sqlx::query(
            "INSERT INTO plans (name, limits, updated) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET limits = excluded.limits, updated = excluded.updated",
        )
        .bind(plan.name.as_str())
        .bind(plan.limits.as_str())
        .bind(plan.updated.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// Removes a plan that nobody has.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, name: &str) -> Result<PlanRemoval> {
        let mut write = self.0.begin_write().await?;
        write.tell(PLANS).await?;
        let removed =
            sqlx::query("DELETE FROM plans WHERE name = $1").bind(name).execute(write.connection()).await?;
        if removed.rows_affected() == 0 {
            return Ok(PlanRemoval::Unknown);
        }
        // Who takes the plan in this moment waits for its row, and does not find it then.
        let used = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM tenants WHERE plan = $1) + (SELECT COUNT(*) FROM environments WHERE plan = $1) AS used",
        )
        .bind(name)
        .fetch_one(write.connection())
        .await?;
        let used = number(&used, "used")?;
        if used > 0 {
            return Ok(PlanRemoval::Used(u64::try_from(used).unwrap_or_default()));
        }
        write.commit().await?;
        Ok(PlanRemoval::Removed)
    }

    /// Gives a tenant a plan, and limits of its own, each where it is given; `false` where there is no such tenant or plan.
    /// Every gateway hears of it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn give(&self, tenant: TenantId, name: Option<&str>, limits: Option<&str>) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        write.tell(&of_tenant(tenant)).await?;
        if let Some(name) = name
            && !hold(write.connection(), name).await?
        {
            return Ok(false);
        }
        let done = sqlx::query(
            "UPDATE tenants SET plan = COALESCE($2, plan), limits = COALESCE($3, limits) WHERE id = $1",
        )
        .bind(tenant.to_string())
        .bind(name)
        .bind(limits)
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Every tenant that has another plan than the default one, or limits of its own.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_tenants(&self) -> Result<Vec<Planned>> {
        let rows =
            sqlx::query("SELECT id, plan, limits FROM tenants WHERE plan <> 'default' OR limits <> '{}'")
                .fetch_all(self.0.reader())
                .await?;
        rows.iter().map(planned).collect()
    }

    /// What a tenant has.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_tenant(&self, tenant: TenantId) -> Result<Option<Planned>> {
        let row = sqlx::query("SELECT id, plan, limits FROM tenants WHERE id = $1")
            .bind(tenant.to_string())
            .fetch_optional(self.0.reader())
            .await?;
        row.as_ref().map(planned).transpose()
    }

    /// What an environment has.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_environment(&self, env: EnvId) -> Result<Option<String>> {
        let row = sqlx::query("SELECT plan FROM environments WHERE id = $1")
            .bind(env.to_string())
            .fetch_optional(self.0.reader())
            .await?;
        row.as_ref().map(|row| text(row, "plan")).transpose()
    }

    /// Every environment that has another plan than the default one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_environments(&self) -> Result<Vec<(EnvId, String)>> {
        let rows = sqlx::query("SELECT id, plan FROM environments WHERE plan <> 'default'")
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(|row| Ok((parsed(row, "id")?, text(row, "plan")?))).collect()
    }

    /// How many environments a tenant has, those that are being deleted left out.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn environments(&self, tenant: TenantId) -> Result<u64> {
        let row =
            sqlx::query("SELECT COUNT(*) AS n FROM environments WHERE tenant = $1 AND state <> 'deleting'")
                .bind(tenant.to_string())
                .fetch_one(self.0.reader())
                .await?;
        Ok(u64::try_from(number(&row, "n")?).unwrap_or_default())
    }
}

/// What gateways are told of a tenant that has another plan, or other limits.
pub(crate) fn of_tenant(tenant: TenantId) -> String {
    format!("{PLAN_OF}{tenant}")
}

/// What gateways are told of an environment that has a plan.
pub(crate) fn of_environment(env: EnvId) -> String {
    format!("{PLAN_OF}{env}")
}

/// Whether there is a plan of that name, which stays until the transaction ends.
pub(crate) async fn hold(connection: &mut AnyConnection, name: &str) -> Result<bool> {
    let held = sqlx::query("UPDATE plans SET updated = updated WHERE name = $1")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(held.rows_affected() == 1)
}

fn plan(row: &AnyRow) -> Result<Plan> {
    Ok(Plan { name: text(row, "name")?, limits: text(row, "limits")?, updated: time(row, "updated")? })
}

fn planned(row: &AnyRow) -> Result<Planned> {
    Ok(Planned { tenant: parsed(row, "id")?, plan: text(row, "plan")?, limits: text(row, "limits")? })
}
