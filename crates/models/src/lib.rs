//! Asking models on behalf of apps: with the operator's key, which nobody else sees, and within budgets.
//!
//! # Budgets
//! A budget is tokens or money (millionths of the operator's currency, whole numbers) for a calendar day or month in UTC, of a
//! tenant with all its environments or of one environment. Any number of them may bound a call; all have to have room. What is
//! spent is counted by tenant and environment, day and month, whatever the budgets are meanwhile: a budget that is set or raised
//! in the middle counts what was spent before. So nobody gets a fresh one by removing the old.
//!
//! # A call
//! 1. *Set aside.* What the call may use at most: tokens that are sent are never more than the bytes of the request, with what
//!    templates add; tokens that come back are bounded by a field that is always sent; money is those at the dearest price that
//!    they may have. One statement for each counter sees whether there is room, and takes it; one row says that the call is under
//!    way, by which process, and until when that is taken to be alive.
//! 2. *Ask.* Where the provider refuses without work, or was not reached, all is freed. Where it may have worked it is not asked
//!    again by itself: each request to a provider is set aside for.
//! 3. *Settle.* Whoever removes the row writes, in the same transaction, what the call has used, and counts it. It is charged up
//!    to what was set aside and never more, so that no budget is overspent; what a provider claims above that is written as
//!    nobody's (`unattributed`), so that the statement still is what the provider counts.
//!
//! Who breaks off leaves the provider working: what it says is read on for a while, for what was used is said at the end. Where
//! nobody says it, all that was set aside counts, as an estimate. So it does for calls of a process that was killed: its lease
//! runs out, and any other process, or the next one, charges them.

mod answers;
mod asking;
mod budgets;
mod census;
mod cover;
mod prices;
mod provider;
mod purse;
mod refusal;
mod sse;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_money;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use kernel::{Code, Env, Error, Result, Secret};
use store::{Period, Standing, Store, Unit};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use url::Url;

use crate::asking::Asking;
use crate::provider::Provider;
use crate::purse::Purse;

pub use budgets::{Budgets, NewBudget, PAGE as BUDGETS};
pub use census::Census;
pub use prices::{NewPrice, PAGE as PRICES, Prices};

/// The largest request to a model, in bytes.
pub const BODY: usize = 1 << 20;

/// A model, and who has it.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// Where the provider is: the address that `/chat/completions` is below.
    pub base_url: Url,
    /// What the provider calls the model.
    pub name: String,
    /// What proves to the provider who asks, where it wants a proof.
    pub api_key: Option<Secret>,
    /// What the model's template adds to messages at most, in tokens.
    pub template: u64,
    /// How long it may take.
    pub patience: Patience,
}

/// How long a provider is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until it is connected to.
    pub connect: Duration,
    /// Until its answer begins.
    pub answer: Duration,
    /// Between two parts of it.
    pub pause: Duration,
    /// What it says itself of when to ask again is followed up to here.
    pub again: Duration,
    /// All of it, and for whoever hears it.
    pub whole: Duration,
    /// Where nobody listens any more, for what it says of its use.
    pub drain: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(600),
            pause: Duration::from_secs(120),
            again: Duration::from_secs(10),
            whole: Duration::from_secs(60 * 60),
            drain: Duration::from_secs(30),
        }
    }
}

/// What a call has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens that were sent.
    pub prompt: u64,
    /// Those of them that the provider had seen before.
    pub cached: u64,
    /// Tokens that came back.
    pub completion: u64,
}

/// A call that is over, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// What it counts for.
    pub tokens: Tokens,
    /// Whether the provider has said so; what was set aside counts otherwise.
    pub said: bool,
    /// What it is charged with, in millionths; none where the model has no price.
    pub micro: Option<u64>,
    /// What is to be said of budgets that are nearly spent by it.
    pub warnings: Vec<String>,
}

/// Hears what a call has used, when it is over.
pub type Told = Box<dyn FnOnce(&str, Spent) + Send>;

/// What a model answers.
pub enum Answer {
    /// JSON.
    Whole(Bytes),
    /// Server-sent events. What goes wrong on the way is one of them.
    Events(BoxStream<'static, Bytes>),
}

/// What an environment has used today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Today {
    /// What the model is called.
    pub model: String,
    /// Calls, those under way too.
    pub calls: u64,
    /// Tokens of those that are over.
    pub tokens: u64,
    /// The most tokens of a day.
    pub most: u64,
    /// All that bounds it.
    pub bounds: Vec<Standing>,
}

