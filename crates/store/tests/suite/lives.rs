//! What each row goes through from its writing to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use kernel::{BlobHash, CallId, Code, KeyId, Scope, Scopes, TenantId};
use store::{
    Call, Claim, ClaimKey, EnvState, EnvironmentFilter, Error, Insertion, Key, KeyKind, SealedSecret, Store,
    TenantFilter, TenantState,
};

use crate::audit::Scribe;
use crate::place::{Place, environment, key, now, tenant};

pub async fn a_tenant_is_found_by_id_and_by_slug(place: &Place) {
    let store = place.open().await;
    let (acme, zeta) = (tenant("acme"), tenant("zeta"));
    assert!(store.tenants().insert(&acme).await.unwrap().is_made());
    assert!(store.tenants().insert(&zeta).await.unwrap().is_made());
    assert!(!store.tenants().insert(&tenant("acme")).await.unwrap().is_made());
    assert_eq!(store.tenants().find("acme").await.unwrap().as_ref(), Some(&acme));
    assert_eq!(store.tenants().find(&acme.id.to_string()).await.unwrap().as_ref(), Some(&acme));
    assert_eq!(store.tenants().find("ACME").await.unwrap(), None);
    assert_eq!(
        store.tenants().list(&TenantFilter::default(), None, 10).await.unwrap(),
        [acme.clone(), zeta.clone()]
    );
    assert_eq!(
        store.tenants().list(&TenantFilter::default(), None, 1).await.unwrap(),
        std::slice::from_ref(&acme)
    );
    assert_eq!(store.tenants().list(&TenantFilter::default(), Some(acme.id), 10).await.unwrap(), [zeta]);
}

pub async fn an_environment_lives_and_takes_its_keys_and_secrets_along(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    let envs = store.environments();
    let mut env = environment(tenant, "shop");
    env.tags = BTreeMap::from([("team".into(), "a'b".into())]);
    env.external_id = Some("x".into());
    assert_eq!(envs.insert(&env).await.unwrap(), Insertion::Made);
    assert_eq!(envs.unfinished().await.unwrap(), [env.clone()]);
    let (name, kind) = ("A".into(), "function".into());
    let secret = SealedSecret { name, kind, sealed: "s".into(), data_key: None };
    assert_eq!(store.secrets().set(env.id, &secret, now()).await.unwrap(), None, "not ready yet");
    assert!(envs.ready(env.id).await.unwrap());
    assert!(!envs.ready(env.id).await.unwrap());
    env.state = EnvState::Ready;
    assert_eq!(envs.find("shop").await.unwrap().as_ref(), Some(&env));
    assert_eq!(envs.find(&env.id.to_string()).await.unwrap().as_ref(), Some(&env));

    assert!(store.keys().insert(&key(tenant, Some(env.id)), &[1; 32]).await.unwrap());
    assert!(store.secrets().set(env.id, &secret, now()).await.unwrap().is_some());
    assert_eq!(store.secrets().sealed(env.id, "A").await.unwrap(), Some(secret));
    assert!(!envs.remove(env.id).await.unwrap(), "only one that is being deleted goes");
    assert!(envs.begin_delete(env.id).await.unwrap());
    assert!(!envs.begin_delete(env.id).await.unwrap());
    assert_eq!(store.keys().by_hash(&[1; 32]).await.unwrap(), None, "its keys end at once");
    assert!(!envs.ready(env.id).await.unwrap(), "deleting is for good");
    assert_eq!(envs.list(tenant, &EnvironmentFilter::default(), None, 9).await.unwrap(), []);

    let mut next = environment(tenant, "shop-2");
    next.external_id = Some("x".into());
    assert_eq!(envs.insert(&next).await.unwrap(), Insertion::Made, "the external id is free");
    assert_eq!(envs.insert(&environment(tenant, "shop")).await.unwrap(), Insertion::SlugTaken);
    assert!(envs.remove(env.id).await.unwrap());
    assert_eq!(envs.find("shop").await.unwrap(), None);
    assert_eq!(store.secrets().sealed(env.id, "A").await.unwrap(), None);
    assert_eq!(envs.insert(&environment(tenant, "shop")).await.unwrap(), Insertion::Made);
}

