//! Minted credentials, keys that take each other's place, keys that sign, and the news of what has ended.

use std::time::Duration;

use kernel::{EnvId, Held, KeyId, Networks, RunId, Scope, TenantId, Timestamp};
use serde_json::json;
use store::{Key, Minting, MostMinted, Run, SigningKeyRow, SigningState, Store};

use crate::place::{Place, key, now};
use crate::races::race;

const MOST: MostMinted = MostMinted { of_tenant: 10, on_one: 10 };

fn run(tenant: TenantId, env: EnvId, root: KeyId, above: &[KeyId]) -> Run {
    let id = KeyId::new();
    let args = json!({ "db_query": { "/limit": { "max": 5 }, "/sql": [{ "prefix": "SELECT" }, { "const": "a'b" }] } });
    Run {
        id,
        run: RunId::new(),
        tenant,
        env,
        root,
        path: above.iter().copied().chain([id]).collect(),
        scopes: [Scope::DbRead, Scope::LogsRead].into_iter().collect(),
        held: Held::read(Some(vec!["db_query".into(), "logs_query".into()]), Some(&args)).unwrap(),
        source: Networks::of(["10.0.0.0/8", "::1"].into_iter()).ok(),
        created: now(),
        ends: now().plus(Duration::from_secs(60)),
        revoked: None,
    }
}

async fn ground(place: &Place) -> (Store, TenantId, EnvId, KeyId) {
    let (store, tenant, env) = place.with_env().await;
    let key = key(tenant, None);
    assert!(store.keys().insert(&key, &[1; 32]).await.unwrap());
    (store, tenant, env, key.id)
}

pub async fn a_minted_credential_reads_back_whole_and_ends_with_all_that_stand_on_it(place: &Place) {
    let (store, tenant, env, root) = ground(place).await;
    let runs = store.runs();
    let first = run(tenant, env, root, &[]);
    let second = Run { held: Held::default(), source: None, ..run(tenant, env, root, &[first.id]) };
    let third = run(tenant, env, root, &[first.id, second.id]);
    let beside = run(tenant, env, root, &[]);
    for row in [&first, &second, &third, &beside] {
        assert_eq!(runs.insert(row, MOST).await.unwrap(), Minting::Made);
    }
    assert_eq!(runs.chain(third.id).await.unwrap(), [first.clone(), second.clone(), third.clone()]);
    assert_eq!(runs.chain(KeyId::new()).await.unwrap(), []);
    let ids = async |below: Option<KeyId>, in_env: Option<EnvId>| {
        let list = runs.list((tenant, in_env, below), now(), None, 10).await.unwrap();
        list.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, Some(env)).await, [first.id, second.id, third.id, beside.id]);
    assert_eq!(ids(Some(root), None).await.len(), 4);
    assert_eq!(ids(Some(first.id), None).await, [second.id, third.id]);
    assert_eq!(ids(None, Some(EnvId::new())).await, []);
    assert_eq!(runs.list((TenantId::new(), None, None), now(), None, 10).await.unwrap(), []);
    let page = runs.list((tenant, None, None), now(), Some(first.id), 1).await.unwrap();
    assert_eq!(page, std::slice::from_ref(&second));

    let known = store.news().number().await.unwrap();
    for (of, below, id) in [
        (TenantId::new(), None, first.id),
        (tenant, Some(second.id), first.id),
        (tenant, Some(second.id), beside.id),
        (tenant, Some(KeyId::new()), first.id),
        (tenant, None, KeyId::new()),
    ] {
        assert!(!runs.revoke((of, None, below), id, now()).await.unwrap());
    }
    assert_eq!(store.news().number().await.unwrap(), known, "nothing has ended");
    assert!(runs.revoke((tenant, Some(env), Some(first.id)), second.id, now()).await.unwrap());
    assert!(store.news().number().await.unwrap() > known);
    assert_eq!(ids(None, None).await, [first.id, beside.id]);
    let dead = runs.chain(third.id).await.unwrap();
    assert_eq!(dead.iter().map(|row| row.revoked.is_some()).collect::<Vec<_>>(), [false, true, true]);
    let orphan = run(tenant, env, root, &[first.id, second.id]);
    assert_eq!(runs.insert(&orphan, MOST).await.unwrap(), Minting::Gone, "what it stands on has ended");
    let nowhere = run(tenant, EnvId::new(), root, &[]);
    assert_eq!(runs.insert(&nowhere, MOST).await.unwrap(), Minting::Gone);
    assert!(store.keys().revoke(tenant, None, root, now()).await.unwrap());
    assert_eq!(ids(None, None).await, []);
    assert_eq!(runs.insert(&run(tenant, env, root, &[]), MOST).await.unwrap(), Minting::Gone);
    // What has ended is kept for a while, and for longer which one made which.
    assert_eq!(runs.purge(now().minus(Duration::from_secs(60))).await.unwrap(), 0);
    assert_eq!(runs.purge(now().plus(Duration::from_secs(61))).await.unwrap(), 4);
    assert_eq!(runs.maker(third.id).await.unwrap(), Some(second.id));
    assert_eq!(runs.maker(first.id).await.unwrap(), Some(root));
    assert_eq!(runs.purge_makers(now().plus(Duration::from_secs(1))).await.unwrap(), 4);
    assert_eq!(runs.maker(third.id).await.unwrap(), None);
}

