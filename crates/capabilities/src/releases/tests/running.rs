//! Code of a manifest: who may bring it, when it starts, and what is built for it.

use super::functions::{files, hello, named, told};
use super::*;
use crate::functions::{Artifact, Files, FunctionChange, Runtime};
use crate::hosting::SiteFile;
use crate::releases::merge::Sides;

#[tokio::test]
async fn code_is_brought_only_by_who_may_run_it() {
    let yard = Yard::new().await;
    let writes = yard.env_with(&[Scope::AppRead, Scope::AppWrite, Scope::DbRead]);
    let runs = yard.env_with(&[Scope::AppWrite, Scope::FunctionWrite]);
    let cancel = CancellationToken::new();
    let apply = async |env: &Env, wanted: Wanted| yard.releases.apply(env, wanted, &[], &cancel).await;
    let manifest = |manifest: &Value| Wanted::Manifest(Box::new(parse(manifest.clone())));
    let code = "Forbidden /functions: functions run code: the credential lacks the scope function:write";
    let variables = "Forbidden /variables: variables change what functions do: the credential lacks the scope \
                     function:write";
    for (brought, expected) in [(hello(json!({})), code), (json!({ "variables": { "A": "1" } }), variables)] {
        let planned = yard.releases.plan(&writes, parse(brought.clone()), &[]).await.unwrap_err();
        assert_eq!(told(&planned), expected);
        assert_eq!(told(&apply(&writes, manifest(&brought)).await.unwrap_err()), expected);
        // Nor by a plan of somebody who may.
        let plan = yard.releases.plan(&runs, parse(brought), &[]).await.unwrap();
        let by_plan = || Wanted::Plan { id: plan.id, confirm: None };
        assert_eq!(told(&apply(&writes, by_plan()).await.unwrap_err()), expected);
        assert!(apply(&runs, by_plan()).await.unwrap().changed);
    }
    assert!(apply(&writes, manifest(&json!({ "name": "x" }))).await.unwrap().changed);

    // A branch's code, too.
    let theirs = yard.functions().await;
    yard.apply(json!({ "functions": {} })).await.unwrap();
    let now = async || json!(yard.current().await);
    for (change, expected) in [(json!({ "hello": theirs[&named("hello")] }), Err(code)), (json!({}), Ok(()))]
    {
        let mut manifest = now().await;
        manifest["name"] = json!("theirs");
        let sides = Sides {
            base: [now().await, Value::Null, json!({})],
            theirs: [manifest, Value::Null, change],
            migrations: Vec::new(),
        };
        let merged = yard.releases.merge(&writes, sides, &[]).await.unwrap();
        let planned = yard.releases.plan_merged(&writes, merged).await;
        assert_eq!(planned.map(drop).map_err(|refused| told(&refused)), expected.map_err(str::to_owned));
    }
}

#[tokio::test]
async fn a_plan_runs_nothing_and_what_does_not_start_is_not_switched_to() {
    let yard = Yard::new().await;
    let mut throws = hello(json!({}));
    throws["functions"]["hello"]["files"]["index.ts"] = json!("??");
    let plan = yard.plan(throws.clone()).await.unwrap();
    let expected = "InvalidInput /functions/hello: the function does not start: it throws";
    assert_eq!(told(&yard.apply_plan(plan.id, None).await.unwrap_err()), expected);
    assert_eq!(told(&yard.apply(throws).await.unwrap_err()), expected);
    assert!(yard.releases.live(&yard.env).await.unwrap().is_none_or(|served| served.functions.is_empty()));
}

#[tokio::test]
async fn a_function_starts_with_a_secret_only_where_who_deploys_it_may_give_it() {
    let yard = Yard::new().await;
    let runs = yard.env_with(&[Scope::FunctionWrite]);
    let cancel = CancellationToken::new();
    // It would say that it does not start, if it were started.
    let change = FunctionChange {
        files: files(&[("index.ts", "??")]),
        secrets: Some(vec!["KEY".to_owned()]),
        ..FunctionChange::default()
    };
    let secrets = ["KEY".to_owned()];
    let deployed = yard
        .releases
        .deploy_code(&runs, named("hello"), CodeChange::Function(change), &secrets, &|_| {}, &cancel)
        .await;
    assert_eq!(
        told(&deployed.unwrap_err()),
        "Forbidden /secrets: the secret KEY would be given to the function hello: the credential lacks the scope \
         secret:write"
    );
}

