//! The one road to a tool: find, authorize, limit, validate, replay, run, record, encode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::{CallId, Caller, Code, Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::registry::{Entry, Passed};
use crate::{Attempt, Effect, Host, Progress, Record, Registry, ReplayKey, Selection, about, budget, ended};

/// The longest deadline a caller may set.
const MAX_DEADLINE: Duration = Duration::from_secs(600);

/// How long after its deadline a change that comes to its own end is waited for.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 255;

/// One call of one tool.
pub struct Call {
    /// Its id, which errors and records carry.
    pub id: CallId,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The tool's name.
    pub tool: String,
    /// The tool's input.
    pub input: Value,
    /// What the client asked to see; a tool outside it is `forbidden`.
    pub selection: Selection,
    /// How long it may run; as long as the tool says where it is not said, else 600 s at most.
    pub deadline: Option<Duration>,
    /// Fires when the caller has gone.
    pub cancel: CancellationToken,
    /// Where steps are said.
    pub progress: Progress,
    /// The caller's idempotency key.
    pub idempotency_key: Option<String>,
}

impl Call {
    /// A call with nothing but what it needs.
    #[must_use]
    pub fn new(caller: Arc<Caller>, tool: impl Into<String>, input: Value) -> Self {
        Self {
            id: CallId::new(),
            caller,
            tool: tool.into(),
            input,
            selection: Selection::Full,
            deadline: None,
            cancel: CancellationToken::new(),
            progress: Progress::default(),
            idempotency_key: None,
        }
    }
}

impl<P: Host> Registry<P> {
    /// Calls a tool. A change that has begun runs on when the caller goes away, so that it is recorded; it
    /// learns of that by its cancellation token.
    ///
    /// # Errors
    /// Whatever the steps of the road or the tool itself refuse.
    pub async fn call(self: &Arc<Self>, platform: &Arc<P>, call: Call) -> Result<Value> {
        let entry = self.entry(&call.tool)?;
        let span = tracing::info_span!(
            "call",
            call.id = %call.id,
            tenant.id = %call.caller.tenant,
            env.id = call.caller.env.map(tracing::field::display),
            tool.name = entry.doc.name,
            surface = call.caller.surface.as_str(),
        );
        if entry.doc.spec.effect == Effect::Read {
            return travel(entry, platform, call).instrument(span).await;
        }
        let gone = call.cancel.clone().drop_guard();
        let patience = deadline(entry, &call) + LAST_WORDS;
        let (registry, platform) = (Arc::clone(self), Arc::clone(platform));
        let running = tokio::spawn(
            async move { travel(registry.entry(&call.tool)?, &platform, call).await }.instrument(span),
        );
        let Ok(joined) = tokio::time::timeout(patience, running).await else {
            return Err(Error::new(Code::Timeout, "the change goes on, and its outcome is not known yet")
                .hint("look at the state before you repeat the call"));
        };
        gone.disarm();
        joined.map_err(|e| Error::internal(format!("a tool panicked: {e}")))?
    }
}

/// The whole road, once the tool is found.
async fn travel<P: Host>(entry: &Entry<P>, platform: &Arc<P>, call: Call) -> Result<Value> {
    let began = Instant::now();
    let input_digest = digest(platform.digest_key(), &call.input);
    let mut record = Record::of(call.id, &call.caller, entry.doc.name, entry.doc.spec.effect);
    record.env = record.env.filter(|_| entry.doc.in_environment);
    record.input_digest = input_digest;
    if record.effect != Effect::Read {
        record.about = about(&call.input);
        // What the tool does not have it refuses, and it is not kept, either.
        record.about.retain(|name, _| !entry.doc.input_schema["properties"][name].is_null());
    }
    let outcome = admitted(entry, platform, call, input_digest).await;
    record.error = outcome.as_ref().err().map(Error::code);
    record.took = began.elapsed();
    platform.called(record.tool, record.error, record.took);
    match &outcome {
        Err(error) if error.code() == Code::Internal => tracing::error!(error = error.chain(), "call failed"),
        Err(error) => tracing::debug!(code = error.code().as_str(), error = error.chain(), "call refused"),
        Ok(_) => tracing::debug!(duration_ms = record.took.as_millis() as u64, "call done"),
    }
    // A flood that the limiter turns away must not become a flood of records.
    if record.error != Some(Code::RateLimited) {
        let kept = platform.ledger().record(record).await;
        let kept = kept.inspect_err(|e| tracing::error!(error = e.chain(), "a call could not be recorded"));
        // A refusal says more than the record that is missing: on a full disk, both fail.
        if outcome.is_ok() {
            kept?;
        }
    }
    outcome
}

