//! How people sign in, as a part of releases.

use std::collections::BTreeSet;

use kernel::Scope;

use super::*;
use crate::rows::Method;

async fn configure(
    yard: &Yard,
    methods: Option<&[Method]>,
    origins: Option<&[&str]>,
) -> Result<(Applied, AuthSpec)> {
    let methods = methods.map(|methods| methods.iter().copied().collect::<BTreeSet<_>>());
    let origins = origins.map(|origins| origins.iter().map(ToString::to_string).collect());
    let change = AuthChange { methods, origins, ..AuthChange::default() };
    yard.releases.configure_auth(&yard.env, change, &[], &CancellationToken::new()).await
}

async fn served(yard: &Yard) -> Value {
    let app = yard.releases.live(&yard.env).await.unwrap().unwrap().app.clone();
    json!([app.auth.methods, app.auth.origins])
}

#[tokio::test]
async fn what_is_not_given_stays_and_a_rollback_undoes_it() {
    let yard = Yard::new().await;
    yard.apply(json!({ "auth": { "methods": ["anonymous"] }, "site": { "files": { "index.html": "a" } } }))
        .await
        .unwrap();
    assert_eq!(served(&yard).await, json!([["anonymous"], []]));
    let (applied, auth) = configure(&yard, None, Some(&["https://Example.org:443"])).await.unwrap();
    assert_eq!((applied.release, applied.changed), (2, true));
    assert_eq!(auth.origins, ["https://example.org"]);
    assert_eq!(
        effects(&applied.effects),
        ["Privilege auth: sign-in by anonymous → sign-in by anonymous, also from https://example.org"]
    );
    let (applied, _) = configure(&yard, Some(&[Method::Password]), None).await.unwrap();
    assert_eq!(applied.release, 3);
    assert_eq!(served(&yard).await, json!([["password"], ["https://example.org"]]));
    let (again, _) =
        configure(&yard, Some(&[Method::Password]), Some(&["https://example.org"])).await.unwrap();
    assert_eq!((again.release, again.changed), (3, false));
    let (nothing, auth) = configure(&yard, None, None).await.unwrap();
    assert_eq!((nothing.release, nothing.changed, auth.origins.len()), (3, false, 1));
    yard.rollback(1).await.unwrap();
    assert_eq!(served(&yard).await, json!([["anonymous"], []]));
    assert!(yard.releases.describe(&yard.env).await.unwrap().site.is_some());
}

#[tokio::test]
async fn rows_of_users_without_a_way_to_sign_in_are_worth_a_word() {
    let yard = Yard::new().await;
    let notes = json!({ "columns": { "text": "text!" }, "access": "private" });
    let manifest =
        json!({ "database": { "tables": { "notes": notes } }, "site": { "files": { "index.html": "a" } } });
    yard.apply(manifest).await.unwrap();
    assert_eq!(
        yard.releases.describe(&yard.env).await.unwrap().advice,
        [
            "rows of notes belong to users, and nobody can sign in: auth_configure {\"methods\":[\"anonymous\",\"password\"]}"
        ]
    );
    configure(&yard, Some(&[Method::Anonymous]), None).await.unwrap();
    assert_eq!(yard.releases.describe(&yard.env).await.unwrap().advice, [""; 0]);
}

#[tokio::test]
async fn the_first_release_can_be_one_of_sign_in_alone() {
    let yard = Yard::new().await;
    assert_eq!(yard.releases.describe(&yard.env).await.unwrap().auth, None);
    configure(&yard, Some(&[Method::Anonymous]), None).await.unwrap();
    let described = yard.releases.describe(&yard.env).await.unwrap().auth;
    assert_eq!(json!(described), json!({ "methods": ["anonymous"], "users": 0 }));
}