#[tokio::test]
async fn what_has_a_secret_gets_other_code_only_from_who_may_give_it() {
    let yard = Yard::new().await;
    let scopes = [Scope::AppRead, Scope::AppWrite, Scope::FunctionWrite];
    let runs = yard.env_with(&scopes);
    let trusted = yard.env_with(&[&scopes[..], &[Scope::SecretWrite]].concat());
    let (cancel, secrets) = (CancellationToken::new(), ["KEY".to_owned()]);
    let apply = async |env: &Env, manifest: &Value| {
        let manifest = Wanted::Manifest(Box::new(parse(manifest.clone())));
        yard.releases.apply(env, manifest, &secrets, &cancel).await.map_err(|refused| told(&refused))
    };
    let deploy = async |change: FunctionChange| {
        let change = CodeChange::Function(change);
        let done = yard.releases.deploy_code(&runs, named("hello"), change, &secrets, &|_| {}, &cancel).await;
        done.map_err(|refused| told(&refused))
    };
    let refused = |at: &str, of: &str| {
        Err(format!(
            "Forbidden {at}: the secret KEY would be given to the function hello with other {of}: the credential \
             lacks the scope secret:write"
        ))
    };
    let first = hello(json!({ "secrets": ["KEY"] }));
    apply(&trusted, &first).await.unwrap();

    // It would say that it does not start, if it were started.
    let code = FunctionChange { files: files(&[("index.ts", "??")]), ..FunctionChange::default() };
    assert_eq!(deploy(code).await.map(drop), refused("/files", "code"));
    let runtime = FunctionChange { runtime: Some(Runtime::Node), ..FunctionChange::default() };
    assert_eq!(deploy(runtime).await.map(drop), refused("/files", "code"));
    // Where it says to whom it sends the secret, a variable may be what says it.
    let elsewhere = [("API".to_owned(), Some("https://example.com".to_owned()))].into();
    let variables = FunctionChange { variables: elsewhere, ..FunctionChange::default() };
    assert_eq!(deploy(variables).await.map(drop), refused("/variables", "variables"));
    let all = json!({ "variables": { "API": "https://example.com" } });
    assert_eq!(apply(&runs, &all).await.map(drop), refused("", "variables"));
    let mut other = first.clone();
    other["functions"]["hello"]["files"]["index.ts"] = json!("export default {}");
    assert_eq!(apply(&runs, &other).await.map(drop), refused("/functions/hello/files", "code"));

    // What changes neither needs nothing, and without the secret it is free.
    let wider = FunctionChange { memory_mb: Some(256), ..FunctionChange::default() };
    assert!(deploy(wider).await.unwrap().0.changed);
    let bare = FunctionChange {
        files: files(&[("index.ts", "export default { other: 1 }")]),
        secrets: Some(Vec::new()),
        ..FunctionChange::default()
    };
    assert!(deploy(bare).await.unwrap().0.changed);
    apply(&trusted, &first).await.unwrap();

    // Nor is it brought by the plan of somebody who may, by a branch, or from an earlier release.
    let plan = yard.releases.plan(&trusted, parse(other.clone()), &secrets).await.unwrap();
    let told_of = "Privilege secret KEY: it is given to the function hello with other code";
    assert_eq!(effects(&plan.effects), [told_of]);
    let by_plan = || Wanted::Plan { id: plan.id, confirm: plan.confirm.clone() };
    let planned = yard.releases.apply(&runs, by_plan(), &secrets, &cancel).await;
    assert_eq!(planned.map(drop).map_err(|it| told(&it)), refused("/functions/hello/files", "code"));
    let base = [json!(yard.current().await), Value::Null, json!(yard.functions().await)];
    let live = yard.releases.apply(&trusted, by_plan(), &secrets, &cancel).await.unwrap();
    let theirs = [json!(yard.current().await), Value::Null, json!(yard.functions().await)];
    let back = yard.releases.rollback(&runs, live.release - 1, &secrets, &cancel).await;
    assert_eq!(back.map(drop).map_err(|it| told(&it)), refused("", "code"));
    yard.releases.rollback(&trusted, live.release - 1, &secrets, &cancel).await.unwrap();
    let sides = || Sides { base: base.clone(), theirs: theirs.clone(), migrations: Vec::new() };
    let merge = async || yard.releases.merge(&runs, sides(), &secrets).await.unwrap();
    let plan = yard.releases.plan_merged(&runs, merge().await).await.unwrap();
    let merged = merge().await;
    assert_eq!(effects(&plan.effects), [told_of]);
    let confirm = plan.confirmation();
    let applied = yard.releases.apply_merged(&runs, &merged, &confirm, &cancel).await;
    assert_eq!(applied.map(drop).map_err(|it| told(&it)), refused("", "code"));
    assert!(yard.releases.apply_merged(&trusted, &merged, &confirm, &cancel).await.unwrap().changed);
}

