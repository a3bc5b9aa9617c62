//! How much may be spent on models, and what has been: limits, and counters that they are held against.

use std::fmt;
use std::str::FromStr;

use kernel::{BudgetId, EnvId, TenantId, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::periods::Unknown;
use crate::rows::{number, parsed, parsed_or_null, time};
use crate::{Period, Result, Store};

/// More than is ever counted; sums of a few stay within what the engines can add up.
pub(crate) const MOST: i64 = i64::MAX / 8;

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Tokens, sent and received together.
    Tokens,
    /// Millionths of the operator's currency.
    Micro,
}

/// Who has set a budget. What the operator has set nobody else changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setter {
    /// Who runs the platform.
    Operator,
    /// The tenant itself.
    Tenant,
}

macro_rules! named {
    ($name:ident, $what:literal, $($variant:ident = $text:literal),+) => {
        impl $name {
            /// The name on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Unknown;

            fn from_str(text: &str) -> std::result::Result<Self, Unknown> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(Unknown($what)) }
            }
        }
    };
}

named!(Unit, "unit", Tokens = "tokens", Micro = "micro");
named!(Setter, "setter", Operator = "operator", Tenant = "tenant");

/// How much may be spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its id.
    pub id: BudgetId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The environment that it bounds; all of the tenant together, where there is none.
    pub env: Option<EnvId>,
    /// What it counts.
    pub unit: Unit,
    /// How long it lasts.
    pub period: Period,
    /// Who has set it.
    pub setter: Setter,
    /// The most that may be spent.
    pub most: u64,
    /// When it was set.
    pub updated: Timestamp,
}

impl Budget {
    /// Whose spending it bounds.
    pub(crate) fn owner(&self) -> String {
        self.env.map_or_else(|| self.tenant.to_string(), |env| env.to_string())
    }
}

/// What bounds spending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// A budget.
    Set(Budget),
    /// What every environment has on a day, in tokens, where the operator has not set another budget for that.
    Usual {
        /// The environment.
        env: EnvId,
        /// The most that may be spent.
        most: u64,
    },
}

impl Limit {
    /// Whether it bounds one environment alone.
    #[must_use]
    pub const fn env(&self) -> Option<EnvId> {
        match self {
            Limit::Set(budget) => budget.env,
            Limit::Usual { env, .. } => Some(*env),
        }
    }

    /// What it counts.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        match self {
            Limit::Set(budget) => budget.unit,
            Limit::Usual { .. } => Unit::Tokens,
        }
    }

    /// How long it lasts.
    #[must_use]
    pub const fn period(&self) -> Period {
        match self {
            Limit::Set(budget) => budget.period,
            Limit::Usual { .. } => Period::Day,
        }
    }

    /// The most that may be spent.
    #[must_use]
    pub const fn most(&self) -> u64 {
        match self {
            Limit::Set(budget) => budget.most,
            Limit::Usual { most, .. } => *most,
        }
    }

    /// What it is called; that of every environment's usual one is its environment's.
    pub(crate) fn key(&self) -> String {
        match self {
            Limit::Set(budget) => budget.id.to_string(),
            Limit::Usual { env, .. } => env.to_string(),
        }
    }

    pub(crate) fn owner(&self) -> String {
        match self {
            Limit::Set(budget) => budget.owner(),
            Limit::Usual { env, .. } => env.to_string(),
        }
    }
}

/// What has been spent in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spending {
    /// Calls, those under way too.
    pub calls: u64,
    /// Tokens of those that are over.
    pub tokens: u64,
    /// Tokens that are set aside for those under way.
    pub tokens_aside: u64,
    /// Money for those that are over, in millionths.
    pub micro: u64,
    /// Money that is set aside for those under way.
    pub micro_aside: u64,
}

impl Spending {
    /// What is spent of a unit, and what is set aside.
    #[must_use]
    pub const fn of(&self, unit: Unit) -> (u64, u64) {
        match unit {
            Unit::Tokens => (self.tokens, self.tokens_aside),
            Unit::Micro => (self.micro, self.micro_aside),
        }
    }
}

/// How much of a limit is spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The limit.
    pub limit: Limit,
    /// What is spent.
    pub spent: u64,
    /// What is set aside for calls under way.
    pub aside: u64,
}

impl Standing {
    /// What is left.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.limit.most().saturating_sub(self.spent).saturating_sub(self.aside)
    }

    pub(crate) async fn of(connection: &mut AnyConnection, limit: Limit, at: Timestamp) -> Result<Self> {
        let found = spending(connection, &limit.owner(), limit.period(), at).await?;
        let (spent, aside) = found.of(limit.unit());
        Ok(Self { limit, spent, aside })
    }
}

/// How much may be spent on models.
pub struct Budgets<'a>(pub(crate) &'a Store);

