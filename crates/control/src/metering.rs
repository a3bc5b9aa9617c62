//! What environments use: counted in memory, written every few seconds, priced by date.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kernel::{Caller, EnvId, Error, Meter, Result, RunId, TenantId, Timestamp};
use store::{MeterPrice, Metered, ModelSum, Store, hour_of};
use tokio::task::JoinHandle;

use crate::control::operator;

/// How often what was counted is written.
const EVERY: Duration = Duration::from_secs(10);
/// For how long it is remembered what was written: nobody tries longer.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Environments and meters that are counted in memory while the database fails; more are lost.
const MOST: usize = 200_000;

type Counts = HashMap<(TenantId, EnvId, Timestamp, Meter), u64>;

/// The meters. Clones share everything.
#[derive(Clone)]
pub struct Metering(Arc<Inner>);

struct Inner {
    store: Store,
    counts: Mutex<Counts>,
    /// What is being written, and under which name: it is tried again under the same one.
    writing: tokio::sync::Mutex<Option<(String, Vec<Metered>)>>,
}

/// What was used of one meter or model in a time, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The environment; none where a call was of none.
    pub env: Option<EnvId>,
    /// What was used.
    pub of: Used,
    /// How much of it: of a model, tokens.
    pub amount: u64,
    /// What it costs, in millionths of the operator's currency; none where nothing is asked for it.
    pub micro: Option<u64>,
}

/// What was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Used {
    /// What a meter counts.
    Meter(Meter),
    /// A model, in so many requests.
    Model(String, u64),
}

impl kernel::Metering for Metering {
    fn count(&self, tenant: TenantId, env: EnvId, meter: Meter, amount: u64) {
        if amount == 0 {
            return;
        }
        let key = (tenant, env, hour_of(Timestamp::now()), meter);
        let mut counts = self.counts();
        if counts.len() >= MOST && !counts.contains_key(&key) {
            return;
        }
        let counted = counts.entry(key).or_default();
        *counted = counted.saturating_add(amount);
    }
}

impl Metering {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(Inner { store, counts: Mutex::default(), writing: tokio::sync::Mutex::default() }))
    }

    /// Writes what is counted every few seconds, until the task is ended.
    pub(crate) fn start(&self) -> JoinHandle<()> {
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                if let Err(error) = this.flush().await {
                    tracing::warn!(error = error.chain(), "what was used could not be written, and is kept");
                }
            }
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was counted up to now.
    ///
    /// # Errors
    /// Where the database fails; it is written the next time then, once.
    pub async fn flush(&self) -> Result<()> {
        let mut writing = self.0.writing.lock().await;
        loop {
            if writing.is_none() {
                let counts = std::mem::take(&mut *self.counts());
                if counts.is_empty() {
                    return Ok(());
                }
                let mut amounts: Vec<_> = counts
                    .into_iter()
                    .map(|((tenant, env, hour, meter), amount)| Metered {
                        tenant,
                        env: Some(env),
                        hour,
                        meter,
                        amount,
                    })
                    .collect();
                // Two gateways that write the same rows do so in the same order.
                amounts.sort_unstable_by_key(|it| (it.tenant, it.env, it.hour, it.meter));
                *writing = Some((RunId::new().to_string(), amounts));
            }
            if let Some((batch, amounts)) = &*writing {
                self.0.store.meters().add(batch, amounts, Timestamp::now()).await?;
            }
            *writing = None;
        }
    }

    pub(crate) async fn upkeep(&self, now: Timestamp) -> Result<()> {
        Ok(self.0.store.meters().purge(now.minus(REMEMBERED)).await?)
    }

    /// What a tenant, or one of its environments, has used in the hours from `from` until before `to`, and what that costs by the
    /// prices of each hour.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn lines(
        &self,
        tenant: TenantId,
        env: Option<EnvId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Line>> {
        self.flush().await?;
        let meters = self.0.store.meters();
        let prices = meters.prices().await?;
        let mut cuts: Vec<Timestamp> = prices.iter().map(|price| price.since).collect();
        cuts.extend([from, to]);
        cuts.retain(|cut| (from..=to).contains(cut));
        cuts.sort_unstable();
        cuts.dedup();
        // Of each, how much there was, and what it costs in parts of a price.
        let mut all: BTreeMap<(Option<EnvId>, Meter), (u64, Option<u128>)> = BTreeMap::new();
        for span in cuts.windows(2) {
            for sum in meters.sums(tenant, env, span[0], span[1]).await? {
                let parts = price(&prices, sum.meter, span[0])
                    .map(|micro| u128::from(micro) * u128::from(sum.amount));
                let (amount, costs) = all.entry((sum.env, sum.meter)).or_default();
                *amount = amount.saturating_add(sum.amount);
                *costs = match (*costs, parts) {
                    (Some(one), Some(other)) => Some(one.saturating_add(other)),
                    (one, other) => one.or(other),
                };
            }
        }
        let of_meters = all.into_iter().map(|((env, meter), (amount, parts))| Line {
            env,
            of: Used::Meter(meter),
            amount,
            micro: parts.map(|parts| in_micro(parts, meter)),
        });
        let of_models = meters.models(tenant, env, from, to).await?.into_iter().map(|it| {
            let ModelSum { env, model, calls, tokens, micro, unpriced } = it;
            let micro = (micro > 0 || unpriced < calls).then_some(micro);
            Line { env: Some(env), of: Used::Model(model, calls), amount: tokens, micro }
        });
        let mut lines: Vec<Line> = of_meters.chain(of_models).collect();
        lines.sort_by_key(|line| line.env);
        Ok(lines)
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
        self.flush().await?;
        Ok(self.0.store.meters().hours(tenant, span, after, most).await?)
    }

    /// What meters cost, by date.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn prices(&self) -> Result<Vec<MeterPrice>> {
        Ok(self.0.store.meters().prices().await?)
    }

    /// Sets what a meter costs from the hour of `since` on, from this one where nothing is said.
    ///
    /// # Errors
    /// `forbidden` for all but the operator; `invalid_input` where that is past: what was billed stays as it is.
    pub async fn set_price(
        &self,
        caller: &Caller,
        meter: Meter,
        since: Option<Timestamp>,
        micro: u64,
    ) -> Result<MeterPrice> {
        operator(caller)?;
        if micro > MOST_MICRO {
            return Err(Error::invalid("/micro", format!("a price is at most {MOST_MICRO}")));
        }
        let this = hour_of(Timestamp::now());
        let since = hour_of(since.unwrap_or(this));
        if since < this {
            return Err(Error::invalid("/since", "the price of a time that is past is not changed")
                .hint("leave it out, or give a time from this hour on"));
        }
        let price = MeterPrice { meter, since, micro };
        self.0.store.meters().set_price(price).await?;
        Ok(price)
    }
}

/// More than anything costs, in millionths.
const MOST_MICRO: u64 = 1 << 50;

/// What a meter costs at a time.
#[must_use]
pub fn price(prices: &[MeterPrice], meter: Meter, at: Timestamp) -> Option<u64> {
    let known = prices.iter().filter(|price| price.meter == meter && price.since <= at);
    known.max_by_key(|price| price.since).map(|price| price.micro)
}

/// What so many parts of a meter's price come to, rounded up to a whole millionth.
fn in_micro(parts: u128, meter: Meter) -> u64 {
    u64::try_from(parts.div_ceil(meter.in_a_price())).unwrap_or(u64::MAX)
}

/// What an amount costs at a price.
#[must_use]
pub fn cost(meter: Meter, amount: u128, micro: u64) -> u64 {
    in_micro(amount.saturating_mul(u128::from(micro)), meter)
}