#[tokio::test]
async fn functions_are_told_of_users_and_of_other_tables_only_where_who_brings_them_sees_those() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE by_hand (id TEXT PRIMARY KEY)").await;
    let cancel = CancellationToken::new();
    let runs = yard.env_with(&[Scope::AppWrite, Scope::FunctionWrite]);
    let sees = yard.env_with(&[Scope::AppWrite, Scope::FunctionWrite, Scope::AuthRead, Scope::DbRead]);
    let apply = async |env: &Env, manifest: &Value| {
        let manifest = Wanted::Manifest(Box::new(parse(manifest.clone())));
        yard.releases.apply(env, manifest, &[], &cancel).await
    };
    let listens = |event: Value| {
        let mut manifest = hello(json!({ "events": [event] }));
        manifest["functions"]["hello"]["files"]["index.ts"] = json!("event");
        manifest["database"] = json!({ "tables": { "notes": { "columns": { "text": "text" } } } });
        manifest
    };
    apply(&runs, &listens(json!({ "on": "rows", "table": "Notes" }))).await.unwrap();
    for (event, of, scope) in [
        (json!({ "on": "auth" }), "the app's users", "auth:read"),
        (
            json!({ "on": "rows", "table": "by_hand" }),
            "rows of by_hand, a table that no manifest has",
            "db:read",
        ),
    ] {
        let expected = format!(
            "Forbidden /functions/hello/events/0: the function hello would be told of {of}: \
             the credential lacks the scope {scope}"
        );
        let manifest = listens(event);
        assert_eq!(told(&apply(&runs, &manifest).await.unwrap_err()), expected);
        // Nor by the plan of somebody who may, nor by other code.
        let plan = yard.releases.plan(&sees, parse(manifest.clone()), &[]).await.unwrap();
        let users = plan.effects.iter().any(|it| it.message.contains("who the app's users are"));
        assert_eq!(users, scope == "auth:read");
        let by_plan = || Wanted::Plan { id: plan.id, confirm: plan.confirm.clone() };
        let refused = yard.releases.apply(&runs, by_plan(), &[], &cancel).await.unwrap_err();
        assert_eq!(told(&refused), expected);
        assert!(yard.releases.apply(&sees, by_plan(), &[], &cancel).await.unwrap().changed);
        let mut other = manifest.clone();
        other["functions"]["hello"]["files"]["index.ts"] = json!("event other");
        assert_eq!(told(&apply(&runs, &other).await.unwrap_err()), expected);
        // What stays as it is needs nothing.
        let mut same = manifest;
        same["functions"]["hello"]["timeout_s"] = json!(7);
        assert!(apply(&runs, &same).await.unwrap().changed);
    }
}

#[tokio::test]
async fn what_was_built_is_not_built_again_where_the_call_came_to_nothing() {
    let yard = Yard::new().await;
    let mut two = hello(json!({}));
    two["functions"]["wrong"] = json!({ "files": { "index.ts": "!!" } });
    assert!(yard.apply(two.clone()).await.is_err());
    assert_eq!(yard.builder.built(), ["hello", "wrong"]);
    two["functions"]["wrong"] = json!({ "files": { "index.ts": "right" } });
    yard.apply(two.clone()).await.unwrap();
    assert_eq!(yard.builder.built(), ["wrong"]);
    // A later program builds anew.
    yard.builder.grow();
    yard.apply(two).await.unwrap();
    assert_eq!(yard.builder.built(), ["hello", "wrong"]);
}

#[tokio::test]
async fn what_is_built_is_bounded_for_one_function_and_for_all() {
    let yard = Yard::new().await;
    let mut functions = json!({});
    for name in ["a", "b", "c", "d", "e"] {
        functions[name] = json!({ "files": { "index.ts": name } });
    }
    yard.apply(json!({ "functions": functions })).await.unwrap();
    let mut all = yard.functions().await;
    let artifact = all[&named("a")].artifact.clone();
    let with = |files: usize, size: u64| {
        let file = |n: usize| (n.to_string().parse().unwrap(), SiteFile { size, ..of(&artifact) });
        let files: Files = (1..files).map(file).chain(artifact.files.clone()).collect();
        Artifact { files, ..artifact.clone() }
    };
    let check = |all: &crate::functions::Functions| {
        crate::functions::bounded_with_built(all).map_err(|refused| told(&refused))
    };
    for (files, size, at, expected) in [
        (5_000, 1, "", None),
        (5_001, 1, "/artifact/files", Some("what is built of it has 5001 files; the limit is 5000")),
        (
            2,
            250 << 20,
            "/artifact/files",
            Some("what is built of it has 262144013 bytes; the limit is 262144000"),
        ),
    ] {
        let mut function = all[&named("a")].clone();
        function.artifact = with(files, size);
        let expected = expected.map(|text| format!("TooLarge {at}: {text}"));
        assert_eq!(function.kept().err().map(|refused| told(&refused)), expected);
        all.insert(named("b"), function);
        let expected = expected.map(|text| text.replace("/artifact/files", "/functions/b/files"));
        assert_eq!(check(&all).err(), expected);
    }
    for function in all.values_mut() {
        function.artifact = with(4_000, 1);
    }
    assert_eq!(
        check(&all).unwrap_err(),
        "TooLarge /functions: the functions have 20005 files with what is built of them; the limit is 20000 for \
         all together"
    );
}

fn of(artifact: &Artifact) -> SiteFile {
    artifact.files.values().next().unwrap().clone()
}
