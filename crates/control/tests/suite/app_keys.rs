//! The keys of apps' tokens: one for each environment, good for nothing else.

use kernel::{Env, EnvId};
use serde_json::{Value, json};
use store::{Location, Store};

use crate::platform::{Platform, proof, said, tenant};

#[tokio::test]
async fn each_environment_has_its_own_key_and_keeps_it() {
    let platform = Platform::new().await;
    let keys = platform.control.app_keys();
    let (env, other) = (proof(&platform.default), proof(&platform.env(&platform.operator, "other").await));
    let token = keys.sign(&env, &json!({ "sub": "ada" })).await.unwrap();
    let read = async |env: &Env| keys.verify::<Value>(env, token.expose()).await.unwrap();
    assert_eq!(read(&env).await, Some(json!({ "sub": "ada" })));
    assert_eq!(read(&other).await, None);
    let (mine, others) = (keys.kid(&env).await.unwrap(), keys.kid(&other).await.unwrap());
    assert_ne!(mine, others);
    assert_eq!(keys.jwks(&env).await.unwrap()["keys"][0]["kid"], mine);
    // The platform's own key is another, and none of these passes for it.
    assert_ne!(platform.control.tokens().jwks()["keys"][0]["kid"], mine);

    // What is on disk is sealed, and opens in its own place only.
    let store = Store::open(&Location::Sqlite(platform.path().join("control.db"))).await.unwrap();
    let row = store.signing_keys().current(&env.id().to_string()).await.unwrap().unwrap();
    assert_eq!(row.id, mine);
    assert!(row.sealed.starts_with("v2.") && row.data_key.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_first_uses_one_makes_the_key() {
    let platform = Platform::new().await;
    let (keys, env) = (platform.control.app_keys(), proof(&platform.default));
    let uses = (0..16).map(|_| keys.kid(&env));
    let kids: Vec<_> = futures::future::join_all(uses).await.into_iter().map(Result::unwrap).collect();
    assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
}

#[tokio::test]
async fn a_key_goes_with_its_environment_and_none_is_made_for_what_is_gone() {
    let platform = Platform::new().await;
    let control = &platform.control;
    let shop = platform.env(&platform.operator, "shop").await;
    let env = proof(&shop);
    let token = control.app_keys().sign(&env, &json!({})).await.unwrap();
    let tenant = tenant(&platform.operator);
    let confirm = control.environments().confirm_delete(&tenant, "shop", b"").await.unwrap().token;
    let doomed = control.environments().begin_delete(&tenant, "shop", b"", &confirm).await.unwrap();
    control.environments().finish_delete(&doomed).await.unwrap();
    let missing = format!("not_found there is no environment \"{}\"", env.id());
    assert_eq!(said(control.app_keys().verify::<Value>(&env, token.expose()).await), missing);
    let store = Store::open(&Location::Sqlite(platform.path().join("control.db"))).await.unwrap();
    assert_eq!(store.signing_keys().current(&env.id().to_string()).await.unwrap(), None);
    let never = Env::for_upkeep(env.tenant(), EnvId::new());
    assert!(control.app_keys().kid(&never).await.is_err());
}