async fn admitted<P: Host>(
    entry: &Entry<P>,
    platform: &Arc<P>,
    call: Call,
    input_digest: [u8; 32],
) -> Result<Value> {
    platform.limiter().admit(&call.caller)?;
    let caller = Arc::clone(&call.caller);
    let _underway = platform.limiter().enter(&caller).await?;
    (entry.authorize)(&call.caller, entry.doc.spec.scopes, entry.doc.name)?;
    if !call.selection.admits(entry.doc.spec.effect) {
        let message =
            format!("the tool {} is outside the selection this connection asked for", entry.doc.name);
        return Err(Error::new(Code::Forbidden, message).hint("connect with ?tools=full"));
    }
    entry.input.check(&call.input)?;
    if let Some(held) = &call.caller.held {
        held.admits(entry.doc.name, &call.input)?;
    }
    let Some(key) = replay_key(entry, &call, input_digest)? else {
        return covered(entry, platform, call).await;
    };
    match platform.replays().begin(&key).await? {
        Attempt::Done(output) => Ok(output),
        Attempt::Unknown if entry.doc.spec.effect != Effect::Idempotent => Err(Error::new(
            Code::Conflict,
            "the outcome of the first call with this idempotency key is not known",
        )
        .hint("look at the state, then repeat with another key if it is needed")),
        Attempt::First | Attempt::Unknown => {
            let outcome = covered(entry, platform, call).await;
            // After a failure of ours nobody knows what was done: the key stays claimed, and nothing is done twice.
            if !outcome.as_ref().is_err_and(|e| e.code() == Code::Internal) {
                platform.replays().finish(&key, outcome.as_ref().ok()).await?;
            }
            outcome
        }
    }
}

/// What may be shown of it. Before it is remembered, logged or handed to a door: none of them sees more.
async fn covered<P: Host>(entry: &Entry<P>, platform: &Arc<P>, call: Call) -> Result<Value> {
    let caller = Arc::clone(&call.caller);
    let outcome = run(entry, platform, call).await;
    platform.cover(&caller, entry.doc.spec.effect, outcome).await
}

async fn run<P: Host>(entry: &Entry<P>, platform: &Arc<P>, call: Call) -> Result<Value> {
    let deadline = deadline(entry, &call);
    let cancel = call.cancel.child_token();
    let _stop = cancel.clone().drop_guard();
    let caller = Arc::clone(&call.caller);
    let passed = Passed {
        platform: Arc::clone(platform),
        caller: call.caller,
        selection: call.selection,
        tool: entry.doc.name,
        id: call.id,
        cancel: cancel.clone(),
        progress: call.progress,
    };
    let mut work = (entry.run)(passed, call.input);
    let cut = tokio::select! {
        biased;
        output = &mut work => return checked(entry, output?),
        () = cancel.cancelled() => Error::new(Code::Timeout, "the call was cancelled"),
        () = ended(&**platform, &caller) => {
            Error::new(Code::Unauthenticated, "the credential ended before the call did")
                .hint("look at the state with another one before you repeat the call")
        }
        () = tokio::time::sleep(deadline) => {
            let message = format!("the call ran longer than {} s", deadline.as_secs_f64());
            Error::new(Code::Timeout, message).hint("ask for less at once")
        }
    };
    if entry.doc.spec.effect == Effect::Read {
        return Err(cut);
    }
    // A change is never left half-way: told to stop, it comes to its own end, done or undone.
    cancel.cancel();
    checked(entry, work.await?)
}

fn deadline<P>(entry: &Entry<P>, call: &Call) -> Duration {
    call.deadline.map_or(entry.patience, |deadline| deadline.min(MAX_DEADLINE.max(entry.patience)))
}

fn checked<P>(entry: &Entry<P>, output: Value) -> Result<Value> {
    entry
        .output
        .check(&output)
        .map_err(|e| Error::internal(format!("{}: wrong output: {e:?}", entry.doc.name)))?;
    if entry.doc.spec.effect == Effect::Read {
        within_budget(&output)?;
    }
    Ok(output)
}

/// The last fence: tools keep their results small themselves, with cursors.
fn within_budget(output: &Value) -> Result<()> {
    let tokens = budget::estimate(&output.to_string());
    if tokens <= budget::RESULT_TOKENS {
        return Ok(());
    }
    let message =
        format!("the result would take about {tokens} tokens, {} are allowed", budget::RESULT_TOKENS);
    Err(Error::new(Code::TooLarge, message).hint("ask for fewer rows, columns or entries"))
}

fn replay_key<P>(entry: &Entry<P>, call: &Call, input: [u8; 32]) -> Result<Option<ReplayKey>> {
    let Some(key) = call.idempotency_key.clone().filter(|_| entry.doc.spec.effect != Effect::Read) else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > MAX_KEY {
        let message = format!("the idempotency key must have 1 to {MAX_KEY} bytes");
        return Err(Error::new(Code::InvalidInput, message));
    }
    let mut whole = Sha256::new();
    whole.update(entry.doc.name);
    whole.update([0]);
    whole.update(call.caller.env.map(|env| env.to_string()).unwrap_or_default());
    whole.update([0]);
    whole.update(input);
    // A client whose token was renewed meanwhile repeats the same call.
    let (tenant, credential) = (call.caller.tenant, call.caller.owner);
    Ok(Some(ReplayKey { tenant, credential, key, digest: whole.finalize().into() }))
}

/// The key comes first and has a fixed length; that a digest could be extended helps nobody to guess an input.
fn digest(key: &[u8; 32], input: &Value) -> [u8; 32] {
    Sha256::new().chain_update(key).chain_update(input.to_string()).finalize().into()
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
