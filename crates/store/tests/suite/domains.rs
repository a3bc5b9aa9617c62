//! Domains and certificates: whose they are when many want them at once.

use std::collections::BTreeSet;
use std::time::Duration;

use kernel::{EnvId, Timestamp};
use store::{CertificateSource, Claimed, DomainClaim, NewCertificate, Store};

use crate::place::{Place, environment, now, tenant};

const HOUR: Duration = Duration::from_secs(3_600);

async fn claimed(store: &Store, env: EnvId, name: &str, token: &str) -> DomainClaim {
    match store.domains().claim(env, name, token, None, 9, now()).await.unwrap() {
        Claimed::Kept(claim) => claim,
        other => panic!("{other:?}"),
    }
}

pub async fn a_domain_is_claimed_by_many_and_proven_for_one(place: &Place) {
    let (store, tenant, one) = place.with_env().await;
    let other = environment(tenant, "other");
    store.environments().insert(&other).await.unwrap();
    let unready = store.domains().claim(other.id, "a.test", "t", None, 9, now()).await.unwrap();
    assert_eq!(unready, Claimed::NoEnvironment);
    store.environments().ready(other.id).await.unwrap();

    let first = claimed(&store, one, "a.test", "t1").await;
    assert_eq!((first.token.as_str(), first.proven, first.hsts), ("t1", None, false));
    assert_eq!(claimed(&store, one, "a.test", "t9").await, first, "a repeat keeps the token");
    assert_eq!(claimed(&store, other.id, "a.test", "t2").await.token, "t2");
    assert_eq!(store.domains().proven_for("a.test").await.unwrap(), None);
    assert!(!store.domains().prove(one, "a.test", "t2", now()).await.unwrap(), "another's token");

    let racing = [(one, "t1"), (other.id, "t2")].map(|(env, token)| {
        let store = store.clone();
        tokio::spawn(async move { store.domains().prove(env, "a.test", token, now()).await.unwrap() })
    });
    let [a, b] = racing;
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    assert!(a != b, "one of two is first");
    let (winner, loser) = if a { (one, other.id) } else { (other.id, one) };
    assert_eq!(store.domains().proven_for("a.test").await.unwrap().map(|found| found.env), Some(winner));
    let again = store.domains().claim(loser, "a.test", "t", None, 9, now()).await.unwrap();
    assert_eq!(again, Claimed::Taken);
    let hsts = store.domains().claim(winner, "a.test", "t", Some(true), 9, now()).await.unwrap();
    assert!(matches!(hsts, Claimed::Kept(claim) if claim.hsts && claim.proven.is_some()));

    let many = store.domains().claim(winner, "b.test", "t", None, 1, now()).await.unwrap();
    assert_eq!(many, Claimed::TooMany);
    store.environments().begin_delete(winner).await.unwrap();
    assert_eq!(store.domains().proven_for("a.test").await.unwrap(), None, "its environment is going");
    store.environments().remove(winner).await.unwrap();
    assert_eq!(store.domains().list(winner).await.unwrap(), []);
    assert!(store.domains().remove(loser, "a.test").await.unwrap());
    assert!(!store.domains().remove(loser, "a.test").await.unwrap());
}

pub async fn a_proof_that_is_gone_counts_for_a_while(place: &Place) {
    let (store, _, env) = place.with_env().await;
    let (domains, start) = (store.domains(), now());
    claimed(&store, env, "a.test", "t").await;
    let to_check = async |at: Timestamp| {
        let found = store.domains().to_check(start.minus(HOUR), at, at, 9).await.unwrap();
        found.into_iter().map(|(claim, _)| claim.name).collect::<Vec<_>>()
    };
    assert_eq!(to_check(start).await, ["a.test"]);
    assert!(!domains.unproven(env, "a.test", start, start).await.unwrap(), "it never was proven");
    assert!(domains.prove(env, "a.test", "t", start).await.unwrap());
    assert_eq!(to_check(start.minus(HOUR)).await, [""; 0], "it was just looked at");
    let later = start.plus(HOUR);
    assert!(!domains.unproven(env, "a.test", later, start).await.unwrap());
    let missing = domains.get(env, "a.test").await.unwrap().unwrap();
    assert_eq!((missing.missing, missing.proven.is_some()), (Some(later), true));
    assert!(domains.prove(env, "a.test", "t", later).await.unwrap(), "it is back");
    assert_eq!(domains.get(env, "a.test").await.unwrap().unwrap().missing, None);
    assert!(!domains.unproven(env, "a.test", later, start).await.unwrap());
    assert!(domains.unproven(env, "a.test", later.plus(HOUR), later).await.unwrap(), "its time is over");
    assert_eq!(domains.proven_for("a.test").await.unwrap(), None);
}