pub async fn environments_are_listed_by_page_tag_and_external_id(place: &Place) {
    let (store, acme) = place.with_tenant().await;
    let other = tenant("other");
    store.tenants().insert(&other).await.unwrap();
    let mut made = Vec::new();
    for (owner, slug, tags, external_id) in [
        (acme, "a", &[("x", "1"), ("y", "2")][..], Some("e1")),
        (acme, "b", &[("x", "1")], None),
        (acme, "c", &[], Some("e2")),
        (other.id, "d", &[("x", "1")], Some("e1")),
    ] {
        let mut env = environment(owner, slug);
        env.tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.external_id = external_id.map(str::to_owned);
        assert_eq!(store.environments().insert(&env).await.unwrap(), Insertion::Made);
        made.push(env);
    }
    let list = async |tags: &[(&str, &str)], external_id: Option<&str>, after: Option<usize>, limit| {
        let filter = EnvironmentFilter {
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            external_id: external_id.map(str::to_owned),
        };
        let after = after.map(|at| made[at].id);
        let rows = store.environments().list(acme, &filter, after, limit).await.unwrap();
        rows.iter().map(|env| env.slug.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(&[], None, None, 10).await, ["a", "b", "c"]);
    assert_eq!(list(&[], None, None, 2).await, ["a", "b"]);
    assert_eq!(list(&[], None, Some(1), 2).await, ["c"]);
    assert_eq!(list(&[("x", "1")], None, None, 10).await, ["a", "b"]);
    assert_eq!(list(&[("x", "1"), ("y", "2")], None, None, 10).await, ["a"]);
    assert_eq!(list(&[("x", "2")], None, None, 10).await, [""; 0]);
    assert_eq!(list(&[], Some("e1"), None, 10).await, ["a"]);
    assert_eq!(list(&[("x", "1")], Some("e2"), None, 10).await, [""; 0]);
}

pub async fn a_key_reads_back_whole(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let mut key = key(tenant, Some(env));
    key.expires = Some(now().plus(Duration::from_secs(60)));
    assert!(store.keys().insert(&key, &[1; 32]).await.unwrap());
    assert_eq!(store.keys().by_hash(&[1; 32]).await.unwrap().as_ref(), Some(&key));
    assert_eq!(store.keys().get(key.id).await.unwrap().as_ref(), Some(&key));
    assert_eq!(store.keys().by_hash(&[2; 32]).await.unwrap(), None);
    assert!(key.is_live(now()) && !key.is_live(now().plus(Duration::from_secs(61))));
    let at = now();
    store.keys().used(&[(key.id, at)]).await.unwrap();
    store.keys().used(&[(key.id, at.minus(Duration::from_secs(5)))]).await.unwrap();
    key.last_used = Some(at);
    assert_eq!(store.keys().get(key.id).await.unwrap(), Some(key));
}

pub async fn no_key_is_bound_to_another_tenants_environment(place: &Place) {
    let (store, _, env) = place.with_env().await;
    let other = tenant("other");
    store.tenants().insert(&other).await.unwrap();
    assert!(!store.keys().insert(&key(other.id, Some(env)), &[1; 32]).await.unwrap());
    assert_eq!(store.keys().by_hash(&[1; 32]).await.unwrap(), None);
}

pub async fn a_key_is_revoked_by_its_own_tenant_and_environment_only(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let (wide, bound) = (key(tenant, None), key(tenant, Some(env)));
    store.keys().insert(&wide, &[1; 32]).await.unwrap();
    store.keys().insert(&bound, &[2; 32]).await.unwrap();
    assert_eq!(store.keys().list(tenant, None, None, 9).await.unwrap(), [wide.clone(), bound.clone()]);
    assert_eq!(store.keys().list(tenant, Some(env), None, 9).await.unwrap(), std::slice::from_ref(&bound));
    assert_eq!(
        store.keys().list(tenant, None, Some(wide.id), 9).await.unwrap(),
        std::slice::from_ref(&bound)
    );
    assert!(!store.keys().revoke(TenantId::new(), None, wide.id, now()).await.unwrap());
    assert!(!store.keys().revoke(tenant, Some(env), wide.id, now()).await.unwrap());
    assert!(store.keys().get(wide.id).await.unwrap().unwrap().is_live(now()));
    assert!(store.keys().revoke(tenant, Some(env), bound.id, now()).await.unwrap());
    assert!(!store.keys().get(bound.id).await.unwrap().unwrap().is_live(now()));
}

pub async fn there_is_one_live_operator_key(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    let operator = |name: &str| Key {
        kind: KeyKind::Operator,
        name: name.into(),
        scopes: Scopes::all(),
        ..key(tenant, None)
    };
    assert!(!store.keys().has_operator().await.unwrap());
    let (first, second) = (operator("first"), operator("second"));
    store.keys().replace_operator(None, &first, &[1; 32]).await.unwrap();
    assert!(store.keys().has_operator().await.unwrap());
    store.keys().replace_operator(None, &second, &[2; 32]).await.unwrap();
    assert!(!store.keys().get(first.id).await.unwrap().unwrap().is_live(now()));
    assert_eq!(store.keys().by_hash(&[2; 32]).await.unwrap().as_ref(), Some(&second));
    assert_eq!(store.keys().list(tenant, None, None, 9).await.unwrap(), []);
    assert!(!store.keys().revoke(tenant, None, second.id, now()).await.unwrap());
    // One that was made when there was less to do can do everything there is.
    let older = Key { scopes: [Scope::AppRead].into_iter().collect(), ..operator("older") };
    store.keys().replace_operator(None, &older, &[3; 32]).await.unwrap();
    assert_eq!(store.keys().by_hash(&[3; 32]).await.unwrap().unwrap().scopes, Scopes::all());
}

pub async fn an_idempotency_key_tells_what_became_of_its_call(place: &Place) {
    let store = place.open().await;
    let (tenant, credential) = (TenantId::new(), KeyId::new());
    let (start, minute) = (now(), Duration::from_secs(60));
    let key = |digest| ClaimKey { tenant, credential, name: "k", digest };
    let claim = async |store: &Store, digest, owner, at: kernel::Timestamp| {
        let (stale, expires) = (at.minus(minute * 15), at.plus(minute * 60));
        store.replays().claim(&key(digest), owner, at, stale, expires).await.unwrap()
    };
    let (one, two) = (&[1; 32], &[2; 32]);
    assert_eq!(claim(&store, one, "me", start).await, Claim::First);
    assert_eq!(claim(&store, one, "me", start).await, Claim::Running);
    assert_eq!(claim(&store, two, "me", start).await, Claim::Other);
    assert_eq!(claim(&store, one, "next life", start).await, Claim::Unfinished);
    assert_eq!(claim(&store, one, "me", start.plus(minute * 16)).await, Claim::Unfinished);
    store.replays().finish(&key(one), None).await.unwrap();
    assert_eq!(claim(&store, two, "me", start).await, Claim::First, "a failed call frees the key");
    store.replays().finish(&key(one), Some("another's")).await.unwrap();
    assert_eq!(claim(&store, two, "me", start).await, Claim::Running);
    store.replays().finish(&key(two), Some("out")).await.unwrap();
    store.replays().finish(&key(two), None).await.unwrap();
    assert_eq!(claim(&store, two, "next life", start).await, Claim::Done("out".into()));
    assert_eq!(claim(&store, one, "me", start).await, Claim::Other);
    assert_eq!(store.replays().purge(start).await.unwrap(), 0);
    assert_eq!(claim(&store, one, "me", start.plus(minute * 61)).await, Claim::First, "it has expired");
    assert_eq!(store.replays().purge(start.plus(minute * 200)).await.unwrap(), 1);
}

pub async fn audit_rows_read_back_whole_and_old_ones_go(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let at = now();
    let calls: Vec<Call> = (0..70)
        .map(|number| Call {
            id: CallId::new(),
            at: at.plus(Duration::from_secs(number)),
            tenant,
            env: (number % 2 == 0).then_some(env),
            principal: "operator".into(),
            credential: KeyId::new(),
            surface: "http".into(),
            tool: "db_query".into(),
            effect: if number % 7 == 0 { "write" } else { "read" }.into(),
            error: (number % 3 == 0).then_some(Code::NotFound.as_str().into()),
            took: Duration::from_micros(number),
            input_digest: BlobHash::of(&[number as u8]),
        })
        .collect();
    store.records().append(&calls, &[], &Scribe).await.unwrap();
    let latest_first: Vec<Call> = calls.iter().rev().cloned().collect();
    let records = store.records();
    assert_eq!(records.calls(tenant, None, 100).await.unwrap(), latest_first);
    assert_eq!(records.calls(tenant, Some(latest_first[9].id), 5).await.unwrap(), latest_first[10..15]);
    assert_eq!(records.calls(TenantId::new(), None, 5).await.unwrap(), []);
    let before = at.plus(Duration::from_secs(14));
    assert_eq!(records.purge("read", before, 5).await.unwrap(), 5);
    assert_eq!(records.purge("read", before, 50).await.unwrap(), 7, "two of the fourteen are writes");
    assert_eq!(records.calls(tenant, None, 100).await.unwrap().len(), 58);
}

pub async fn a_database_of_a_later_program_is_refused(place: &Place) {
    let store = place.open().await;
    store.settings().get_or_set("a", "1").await.unwrap();
    store.close().await;
    let again = place.open().await;
    assert_eq!(again.settings().get("a").await.unwrap().as_deref(), Some("1"));
    again.close().await;
    let raw = place.raw().await;
    sqlx::query("INSERT INTO schema_versions (version, applied) VALUES (99, 0)").execute(&raw).await.unwrap();
    raw.close().await;
    let refused = Store::open(&place.location).await.unwrap_err();
    assert!(matches!(refused, Error::Newer { found: 99, known: 22 }), "{refused:?}");
    assert_eq!(
        refused.to_string(),
        "the control database has schema version 99, this program knows 22: use a newer program"
    );
}

pub async fn a_tenant_is_removed_only_while_its_time_is_over_and_then_not_restored(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let (tenants, environments) = (store.tenants(), store.environments());
    let (at, day) = (now(), Duration::from_secs(86_400));
    let (active, deleted) = (TenantState::Active, TenantState::Deleted);
    assert!(!environments.doom(env, at).await.unwrap(), "it is active");
    assert!(tenants.settle(tenant, active, deleted, at, Some(at.plus(day))).await.unwrap());
    assert!(!environments.doom(env, at).await.unwrap(), "its time is not over");
    assert_eq!(environments.suspended().await.unwrap(), [env]);
    // Restored in time, it is not removed by whoever has found it due before.
    assert!(tenants.settle(tenant, deleted, active, at, None).await.unwrap());
    assert!(!environments.doom(env, at.plus(day * 2)).await.unwrap());
    assert_eq!(environments.suspended().await.unwrap(), []);
    assert!(tenants.settle(tenant, active, deleted, at, Some(at.plus(day))).await.unwrap());
    let over = at.plus(day);
    assert!(!tenants.settle(tenant, deleted, active, over, None).await.unwrap(), "it may be half gone");
    assert!(environments.doom(env, over).await.unwrap());
    assert!(!environments.doom(env, over).await.unwrap(), "it is being deleted");
    // What could not be removed is found again.
    let left = environments.of_tenant(tenant, None, 10).await.unwrap();
    assert_eq!(left.iter().map(|it| (it.id, it.state)).collect::<Vec<_>>(), [(env, EnvState::Deleting)]);
    assert!(!tenants.remove(tenant, over).await.unwrap());
    assert!(environments.remove(env).await.unwrap());
    assert!(tenants.remove(tenant, over).await.unwrap());
}
