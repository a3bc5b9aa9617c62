//! The road, walked with a platform that keeps everything in memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use kernel::{Env, EnvId, KeyId, Principal, Proof as _, Scope, Scopes, TenantId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::{Cx, Ledger, Limiter, Replays, Spec, Tool};

/// The digest of the first call with a key, and what it gave.
type Attempted = ([u8; 32], Option<Value>);

#[derive(Default)]
struct Memory {
    full: AtomicBool,
    records: Mutex<Vec<(&'static str, Option<Code>)>>,
    digest: Mutex<Option<[u8; 32]>>,
    replays: Mutex<HashMap<String, Attempted>>,
    told: Notify,
    revoked: Notify,
    recorded: Notify,
    written: Mutex<Vec<String>>,
}

impl Limiter for Memory {
    fn admit(&self, _: &Caller) -> Result<()> {
        if self.full.load(Ordering::Relaxed) { Err(Error::new(Code::RateLimited, "full")) } else { Ok(()) }
    }
}

impl Ledger for Memory {
    fn record(&self, record: Record) -> BoxFuture<'_, Result<()>> {
        self.records.lock().unwrap().push((record.tool, record.error));
        *self.digest.lock().unwrap() = Some(record.input_digest);
        self.recorded.notify_one();
        Box::pin(async { Ok(()) })
    }
}

impl Replays for Memory {
    fn begin<'a>(&'a self, key: &'a ReplayKey) -> BoxFuture<'a, Result<Attempt>> {
        let mut replays = self.replays.lock().unwrap();
        let attempt = match replays.get(&key.key) {
            None => {
                replays.insert(key.key.clone(), (key.digest, None));
                Ok(Attempt::First)
            }
            Some((digest, _)) if *digest != key.digest => Err(Error::idempotency_misuse("another request")),
            Some((_, Some(output))) => Ok(Attempt::Done(output.clone())),
            Some((_, None)) => Ok(Attempt::Unknown),
        };
        Box::pin(async { attempt })
    }

    fn finish<'a>(&'a self, key: &'a ReplayKey, output: Option<&'a Value>) -> BoxFuture<'a, Result<()>> {
        let mut replays = self.replays.lock().unwrap();
        match output {
            Some(output) => drop(replays.insert(key.key.clone(), (key.digest, Some(output.clone())))),
            None => drop(replays.remove(&key.key)),
        }
        Box::pin(async { Ok(()) })
    }
}

impl Host for Memory {
    fn limiter(&self) -> &dyn Limiter {
        self
    }

    fn ledger(&self) -> &dyn Ledger {
        self
    }

    fn replays(&self) -> &dyn Replays {
        self
    }

    fn digest_key(&self) -> &[u8; 32] {
        &[7; 32]
    }

    fn cover<'a>(&'a self, _: &'a Caller, _: Effect, outcome: Result<Value>) -> BoxFuture<'a, Result<Value>> {
        let covered = |text: &str| text.replace("hidden", "***");
        let outcome = match outcome {
            Ok(output) => Ok(serde_json::from_str(&covered(&output.to_string())).unwrap()),
            Err(error) => Err(error.reworded(covered)),
        };
        Box::pin(async { outcome })
    }

