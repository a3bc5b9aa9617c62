//! What environments may use: it is set aside before a call, charged when that is over, and freed where nothing was sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::{Code, Env, EnvId, Error, ModelCallId, NodeId, Result, TenantId, Timestamp};
use store::{Aside, Price, Reservation, Settled, Store, Used};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;

use crate::census::Counts;
use crate::{Spent, Tokens, prices, refusal};

/// For how long a process is taken to be alive that does not say so again.
const LEASE: Duration = Duration::from_secs(30);

/// How often it says so, and looks for calls whose process has not.
const SAID: Duration = Duration::from_secs(8);

/// How often it is forgotten what is long over.
const TIDIED: Duration = Duration::from_secs(60 * 60);

/// The most calls that are found without their process at once.
const FOUND: u32 = 100;

/// The most calls of one environment at once.
const AT_ONCE: usize = 64;

/// How many of all calls have the database write at once, and of them one for each tenant: its calls wait for the same rows
/// there, and keep nobody else waiting meanwhile.
const WRITING: usize = 4;

/// Where the database fails at the end of a call, it is asked again after so long, and twice as long each time up to here.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(8));

/// After so many times the call is left to whoever finds it when its lease is over.
const TIMES: u32 = 100;

/// What time it is.
pub(crate) type Clock = fn() -> Timestamp;

/// What all environments may use.
pub(crate) struct Purse {
    pub store: Store,
    /// What every environment has on a day, in tokens.
    pub usual: u64,
    pub clock: Clock,
    /// All that is to be settled before the database is closed.
    pub tasks: TaskTracker,
    node: NodeId,
    under_way: Mutex<HashMap<ModelCallId, EnvId>>,
    writing: Arc<Semaphore>,
    turns: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    pub counts: Counts,
}

/// What hears of a call that is over.
type Told = Box<dyn FnOnce(Spent) + Send>;

/// What is set aside for a call. Dropped before the call has begun it is freed; dropped while it is under way it is used.
pub(crate) struct Reserved {
    begun: bool,
    ended: Option<Under>,
}

/// A call that something is set aside for.
struct Under {
    call: Call,
    at: Timestamp,
    tokens: Tokens,
    price: Option<Price>,
    told: Told,
}

/// A call that is under way, and said to be as long as this is there.
struct Call {
    purse: Arc<Purse>,
    id: ModelCallId,
    tenant: TenantId,
    env: EnvId,
}

/// How a call ends.
enum End {
    Unused,
    Used(Option<Tokens>),
}

/// What is written of that.
#[derive(Clone, Copy)]
enum Ended {
    Unused,
    Used(Option<Used>),
}

