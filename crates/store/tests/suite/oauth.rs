//! Codes, families and devices: each is used up by one of many, and goes with what it stands on.

use std::time::Duration;

use kernel::{EnvId, Held, KeyId, RunId, Scope, TenantId};
use store::{DeviceState, Minting, MostMinted, OAuthCode, OAuthDevice, OAuthFamily, OAuthGrant, Run, Store};

use crate::place::{Place, key, now};
use crate::races::race;

const MOST: MostMinted = MostMinted { of_tenant: 10, on_one: 10 };
const MINUTE: Duration = Duration::from_secs(60);

fn grant() -> OAuthGrant {
    OAuthGrant {
        client: "c".to_owned(),
        name: "C 'x'".to_owned(),
        words: "read write".to_owned(),
        resource: "http://localhost/mcp".to_owned(),
    }
}

async fn ground(place: &Place) -> (Store, TenantId, EnvId, KeyId) {
    let (store, tenant, env) = place.with_env().await;
    let key = key(tenant, None);
    assert!(store.keys().insert(&key, &[1; 32]).await.unwrap());
    (store, tenant, env, key.id)
}

async fn family(store: &Store, tenant: TenantId, env: EnvId, root: KeyId) -> OAuthFamily {
    let id = KeyId::new();
    let run = Run {
        id,
        run: RunId::new(),
        tenant,
        env,
        root,
        path: vec![id],
        scopes: [Scope::DbRead].into_iter().collect(),
        held: Held::default(),
        source: None,
        created: now(),
        ends: now().plus(MINUTE),
        revoked: None,
    };
    assert_eq!(store.runs().insert(&run, MOST).await.unwrap(), Minting::Made);
    let family = OAuthFamily { id, grant: grant(), generation: 1 };
    store.oauth().add_family(&family).await.unwrap();
    family
}

pub async fn a_code_is_used_by_one_of_many_and_a_second_use_is_noted(place: &Place) {
    let (store, _, env, owner) = ground(place).await;
    let code = OAuthCode {
        grant: grant(),
        owner,
        env,
        redirect: "http://localhost/cb".to_owned(),
        challenge: "x".to_owned(),
        expires: now().plus(MINUTE),
        family: None,
    };
    store.oauth().add_code(&[1; 32], &code).await.unwrap();
    assert_eq!(store.oauth().code(&[1; 32]).await.unwrap(), Some(code));
    assert_eq!(store.oauth().code(&[2; 32]).await.unwrap(), None);
    let won = race(|_| {
        let store = store.clone();
        async move { store.oauth().use_code(&[1; 32], KeyId::new()).await.unwrap() }
    });
    assert_eq!(won.await.into_iter().filter(|won| *won).count(), 1);
    assert!(store.oauth().code(&[1; 32]).await.unwrap().unwrap().family.is_some());
    assert!(!store.oauth().was_replayed(&[1; 32]).await.unwrap());
    store.oauth().note_replay(&[1; 32]).await.unwrap();
    assert!(store.oauth().was_replayed(&[1; 32]).await.unwrap());
    store.oauth().purge(now(), now()).await.unwrap();
    assert!(store.oauth().code(&[1; 32]).await.unwrap().is_some());
    store.oauth().purge(now().plus(MINUTE), now()).await.unwrap();
    assert_eq!(store.oauth().code(&[1; 32]).await.unwrap(), None);
}

pub async fn a_family_goes_on_by_one_of_many_and_goes_with_its_credential(place: &Place) {
    let (store, tenant, env, root) = ground(place).await;
    let family = family(&store, tenant, env, root).await;
    assert_eq!(store.oauth().family(family.id).await.unwrap().as_ref(), Some(&family));
    let won = race(|_| {
        let store = store.clone();
        async move { store.oauth().advance(family.id, 1).await.unwrap() }
    });
    assert_eq!(won.await.into_iter().filter(|won| *won).count(), 1);
    assert_eq!(store.oauth().family(family.id).await.unwrap().unwrap().generation, 2);
    assert!(store.runs().revoke((tenant, None, None), family.id, now()).await.unwrap());
    store.runs().purge(now()).await.unwrap();
    assert_eq!(store.oauth().family(family.id).await.unwrap(), None);
}

pub async fn a_device_is_answered_once_and_used_once_and_no_more_wait_than_may(place: &Place) {
    let (store, _, env, owner) = ground(place).await;
    let oauth = store.oauth();
    let device = |user_code: &str| OAuthDevice {
        user_code: user_code.to_owned(),
        grant: grant(),
        begun: now(),
        expires: now().plus(MINUTE),
        state: DeviceState::Waiting,
    };
    let first = device("AAAA");
    assert!(oauth.add_device(&[1; 32], &first, 2).await.unwrap());
    assert!(!oauth.add_device(&[2; 32], &device("AAAA"), 9).await.unwrap(), "the code is another's");
    assert!(oauth.add_device(&[2; 32], &device("BBBB"), 2).await.unwrap());
    assert!(!oauth.add_device(&[3; 32], &device("CCCC"), 2).await.unwrap(), "as many wait as may");
    assert_eq!(oauth.device(&[1; 32]).await.unwrap().as_ref(), Some(&first));
    assert_eq!(oauth.waiting_device("AAAA", now()).await.unwrap().as_ref(), Some(&first));
    assert_eq!(oauth.waiting_device("AAAA", now().plus(MINUTE * 2)).await.unwrap(), None);
    assert!(!oauth.use_device(&[1; 32]).await.unwrap(), "nobody has answered");
    assert!(oauth.answer_device("AAAA", Some((owner, env, "read")), now()).await.unwrap());
    assert!(!oauth.answer_device("AAAA", None, now()).await.unwrap());
    let answered = oauth.device(&[1; 32]).await.unwrap().unwrap();
    assert_eq!((answered.state, answered.grant.words.as_str()), (DeviceState::Approved(owner, env), "read"));
    let won = race(|_| {
        let store = store.clone();
        async move { store.oauth().use_device(&[1; 32]).await.unwrap() }
    });
    assert_eq!(won.await.into_iter().filter(|won| *won).count(), 1);
    assert!(oauth.answer_device("BBBB", None, now()).await.unwrap());
    assert_eq!(oauth.device(&[2; 32]).await.unwrap().unwrap().state, DeviceState::Denied);
}
