//! Schedules of an app: planned, applied, rolled back, and held where they came along with a copy.

use super::functions::{named, told};
use super::*;
use crate::database::{Durability, Role};

const TIMED: &str = "export default { scheduled() {} }";

fn timed(schedules: Value) -> Value {
    let files = json!({ "index.ts": TIMED });
    json!({ "functions": { "job": { "files": files }, "web": { "files": { "index.ts": "fetch" } } }, "schedules": schedules })
}

fn nightly(more: Value) -> Value {
    let mut one = json!({ "function": "job", "cron": "30 3 * * *" });
    one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "nightly": one })
}

impl Yard {
    async fn running(&self) -> Vec<String> {
        let running = self.releases.scheduled(&self.env).await.unwrap().running();
        running.iter().map(|(name, it)| format!("{name}: {it}")).collect()
    }
}

#[tokio::test]
async fn schedules_are_planned_applied_and_rolled_back_with_the_app() {
    let yard = Yard::new().await;
    assert_eq!(yard.running().await, [""; 0]);
    let made = yard.apply(timed(nightly(json!({})))).await.unwrap();
    assert_eq!(changes(&made.changes)[2..], ["create schedule nightly: job at 30 3 * * *"]);
    assert_eq!(yard.running().await, ["nightly: job at 30 3 * * *"]);
    // What is said without being otherwise is no change.
    let same = nightly(json!({ "overlap": "skip", "missed": "skip", "retries": 0, "enabled": true }));
    assert!(!yard.apply(json!({ "schedules": same })).await.unwrap().changed);
    let all = json!({ "timezone": "Asia/Shanghai", "payload": { "a": 1 }, "overlap": "allow", "missed": "once", "retries": 3 });
    let plan = yard.plan(json!({ "schedules": nightly(all.clone()) })).await.unwrap();
    let words =
        "job at 30 3 * * * in Asia/Shanghai, payload of 7 bytes, overlap allow, missed once, retries 3";
    assert_eq!(changes(&plan.changes), [format!("alter schedule nightly: job at 30 3 * * * → {words}")]);
    yard.apply_plan(plan.id, None).await.unwrap();
    let mut other = all;
    other["payload"] = json!({ "a": 2 });
    let other = yard.apply(json!({ "schedules": nightly(other) })).await.unwrap();
    assert_eq!(changes(&other.changes), ["alter schedule nightly: its payload"]);
    // A section that is left out stays, an empty one is emptied, and what is off does not run.
    yard.apply(json!({ "name": "x" })).await.unwrap();
    assert_eq!(yard.running().await.len(), 1);
    let off = yard.apply(json!({ "schedules": nightly(json!({ "enabled": false })) })).await.unwrap();
    assert!(changes(&off.changes)[0].ends_with("→ job at 30 3 * * *, not enabled"), "{:?}", off.changes);
    assert_eq!(yard.running().await, [""; 0]);
    let none = yard.apply(json!({ "schedules": {} })).await.unwrap();
    assert_eq!(changes(&none.changes), ["drop schedule nightly"]);
    yard.rollback(1).await.unwrap();
    assert_eq!(yard.running().await, ["nightly: job at 30 3 * * *"]);
}

#[tokio::test]
async fn a_schedule_needs_a_function_that_can_be_asked_by_it() {
    let yard = Yard::new().await;
    yard.apply(timed(json!({}))).await.unwrap();
    let refusal = async |manifest: Value| told(&yard.apply(manifest).await.unwrap_err());
    let web = json!({ "schedules": nightly(json!({ "function": "web" })) });
    let lacks =
        "InvalidInput /schedules/nightly/function: the function web has no handler that a schedule could ask";
    assert_eq!(refusal(web.clone()).await, lacks);
    // A plan runs nothing, and what is planned is looked at when it is applied.
    let plan = yard.plan(web).await.unwrap();
    assert_eq!(told(&yard.apply_plan(plan.id, None).await.unwrap_err()), lacks);
    let none = json!({ "schedules": nightly(json!({ "function": "none" })) });
    let missing = "InvalidInput /schedules/nightly/function: there is no function none";
    assert_eq!(refusal(none).await, missing);
    yard.apply(json!({ "schedules": nightly(json!({})) })).await.unwrap();
    assert_eq!(refusal(json!({ "functions": {} })).await, missing.replace("none", "job"));
    let without =
        yard.releases.plan_removal(&yard.env, Removal::Function("job".to_owned())).await.unwrap_err();
    assert_eq!(told(&without), "Conflict /name: the schedule nightly asks the function job");
    // Who may not bring code may not have it run either.
    let limited = yard.env_with(&[Scope::AppWrite]);
    let manifest = parse(json!({ "schedules": {} }));
    let forbidden = yard.releases.plan(&limited, manifest, &[]).await.unwrap_err();
    assert_eq!((forbidden.code(), forbidden.pointer()), (Code::Forbidden, Some("/schedules")));
    assert!(yard.releases.live(&yard.env).await.unwrap().unwrap().functions.contains_key(&named("job")));
}

#[tokio::test]
async fn schedules_of_a_copy_are_held_until_a_manifest_brings_some() {
    let yard = Yard::new().await;
    yard.apply(timed(nightly(json!({})))).await.unwrap();
    let mut db = yard.databases.writer(&yard.env).await.unwrap();
    db.begin(Durability::Normal).await.unwrap();
    db.run(Role::Platform, HOLD, &[]).await.unwrap();
    db.commit().await.unwrap();
    drop(db);
    assert_eq!(yard.running().await, [""; 0]);
    let described = yard.releases.describe(&yard.env).await.unwrap();
    assert!(described.schedules["nightly"].off && described.schedules["nightly"].next.is_none());
    assert!(described.advice.iter().any(|it| it.starts_with("no schedule runs in this copy")));
    yard.apply(json!({ "name": "x" })).await.unwrap();
    assert_eq!(yard.running().await, [""; 0]);
    let begun = yard.apply(json!({ "schedules": nightly(json!({})) })).await.unwrap();
    assert_eq!(changes(&begun.changes), ["alter schedules: run in this copy"]);
    assert_eq!(begun.effects.len(), 1);
    assert_eq!(yard.running().await, ["nightly: job at 30 3 * * *"]);
    assert!(!yard.apply(json!({ "schedules": nightly(json!({})) })).await.unwrap().changed);
}