impl Purse {
    pub fn new(store: Store, usual: u64) -> Self {
        Self {
            store,
            usual,
            clock: Timestamp::now,
            tasks: TaskTracker::new(),
            node: NodeId::new(),
            under_way: Mutex::default(),
            writing: Arc::new(Semaphore::new(WRITING)),
            turns: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// Sets `tokens` aside for a call of `env` to `model`.
    ///
    /// # Errors
    /// `budget_exceeded` where a budget has no room for it, `rate_limited` where too many calls are under way.
    pub async fn reserve(
        self: &Arc<Self>,
        env: &Env,
        model: &str,
        tokens: Tokens,
        told: Told,
    ) -> Result<Reserved> {
        let call = self.call(env)?;
        let (purse, model) = (Arc::clone(self), model.to_owned());
        // Whoever asks may go at any moment; what was set aside by then is not forgotten.
        let reserving = self.tasks.spawn(async move {
            let price = purse.store.prices().at(&model, (purse.clock)()).await?;
            let micro = price.as_ref().map(|price| prices::most(price, tokens));
            let aside = Aside { prompt: tokens.prompt, completion: tokens.completion, micro };
            let (id, tenant, env, node) = (call.id, call.tenant, call.env, purse.node);
            let turn = purse.turn(tenant).await;
            let at = (purse.clock)();
            let ends = at.plus(LEASE);
            let wanted = Reservation { id, tenant, env, model, node, at, ends, aside };
            let reserved = purse.store.model_calls().reserve(&wanted, purse.usual).await;
            drop(turn);
            match reserved {
                Ok(store::Reserved::Made) => {
                    let ended = Some(Under { call, at, tokens, price, told });
                    Ok(Reserved { begun: false, ended })
                }
                Ok(store::Reserved::Refused(lacking)) => {
                    purse.counts.refused();
                    Err(refusal::refusal(&lacking, &aside, at))
                }
                Ok(store::Reserved::Unpriced(limit)) => {
                    purse.counts.refused();
                    Err(refusal::unpriced(&limit, &wanted.model))
                }
                Err(error) => {
                    // Perhaps it is written, and this process has not heard so.
                    purse.tasks.spawn(async move { call.noted(Ended::Unused).await });
                    Err(error.into())
                }
            }
        });
        reserving.await.map_err(Error::internal)?
    }

    fn call(self: &Arc<Self>, env: &Env) -> Result<Call> {
        let mut under_way = self.under_way();
        if under_way.values().filter(|of| **of == env.id()).count() >= AT_ONCE {
            return Err(Error::new(Code::RateLimited, format!("{AT_ONCE} calls to the model are under way"))
                .retry_after(Duration::from_secs(1))
                .hint("ask again when one has been answered"));
        }
        let id = ModelCallId::new();
        under_way.insert(id, env.id());
        Ok(Call { purse: Arc::clone(self), id, tenant: env.tenant(), env: env.id() })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<ModelCallId, EnvId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tenant's turn to have the database write, until it is dropped.
    async fn turn(self: &Arc<Self>, tenant: TenantId) -> Turn {
        let own = Arc::clone(self.turns().entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(1))));
        // Neither is ever closed.
        let own = own.acquire_owned().await.ok();
        let writing = Arc::clone(&self.writing).acquire_owned().await.ok();
        Turn { purse: Arc::clone(self), tenant, permits: Some((own, writing)) }
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Semaphore>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says for ever that this process is alive, and charges calls whose process is not.
    pub async fn tend(&self) {
        let (mut timer, mut tidied) = (interval(SAID), None::<Instant>);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            if let Err(error) = self.look_after((self.clock)()).await {
                tracing::warn!(error = error.chain(), "calls to the model could not be looked after");
            }
            if tidied.is_none_or(|at| at.elapsed() >= TIDIED) {
                tidied = Some(Instant::now());
                if let Err(error) = self.store.model_calls().purge((self.clock)()).await {
                    let error = Error::from(error);
                    tracing::warn!(error = error.chain(), "what was spent on models could not be tidied");
                }
            }
        }
    }

    /// Says that this process is alive until its lease ends, and charges calls whose process has not said so: all that was set
    /// aside for them, for nobody knows how far they came.
    pub async fn look_after(&self, now: Timestamp) -> Result<()> {
        let calls = self.store.model_calls();
        let mut under_way: Vec<_> = self.under_way().keys().copied().collect();
        under_way.sort_unstable();
        let renewed = calls.renew(self.node, &under_way, now.plus(LEASE)).await;
        loop {
            let (mut charged, found) = (0, calls.overdue(now, FOUND).await?);
            for id in &found {
                match calls.settle(*id, None).await {
                    Ok(Some(settled)) => {
                        charged += 1;
                        tracing::warn!(call.id = %id, tokens = settled.tokens, "a call to the model was left by its process: all that was set aside counts");
                    }
                    // Another process was faster.
                    Ok(None) => charged += 1,
                    Err(error) => {
                        let error = Error::from(error);
                        tracing::warn!(call.id = %id, error = error.chain(), "a call to the model that was left by its process could not be charged");
                    }
                }
            }
            if charged == 0 || found.len() < FOUND as usize {
                return Ok(renewed?);
            }
        }
    }
}

/// A tenant's turn to have the database write.
struct Turn {
    purse: Arc<Purse>,
    tenant: TenantId,
    permits: Option<(Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>)>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permits.take());
        let mut turns = self.purse.turns();
        // Nobody waits.
        if turns.get(&self.tenant).is_some_and(|own| Arc::strong_count(own) == 1) {
            turns.remove(&self.tenant);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.purse.under_way().remove(&self.id);
    }
}