pub async fn a_certificate_is_ordered_by_one_at_a_time(place: &Place) {
    let (store, owner, env) = place.with_env().await;
    let (rows, start) = (store.certificates(), now());
    rows.want("a.test", Some(env), start).await.unwrap();
    rows.want("a.test", Some(env), start.plus(HOUR)).await.unwrap();
    rows.want("cloud.test", None, start).await.unwrap();
    assert_eq!(rows.due(start, 9).await.unwrap().into_iter().collect::<BTreeSet<_>>().len(), 2);
    let racing: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            let until = start.plus(HOUR);
            tokio::spawn(async move { store.certificates().lease("a.test", start, until).await.unwrap() })
        })
        .collect();
    let mut leased = 0;
    for racer in racing {
        leased += usize::from(racer.await.unwrap().is_some());
    }
    assert_eq!(leased, 1);
    assert_eq!(rows.due(start, 9).await.unwrap(), ["cloud.test"]);
    rows.failed("a.test", "away", start.plus(HOUR)).await.unwrap();
    let row = rows.get("a.test", CertificateSource::Acme).await.unwrap().unwrap();
    assert_eq!((row.failures, row.error.as_deref(), row.env), (1, Some("away"), Some(env)));
    assert!(rows.lease("a.test", start, start.plus(HOUR)).await.unwrap().is_none(), "not before its time");
    let new = NewCertificate { chain: "c", sealed: "s", expires: start, due: Some(start.plus(HOUR * 2)) };
    assert!(!rows.ordered("a.test", None, new).await.unwrap(), "it is not the platform's");
    assert!(rows.ordered("a.test", Some(env), new).await.unwrap());
    let row = rows.get("a.test", CertificateSource::Acme).await.unwrap().unwrap();
    assert_eq!((row.failures, row.error, row.chain.as_deref()), (0, None, Some("c")));
    rows.give("a.test", env, new).await.unwrap();
    claimed(&store, env, "a.test", "t").await;
    assert!(store.domains().remove(env, "a.test").await.unwrap());
    for source in [CertificateSource::Acme, CertificateSource::Own] {
        assert_eq!(rows.get("a.test", source).await.unwrap(), None, "they go with the domain");
    }
    // Another's by now: what was ordered before is not its.
    rows.want("b.test", Some(env), start).await.unwrap();
    rows.want("b.test", None, start).await.unwrap();
    assert_eq!(rows.get("b.test", CertificateSource::Acme).await.unwrap().unwrap().env, None);

    let count = async |owner, id: &str, at: Timestamp| {
        store.certificates().count_order(owner, id, at.minus(HOUR), at).await.unwrap();
        store.certificates().orders(owner, at.minus(HOUR)).await.unwrap()
    };
    assert_eq!((count(owner, "1", start).await, count(owner, "2", start).await), (1, 2));
    let zeta = tenant("zeta");
    store.tenants().insert(&zeta).await.unwrap();
    assert_eq!(count(zeta.id, "4", start).await, 1, "each tenant has its own");
    assert_eq!(rows.orders(owner, start.plus(HOUR)).await.unwrap(), 0);
    assert_eq!(count(owner, "5", start.plus(HOUR * 2)).await, 1, "old orders do not count");
    assert_eq!(rows.orders(owner, start).await.unwrap(), 1, "and are gone");

    assert_eq!(rows.account("https://a.test").await.unwrap(), None);
    rows.keep_account("https://a.test", "one").await.unwrap();
    rows.keep_account("https://a.test", "two").await.unwrap();
    assert_eq!(rows.account("https://a.test").await.unwrap().as_deref(), Some("two"));
    rows.forget_account("https://a.test").await.unwrap();
    assert_eq!(rows.account("https://a.test").await.unwrap(), None);
}
