//! Access, set and explained through the tools.

use super::*;

#[tokio::test]
async fn access_is_set_tried_and_explained() {
    let ground = Ground::new().await;
    let tables = json!({ "todos": { "columns": { "title": "text!" } } });
    ground.call("app_apply", json!({ "manifest": { "database": { "tables": tables } } })).await.unwrap();
    let dry = ground
        .call("access_set", json!({ "table": "todos", "access": "private", "dry_run": true }))
        .await
        .unwrap();
    assert_eq!((&dry["release"], &dry["changed"]), (&json!(1), &json!(false)));
    let set = ground.call("access_set", json!({ "table": "todos", "access": "private" })).await.unwrap();
    assert_eq!((&set["release"], &set["changed"], &set["lint"]), (&json!(2), &json!(true), &json!([])));
    assert_eq!(
        set["matrix"],
        json!({ "anonymous": [], "other": ["create"], "user": ["list", "get", "create", "update", "delete"], "admin": ["create"] })
    );
    let explained =
        ground.call("access_explain", json!({ "on": "todos", "do": "delete", "as": "other" })).await.unwrap();
    assert_eq!(
        (&explained["allowed"], &explained["rule"], &explained["failing"]),
        (&json!(false), &json!("get: row.owner == auth.uid"), &json!("row.owner == auth.uid"))
    );
    let told = async |tool: &str, input: Value| {
        let error = ground.call(tool, input).await.unwrap_err();
        format!("{} {}", error.code().as_str(), error.pointer().unwrap_or_default())
    };
    let wrong = [
        told("access_set", json!({ "table": "todos", "access": "public" })).await,
        told("access_set", json!({ "table": "todos", "access": { "view": "true" } })).await,
        told("access_set", json!({ "table": "todos", "access": { "list": "row.a == 1" } })).await,
        told("access_set", json!({ "table": "none", "access": "private" })).await,
        told("access_explain", json!({ "on": "todos", "do": "get", "as": "root" })).await,
        told("access_explain", json!({ "on": "todos", "do": "get", "as": "user", "id": "a", "row": {} }))
            .await,
        told("access_explain", json!({ "on": "none", "do": "get", "as": "user" })).await,
    ];
    assert_eq!(
        wrong,
        [
            "invalid_input /access",
            "invalid_input /access/view",
            "invalid_input /access/list",
            "not_found /table",
            "invalid_input /as",
            "invalid_input /row",
            "not_found /on",
        ]
    );
}

#[tokio::test]
async fn long_rules_are_explained_within_the_budget() {
    let ground = Ground::new().await;
    let long = format!("row.title != {:?} && auth.uid != null", "x".repeat(3_900));
    let access = json!({ "list": long, "get": long, "create": "new.owner == auth.uid", "update": long, "delete": long });
    let tables = json!({ "todos": { "columns": { "title": "text!" }, "access": access } });
    ground.call("app_apply", json!({ "manifest": { "database": { "tables": tables } } })).await.unwrap();
    for (tool, input) in [
        ("access_set", json!({ "table": "todos", "access": access })),
        ("access_set", json!({ "table": "todos", "access": { "list": long.replace("xx", "é") } })),
        ("access_explain", json!({ "on": "todos", "do": "update", "as": "anonymous" })),
        ("app_describe", json!({})),
    ] {
        let answer = ground.call(tool, input).await.unwrap();
        let cost = tool::budget::estimate(&answer.to_string());
        assert!(cost <= 4_000, "{tool}: {cost}");
    }
}

#[tokio::test]
async fn an_explanation_about_somebody_real_needs_the_scopes_of_what_it_tells() {
    let ground = Ground::new().await;
    let tables = json!({ "todos": { "columns": { "title": "text" }, "access": { "get": "auth.email == row.title" } } });
    ground.call("app_apply", json!({ "manifest": { "database": { "tables": tables } } })).await.unwrap();
    let user = kernel::UserId::new();
    let ask = async |scopes: &[kernel::Scope], question: Value| {
        let scopes = scopes.iter().copied().collect();
        let caller = kernel::Caller { scopes, ..kernel::Caller::clone(&*ground.operator().await) };
        let call = Call::new(Arc::new(caller), "access_explain".to_owned(), question);
        match Arc::new(registry()).call(&ground.platform, call).await {
            Ok(_) => "told".to_owned(),
            Err(error) => format!("{} {}", error.pointer().unwrap_or_default(), error.message()),
        }
    };
    use kernel::Scope::{AppRead, AuthRead, DbRead};
    let about = |who: &str| json!({ "on": "todos", "do": "get", "as": who });
    assert_eq!(ask(&[AppRead], about("other")).await, "told");
    assert_eq!(
        ask(&[AppRead, DbRead], about(&user.to_string())).await,
        "/as the credential lacks the scope auth:read"
    );
    let row = json!({ "on": "todos", "do": "get", "as": "user", "id": "a" });
    assert_eq!(ask(&[AppRead, AuthRead], row.clone()).await, "/id the credential lacks the scope db:read");
    assert_eq!(ask(&[AppRead, DbRead], row).await, "/as the credential lacks the scope auth:read");
    assert_eq!(
        ask(&[AppRead, AuthRead, DbRead], about(&user.to_string())).await,
        format!("/as there is no user {user}")
    );
}
