//! How people sign in, as a part of releases.

use std::collections::BTreeSet;

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
