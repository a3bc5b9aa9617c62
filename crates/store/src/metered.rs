//! What environments have used by the hour, and what that costs.

use kernel::{EnvId, Meter, TenantId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::budgets::{count, whole};
use crate::rows::{parsed, text, time};
use crate::{Error, Result, Store};

const HOUR_US: i64 = 3_600_000_000;

/// What was used of one meter in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metered {
    /// Whose environment it was.
    pub tenant: TenantId,
    /// The environment; none where a call was of none.
    pub env: Option<EnvId>,
    /// When the hour begins.
    pub hour: Timestamp,
    /// What was counted.
    pub meter: Meter,
    /// How much of it.
    pub amount: u64,
}

/// What was used of one meter in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// The environment; none where a call was of none.
    pub env: Option<EnvId>,
    /// What was counted.
    pub meter: Meter,
    /// How much of it.
    pub amount: u64,
}

/// What was used of one model in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSum {
    /// The environment.
    pub env: EnvId,
    /// The model, as its provider calls it.
    pub model: String,
    /// Requests.
    pub calls: u64,
    /// Tokens that are charged.
    pub tokens: u64,
    /// What is charged for them, in millionths of the operator's currency.
    pub micro: u64,
    /// Requests of models that had no price then.
    pub unpriced: u64,
}

/// What a meter costs from an hour on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterPrice {
    /// The meter.
    pub meter: Meter,
    /// From when on: the beginning of an hour.
    pub since: Timestamp,
    /// Millionths of the operator's currency, for what [`Meter::priced_by`] says.
    pub micro: u64,
}

/// When the hour begins that `at` is in.
#[must_use]
pub fn hour_of(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.as_micros().div_euclid(HOUR_US) * HOUR_US)
}

/// Calls and what else is metered, as one table.
const ALL: &str = "(SELECT tenant, env, hour, meter, amount FROM metered UNION ALL \
     SELECT tenant, env, hour, 'calls' AS meter, CAST(SUM(calls) AS BIGINT) AS amount FROM usage \
     WHERE tenant = $1 AND hour >= $2 AND hour < $3 GROUP BY tenant, env, hour) AS used";

/// What environments have used.
pub struct Meters<'a>(pub(crate) &'a Store);

