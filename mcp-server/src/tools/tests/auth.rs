//! An app's users, by tools.

use capabilities::auth::{Asking, Credentials, SignIn};
use capabilities::rows::{AuthSettings, Method, Mfa};
use kernel::{Env, Secret};
use serde_json::{Value, json};

use super::{Ground, cost};

const PASSWORD: &str = "correct horse battery";

async fn env(ground: &Ground) -> Env {
    let place = ground.platform.control.environments().find("default").await.unwrap().unwrap();
    Env::for_upkeep(place.tenant, place.env)
}

/// Whether the address and the password open a session, by the methods of the live release.
async fn logs_in(ground: &Ground, email: &str, password: &str) -> kernel::Result<Secret> {
    let env = env(ground).await;
    let live = ground.platform.releases.live(&env).await.unwrap().unwrap();
    let asking = Asking { env: &env, settings: &live.app.auth, client: None, device: None, domain: None };
    let typed = Credentials { email: email.to_owned(), password: Secret::new(password) };
    match ground.platform.auth.log_in(&asking, &typed).await? {
        SignIn::Session(session) => Ok(session.access_token),
        SignIn::Second(_) => panic!("a second factor instead of a session"),
    }
}

#[tokio::test]
async fn sign_in_is_configured_and_described_with_its_key() {
    let ground = Ground::new().await;
    let bare = ground.call("app_describe", json!({})).await.unwrap();
    assert_eq!(bare.get("auth"), None);
    let input = json!({ "methods": ["password"], "origins": ["HTTPS://Example.org"] });
    let mut set = ground.call("auth_configure", input.clone()).await.unwrap();
    let key = set["publishable_key"].take();
    assert!(key.as_str().is_some_and(|key| key.starts_with("pk_") && key.len() == 46), "{key}");
    assert_eq!(
        set,
        json!({
            "release": 1, "url": "http://default.localhost:8787", "changed": true, "methods": ["password"],
            "origins": ["https://example.org"], "signup": "open", "mfa": "off", "publishable_key": null,
        })
    );
    let again = ground.call("auth_configure", input).await.unwrap();
    assert_eq!((&again["changed"], &again["publishable_key"]), (&json!(false), &key));
    let seen = ground.call("app_describe", json!({})).await.unwrap();
    assert_eq!(
        seen["auth"],
        json!({ "methods": ["password"], "origins": ["https://example.org"], "users": 0, "publishable_key": key })
    );
    for wrong in
        [json!({ "methods": ["magic"] }), json!({ "origins": ["https://*.org"] }), json!({ "origin": [] })]
    {
        let refused = ground.call("auth_configure", wrong.clone()).await.unwrap_err();
        assert_eq!(refused.code(), kernel::Code::InvalidInput, "{wrong}");
    }
}

#[tokio::test]
async fn a_user_is_made_listed_and_changed_and_the_password_is_never_told() {
    let ground = Ground::new().await;
    ground.call("auth_configure", json!({ "methods": ["password"] })).await.unwrap();
    let input =
        json!({ "user": "Ada@example.org", "role": "admin", "claims": { "team": 7 }, "password": PASSWORD });
    let made = ground.call("auth_user_set", input).await.unwrap();
    let id = made["user"]["id"].clone();
    assert_eq!((&made["created"], &made["user"]["email"]), (&json!(true), &json!("ada@example.org")));
    let token = logs_in(&ground, "ada@example.org", PASSWORD).await.unwrap();
    let env = env(&ground).await;
    assert!(ground.platform.auth.recognize(&env, Mfa::Off, &token).await.is_ok());
    let listed = ground.call("auth_users", json!({ "query": "ada" })).await.unwrap();
    let user = &listed["users"][0];
    assert_eq!((&user["id"], &user["role"], &user["claims"]), (&id, &json!("admin"), &json!({ "team": 7 })));
    let off = ground.call("auth_user_set", json!({ "user": id, "disabled": true })).await.unwrap();
    assert_eq!((&off["created"], &off["signed_out"]), (&json!(false), &json!(1)));
    assert!(ground.platform.auth.recognize(&env, Mfa::Off, &token).await.is_err());
    assert!(logs_in(&ground, "ada@example.org", PASSWORD).await.is_err());
    for answer in [&made, &listed, &off] {
        let text = answer.to_string();
        assert!(!text.contains(PASSWORD) && !text.contains("argon2") && !text.contains("hash"), "{text}");
    }
    let short = json!({ "user": "b@example.org", "password": "hunter2" });
    let refused = ground.call("auth_user_set", short).await.unwrap_err();
    assert!(!format!("{refused:?} {}", refused.chain()).contains("hunter2"));
    let number = json!({ "user": "b@example.org", "password": 12_345_678 });
    let refused = ground.call("auth_user_set", number).await.unwrap_err();
    assert!(!format!("{refused:?} {}", refused.chain()).contains("12345678"), "{refused:?}");
    assert_eq!(
        ground.call("auth_users", json!({ "user": "b@example.org" })).await.unwrap()["users"],
        json!([])
    );
}

#[tokio::test]
async fn users_with_much_noted_about_them_come_in_pages_without_gap() {
    let ground = Ground::new().await;
    for n in 0..12 {
        let claims = json!({ "note": "words and more ".repeat(190) });
        let input = json!({ "user": format!("ada{n}@example.org"), "claims": claims });
        ground.call("auth_user_set", input).await.unwrap();
    }
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let page = ground.call("auth_users", json!({ "limit": 5, "cursor": cursor })).await.unwrap();
        assert!(cost(&page) <= 4_000);
        let emails =
            page["users"].as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap().to_owned());
        seen.extend(emails);
        match page.get("cursor") {
            Some(next) => cursor = next.clone(),
            None => break,
        }
    }
    assert_eq!(seen, (0..12).rev().map(|n| format!("ada{n}@example.org")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_deleted_environments_users_and_key_go_with_it() {
    let ground = Ground::new().await;
    let made = ground.call("env_create", json!({ "slug": "shop" })).await.unwrap();
    let operator = ground.operator().await;
    let env = Env::for_upkeep(operator.tenant, made["env"].as_str().unwrap().parse().unwrap());
    let settings = AuthSettings { methods: [Method::Anonymous].into(), ..AuthSettings::default() };
    let asking = Asking { env: &env, settings: &settings, client: None, device: None, domain: None };
    let SignIn::Session(session) = ground.platform.auth.anonymous(&asking).await.unwrap() else {
        panic!("no session")
    };
    assert!(ground.platform.auth.recognize(&env, Mfa::Off, &session.access_token).await.is_ok());
    let dry = ground.call("env_delete", json!({ "env": "shop", "dry_run": true })).await.unwrap();
    ground.call("env_delete", json!({ "env": "shop", "confirm": dry["confirm"] })).await.unwrap();
    assert!(ground.platform.auth.recognize(&env, Mfa::Off, &session.access_token).await.is_err());
    assert!(ground.platform.auth.publishable_key(&env).await.is_err(), "no key is made for what is gone");
    assert!(ground.platform.auth.anonymous(&asking).await.is_err());
}
