//! Requests to models that are over: what they have used, what of it is charged, and what is nearly spent by it.

use kernel::{EnvId, ModelCallId, TenantId, Timestamp};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use crate::budgets::{count, count_or_null, whole};
use crate::model_calls::counters;
use crate::rows::{parsed, text, time};
use crate::{Aside, ModelCalls, Period, Reservation, Result, Standing};

/// No request uses more, in tokens or in millionths, whatever a provider says: sums stay countable.
const CALL: u64 = 1 << 40;

/// What a request has used, as the provider says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Tokens that were sent.
    pub prompt: u64,
    /// Those of them that the provider had seen before.
    pub cached: u64,
    /// Tokens that came back.
    pub completion: u64,
    /// What that costs; none where the model has no price.
    pub micro: Option<u64>,
}

impl Used {
    fn bounded(self) -> Self {
        let [prompt, cached, completion] = [self.prompt, self.cached, self.completion].map(|it| it.min(CALL));
        Self { prompt, cached, completion, micro: self.micro.map(|micro| micro.min(CALL)) }
    }
}

/// What a request that is over is charged with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Tokens.
    pub tokens: u64,
    /// Money; none where the model has no price.
    pub micro: Option<u64>,
    /// Tokens above what was set aside, with which nobody is charged.
    pub unattributed: u64,
}

/// What of a request is charged, and what is nobody's.
struct Charge {
    tokens: u64,
    unattributed_tokens: u64,
    micro: Option<u64>,
    unattributed_micro: u64,
}

impl Charge {
    /// Never more than was set aside.
    fn of(aside: &Aside, used: &Used) -> Self {
        let real = used.prompt.saturating_add(used.completion);
        let tokens = real.min(aside.tokens());
        let (micro, unattributed_micro) = match (aside.micro, used.micro) {
            (Some(most), Some(cost)) => (Some(cost.min(most)), cost.saturating_sub(most)),
            _ => (None, 0),
        };
        Self { tokens, unattributed_tokens: real - tokens, micro, unattributed_micro }
    }

    const fn settled(&self) -> Settled {
        Settled { tokens: self.tokens, micro: self.micro, unattributed: self.unattributed_tokens }
    }
}

impl ModelCalls<'_> {
    /// Ends a request: it has used that, or all that was set aside where nobody knows. Gives what it is charged with, which is
    /// never more than was set aside; `None` where another has ended it. Where that was because its process was taken to be dead,
    /// what it has used stands in the place of the estimate from now on.
    ///
    /// # Errors
    /// Where the database fails; it is as if it were still under way then, until its time is over.
    pub async fn settle(&self, id: ModelCallId, used: Option<Used>) -> Result<Option<Settled>> {
        let mut write = self.0.begin_write().await?;
        let connection = write.connection();
        let Some(ended) = take(connection, id).await? else {
            let Some(used) = used else { return Ok(None) };
            let settled = correct(connection, id, used.bounded()).await?;
            write.commit().await?;
            return Ok(settled);
        };
        let said = used.is_some();
        let used = used.map_or(ended.aside.all(), Used::bounded);
        let charge = Charge::of(&ended.aside, &used);
        for (owner, period) in counters(ended.tenant, ended.env) {
            let more = [0, whole(charge.tokens), whole(charge.micro.unwrap_or_default())];
            end(connection, &ended, &owner, period, more).await?;
        }
        sqlx::query(
            "INSERT INTO model_calls (id, tenant, env, model, at, prompt, cached, completion, tokens, \
             unattributed_tokens, micro, unattributed_micro, estimated) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(id.to_string())
        .bind(ended.tenant.to_string())
        .bind(ended.env.to_string())
        .bind(ended.model.as_str())
        .bind(ended.at.as_micros())
        .bind(whole(used.prompt))
        .bind(whole(used.cached))
        .bind(whole(used.completion))
        .bind(whole(charge.tokens))
        .bind(whole(charge.unattributed_tokens))
        .bind(charge.micro.map(whole))
        .bind(whole(charge.unattributed_micro))
        .bind(i64::from(!said))
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(Some(charge.settled()))
    }

    /// Of what bounds an environment, what is spent to four fifths and has not been said of the period that `at` is in.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn warnings(
        &self,
        tenant: TenantId,
        env: EnvId,
        usual: u64,
        at: Timestamp,
    ) -> Result<Vec<Standing>> {
        let mut warnings = Vec::new();
        for standing in self.0.budgets().bounding(tenant, env, usual, at).await? {
            let most = u128::from(standing.limit.most());
            if most == 0 || u128::from(standing.spent) * 5 < most * 4 {
                continue;
            }
            let (budget, begins) = (standing.limit.key(), standing.limit.period().begins(at).as_micros());
            let said = sqlx::query("SELECT budget FROM budget_warnings WHERE budget = $1 AND begins = $2")
                .bind(budget.clone())
                .bind(begins)
                .fetch_optional(self.0.reader())
                .await?;
            if said.is_none() && self.warn(budget, begins).await? {
                warnings.push(standing);
            }
        }
        Ok(warnings)
    }

    /// Notes that it is said; of many at once one is told that it is the first.
    async fn warn(&self, budget: String, begins: i64) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "INSERT INTO budget_warnings (budget, begins) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(budget)
        .bind(begins)
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a request that was not made, as if it had never been wanted.
    ///
    /// # Errors
    /// As for [`ModelCalls::settle`].
    pub async fn release(&self, id: ModelCallId) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        let connection = write.connection();
        let Some(ended) = take(connection, id).await? else {
            let nothing = Used { prompt: 0, cached: 0, completion: 0, micro: Some(0) };
            correct(connection, id, nothing).await?;
            return write.commit().await;
        };
        for (owner, period) in counters(ended.tenant, ended.env) {
            end(connection, &ended, &owner, period, [-1, 0, 0]).await?;
        }
        write.commit().await
    }
}

