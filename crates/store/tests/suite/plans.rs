//! Plans, and how many environments a tenant may have.

use store::{Insertion, Plan, PlanRemoval, Settling};

use crate::place::{Place, environment, now, tenant};
use crate::races::{RACERS, race};

fn plan(name: &str) -> Plan {
    Plan { name: name.to_owned(), limits: r#"{"tenant":{"environments":3}}"#.to_owned(), updated: now() }
}

pub async fn a_tenant_has_no_more_environments_than_it_may_however_many_are_made_at_once(place: &Place) {
    let (store, tenant) = place.with_tenant().await;
    let outcomes = race(|number| {
        let (store, env) = (store.clone(), environment(tenant, &format!("shop-{number}")));
        async move { store.environments().insert_within(&env, Some(5)).await.unwrap() }
    })
    .await;
    let made = outcomes.iter().filter(|outcome| **outcome == Insertion::Made).count();
    let full = outcomes.iter().filter(|outcome| **outcome == Insertion::Full).count();
    assert_eq!((made, full), (5, RACERS - 5));
    assert_eq!(store.plans().environments(tenant).await.unwrap(), 5);
    // The same one again is the same one also where there is no room; one that goes makes some.
    let mut same = environment(tenant, "same");
    same.external_id = Some("1".to_owned());
    assert_eq!(store.environments().insert_within(&same, Some(5)).await.unwrap(), Insertion::Full);
    assert_eq!(store.environments().insert_within(&same, Some(6)).await.unwrap(), Insertion::Made);
    let again = store.environments().insert_within(&same, Some(0)).await.unwrap();
    assert!(matches!(&again, Insertion::Same(found) if found.id == same.id), "{again:?}");
    store.environments().begin_delete(same.id).await.unwrap();
    assert_eq!(store.plans().environments(tenant).await.unwrap(), 5);
    // Another tenant has room of its own.
    let other = crate::place::tenant("other");
    store.tenants().insert(&other).await.unwrap();
    let theirs = environment(other.id, "theirs");
    assert_eq!(store.environments().insert_within(&theirs, Some(1)).await.unwrap(), Insertion::Made);
}

pub async fn a_plan_is_had_or_removed_and_never_both(place: &Place) {
    let (store, acme) = place.with_tenant().await;
    assert!(store.plans().list().await.unwrap().iter().any(|plan| plan.name == "free"));
    for round in 0..8 {
        let name = format!("plan-{round}");
        store.plans().set(&plan(&name)).await.unwrap();
        let outcomes = race(|number| {
            let (store, name) = (store.clone(), name.clone());
            async move {
                if number % 2 == 0 {
                    return store.plans().remove(&name).await.unwrap() == PlanRemoval::Removed;
                }
                let (mut new, mut env) = (tenant(&format!("t-{round}-{number}")), environment(acme, "x"));
                env.slug = format!("e-{round}-{number}").parse().unwrap();
                (new.plan, env.plan) = (name.clone(), name.clone());
                match number % 6 {
                    1 => store.tenants().insert(&new).await.unwrap() == Settling::Made,
                    3 => store.environments().insert(&env).await.unwrap() == Insertion::Made,
                    _ => store.plans().give(acme, Some(&name), None).await.unwrap(),
                }
            }
        })
        .await;
        let removed = outcomes.iter().step_by(2).filter(|done| **done).count();
        let had = outcomes.iter().skip(1).step_by(2).filter(|done| **done).count();
        assert!((removed == 1 && had == 0) || (removed == 0 && had > 0), "{removed} removals, {had} have it");
        let there = store.plans().list().await.unwrap().iter().any(|plan| plan.name == name);
        assert_eq!(there, removed == 0);
        if there {
            assert!(matches!(store.plans().remove(&name).await.unwrap(), PlanRemoval::Used(n) if n > 0));
        }
    }
}

pub async fn who_has_which_plan_is_told_and_read_back(place: &Place) {
    let (store, acme) = place.with_tenant().await;
    let before = store.news().number().await.unwrap();
    assert_eq!(store.plans().of_tenants().await.unwrap(), []);
    assert!(!store.plans().give(acme, Some("none"), None).await.unwrap());
    assert!(store.plans().give(acme, Some("free"), Some("{\"tenant\":{}}")).await.unwrap());
    let theirs = store.plans().of_tenant(acme).await.unwrap().unwrap();
    assert_eq!((theirs.plan.as_str(), theirs.limits.as_str()), ("free", "{\"tenant\":{}}"));
    assert!(store.plans().give(acme, None, Some("{}")).await.unwrap());
    assert_eq!(store.plans().of_tenants().await.unwrap().len(), 1);
    assert!(store.plans().give(acme, Some("default"), None).await.unwrap());
    assert_eq!(store.plans().of_tenants().await.unwrap(), []);
    let mut env = environment(acme, "shop");
    env.plan = "pro".to_owned();
    assert_eq!(store.environments().insert(&env).await.unwrap(), Insertion::Made);
    assert_eq!(store.plans().of_environments().await.unwrap(), [(env.id, "pro".to_owned())]);
    assert_eq!(store.plans().of_environment(env.id).await.unwrap().as_deref(), Some("pro"));
    let after = store.news().number().await.unwrap();
    let told = store.news().between(before, after).await.unwrap().unwrap();
    assert_eq!(told.last(), Some(&format!("{}{}", store::PLAN_OF, env.id)));
    assert_eq!(told.first(), Some(&format!("{}{acme}", store::PLAN_OF)));
}