impl Budgets<'_> {
    /// Sets a budget, in the place of one of the same owner, unit, period and setter, whose id stays; gives it as it is then.
    /// `None` where the environment is not the tenant's.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set(&self, budget: &Budget) -> Result<Option<Budget>> {
        let mut write = self.0.begin_write().await?;
        let row = sqlx::query(
            "INSERT INTO budgets (id, tenant, env, owner, unit, period, setter, most, updated) \
             SELECT $1, $2, e.id, $4, $5, $6, $7, $8, $9 FROM tenants t LEFT JOIN environments e \
             ON e.id = $3 AND e.tenant = t.id WHERE t.id = $2 AND ($3 = '' OR e.id IS NOT NULL) \
             ON CONFLICT (owner, unit, period, setter) DO UPDATE SET most = excluded.most, \
             updated = excluded.updated RETURNING *",
        )
        .bind(budget.id.to_string())
        .bind(budget.tenant.to_string())
        .bind(budget.env.map(|env| env.to_string()).unwrap_or_default())
        .bind(budget.owner())
        .bind(budget.unit.as_str())
        .bind(budget.period.as_str())
        .bind(budget.setter.as_str())
        .bind(whole(budget.most))
        .bind(budget.updated.as_micros())
        .fetch_optional(write.connection())
        .await?;
        let Some(set) = row.as_ref().map(read).transpose()? else { return Ok(None) };
        // Whoever sets something aside has done so before this is said, or is bounded by it.
        sqlx::query(
            "UPDATE model_spending SET calls = calls WHERE owner = $1 AND period = $2 AND begins = $3",
        )
        .bind(budget.owner())
        .bind(budget.period.as_str())
        .bind(budget.period.begins(budget.updated).as_micros())
        .execute(write.connection())
        .await?;
        // Of another amount another part is most.
        sqlx::query("DELETE FROM budget_warnings WHERE budget = $1")
            .bind(set.id.to_string())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(Some(set))
    }

    /// One budget of a tenant.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, tenant: TenantId, id: BudgetId) -> Result<Option<Budget>> {
        let found = sqlx::query("SELECT * FROM budgets WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .fetch_optional(self.0.reader())
            .await?;
        found.as_ref().map(read).transpose()
    }

    /// The budgets of a tenant and of its environments, those after `after`; at most so many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, tenant: TenantId, after: Option<BudgetId>, most: u32) -> Result<Vec<Budget>> {
        let rows = sqlx::query("SELECT * FROM budgets WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(tenant.to_string())
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(i64::from(most))
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(read).collect()
    }

    /// The budgets of a tenant with all its environments together.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_tenant(&self, tenant: TenantId) -> Result<Vec<Budget>> {
        let rows = sqlx::query("SELECT * FROM budgets WHERE owner = $1")
            .bind(tenant.to_string())
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Removes a budget of a tenant; tells whether there was one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, tenant: TenantId, id: BudgetId) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query("DELETE FROM budgets WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// How much of a budget is spent at a time.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn standing(&self, limit: Limit, at: Timestamp) -> Result<Standing> {
        let mut connection = self.0.reader().acquire().await?;
        Standing::of(&mut connection, limit, at).await
    }

    /// All that bounds what an environment spends, with how much of it is spent at a time. `usual` is what every environment
    /// has on a day, in tokens.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn bounding(
        &self,
        tenant: TenantId,
        env: EnvId,
        usual: u64,
        at: Timestamp,
    ) -> Result<Vec<Standing>> {
        let mut connection = self.0.reader().acquire().await?;
        let mut standings = Vec::new();
        for limit in limits(&mut connection, tenant, env, usual).await? {
            standings.push(Standing::of(&mut connection, limit, at).await?);
        }
        Ok(standings)
    }

    /// What an environment has spent in the period that `at` is in.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn spending(&self, env: EnvId, period: Period, at: Timestamp) -> Result<Spending> {
        let mut connection = self.0.reader().acquire().await?;
        spending(&mut connection, &env.to_string(), period, at).await
    }
}

/// All that bounds what an environment spends.
pub(crate) async fn limits(
    connection: &mut AnyConnection,
    tenant: TenantId,
    env: EnvId,
    usual: u64,
) -> Result<Vec<Limit>> {
    let rows = sqlx::query("SELECT * FROM budgets WHERE owner IN ($1, $2) ORDER BY id")
        .bind(env.to_string())
        .bind(tenant.to_string())
        .fetch_all(connection)
        .await?;
    let budgets = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
    let instead = |it: &Budget| {
        it.env.is_some() && (it.setter, it.unit, it.period) == (Setter::Operator, Unit::Tokens, Period::Day)
    };
    let usual = (!budgets.iter().any(instead)).then_some(Limit::Usual { env, most: usual });
    Ok(budgets.into_iter().map(Limit::Set).chain(usual).collect())
}

pub(crate) async fn spending(
    connection: &mut AnyConnection,
    owner: &str,
    period: Period,
    at: Timestamp,
) -> Result<Spending> {
    let found = sqlx::query(
        "SELECT calls, tokens, tokens_aside, micro, micro_aside FROM model_spending \
         WHERE owner = $1 AND period = $2 AND begins = $3",
    )
    .bind(owner)
    .bind(period.as_str())
    .bind(period.begins(at).as_micros())
    .fetch_optional(connection)
    .await?;
    let Some(row) = found else { return Ok(Spending::default()) };
    Ok(Spending {
        calls: count(&row, "calls")?,
        tokens: count(&row, "tokens")?,
        tokens_aside: count(&row, "tokens_aside")?,
        micro: count(&row, "micro")?,
        micro_aside: count(&row, "micro_aside")?,
    })
}

fn read(row: &AnyRow) -> Result<Budget> {
    Ok(Budget {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        env: parsed_or_null(row, "env")?,
        unit: parsed(row, "unit")?,
        period: parsed(row, "period")?,
        setter: parsed(row, "setter")?,
        most: count(row, "most")?,
        updated: time(row, "updated")?,
    })
}

pub(crate) fn count(row: &AnyRow, column: &'static str) -> Result<u64> {
    Ok(u64::try_from(number(row, column)?).unwrap_or(0))
}

pub(crate) fn count_or_null(row: &AnyRow, column: &'static str) -> Result<Option<u64>> {
    let found: Option<i64> = row.try_get(column)?;
    Ok(found.map(|found| u64::try_from(found).unwrap_or(0)))
}

pub(crate) fn whole(count: u64) -> i64 {
    i64::try_from(count).map_or(MOST, |count| count.min(MOST))
}