/// Removes the row of a request that is under way; of many at once one has it.
async fn take(connection: &mut AnyConnection, id: ModelCallId) -> Result<Option<Reservation>> {
    let row = sqlx::query("DELETE FROM reservations WHERE id = $1 RETURNING *")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

/// What a request has used that another has ended meanwhile with an estimate, in the place of that; what it was charged with
/// too much goes back.
async fn correct(connection: &mut AnyConnection, id: ModelCallId, used: Used) -> Result<Option<Settled>> {
    let row = sqlx::query(
        "SELECT tenant, env, at, prompt, completion, micro FROM model_calls WHERE id = $1 AND estimated = 1",
    )
    .bind(id.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (tenant, env, at) = (parsed(&row, "tenant")?, parsed(&row, "env")?, time(&row, "at")?);
    let aside = read_aside(&row)?;
    let charge = Charge::of(&aside, &used);
    let done = sqlx::query(
        "UPDATE model_calls SET prompt = $2, cached = $3, completion = $4, tokens = $5, \
         unattributed_tokens = $6, micro = $7, unattributed_micro = $8, estimated = 0 \
         WHERE id = $1 AND estimated = 1",
    )
    .bind(id.to_string())
    .bind(whole(used.prompt))
    .bind(whole(used.cached))
    .bind(whole(used.completion))
    .bind(whole(charge.tokens))
    .bind(whole(charge.unattributed_tokens))
    .bind(charge.micro.map(whole))
    .bind(whole(charge.unattributed_micro))
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(None);
    }
    let micro = charge.micro.unwrap_or_default();
    for (owner, period) in counters(tenant, env) {
        sqlx::query(
            "UPDATE model_spending SET tokens = tokens - $4, micro = micro - $5 \
             WHERE owner = $1 AND period = $2 AND begins = $3",
        )
        .bind(owner)
        .bind(period.as_str())
        .bind(period.begins(at).as_micros())
        .bind(whole(aside.tokens() - charge.tokens))
        .bind(whole(aside.micro.unwrap_or_default() - micro))
        .execute(&mut *connection)
        .await?;
    }
    Ok(Some(charge.settled()))
}

/// Frees what was set aside, and counts `[calls, tokens, micro]` more.
async fn end(
    connection: &mut AnyConnection,
    ended: &Reservation,
    owner: &str,
    period: Period,
    [calls, tokens, micro]: [i64; 3],
) -> Result<()> {
    sqlx::query(
        "UPDATE model_spending SET calls = calls + $4, tokens_aside = tokens_aside - $5, \
         tokens = tokens + $6, micro_aside = micro_aside - $7, micro = micro + $8 \
         WHERE owner = $1 AND period = $2 AND begins = $3",
    )
    .bind(owner)
    .bind(period.as_str())
    .bind(period.begins(ended.at).as_micros())
    .bind(calls)
    .bind(whole(ended.aside.tokens()))
    .bind(tokens)
    .bind(whole(ended.aside.micro.unwrap_or_default()))
    .bind(micro)
    .execute(connection)
    .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Reservation> {
    Ok(Reservation {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        env: parsed(row, "env")?,
        model: text(row, "model")?,
        node: parsed(row, "node")?,
        at: time(row, "at")?,
        ends: time(row, "ends")?,
        aside: read_aside(row)?,
    })
}

fn read_aside(row: &AnyRow) -> Result<Aside> {
    Ok(Aside {
        prompt: count(row, "prompt")?,
        completion: count(row, "completion")?,
        micro: count_or_null(row, "micro")?,
    })
}