pub async fn what_was_revoked_makes_room_at_once_and_is_told_once(place: &Place) {
    let (store, tenant, env, root) = ground(place).await;
    let (runs, few) = (store.runs(), MostMinted { of_tenant: 3, on_one: 10 });
    let fill = async |root: KeyId| {
        for _ in 0..3 {
            assert_eq!(runs.insert(&run(tenant, env, root, &[]), few).await.unwrap(), Minting::Made);
        }
        assert_eq!(runs.insert(&run(tenant, env, root, &[]), few).await.unwrap(), Minting::Full);
    };
    let number = async || store.news().number().await.unwrap();
    fill(root).await;
    let known = number().await;
    assert!(store.keys().revoke(tenant, None, root, now()).await.unwrap());
    assert_eq!(store.news().between(known, number().await).await.unwrap(), Some(vec![root.to_string()]));
    // Nothing ends for the second time, nor where there is nothing.
    let known = number().await;
    assert!(store.keys().revoke(tenant, None, root, now()).await.unwrap());
    assert!(!store.keys().revoke(tenant, None, KeyId::new(), now()).await.unwrap());
    assert!(!store.keys().revoke(TenantId::new(), None, root, now()).await.unwrap());
    assert_eq!(number().await, known);
    let other = key(tenant, None);
    assert!(store.keys().insert(&other, &[2; 32]).await.unwrap());
    fill(other.id).await;
    // Nor do those of a key that another one has replaced count for longer than it lives.
    let new = key(tenant, None);
    assert!(store.keys().rotate(other.id, now(), &new, &[3; 32]).await.unwrap());
    let later = Run { created: now().plus(Duration::from_micros(1)), ..run(tenant, env, new.id, &[]) };
    assert_eq!(runs.insert(&later, few).await.unwrap(), Minting::Made);
    let known = number().await;
    assert!(runs.revoke((tenant, None, None), later.id, now()).await.unwrap());
    assert!(runs.revoke((tenant, None, None), later.id, now()).await.unwrap());
    assert_eq!(store.news().between(known, number().await).await.unwrap(), Some(vec![later.id.to_string()]));
    // And those of the operator's key go with it.
    let operator = Key { kind: store::KeyKind::Operator, ..key(tenant, None) };
    store.keys().replace_operator(None, &operator, &[4; 32]).await.unwrap();
    fill(operator.id).await;
    store.keys().replace_operator(None, &Key { id: KeyId::new(), ..operator }, &[5; 32]).await.unwrap();
    assert_eq!(runs.insert(&run(tenant, env, new.id, &[]), few).await.unwrap(), Minting::Made);
    // Who was away for too long is not told one by one.
    assert_eq!(store.news().between(0, number().await + 1).await.unwrap(), None);
    store.news().purge(now().plus(Duration::from_secs(1))).await.unwrap();
    assert_eq!(store.news().between(known, number().await).await.unwrap(), None);
    assert_eq!(store.news().between(number().await, number().await).await.unwrap(), Some(vec![]));
}

pub async fn what_stands_on_one_credential_does_not_take_all_that_its_tenant_has(place: &Place) {
    let (store, tenant, env, root) = ground(place).await;
    let (runs, most) = (store.runs(), MostMinted { of_tenant: 10, on_one: 3 });
    let first = run(tenant, env, root, &[]);
    let second = run(tenant, env, root, &[first.id]);
    for row in [
        &first,
        &second,
        &run(tenant, env, root, &[first.id, second.id]),
        &run(tenant, env, root, &[first.id]),
    ] {
        assert_eq!(runs.insert(row, most).await.unwrap(), Minting::Made);
    }
    for above in [&[first.id][..], &[first.id, second.id]] {
        assert_eq!(runs.insert(&run(tenant, env, root, above), most).await.unwrap(), Minting::Crowded);
    }
    assert_eq!(runs.insert(&run(tenant, env, root, &[]), most).await.unwrap(), Minting::Made, "a key's own");
    assert!(runs.revoke((tenant, None, None), second.id, now()).await.unwrap());
    assert_eq!(runs.insert(&run(tenant, env, root, &[first.id]), most).await.unwrap(), Minting::Made);
}