impl Meters<'_> {
    /// Adds what was counted together under the name `batch`; `false` where that was added before.
    ///
    /// # Errors
    /// Where the database fails; it may have been added then, and the same batch is to be tried again.
    pub async fn add(&self, batch: &str, amounts: &[Metered], at: Timestamp) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let is_new =
            sqlx::query("INSERT INTO metered_batches (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
                .bind(batch)
                .bind(at.as_micros())
                .execute(write.connection())
                .await?;
        if is_new.rows_affected() == 0 {
            return Ok(false);
        }
        for it in amounts {
            sqlx::query(
                "INSERT INTO metered (tenant, env, hour, meter, amount) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (tenant, env, hour, meter) DO UPDATE SET amount = metered.amount + excluded.amount",
            )
            .bind(it.tenant.to_string())
            .bind(it.env.map(|env| env.to_string()).unwrap_or_default())
            .bind(hour_of(it.hour).as_micros())
            .bind(it.meter.as_str())
            .bind(whole(it.amount))
            .execute(write.connection())
            .await?;
        }
        write.commit().await?;
        Ok(true)
    }

    /// Forgets which batches were added before then: nobody tries them again.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, before: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM metered_batches WHERE at < $1")
            .bind(before.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// What a tenant, or one of its environments, has used in the hours from `from` until before `to`, calls too.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn sums(
        &self,
        tenant: TenantId,
        env: Option<EnvId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Sum>> {
        let sql = format!(
            "SELECT env, meter, CAST(SUM(amount) AS BIGINT) AS amount FROM {ALL} \
             WHERE tenant = $1 AND hour >= $2 AND hour < $3 AND ($4 IS NULL OR env = $4) \
             GROUP BY env, meter ORDER BY env, meter"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(tenant.to_string())
            .bind(from.as_micros())
            .bind(to.as_micros())
            .bind(env.map(|env| env.to_string()))
            .fetch_all(self.0.reader())
            .await?;
        rows.iter()
            .map(|row| Ok(Sum { env: env_of(row)?, meter: meter_of(row)?, amount: count(row, "amount")? }))
            .collect()
    }

    /// The same hour by hour, those that follow `after`, at most so many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn hours(
        &self,
        tenant: TenantId,
        span: (Timestamp, Timestamp),
        after: Option<(Timestamp, &str, &str)>,
        most: u32,
    ) -> Result<Vec<Metered>> {
        let sql = format!(
            "SELECT tenant, env, hour, meter, amount FROM {ALL} \
             WHERE tenant = $1 AND hour >= $2 AND hour < $3 AND \
             (hour > $4 OR (hour = $4 AND (env > $5 OR (env = $5 AND meter > $6)))) \
             ORDER BY hour, env, meter LIMIT $7"
        );
        let (hour, env, meter) = after.unwrap_or((Timestamp::from_micros(i64::MIN), "", ""));
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(tenant.to_string())
            .bind(span.0.as_micros())
            .bind(span.1.as_micros())
            .bind(hour.as_micros())
            .bind(env)
            .bind(meter)
            .bind(i64::from(most))
            .fetch_all(self.0.reader())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Metered {
                    tenant,
                    env: env_of(row)?,
                    hour: time(row, "hour")?,
                    meter: meter_of(row)?,
                    amount: count(row, "amount")?,
                })
            })
            .collect()
    }

    /// What a tenant, or one of its environments, has used of models from `from` until before `to`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn models(
        &self,
        tenant: TenantId,
        env: Option<EnvId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<ModelSum>> {
        let rows = sqlx::query(
            "SELECT env, model, COUNT(*) AS calls, CAST(SUM(tokens) AS BIGINT) AS tokens, \
             CAST(COALESCE(SUM(micro), 0) AS BIGINT) AS micro, COUNT(*) - COUNT(micro) AS unpriced \
             FROM model_calls WHERE tenant = $1 AND at >= $2 AND at < $3 AND ($4 IS NULL OR env = $4) \
             GROUP BY env, model ORDER BY env, model",
        )
        .bind(tenant.to_string())
        .bind(from.as_micros())
        .bind(to.as_micros())
        .bind(env.map(|env| env.to_string()))
        .fetch_all(self.0.reader())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ModelSum {
                    env: parsed(row, "env")?,
                    model: text(row, "model")?,
                    calls: count(row, "calls")?,
                    tokens: count(row, "tokens")?,
                    micro: count(row, "micro")?,
                    unpriced: count(row, "unpriced")?,
                })
            })
            .collect()
    }

    /// Sets a price, in the place of one from the same hour on.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set_price(&self, price: MeterPrice) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "INSERT INTO meter_prices (meter, since, micro) VALUES ($1, $2, $3) \
             ON CONFLICT (meter, since) DO UPDATE SET micro = excluded.micro",
        )
        .bind(price.meter.as_str())
        .bind(hour_of(price.since).as_micros())
        .bind(whole(price.micro))
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// All prices, by meter and time.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn prices(&self) -> Result<Vec<MeterPrice>> {
        let rows = sqlx::query("SELECT meter, since, micro FROM meter_prices ORDER BY meter, since")
            .fetch_all(self.0.reader())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(MeterPrice {
                    meter: meter_of(row)?,
                    since: time(row, "since")?,
                    micro: count(row, "micro")?,
                })
            })
            .collect()
    }
}

fn meter_of(row: &AnyRow) -> Result<Meter> {
    let name: String = row.try_get("meter")?;
    name.parse().map_err(|why: String| Error::Unreadable { what: "meter", source: why.into() })
}

fn env_of(row: &AnyRow) -> Result<Option<EnvId>> {
    let name = text(row, "env")?;
    if name.is_empty() { Ok(None) } else { parsed(row, "env").map(Some) }
}