impl Call {
    /// Writes how it has ended, and does not give up where that fails: it stays under way meanwhile, and what it has used is not
    /// lost. Gives nothing where another has ended it, or nobody can.
    async fn noted(&self, ended: Ended) -> Option<Settled> {
        let mut pause = AGAIN.0;
        for _ in 0..TIMES {
            let turn = self.purse.turn(self.tenant).await;
            let calls = self.purse.store.model_calls();
            let noted = match ended {
                Ended::Unused => calls.release(self.id).await.map(|()| None),
                Ended::Used(used) => calls.settle(self.id, used).await,
            };
            drop(turn);
            match noted {
                Ok(settled) => return settled,
                Err(error) => {
                    let error = Error::from(error);
                    tracing::warn!(env.id = %self.env, call.id = %self.id, error = %error.chain(), "what a call to the model has used could not be noted yet");
                }
            }
            sleep(pause).await;
            pause = AGAIN.1.min(pause * 2);
        }
        tracing::error!(env.id = %self.env, call.id = %self.id, "what a call to the model has used could not be noted");
        None
    }
}

impl Reserved {
    /// From here on the provider may have worked.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// The call is over, and has used that; what was set aside, where nobody knows.
    pub async fn settle(mut self, used: Option<Tokens>) {
        self.finish(End::Used(used)).await;
    }

    /// The provider has not worked.
    pub async fn release(mut self) {
        self.finish(End::Unused).await;
    }

    async fn finish(&mut self, end: End) {
        // A task of its own: whoever waits may go.
        if let Some(ending) = self.end(end) {
            drop(ending.await);
        }
    }

    fn end(&mut self, end: End) -> Option<JoinHandle<()>> {
        let ended = self.ended.take()?;
        // Without one the process ends, and the call is found when its lease is over.
        let handle = Handle::try_current().ok()?;
        let tasks = ended.call.purse.tasks.clone();
        Some(tasks.spawn_on(ended.ended(end), &handle))
    }
}

impl Under {
    async fn ended(self, end: End) {
        let said = match end {
            End::Unused => {
                self.call.noted(Ended::Unused).await;
                self.call.purse.counts.unused();
                return;
            }
            End::Used(said) => said,
        };
        let used = said.map(|tokens| Used {
            prompt: tokens.prompt,
            cached: tokens.cached,
            completion: tokens.completion,
            micro: self.price.as_ref().map(|price| prices::cost(price, tokens)),
        });
        let Call { purse, id, tenant, env } = &self.call;
        let calls = purse.store.model_calls();
        let settled = self.call.noted(Ended::Used(used)).await;
        if let Some(more) = settled.as_ref().map(|it| it.unattributed).filter(|more| *more > 0) {
            tracing::warn!(env.id = %env, call.id = %id, tokens = more, "the model's provider counts more than a call could use: nobody is charged with that (a template of many words is told with model.template_tokens)");
        }
        let warnings = match calls.warnings(*tenant, *env, purse.usual, self.at).await {
            Ok(warnings) => warnings.iter().map(|it| refusal::warning(it, self.at)).collect(),
            Err(error) => {
                let error = Error::from(error);
                tracing::warn!(env.id = %env, error = %error.chain(), "how much of its budgets an environment has spent could not be looked at");
                Vec::new()
            }
        };
        let (tokens, micro) = (said.unwrap_or(self.tokens), settled.and_then(|it| it.micro));
        let spent = Spent { tokens, said: said.is_some(), micro, warnings };
        purse.counts.used(&spent);
        (self.told)(spent);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let end = if self.begun { End::Used(None) } else { End::Unused };
        drop(self.end(end));
    }
}
