//! Secrets of an app, and those that only sandboxes send.

use serde_json::{Value, json};

use super::Ground;

fn bound(name: &str) -> Value {
    json!({ "name": name, "value": "hub-secret-hub-secret", "hosts": ["hub.example.com"] })
}

#[tokio::test]
async fn a_secret_that_is_bound_to_hosts_is_none_that_an_app_has() {
    let ground = Ground::new().await;
    ground.call("secret_set", bound("HUB")).await.unwrap();
    let google = json!({ "methods": ["oauth"], "providers": { "google": { "client_id": "x", "client_secret": "HUB" } } });
    let custom = json!({ "methods": ["custom"], "custom": { "secret": "HUB" } });
    for (tool, input, field) in [
        ("app_apply", json!({ "manifest": { "secrets": ["HUB"] } }), "/manifest/secrets/0"),
        ("app_plan", json!({ "manifest": { "auth": custom } }), "/manifest/auth/custom/secret"),
        (
            "app_apply",
            json!({ "manifest": { "auth": google } }),
            "/manifest/auth/providers/google/client_secret",
        ),
        ("auth_configure", google.clone(), "/providers/google/client_secret"),
    ] {
        let refused = ground.call(tool, input).await.unwrap_err();
        let said = (refused.code().as_str(), refused.message(), refused.pointer());
        assert_eq!(said, ("invalid_input", "the secret HUB is not set", Some(field)), "{tool}");
    }
    let seen = ground.call("app_describe", json!({})).await.unwrap();
    assert_eq!([&seen["secrets"], &seen["bound_secrets"]], [&json!(["HUB"]), &json!(["HUB"])]);

    // One that the app uses stays the app's.
    ground.call("secret_set", json!({ "name": "HUB", "value": "x" })).await.unwrap();
    ground.call("secret_set", json!({ "name": "LISTED", "value": "x" })).await.unwrap();
    ground.call("app_apply", json!({ "manifest": { "auth": google, "secrets": ["LISTED"] } })).await.unwrap();
    for (name, at) in [("HUB", "/auth/providers/google/client_secret"), ("LISTED", "/secrets")] {
        let refused = ground.call("secret_set", bound(name)).await.unwrap_err();
        let message = format!("the app uses {name}, in {at} of its manifest");
        let said = (refused.code().as_str(), refused.message(), refused.pointer());
        assert_eq!(said, ("conflict", message.as_str(), Some("/hosts")));
    }
    ground.call("secret_set", bound("GIT")).await.unwrap();
    for input in [json!({}), json!({ "section": "secrets" })] {
        let seen = ground.call("app_describe", input).await.unwrap();
        assert_eq!(
            [&seen["secrets"], &seen["bound_secrets"]],
            [&json!(["GIT", "HUB", "LISTED"]), &json!(["GIT"])]
        );
    }
}
