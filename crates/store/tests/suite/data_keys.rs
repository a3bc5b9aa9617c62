//! Data keys: one seals for each owner, all are under one key-encryption key, and none goes while it is needed.

use store::{DataKeyRow, Rewrapped, SealedIn, SealedSecret, Store};

use crate::place::{Place, now};
use crate::races::{RACERS, race};

fn row(id: String, owner: &str, kek: &str) -> DataKeyRow {
    let wrapped = format!("{kek} has {id}");
    DataKeyRow { id, owner: owner.to_owned(), kek: kek.to_owned(), wrapped, created: now(), retired: None }
}

async fn wrapped(store: &Store, kek: &str) -> Vec<(String, String)> {
    let all = store.data_keys().all().await.unwrap();
    all.into_iter().map(|key| (key.id.clone(), format!("{kek} has {}", key.id))).collect()
}

pub async fn of_many_first_data_keys_of_a_tenant_one_seals(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    assert_eq!(store.data_keys().first_in_force("first").await.unwrap(), "first");
    assert_eq!(store.data_keys().first_in_force("second").await.unwrap(), "first");
    let owner = tenant.to_string();
    let outcomes = race(|number| {
        let (store, key) = (store.clone(), row(format!("k{number}"), &owner, "first"));
        async move { store.data_keys().get_or_insert(&key, Some(tenant)).await.unwrap().unwrap() }
    })
    .await;
    assert!(outcomes.iter().all(|key| key.id == outcomes[0].id), "{outcomes:?}");
    assert_eq!(store.data_keys().all().await.unwrap().len(), 1);
    let found = store.data_keys().current(&owner).await.unwrap();
    assert_eq!(found.as_ref().map(|key| &key.id), Some(&outcomes[0].id));
    assert_eq!(store.data_keys().find(&outcomes[0].id).await.unwrap(), found);

    let other = row("other".into(), "platform", "second");
    assert_eq!(store.data_keys().get_or_insert(&other, None).await.unwrap(), None, "it is not in force");
    let gone = kernel::TenantId::new();
    let nobodys = row("nobodys".into(), &gone.to_string(), "first");
    assert_eq!(store.data_keys().get_or_insert(&nobodys, Some(gone)).await.unwrap(), None);
}

pub async fn one_of_many_puts_another_key_encryption_key_in_force(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    store.data_keys().first_in_force("first").await.unwrap();
    store.data_keys().get_or_insert(&row("k".into(), "platform", "first"), None).await.unwrap().unwrap();
    let tenants = row("t".into(), &tenant.to_string(), "first");
    store.data_keys().get_or_insert(&tenants, Some(tenant)).await.unwrap().unwrap();
    let outcomes = race(|number| {
        let store = store.clone();
        async move {
            let to = format!("kek-{number}");
            let all = wrapped(&store, &to).await;
            store.data_keys().rewrap("first", &to, &all, Some(now())).await.unwrap()
        }
    })
    .await;
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    assert_eq!((count(Rewrapped::All), count(Rewrapped::Other)), (1, RACERS - 1));
    let winner = store.data_keys().in_force().await.unwrap().unwrap();
    for key in store.data_keys().all().await.unwrap() {
        assert_eq!((&key.kek, &key.wrapped), (&winner, &format!("{winner} has {}", key.id)));
        assert_eq!(key.retired.is_some(), key.id == "t", "the platform's own goes on sealing");
    }
}

pub async fn no_data_key_slips_past_a_rewrap(place: &Place) {
    let (store, _) = place.with_tenant().await;
    store.data_keys().first_in_force("first").await.unwrap();
    race(|number| {
        let store = store.clone();
        async move {
            if number > 3 {
                let key = row(format!("k{number}"), &format!("owner {number}"), "first");
                store.data_keys().get_or_insert(&key, None).await.unwrap();
                return;
            }
            let to = format!("kek-{number}");
            loop {
                let all = wrapped(&store, &to).await;
                match store.data_keys().rewrap("first", &to, &all, None).await.unwrap() {
                    Rewrapped::Moved => {}
                    Rewrapped::All | Rewrapped::Other => return,
                }
            }
        }
    })
    .await;
    let kek = store.data_keys().in_force().await.unwrap().unwrap();
    assert_ne!(kek, "first");
    assert!(store.data_keys().all().await.unwrap().iter().all(|key| key.kek == kek));
}

pub async fn a_key_that_has_sealed_something_stays_and_a_tenants_go_with_it(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let keys = store.data_keys();
    keys.first_in_force("first").await.unwrap();
    let of = |id: &str| row(id.to_owned(), &tenant.to_string(), "first");
    keys.get_or_insert(&of("old"), Some(tenant)).await.unwrap().unwrap();
    let (name, kind) = ("A".to_owned(), "function".to_owned());
    let secret = SealedSecret { name, kind, sealed: "by old".into(), data_key: Some("old".into()) };
    assert!(store.secrets().set(env, &secret, now()).await.unwrap().is_some());
    assert_eq!(keys.count_older().await.unwrap(), 0);
    let all = wrapped(&store, "first").await;
    assert_eq!(keys.rewrap("first", "first", &all, Some(now())).await.unwrap(), Rewrapped::All);

    assert_eq!(store.secrets().set(env, &secret, now()).await.unwrap(), None, "it seals no more");
    assert_eq!((keys.count_older().await.unwrap(), keys.purge().await.unwrap()), (1, 0));
    let older = keys.older(SealedIn::Secrets, ("", ""), 10).await.unwrap();
    assert_eq!((older.len(), older[0].tenant, older[0].sealed.as_str()), (1, tenant, "by old"));
    assert_eq!(keys.older(SealedIn::Secrets, (&older[0].of, "A"), 10).await.unwrap(), []);
    assert!(!keys.reseal(SealedIn::Secrets, &older[0], "x", "old").await.unwrap(), "nor again");
    keys.get_or_insert(&of("new"), Some(tenant)).await.unwrap().unwrap();
    assert!(keys.reseal(SealedIn::Secrets, &older[0], "by new", "new").await.unwrap());
    assert!(
        !keys.reseal(SealedIn::Secrets, &older[0], "x", "new").await.unwrap(),
        "it was changed meanwhile"
    );
    assert_eq!((keys.count_older().await.unwrap(), keys.purge().await.unwrap()), (0, 1));
    assert_eq!(store.secrets().sealed(env, "A").await.unwrap().unwrap().data_key.as_deref(), Some("new"));

    let raw = place.raw().await;
    for sql in ["DELETE FROM environments", "DELETE FROM tenants"] {
        sqlx::query(sql).execute(&raw).await.unwrap();
    }
    assert_eq!(keys.all().await.unwrap(), []);
}
