//! What must hold when many do the same thing at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kernel::{BlobHash, CallId, KeyId, Timestamp};
use store::{Call, Claim, ClaimKey, Insertion, SealedSecret, SigningKeyRow, Store};
use tokio::sync::Barrier;

use crate::audit::Scribe;
use crate::place::{Place, environment, key, now};

pub const RACERS: usize = 16;

/// Runs `racer` for each number at once, each in a task of its own, and gives what they returned.
pub async fn race<F, R>(racer: impl Fn(usize) -> F) -> Vec<R>
where
    F: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let start = Arc::new(Barrier::new(RACERS));
    let mut running = Vec::new();
    for number in 0..RACERS {
        let (start, racer) = (Arc::clone(&start), racer(number));
        running.push(tokio::spawn(async move {
            start.wait().await;
            racer.await
        }));
    }
    let mut results = Vec::new();
    for task in running {
        results.push(task.await.unwrap());
    }
    results
}

pub async fn one_of_many_creators_of_a_slug_wins(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    let outcomes = race(|_| {
        let (store, env) = (store.clone(), environment(tenant, "shop"));
        async move { store.environments().insert(&env).await.unwrap() }
    })
    .await;
    let made = outcomes.iter().filter(|outcome| **outcome == Insertion::Made).count();
    let taken = outcomes.iter().filter(|outcome| **outcome == Insertion::SlugTaken).count();
    assert_eq!((made, taken), (1, RACERS - 1));
}

pub async fn one_external_id_is_one_environment(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    let outcomes = race(|number| {
        let mut env = environment(tenant, &format!("shop-{number}"));
        env.external_id = Some("order 66".to_owned());
        let store = store.clone();
        async move {
            match store.environments().insert(&env).await.unwrap() {
                Insertion::Made => (env.id, true),
                Insertion::Same(same) => (same.id, false),
                outcome => panic!("{outcome:?}"),
            }
        }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|(_, made)| *made).count(), 1);
    assert!(outcomes.iter().all(|(id, _)| *id == outcomes[0].0), "{outcomes:?}");
}

pub async fn one_of_many_claims_of_an_idempotency_key_is_first(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    let credential = KeyId::new();
    let outcomes = race(|_| {
        let store = store.clone();
        async move {
            let key = ClaimKey { tenant, credential, name: "k", digest: &[7; 32] };
            let at = now();
            let stale = at.minus(Duration::from_secs(900));
            store.replays().claim(&key, "me", at, stale, at.plus(Duration::from_secs(60))).await.unwrap()
        }
    })
    .await;
    let first = outcomes.iter().filter(|outcome| **outcome == Claim::First).count();
    let running = outcomes.iter().filter(|outcome| **outcome == Claim::Running).count();
    assert_eq!((first, running), (1, RACERS - 1));
}

pub async fn a_key_is_dead_for_every_reader_once_its_revocation_returned(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    let key = key(tenant, None);
    assert!(store.keys().insert(&key, &[1; 32]).await.unwrap());
    let outcomes = race(|number| {
        let (store, id) = (store.clone(), key.id);
        async move {
            if number % 4 == 0 {
                assert!(store.keys().revoke(tenant, None, id, now()).await.unwrap());
            } else {
                // Use while it is being revoked; the mark must not bring it back.
                store.keys().used(&[(id, now())]).await.unwrap();
                return true;
            }
            !store.keys().by_hash(&[1; 32]).await.unwrap().unwrap().is_live(now())
        }
    })
    .await;
    assert!(outcomes.iter().all(|dead| *dead));
    assert!(store.keys().get(key.id).await.unwrap().unwrap().revoked.is_some());
}

pub async fn an_id_is_spent_once(place: &Place) {
    let store = place.open().await;
    let outcomes = race(|_| {
        let store = store.clone();
        async move { store.spent().spend("token", now().plus(Duration::from_secs(60))).await.unwrap() }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|first| **first).count(), 1);
    assert!(store.spent().contains("token").await.unwrap());
    assert!(!store.spent().contains("other").await.unwrap());
    assert_eq!(store.spent().purge(now()).await.unwrap(), 0);
    assert_eq!(store.spent().purge(now().plus(Duration::from_secs(61))).await.unwrap(), 1);
}

pub async fn each_setting_of_a_secret_counts(place: &Place) {
    let (store, _, env) = place.with_env().await;
    let mut versions = race(|number| {
        let store = store.clone();
        async move {
            let (name, kind) = ("A".into(), "function".into());
            let secret = SealedSecret { name, kind, sealed: format!("v{number}"), data_key: None };
            store.secrets().set(env, &secret, now()).await.unwrap().unwrap().version
        }
    })
    .await;
    versions.sort_unstable();
    assert_eq!(versions, (1..=RACERS as i64).collect::<Vec<_>>());
}