/// The models that there are, which is one or none. Cheap to clone.
#[derive(Clone)]
pub struct Models {
    provider: Option<Arc<Provider>>,
    purse: Arc<Purse>,
    /// That the platform ends.
    ending: CancellationToken,
}

impl Models {
    /// With the model of `config`, and `usual` tokens for each environment on each calendar day in UTC, where its operator sets
    /// no other budget for that.
    ///
    /// # Errors
    /// Where the configuration leads to no request, or TLS cannot be set up.
    pub fn new(config: Option<ModelConfig>, usual: u64, store: Store) -> Result<Self> {
        let provider = config.map(Provider::new).transpose()?.map(Arc::new);
        Ok(Self { provider, purse: Arc::new(Purse::new(store, usual)), ending: CancellationToken::new() })
    }

    /// What the model is called.
    ///
    /// # Errors
    /// `unavailable` where there is none.
    pub fn name(&self) -> Result<&str> {
        self.provider().map(|provider| provider.name.as_str())
    }

    /// How much may be spent.
    #[must_use]
    pub fn budgets(&self) -> Budgets<'_> {
        Budgets { store: &self.purse.store, usual: self.purse.usual }
    }

    /// What models cost.
    #[must_use]
    pub fn prices(&self) -> Prices<'_> {
        Prices { store: &self.purse.store }
    }

    /// What `env` has used today; none where there is no model.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn today(&self, env: &Env) -> Result<Option<Today>> {
        let Some(provider) = &self.provider else { return Ok(None) };
        let (purse, now) = (&self.purse, (self.purse.clock)());
        let spent = purse.store.budgets().spending(env.id(), Period::Day, now).await?;
        let bounds = budgets::of_env(&purse.store, env, purse.usual, now).await?;
        let of_day = |it: &&Standing| {
            it.limit.env().is_some() && (it.limit.unit(), it.limit.period()) == (Unit::Tokens, Period::Day)
        };
        let most = bounds.iter().filter(of_day).map(|it| it.limit.most()).min().unwrap_or(purse.usual);
        let model = provider.name.clone();
        Ok(Some(Today { model, calls: spent.calls, tokens: spent.tokens, most, bounds }))
    }

    /// Ends what is under way, and waits until what it has used is written, at most so long.
    pub async fn close(&self, patience: Duration) {
        self.ending.cancel();
        self.purse.tasks.close();
        if tokio::time::timeout(patience, self.purse.tasks.wait()).await.is_err() {
            tracing::warn!("some calls to the model did not end in time");
        }
    }

    /// Looks after calls under way, until [`Models::close`]: says that this process is alive, and charges those whose process is
    /// not.
    pub async fn tend(&self) {
        self.ending.run_until_cancelled(self.purse.tend()).await;
    }

    /// Asks for a chat completion. `body` is OpenAI's request; the platform fills in the model.
    ///
    /// # Errors
    /// `unavailable` without a model, `invalid_input` and `too_large` for what no model is asked, `budget_exceeded` where a budget
    /// has no room for it, `rate_limited` where too many calls are under way, and what becomes of a provider that does not answer
    /// as it should.
    pub async fn chat(&self, env: &Env, body: &[u8], told: Told) -> Result<Answer> {
        let provider = Arc::clone(self.provider()?);
        let asking = Asking::read(body, &provider.name, provider.bound(), provider.template)?;
        let wanted = Tokens { prompt: asking.prompt, cached: 0, completion: asking.completion };
        let name = provider.name.clone();
        let told = Box::new(move |spent| told(&name, spent));
        let reserved = self.purse.reserve(env, &provider.name, wanted, told).await?;
        let (mut answering, answer) = oneshot::channel();
        // A task of its own: who asks may go, and what the provider has used is said at its end.
        let (tasks, ending) = (self.purse.tasks.clone(), self.ending.clone());
        let asked = async move {
            let drain = provider.patience.drain;
            let left = async {
                answering.closed().await;
                sleep(drain).await;
            };
            let outcome = tokio::select! {
                outcome = answers::ask(provider, asking, reserved, &tasks, &ending) => outcome,
                () = left => return,
                () = ending.cancelled() => return,
            };
            drop(answering.send(outcome));
        };
        self.purse.tasks.spawn(asked.in_current_span());
        answer.await.map_err(Error::internal)?
    }

    fn provider(&self) -> Result<&Arc<Provider>> {
        self.provider.as_ref().ok_or_else(|| {
            Error::new(Code::Unavailable, "this platform has no model")
                .hint("its operator sets STEADING_MODEL_BASE_URL, STEADING_MODEL and STEADING_MODEL_API_KEY")
        })
    }
}