#[tokio::test]
async fn what_is_no_origin_is_refused_with_its_place() {
    let yard = Yard::new().await;
    let manifest = json!({ "auth": { "origins": ["https://a.example", "https://b.example/path"] } });
    let refused = yard.apply(manifest).await.unwrap_err();
    assert_eq!(
        (refused.pointer(), refused.message()),
        (Some("/auth/origins/1"), "an origin has neither a path nor a user")
    );
    let refused = configure(&yard, None, Some(&["*"])).await.unwrap_err();
    assert_eq!(
        (refused.pointer(), refused.message()),
        (Some("/origins/0"), "an origin is scheme://host or scheme://host:port")
    );
    let many: Vec<String> = (0..21).map(|n| format!("https://{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = configure(&yard, None, Some(&many)).await.unwrap_err();
    assert_eq!((refused.pointer(), refused.message()), (Some("/origins"), "an app names at most 20 origins"));
    assert!(yard.releases.live(&yard.env).await.unwrap().is_none());
    // However it is written, the same origin is one.
    let (_, auth) =
        configure(&yard, None, Some(&["https://b.example", "https://a.example", "HTTPS://B.example"]))
            .await
            .unwrap();
    assert_eq!(auth.origins, ["https://a.example", "https://b.example"]);
}

#[tokio::test]
async fn what_no_app_may_be_called_is_refused_with_its_place() {
    let yard = Yard::new().await;
    let refused = yard.apply(json!({ "name": "Your bank: https://evil.example" })).await.unwrap_err();
    assert_eq!(
        (refused.pointer(), refused.message()),
        (Some("/name"), "the app's name is no link: it cannot contain ://")
    );
    assert!(yard.releases.live(&yard.env).await.unwrap().is_none());
}

#[tokio::test]
async fn a_secret_is_sent_to_another_host_by_who_may_set_it_alone() {
    let yard = Yard::new().await;
    let secrets = ["STRIPE".to_owned(), "SMS".to_owned()];
    let auth = |issuer: &str, more: Value| {
        let mut auth = json!({ "methods": ["oauth"], "providers": { "acme": {
            "issuer": issuer, "client_id": "x", "client_secret": "STRIPE" } } });
        auth.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        parse(json!({ "auth": auth }))
    };
    let writes = yard.env_with(&[Scope::AppWrite]);
    let trusted = yard.env_with(&[Scope::AppWrite, Scope::SecretWrite]);
    let cancel = CancellationToken::new();
    let apply = async |env: &Env, manifest: Manifest| {
        yard.releases.apply(env, Wanted::Manifest(Box::new(manifest)), &secrets, &cancel).await
    };
    let refused = |outcome: Result<Applied>, host: &str| {
        let refused = outcome.unwrap_err();
        let words =
            format!("the secret STRIPE would be sent to {host}: the credential lacks the scope secret:write");
        assert_eq!((refused.code(), refused.message()), (Code::Forbidden, words.as_str()));
    };
    let plan =
        yard.releases.plan(&writes, auth("https://id.example.com/a", json!({})), &secrets).await.unwrap();
    assert!(
        effects(&plan.effects).contains(&"Privilege secret STRIPE: it is sent to id.example.com".to_owned())
    );
    let by_plan = Wanted::Plan { id: plan.id, confirm: None };
    refused(yard.releases.apply(&writes, by_plan, &secrets, &cancel).await, "id.example.com");
    refused(apply(&writes, auth("https://id.example.com/a", json!({}))).await, "id.example.com");
    assert_eq!(apply(&trusted, auth("https://id.example.com/a", json!({}))).await.unwrap().release, 1);
    // The same host, and what has nothing to do with it, is anybody's who may change the app.
    assert!(
        apply(&writes, auth("https://id.example.com/b", json!({ "mfa": "optional" }))).await.unwrap().changed
    );
    let own = json!({ "acme": { "issuer": "https://id.example.com/b", "client_id": "x", "client_secret": "STRIPE",
        "token_url": "https://evil.example.com:8443/token" } });
    let change = AuthChange { providers: serde_json::from_value(own).unwrap(), ..AuthChange::default() };
    let configured = yard.releases.configure_auth(&writes, change, &secrets, &cancel).await;
    refused(configured.map(|(applied, _)| applied), "evil.example.com:8443");
    let phone = json!({ "phone": { "webhook": "https://sms.example.com/", "secret": "STRIPE" } });
    refused(apply(&writes, auth("https://id.example.com/b", phone)).await, "sms.example.com");
    // Nor does it come back with an earlier release.
    apply(&trusted, parse(json!({ "auth": { "methods": [] } }))).await.unwrap();
    refused(yard.releases.rollback(&writes, 1, &[], &cancel).await, "id.example.com");
    assert!(yard.releases.rollback(&trusted, 1, &[], &cancel).await.unwrap().changed);
}
