//! Functions as tools show and remove them.

use std::collections::BTreeSet;

use capabilities::functions::{Access, Runtime};
use capabilities::releases::{Description, FunctionInfo};
use serde_json::json;
use tool::Tool;

use super::super::app_apply::AppApply;
use super::super::app_plan::AppPlan;
use super::super::function_deploy::FunctionDeploy;
use super::super::parts::{Parts, Section, Shown};
use super::{Ground, cost};
use crate::platform::Platform;

fn many() -> Parts {
    let names = |word: &str, count: usize| (0..count).map(|n| format!("{word}_{n}")).collect::<Vec<_>>();
    let function = FunctionInfo {
        version: "0123456789ab".to_owned(),
        runtime: Runtime::Bun,
        access: Access::SignedIn,
        path: "/_/fn/name".to_owned(),
        entry: None,
        files: names("src/some/long/path/of/a/file", 2_000),
        variables: names("VARIABLE", 200),
        secrets: names("SECRET", 200),
        memory_mb: Some(1_024),
        timeout_s: Some(900),
        concurrency: Some(200),
        max_instances: Some(8),
        events: names("created, updated or deleted rows of table", 20),
        waiting: 1_000,
        failed: Some("a function that it was told in vain".repeat(10)),
    };
    let functions = names("function", 100).into_iter().map(|name| (name, function.clone())).collect();
    let app = Description { functions, variables: names("VARIABLE", 200), ..Description::default() };
    Parts { app, ..Parts::default() }
}

#[test]
fn many_functions_are_described_in_pages() {
    let Shown { parts, omitted, .. } = many().overview();
    assert!(cost(&json!(parts.app)) <= 1_000, "{}", cost(&json!(parts.app)));
    let left = 100 - parts.app.functions.len();
    assert!(left < 100);
    assert_eq!(omitted, [format!("{left} functions: section functions")]);
    let (mut seen, mut cursor) = (BTreeSet::new(), None);
    loop {
        let page = many().section(Section::Functions, cursor.as_deref()).unwrap();
        assert!(cost(&json!(page.parts.app)) <= 4_000);
        seen.extend(page.parts.app.functions.into_keys());
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 100);
}

#[test]
fn what_brings_functions_waits_as_long_as_a_build_may_take() {
    let patience = [
        <AppPlan as Tool<Platform>>::PATIENCE,
        <AppApply as Tool<Platform>>::PATIENCE,
        <FunctionDeploy as Tool<Platform>>::PATIENCE,
    ];
    assert_eq!(patience.map(|it| it.as_secs()), [420; 3]);
}

#[tokio::test]
async fn a_machine_without_runtimes_says_so_and_names_what_is_not_there() {
    let ground = Ground::new().await;
    let manifest = json!({ "functions": { "hello": { "files": { "index.ts": "1" } } } });
    let refused = ground.call("app_apply", json!({ "manifest": manifest })).await.unwrap_err();
    assert_eq!(refused.pointer(), Some("/manifest/functions/hello"));
    assert_eq!(refused.message(), "this machine runs no functions");
    let wrong = json!({ "functions": { "hello": { "files": {}, "memory": 1 } } });
    let refused = ground.call("app_apply", json!({ "manifest": wrong })).await.unwrap_err();
    assert_eq!(refused.pointer(), Some("/manifest/functions/hello/memory"));
    let input = json!({ "kind": "function", "name": "hello", "dry_run": true });
    let missing = ground.call("resource_delete", input).await.unwrap_err();
    assert_eq!((missing.message(), missing.pointer()), ("there is no function hello", Some("/name")));
}
