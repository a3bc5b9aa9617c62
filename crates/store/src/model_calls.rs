//! Requests to models: what each may use is set aside before it is made, and what it has used is written once when it is over.
//!
//! Setting aside is one statement for each counter, which sees whether there is room and takes it. Each request has a row while
//! it is under way; whoever removes that row, in the same transaction, writes what was used. So it is written once, by whoever
//! makes the request or, where that process has died, by the first that sees that the row's time is over.

use kernel::{EnvId, ModelCallId, NodeId, TenantId, Timestamp};
use sqlx::AnyConnection;

use crate::budgets::{MOST, count, limits, whole};
use crate::rows::parsed;
use crate::{Limit, Period, Result, Standing, Store, Unit, Used};

/// For how long it is known what was spent on a day, which no budget looks back to.
const DAYS_KEPT_US: i64 = 92 * 24 * 60 * 60 * 1_000_000;

/// How often it is tried to set something aside where what bounds it changes in the middle.
const TRIES: u32 = 4;

/// How many requests are said to be under way at once.
const RENEWED: usize = 64;

/// What a request may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// Tokens that are sent.
    pub prompt: u64,
    /// Tokens that come back.
    pub completion: u64,
    /// What that costs, in millionths; none where the model has no price.
    pub micro: Option<u64>,
}

impl Aside {
    /// Tokens, sent and received together.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    /// All of it, used.
    pub(crate) const fn all(&self) -> Used {
        Used { prompt: self.prompt, cached: 0, completion: self.completion, micro: self.micro }
    }
}

/// A request that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// It.
    pub id: ModelCallId,
    /// Who pays.
    pub tenant: TenantId,
    /// For what.
    pub env: EnvId,
    /// Which model.
    pub model: String,
    /// Which process makes it.
    pub node: NodeId,
    /// When: it counts in the periods that this is in.
    pub at: Timestamp,
    /// Until when that process is taken to be alive, unless it says so again.
    pub ends: Timestamp,
    /// What it may use.
    pub aside: Aside,
}

/// What became of what was wanted for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// It is set aside.
    Made,
    /// There is no room for it in these; nothing has changed.
    Refused(Vec<Standing>),
    /// This bounds money, and nobody knows what the model costs.
    Unpriced(Limit),
}

/// What requests have used together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statement {
    /// How many.
    pub calls: u64,
    /// How many of them are charged with all that was set aside, for the provider has not said.
    pub estimated: u64,
    /// Tokens that were sent.
    pub prompt: u64,
    /// Tokens that came back.
    pub completion: u64,
    /// Tokens that are charged.
    pub tokens: u64,
    /// Tokens above what was set aside, which are the platform's own.
    pub unattributed_tokens: u64,
    /// Money that is charged.
    pub micro: u64,
    /// Money above what was set aside.
    pub unattributed_micro: u64,
}

/// Requests to models.
pub struct ModelCalls<'a>(pub(crate) &'a Store);