    fn revoked<'a>(&'a self, _: &'a Caller) -> BoxFuture<'a, ()> {
        Box::pin(self.revoked.notified())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    text: String,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    said: String,
}

macro_rules! tool {
    ($name:ident, $effect:expr, $cx:ident, $input:ident, $body:expr) => {
        struct $name;

        impl Tool<Memory> for $name {
            type Proof = Env;
            type Input = Input;
            type Output = Output;

            const SPEC: Spec = Spec {
                title: "A tool of the tests",
                about: "Says something.",
                scopes: &[Scope::DbRead],
                effect: $effect,
                examples: &[],
            };

            async fn call($cx: &Cx<'_, Memory, Env>, $input: Input) -> Result<Output> {
                $body
            }
        }
    };
}

tool!(Look, Effect::Read, _cx, input, Ok(Output { said: input.text }));
tool!(Stare, Effect::Read, cx, _input, {
    cx.platform().told.notify_one();
    std::future::pending().await
});
tool!(Write, Effect::Write, cx, input, {
    cx.platform().written.lock().unwrap().push(input.text.clone());
    Ok(Output { said: input.text })
});
// Notices that it is to stop, and undoes or finishes what it began before it says so.
tool!(Build, Effect::Write, cx, input, {
    cx.platform().told.notify_one();
    cx.cancel().cancelled().await;
    tokio::task::yield_now().await;
    cx.platform().written.lock().unwrap().push(input.text.clone());
    Ok(Output { said: input.text })
});

tool!(Fail, Effect::Read, _cx, _input, {
    Err(Error::new(Code::Conflict, "it says hidden").source("because of hidden"))
});

fn registry() -> Arc<Registry<Memory>> {
    let registry = Registry::new().with::<Look>("look").with::<Stare>("stare");
    Arc::new(registry.with::<Write>("write").with::<Build>("build").with::<Fail>("fail"))
}

fn call(tool: &str) -> Call {
    let scopes = [Scope::DbRead].into_iter().collect::<Scopes>();
    let caller = Caller::new(Principal::Key, TenantId::new(), KeyId::new(), scopes);
    Call::new(Arc::new(caller.in_env(Some(EnvId::new()))), tool, json!({ "text": "hi" }))
}

fn changed(call: &mut Call, change: impl FnOnce(&mut Caller)) {
    let mut caller = Caller::clone(&call.caller);
    change(&mut caller);
    call.caller = Arc::new(caller);
}

#[tokio::test]
async fn a_call_gives_the_output_and_leaves_one_record() {
    let platform = Arc::new(Memory::default());
    assert_eq!(registry().call(&platform, call("look")).await.unwrap(), json!({ "said": "hi" }));
    assert_eq!(*platform.records.lock().unwrap(), [("look", None)]);
    let digest = *platform.digest.lock().unwrap();
    assert_ne!(
        digest,
        Some(<[u8; 32]>::from(Sha256::digest(r#"{"text":"hi"}"#))),
        "inputs cannot be guessed from it"
    );
}

#[tokio::test]
async fn what_is_refused_is_recorded_and_never_run() {
    let platform = Arc::new(Memory::default());
    let mut scopeless = call("write");
    changed(&mut scopeless, |caller| caller.scopes = Scopes::NONE);
    let mut visitor = call("write");
    changed(&mut visitor, |caller| caller.principal = Principal::Visitor);
    let mut homeless = call("write");
    changed(&mut homeless, |caller| caller.env = None);
    let mut narrowed = call("write");
    narrowed.selection = Selection::ReadOnly;
    let mut wrong = call("write");
    wrong.input = json!({ "text": 1 });
    let cases = [
        (scopeless, Code::Forbidden),
        (visitor, Code::Forbidden),
        (homeless, Code::InvalidInput),
        (narrowed, Code::Forbidden),
        (wrong, Code::InvalidInput),
    ];
    for (call, code) in cases {
        assert_eq!(registry().call(&platform, call).await.unwrap_err().code(), code);
        assert_eq!(platform.records.lock().unwrap().pop(), Some(("write", Some(code))));
    }
    assert!(platform.written.lock().unwrap().is_empty());
    assert_eq!(registry().call(&platform, call("none")).await.unwrap_err().code(), Code::NotFound);
    assert!(
        Env::authorize(&call("write").caller, &[Scope::DbRead]).is_ok(),
        "the cases differ in one thing each"
    );
}

#[tokio::test]
async fn a_flood_that_is_turned_away_leaves_no_records() {
    let platform = Arc::new(Memory::default());
    platform.full.store(true, Ordering::Relaxed);
    assert_eq!(registry().call(&platform, call("look")).await.unwrap_err().code(), Code::RateLimited);
    assert!(platform.records.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_idempotency_key_runs_a_change_once() {
    let platform = Arc::new(Memory::default());
    let again = |text: &str| {
        let mut call = call("write");
        call.idempotency_key = Some("k".to_owned());
        call.input = json!({ "text": text });
        changed(&mut call, |caller| caller.env = None);
        call
    };
    let env = EnvId::new();
    let with_env = |mut call: Call| {
        changed(&mut call, |caller| caller.env = Some(env));
        call
    };
    for _ in 0..3 {
        let said = registry().call(&platform, with_env(again("hi"))).await.unwrap();
        assert_eq!(said, json!({ "said": "hi" }));
    }
    assert_eq!(*platform.written.lock().unwrap(), ["hi"]);
    let misuse = registry().call(&platform, with_env(again("ho"))).await.unwrap_err();
    assert_eq!(misuse.status(), 422);
    platform.replays.lock().unwrap().get_mut("k").unwrap().1 = None;
    let unknown = registry().call(&platform, with_env(again("hi"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Conflict, "a change whose end nobody saw is not made twice");
}

#[tokio::test]
async fn a_read_is_dropped_at_its_deadline() {
    let platform = Arc::new(Memory::default());
    let mut slow = call("stare");
    slow.deadline = Some(Duration::from_millis(20));
    let late = registry().call(&platform, slow).await.unwrap_err();
    assert_eq!((late.code(), late.message()), (Code::Timeout, "the call ran longer than 0.02 s"));
}

#[tokio::test]
async fn a_call_ends_with_the_credential_that_makes_it() {
    let platform = Arc::new(Memory::default());
    let soon = || Some(Timestamp::now().plus(Duration::from_millis(20)));
    let mut brief = call("stare");
    changed(&mut brief, |caller| caller.expires = soon());
    let ended = registry().call(&platform, brief).await.unwrap_err();
    assert_eq!(
        (ended.code(), ended.message()),
        (Code::Unauthenticated, "the credential ended before the call did")
    );
    let mut brief = call("build");
    changed(&mut brief, |caller| caller.expires = soon());
    assert_eq!(registry().call(&platform, brief).await.unwrap(), json!({ "said": "hi" }));
    // And where it is revoked meanwhile.
    let platform = Arc::new(Memory::default());
    let running = tokio::spawn({
        let platform = Arc::clone(&platform);
        async move { registry().call(&platform, call("stare")).await }
    });
    platform.told.notified().await;
    platform.revoked.notify_one();
    assert_eq!(running.await.unwrap().unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_change_past_its_deadline_comes_to_its_own_end() {
    let platform = Arc::new(Memory::default());
    let mut slow = call("build");
    slow.deadline = Some(Duration::from_millis(20));
    assert_eq!(registry().call(&platform, slow).await.unwrap(), json!({ "said": "hi" }));
    assert_eq!(*platform.written.lock().unwrap(), ["hi"]);
}

#[tokio::test]
async fn a_change_whose_caller_goes_away_is_told_and_recorded() {
    let platform = Arc::new(Memory::default());
    let registry = registry();
    {
        let running = registry.call(&platform, call("build"));
        tokio::select! {
            _ = running => unreachable!("it waits to be told"),
            () = platform.told.notified() => {}
        }
    }
    platform.recorded.notified().await;
    assert_eq!(*platform.written.lock().unwrap(), ["hi"]);
    assert_eq!(*platform.records.lock().unwrap(), [("build", None)]);
}

#[tokio::test]
async fn what_is_covered_is_covered_before_anybody_remembers_it() {
    let platform = Arc::new(Memory::default());
    let said = |tool: &str| {
        let mut call = call(tool);
        call.input = json!({ "text": "it is hidden" });
        call
    };
    let shown = json!({ "said": "it is ***" });
    assert_eq!(registry().call(&platform, said("look")).await.unwrap(), shown);
    let mut write = said("write");
    write.idempotency_key = Some("k".to_owned());
    assert_eq!(registry().call(&platform, write).await.unwrap(), shown);
    assert_eq!(platform.replays.lock().unwrap()["k"].1, Some(shown));
    let refused = registry().call(&platform, said("fail")).await.unwrap_err();
    assert_eq!(refused.message(), "it says ***");
    assert!(refused.chain().contains("because of ***") && !refused.chain().contains("hidden"), "{refused:?}");
}
