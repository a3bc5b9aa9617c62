//! Services of an app: deployed, changed, named, routed to, taken away; beside functions, which are kept with them.

use std::collections::BTreeMap;

use super::functions::{files, hello, named, told};
use super::*;
use crate::functions::{Access, Kind, ServiceChange};

fn live(more: Value) -> Value {
    let mut service = json!({ "files": { "app.py": "pass" }, "command": "python3 app.py" });
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "services": { "live": service } })
}

impl Yard {
    async fn kinds(&self) -> BTreeMap<String, Kind> {
        self.functions().await.into_iter().map(|(name, it)| (name.to_string(), it.kind())).collect()
    }

    async fn serve(&self, name: &str, change: ServiceChange) -> Result<Applied> {
        let (change, cancel) = (CodeChange::Service(change), CancellationToken::new());
        let done = self.releases.deploy_code(&self.env, named(name), change, &[], &|_| {}, &cancel);
        Ok(done.await?.0)
    }
}

#[tokio::test]
async fn a_service_is_built_again_when_its_files_or_its_build_are_others_and_not_for_its_command() {
    let yard = Yard::new().await;
    let first = yard.apply(live(json!({ "build": "make", "always": true }))).await.unwrap();
    assert_eq!(
        changes(&first.changes),
        ["create service live: `python3 app.py`, signed_in, 1 files, 4 bytes, built by `make`, always"]
    );
    assert_eq!(
        effects(&first.effects),
        ["Privilege service live: who is signed in may ask it at /_/svc/live"]
    );
    assert_eq!(yard.builder.built(), ["live"]);
    let version = yard.functions().await[&named("live")].version();
    let usual = json!({ "build": "make", "always": true, "memory_mb": 256, "health": { "timeout_s": 30 } });
    assert!(!yard.apply(live(usual)).await.unwrap().changed);
    let other = json!({ "build": "make", "command": "python3 -u app.py", "health": { "path": "/ready" }, "idle_s": 60 });
    let other = yard.apply(live(other)).await.unwrap();
    assert_eq!(
        changes(&other.changes),
        ["alter service live: command `python3 app.py` → `python3 -u app.py`, health none → `/ready`, \
             idle_s 300 → 60, always true → false"]
    );
    assert_eq!(yard.builder.built(), [""; 0]);
    assert_ne!(yard.functions().await[&named("live")].version(), version);
    yard.apply(live(json!({ "build": "make all" }))).await.unwrap();
    assert_eq!(yard.builder.built(), ["live"]);
    yard.rollback(1).await.unwrap();
    assert_eq!(yard.functions().await[&named("live")].version(), version);
    let public = ServiceChange { access: Some(Access::Public), ..ServiceChange::default() };
    let public = yard.serve("live", public).await.unwrap();
    assert_eq!(changes(&public.changes), ["alter service live: access signed_in → public"]);
}

#[tokio::test]
async fn each_section_has_its_own_kind_and_no_name_is_two_things() {
    let yard = Yard::new().await;
    yard.apply(hello(json!({}))).await.unwrap();
    yard.apply(live(json!({}))).await.unwrap();
    let both = [("hello".to_owned(), Kind::Function), ("live".to_owned(), Kind::Service)];
    assert_eq!(yard.kinds().await, BTreeMap::from(both.clone()));
    let taken = json!({ "services": { "hello": live(json!({}))["services"]["live"] } });
    assert_eq!(
        told(&yard.apply(taken.clone()).await.unwrap_err()),
        "Conflict /services/hello: the name hello is that of a function of this app"
    );
    let change = ServiceChange {
        files: files(&[("a", "")]),
        command: Some("a".to_owned()),
        ..ServiceChange::default()
    };
    assert_eq!(
        told(&yard.serve("hello", change).await.unwrap_err()),
        "Conflict /name: the name hello is that of a function of this app"
    );
    // Both at once, one in place of the other.
    let mut swapped = taken;
    swapped["functions"] = json!({});
    let swapped = yard.apply(swapped).await.unwrap();
    assert_eq!(
        changes(&swapped.changes),
        [
            "create service hello: `python3 app.py`, signed_in, 1 files, 4 bytes",
            "drop function hello",
            "drop service live"
        ]
    );
    yard.apply(json!({ "services": {} })).await.unwrap();
    assert_eq!(yard.kinds().await, BTreeMap::new());
}

#[tokio::test]
async fn what_no_service_can_be_is_refused_at_its_place() {
    let yard = Yard::new().await;
    for (more, expected) in [
        (json!({ "command": "" }), "InvalidInput /services/live/command: the command is empty"),
        (json!({ "health": { "path": "ready" } }), "InvalidInput /services/live/health/path: "),
        (json!({ "health": { "timeout_s": 91 } }), "InvalidInput /services/live/health/timeout_s: "),
        (json!({ "idle_s": 5 }), "InvalidInput /services/live/idle_s: idle_s is 10 to 86400"),
        (json!({ "concurrency": 301 }), "InvalidInput /services/live/concurrency: "),
        (json!({ "files": {} }), "InvalidInput /services/live/files: a service needs its files"),
        (json!({ "dir": "x" }), "InvalidInput /services/live"),
        (json!({ "secrets": ["KEY"] }), "InvalidInput /services/live/secrets/0: the secret KEY is not set"),
    ] {
        let said = told(&yard.apply(live(more.clone())).await.unwrap_err());
        assert!(said.starts_with(expected), "{more}: {said}");
    }
    let nothing = ServiceChange { files: files(&[("a", "")]), ..ServiceChange::default() };
    let said = told(&yard.serve("live", nothing).await.unwrap_err());
    assert_eq!(said, "InvalidInput /command: there is no such service yet: say what runs");
    assert!(yard.releases.live(&yard.env).await.unwrap().is_none());
}