pub async fn usage_of_many_writers_adds_up(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let at = now();
    race(|_| {
        let store = store.clone();
        async move {
            let calls: Vec<Call> = (0..40)
                .map(|number| Call {
                    id: CallId::new(),
                    at,
                    tenant,
                    env: (number % 2 == 0).then_some(env),
                    principal: "key".into(),
                    credential: KeyId::new(),
                    surface: "mcp".into(),
                    tool: if number < 30 { "db_query" } else { "app_apply" }.into(),
                    effect: "read".into(),
                    error: (number == 0).then_some("timeout".into()),
                    took: Duration::from_micros(10),
                    input_digest: BlobHash::of(b"{}"),
                })
                .collect();
            store.records().append(&calls, &[], &Scribe).await.unwrap();
        }
    })
    .await;
    let usage = |env| {
        let store = store.clone();
        async move {
            let rows = store.records().usage(tenant, env, at).await.unwrap();
            rows.into_iter().map(|u| (u.tool, u.calls, u.errors, u.took_us)).collect::<Vec<_>>()
        }
    };
    let racers = RACERS as i64;
    let tool = |name: &str, calls: i64, errors: i64| (name.to_owned(), calls, errors, calls * 10);
    assert_eq!(usage(None).await, [tool("app_apply", 10 * racers, 0), tool("db_query", 30 * racers, racers)]);
    assert_eq!(
        usage(Some(env)).await,
        [tool("app_apply", 5 * racers, 0), tool("db_query", 15 * racers, racers)]
    );
}

pub async fn of_many_first_signing_keys_one_is_current(place: &Place) {
    let store = place.open().await;
    let outcomes = race(|number| {
        let store = store.clone();
        async move {
            let key = SigningKeyRow {
                id: format!("kid-{number}"),
                purpose: "platform".into(),
                public: "p".into(),
                sealed: "s".into(),
                created: Timestamp::from_micros(1),
                data_key: None,
            };
            store.signing_keys().get_or_insert(&key).await.unwrap()
        }
    })
    .await;
    assert!(outcomes.iter().all(|key| *key == outcomes[0]), "{outcomes:?}");
    assert_eq!(store.signing_keys().current("platform").await.unwrap().as_ref(), Some(&outcomes[0]));
    assert_eq!(store.signing_keys().current("other").await.unwrap(), None);
}

pub async fn of_many_first_keys_of_an_environment_one_is_current(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    let env = environment(tenant, "shop");
    store.environments().insert(&env).await.unwrap();
    let key = |number: usize| SigningKeyRow {
        id: format!("kid-{number}"),
        purpose: env.id.to_string(),
        public: "p".into(),
        sealed: "s".into(),
        created: Timestamp::from_micros(1),
        data_key: None,
    };
    assert_eq!(store.signing_keys().get_or_insert_of(env.id, &key(0)).await.unwrap(), None, "not ready yet");
    store.environments().ready(env.id).await.unwrap();
    let outcomes = race(|number| {
        let (store, key, env) = (store.clone(), key(number), env.id);
        async move { store.signing_keys().get_or_insert_of(env, &key).await.unwrap() }
    })
    .await;
    assert!(outcomes[0].is_some() && outcomes.iter().all(|key| *key == outcomes[0]), "{outcomes:?}");
    let purpose = env.id.to_string();
    assert_eq!(store.signing_keys().current(&purpose).await.unwrap(), outcomes[0]);
    store.environments().begin_delete(env.id).await.unwrap();
    assert!(store.environments().remove(env.id).await.unwrap());
    assert_eq!(store.signing_keys().current(&purpose).await.unwrap(), None, "it goes with its environment");
}

pub async fn a_setting_is_made_once(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.settings().get("a").await.unwrap(), None);
    let outcomes = race(|number| {
        let store = store.clone();
        async move { store.settings().get_or_set("a", &number.to_string()).await.unwrap() }
    })
    .await;
    assert!(outcomes.iter().all(|value| *value == outcomes[0]), "{outcomes:?}");
    assert_eq!(store.settings().get("a").await.unwrap().as_ref(), Some(&outcomes[0]));
}

pub async fn many_programs_that_open_a_new_database_agree(place: &Place) {
    let stores = race(|_| {
        let location = place.location.clone();
        async move { Store::open(&location).await.unwrap() }
    })
    .await;
    for (number, store) in stores.iter().enumerate() {
        store.settings().get_or_set(&number.to_string(), "x").await.unwrap();
    }
    assert_eq!(stores[0].settings().get("15").await.unwrap().as_deref(), Some("x"));
}
