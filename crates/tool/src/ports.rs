//! What the road to a tool needs of the platform: limits, records, and the memory of repeated calls.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use kernel::{CallId, Caller, Code, EnvId, KeyId, Result, TenantId, Timestamp};
use serde_json::{Map, Value};

use crate::Effect;

/// The platform, as the registry sees it.
pub trait Host: Send + Sync + 'static {
    /// Admits or refuses calls.
    fn limiter(&self) -> &dyn Limiter;
    /// Keeps the records.
    fn ledger(&self) -> &dyn Ledger;
    /// Remembers calls made under an idempotency key.
    fn replays(&self) -> &dyn Replays;
    /// Keys the digests of inputs: without it, a short secret in an input could be guessed from its record.
    fn digest_key(&self) -> &[u8; 32];
    /// Is told of each call when it ends, also of those that were refused. It must not block.
    fn called(&self, _tool: &'static str, _error: Option<Code>, _took: Duration) {}
    /// What may be shown of how a call came out: values that its environment was given in secret are covered in results and in
    /// errors. Also what a repeated call is given is this.
    fn cover<'a>(
        &'a self,
        _caller: &'a Caller,
        _effect: Effect,
        outcome: Result<Value>,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(std::future::ready(outcome))
    }
    /// Comes when the caller's credential is revoked, or anything that it stands on; never, where nobody revokes any.
    fn revoked<'a>(&'a self, _caller: &'a Caller) -> BoxFuture<'a, ()> {
        Box::pin(std::future::pending())
    }
}

/// Comes when the caller's credential ends, by itself or before.
pub async fn ended<P: Host + ?Sized>(platform: &P, caller: &Caller) {
    let by_itself = async {
        let Some(end) = caller.expires else { return std::future::pending().await };
        let left = end.as_micros().saturating_sub(Timestamp::now().as_micros());
        tokio::time::sleep(Duration::from_micros(left.try_into().unwrap_or_default())).await;
    };
    tokio::select! {
        () = by_itself => {}
        () = platform.revoked(caller) => {}
    }
}

/// Admits calls at the rate a tenant and a key may make them.
pub trait Limiter: Send + Sync {
    /// Counts one call.
    ///
    /// # Errors
    /// `rate_limited` with the limit, its value and when the next call passes.
    fn admit(&self, caller: &Caller) -> Result<()>;

    /// Counts a call that was admitted as one that is under way, for as long as what comes back is there. Who comes when there
    /// are enough waits for a moment.
    ///
    /// # Errors
    /// `rate_limited` with the limit and its value.
    fn enter<'a>(&'a self, _caller: &'a Caller) -> BoxFuture<'a, Result<Underway>> {
        Box::pin(std::future::ready(Ok(Underway::default())))
    }
}

/// A call that is under way: whatever counts it.
#[derive(Default)]
pub struct Underway(
    #[expect(dead_code, reason = "it counts until it is dropped")] Option<Box<dyn Send + Sync>>,
);

impl Underway {
    /// One that `counted` counts until it is dropped.
    #[must_use]
    pub fn of(counted: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(counted)))
    }
}

/// One call, for audit and usage. Of its arguments it holds what they were about, of its results nothing.
#[derive(Debug, Clone)]
pub struct Record {
    /// The call.
    pub call: CallId,
    /// When it began.
    pub at: Timestamp,
    /// The tenant it was for.
    pub tenant: TenantId,
    /// The environment it was for, where it had one.
    pub env: Option<EnvId>,
    /// The kind of party that called.
    pub principal: &'static str,
    /// The credential, by its name.
    pub credential: KeyId,
    /// The key that it stands on.
    pub root: KeyId,
    /// The door.
    pub surface: &'static str,
    /// The tool.
    pub tool: &'static str,
    /// The tool's risk class.
    pub effect: Effect,
    /// Where it came from, where it came over the network.
    pub source: Option<IpAddr>,
    /// What it was about: see [`about`](crate::about).
    pub about: Map<String, Value>,
    /// The error, or `None` where it went well.
    pub error: Option<Code>,
    /// How long it ran.
    pub took: Duration,
    /// Keyed SHA-256 of the input, so that a record can be matched with a request without holding it.
    pub input_digest: [u8; 32],
}

impl Record {
    /// A call that begins now, of which nothing is known but who makes it and what it does.
    #[must_use]
    pub fn of(call: CallId, caller: &Caller, tool: &'static str, effect: Effect) -> Self {
        Self {
            call,
            at: Timestamp::now(),
            tenant: caller.tenant,
            env: caller.env,
            principal: caller.principal.kind(),
            credential: caller.credential,
            root: caller.root(),
            surface: caller.surface.as_str(),
            tool,
            effect,
            source: caller.source,
            about: Map::new(),
            error: None,
            took: Duration::ZERO,
            input_digest: [0; 32],
        }
    }
}

/// Keeps audit and usage rows.
pub trait Ledger: Send + Sync {
    /// Records one call. A change is on disk when this returns; a read may be recorded a little later.
    fn record(&self, record: Record) -> BoxFuture<'_, Result<()>>;
}

/// What one idempotency key stands for.
#[derive(Debug, Clone)]
pub struct ReplayKey {
    /// Keys of different tenants never meet.
    pub tenant: TenantId,
    /// Nor do keys of different credentials.
    pub credential: KeyId,
    /// What the caller sent.
    pub key: String,
    /// Keyed SHA-256 over environment, tool and input: the same key for anything else is misuse.
    pub digest: [u8; 32],
}

/// What is known of an idempotency key when a call begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// The first call: run it, then [`Replays::finish`].
    First,
    /// It ran and gave this.
    Done(Value),
    /// It began once and never finished (the process was killed): its outcome is not known.
    Unknown,
}

/// Remembers calls made under an idempotency key.
pub trait Replays: Send + Sync {
    /// Claims the key.
    ///
    /// # Errors
    /// `conflict` with status 422 where the key stood for another request; `conflict` while the first is running.
    fn begin<'a>(&'a self, key: &'a ReplayKey) -> BoxFuture<'a, Result<Attempt>>;

    /// Stores what the call gave; a failed one (`None`) frees the key.
    fn finish<'a>(&'a self, key: &'a ReplayKey, output: Option<&'a Value>) -> BoxFuture<'a, Result<()>>;
}