pub async fn a_tenant_has_no_more_credentials_than_it_may_however_many_are_minted_at_once(place: &Place) {
    let (store, tenant, env, root) = ground(place).await;
    let outcomes = race(|_| {
        let (store, row) = (store.clone(), run(tenant, env, root, &[]));
        async move { store.runs().insert(&row, MostMinted { of_tenant: 5, on_one: 5 }).await.unwrap() }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|made| **made == Minting::Made).count(), 5);
    assert!(outcomes.iter().all(|made| *made != Minting::Gone));
    let known = store.news().number().await.unwrap();
    assert!(store.environments().begin_delete(env).await.unwrap());
    assert_eq!(
        store.runs().list((tenant, None, None), now(), None, 10).await.unwrap(),
        [],
        "they go with it"
    );
    assert!(store.news().number().await.unwrap() > known);
}

pub async fn one_of_many_takes_a_keys_place(place: &Place) {
    let (store, tenant, _, old) = ground(place).await;
    let ends = now().plus(Duration::from_secs(60));
    let outcomes = race(|number| {
        let (store, new) = (store.clone(), key(tenant, None));
        let hash = [10 + number as u8; 32];
        async move { store.keys().rotate(old, ends, &new, &hash).await.unwrap().then_some(new.id) }
    })
    .await;
    let new: Vec<KeyId> = outcomes.into_iter().flatten().collect();
    assert_eq!(new.len(), 1);
    let row = store.keys().get(old).await.unwrap().unwrap();
    assert_eq!((row.rotated_to, row.expires), (Some(new[0]), Some(ends)));
    assert_eq!(store.keys().list(tenant, None, None, 100).await.unwrap().len(), 2);
    // One that ends before does not live longer for it, and one that has ended has no successor.
    assert!(store.keys().rotate(new[0], now(), &key(tenant, None), &[2; 32]).await.unwrap());
    assert!(!store.keys().rotate(new[0], ends, &key(tenant, None), &[3; 32]).await.unwrap());
    let soon = store::Key { expires: Some(now().plus(Duration::from_secs(5))), ..key(tenant, None) };
    assert!(store.keys().insert(&soon, &[4; 32]).await.unwrap());
    assert!(store.keys().rotate(soon.id, ends, &key(tenant, None), &[5; 32]).await.unwrap());
    assert_eq!(store.keys().get(soon.id).await.unwrap().unwrap().expires, soon.expires);
}

pub async fn a_signing_key_is_followed_by_one_other(place: &Place) {
    let store = place.open().await;
    let row = |id: String| SigningKeyRow {
        id,
        purpose: "platform".into(),
        public: "p".into(),
        sealed: "s".into(),
        created: Timestamp::from_micros(1),
        data_key: None,
    };
    let keys = store.signing_keys();
    keys.get_or_insert(&row("first".into())).await.unwrap();
    assert!(!keys.rotate("first", &row("x".into()), now()).await.unwrap(), "there is none to follow");
    for id in ["second", "another"] {
        keys.prepare(&row(id.into())).await.unwrap();
    }
    let outcomes = race(|number| {
        let (store, after) = (store.clone(), row(format!("after-{number}")));
        async move { store.signing_keys().rotate("first", &after, now()).await.unwrap() }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|done| **done).count(), 1);
    let all = keys.all("platform").await.unwrap();
    let states: Vec<_> = all.iter().map(|kept| (kept.state, kept.key.sealed.as_str())).collect();
    let expected = [(SigningState::Active, "s"), (SigningState::Next, "s"), (SigningState::Retired, "")];
    assert_eq!(states, expected, "what is retired signs no more");
    assert_eq!((all[0].key.id.as_str(), all[2].key.id.as_str()), ("second", "first"));
    assert_eq!(keys.current("platform").await.unwrap().unwrap().id, "second");
    assert_eq!(keys.purge("platform", Timestamp::from_micros(1)).await.unwrap(), 0);
    assert_eq!(keys.purge("platform", now()).await.unwrap(), 1);
}