impl ModelCalls<'_> {
    /// Sets aside what a request may use, where all that bounds it has room. Of many at once no more are told that they may
    /// than there is room for. `usual` is what every environment has on a day, in tokens.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn reserve(&self, wanted: &Reservation, usual: u64) -> Result<Reserved> {
        for _ in 0..TRIES {
            if let Some(reserved) = self.try_to_reserve(wanted, usual).await? {
                return Ok(reserved);
            }
        }
        let bounds = self.0.budgets().bounding(wanted.tenant, wanted.env, usual, wanted.at).await?;
        Ok(Reserved::Refused(bounds))
    }

    /// The same; `None` where what bounds it has changed meanwhile.
    async fn try_to_reserve(&self, wanted: &Reservation, usual: u64) -> Result<Option<Reserved>> {
        let mut write = self.0.begin_write().await?;
        let connection = write.connection();
        let bounds = limits(connection, wanted.tenant, wanted.env, usual).await?;
        if wanted.aside.micro.is_none()
            && let Some(limit) = bounds.iter().find(|limit| limit.unit() == Unit::Micro)
        {
            return Ok(Some(Reserved::Unpriced(limit.clone())));
        }
        for (owner, period) in counters(wanted.tenant, wanted.env) {
            if !set_aside(connection, wanted, &owner, period, &bounds).await? {
                // What the counters before this one have set aside is undone with all the rest.
                drop(write);
                return self.refused(bounds, wanted).await;
            }
        }
        // Whoever sets a budget locks these counters, too: what was set before they were had is seen here.
        if limits(connection, wanted.tenant, wanted.env, usual).await? != bounds {
            return Ok(None);
        }
        sqlx::query(
            "INSERT INTO reservations (id, tenant, env, model, node, at, ends, prompt, completion, micro) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(wanted.id.to_string())
        .bind(wanted.tenant.to_string())
        .bind(wanted.env.to_string())
        .bind(wanted.model.as_str())
        .bind(wanted.node.to_string())
        .bind(wanted.at.as_micros())
        .bind(wanted.ends.as_micros())
        .bind(whole(wanted.aside.prompt))
        .bind(whole(wanted.aside.completion))
        .bind(wanted.aside.micro.map(whole))
        .execute(connection)
        .await?;
        write.commit().await?;
        Ok(Some(Reserved::Made))
    }

    /// The process `node` is alive, and makes these requests, until `ends`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn renew(&self, node: NodeId, calls: &[ModelCallId], ends: Timestamp) -> Result<()> {
        for calls in calls.chunks(RENEWED) {
            let mut write = self.0.begin_write().await?;
            for call in calls {
                sqlx::query("UPDATE reservations SET ends = $3 WHERE id = $1 AND node = $2")
                    .bind(call.to_string())
                    .bind(node.to_string())
                    .bind(ends.as_micros())
                    .execute(write.connection())
                    .await?;
            }
            write.commit().await?;
        }
        Ok(())
    }

    /// Requests that are taken to be over at `now`, since nobody has said that they are not; at most so many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn overdue(&self, now: Timestamp, most: u32) -> Result<Vec<ModelCallId>> {
        let rows = sqlx::query("SELECT id FROM reservations WHERE ends <= $1 ORDER BY ends LIMIT $2")
            .bind(now.as_micros())
            .bind(i64::from(most))
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(|row| parsed(row, "id")).collect()
    }

    /// What the requests of a tenant have used together that were made from `since` until before `until`, or those of one of
    /// its environments, whether that is still there or not.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn statement(
        &self,
        tenant: TenantId,
        env: Option<EnvId>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Statement> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS calls, CAST(COALESCE(SUM(estimated), 0) AS BIGINT) AS estimated, \
             CAST(COALESCE(SUM(prompt), 0) AS BIGINT) AS prompt, \
             CAST(COALESCE(SUM(completion), 0) AS BIGINT) AS completion, \
             CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS tokens, \
             CAST(COALESCE(SUM(unattributed_tokens), 0) AS BIGINT) AS unattributed_tokens, \
             CAST(COALESCE(SUM(micro), 0) AS BIGINT) AS micro, \
             CAST(COALESCE(SUM(unattributed_micro), 0) AS BIGINT) AS unattributed_micro \
             FROM model_calls WHERE tenant = $1 AND ($2 = '' OR env = $2) AND at >= $3 AND at < $4",
        )
        .bind(tenant.to_string())
        .bind(env.map(|env| env.to_string()).unwrap_or_default())
        .bind(since.as_micros())
        .bind(until.as_micros())
        .fetch_one(self.0.reader())
        .await?;
        Ok(Statement {
            calls: count(&row, "calls")?,
            estimated: count(&row, "estimated")?,
            prompt: count(&row, "prompt")?,
            completion: count(&row, "completion")?,
            tokens: count(&row, "tokens")?,
            unattributed_tokens: count(&row, "unattributed_tokens")?,
            micro: count(&row, "micro")?,
            unattributed_micro: count(&row, "unattributed_micro")?,
        })
    }

    /// Forgets what was spent on single days that are long over. What each request has used stays.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, now: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        let before = now.as_micros() - DAYS_KEPT_US;
        for statement in [
            "DELETE FROM model_spending WHERE period = 'day' AND begins < $1",
            "DELETE FROM budget_warnings WHERE begins < $1",
        ] {
            sqlx::query(statement).bind(before).execute(write.connection()).await?;
        }
        write.commit().await
    }

    /// What there was no room in; `None` where others have made room meanwhile.
    async fn refused(&self, bounds: Vec<Limit>, wanted: &Reservation) -> Result<Option<Reserved>> {
        let mut found = Vec::new();
        for limit in bounds {
            found.push(self.0.budgets().standing(limit, wanted.at).await?);
        }
        let lacks = |it: &Standing| it.left() < wanted_of(wanted, it.limit.unit());
        found.retain(lacks);
        Ok((!found.is_empty()).then_some(Reserved::Refused(found)))
    }
}

fn wanted_of(wanted: &Reservation, unit: Unit) -> u64 {
    match unit {
        Unit::Tokens => wanted.aside.tokens(),
        Unit::Micro => wanted.aside.micro.unwrap_or_default(),
    }
}

/// What is counted for a request, in the order in which everybody locks it.
pub(crate) fn counters(tenant: TenantId, env: EnvId) -> impl Iterator<Item = (String, Period)> {
    [env.to_string(), tenant.to_string()]
        .into_iter()
        .flat_map(|owner| Period::ALL.map(|period| (owner.clone(), period)))
}

/// Whether a counter has room within `bounds`, which is taken then.
async fn set_aside(
    connection: &mut AnyConnection,
    wanted: &Reservation,
    owner: &str,
    period: Period,
    bounds: &[Limit],
) -> Result<bool> {
    let begins = period.begins(wanted.at).as_micros();
    let most = |unit| {
        let here = |it: &&Limit| it.unit() == unit && it.period() == period && it.owner() == owner;
        bounds.iter().filter(here).map(|it| whole(it.most())).min().unwrap_or(MOST)
    };
    let (tokens, micro) = (whole(wanted.aside.tokens()), whole(wanted.aside.micro.unwrap_or_default()));
    if tokens > most(Unit::Tokens) || micro > most(Unit::Micro) {
        return Ok(false);
    }
    let done = sqlx::query(
        "INSERT INTO model_spending (owner, period, begins, calls, tokens, tokens_aside, micro, micro_aside) \
         VALUES ($1, $2, $3, 1, 0, $4, 0, $5) ON CONFLICT (owner, period, begins) DO UPDATE SET \
         calls = model_spending.calls + 1, tokens_aside = model_spending.tokens_aside + $4, \
         micro_aside = model_spending.micro_aside + $5 \
         WHERE model_spending.tokens + model_spending.tokens_aside + $4 <= $6 \
         AND model_spending.micro + model_spending.micro_aside + $5 <= $7",
    )
    .bind(owner)
    .bind(period.as_str())
    .bind(begins)
    .bind(tokens)
    .bind(micro)
    .bind(most(Unit::Tokens))
    .bind(most(Unit::Micro))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
