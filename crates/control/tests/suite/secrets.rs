//! Secrets: written, never read but by the runtime, and useless anywhere else.

use control::SecretKind;
use kernel::{Env, EnvId, Secret, Timestamp};
use store::{Location, SealedSecret, Store};

use crate::platform::{Platform, proof, said};

const VALUE: &str = "hunter2-hunter2-hunter2";

#[tokio::test]
async fn a_secret_is_set_revealed_and_removed() {
    let platform = Platform::new().await;
    let (secrets, env) = (platform.control.secrets(), proof(&platform.default));
    let set = async |name, value: &str| secrets.set(&env, name, &Secret::new(value)).await;
    assert_eq!(set("API_KEY", "first").await.unwrap().version, 1);
    let info = set("API_KEY", VALUE).await.unwrap();
    assert_eq!((info.name.as_str(), info.kind, info.version), ("API_KEY", SecretKind::Function, 2));
    set("_", "").await.unwrap();
    let names: Vec<_> = secrets.names(&env).await.unwrap().into_iter().map(|s| (s.name, s.version)).collect();
    assert_eq!(names, [("API_KEY".to_owned(), 2), ("_".to_owned(), 1)]);
    assert_eq!(secrets.reveal(&env, "API_KEY").await.unwrap().expose(), VALUE);
    assert_eq!(secrets.reveal(&env, "_").await.unwrap().expose(), "");

    let other = proof(&platform.env(&platform.operator, "other").await);
    assert_eq!(said(secrets.reveal(&other, "API_KEY").await), "not_found there is no secret \"API_KEY\"");
    assert_eq!(said(secrets.delete(&other, "API_KEY").await), "not_found there is no secret \"API_KEY\"");
    secrets.delete(&env, "API_KEY").await.unwrap();
    assert_eq!(said(secrets.reveal(&env, "API_KEY").await), "not_found there is no secret \"API_KEY\"");
}

#[tokio::test]
async fn names_and_values_have_limits() {
    let platform = Platform::new().await;
    let (secrets, env) = (platform.control.secrets(), proof(&platform.default));
    let set =
        async |name: &str, length: usize| secrets.set(&env, name, &Secret::new("x".repeat(length))).await;
    for bad in ["", "a", "1A", "A-B", "A B", "Ä", "A\0", &"A".repeat(65)] {
        let refused = set(bad, 1).await.unwrap_err();
        assert_eq!(refused.pointer(), Some("/name"), "{bad}");
    }
    assert!(set(&"A".repeat(64), 64 * 1024).await.is_ok());
    assert_eq!(
        said(set("A", 64 * 1024 + 1).await),
        "too_large /value: the value has 65537 bytes, 65536 are allowed"
    );
    let gone = Env::for_upkeep(platform.default.tenant, EnvId::new());
    let refused = secrets.set(&gone, "A", &Secret::new("x")).await;
    assert_eq!(said(refused), format!("not_found there is no environment \"{}\"", gone.id()));
}

#[tokio::test]
async fn a_sealed_value_that_was_moved_or_changed_does_not_open() {
    let platform = Platform::new().await;
    let (secrets, env) = (platform.control.secrets(), proof(&platform.default));
    let other = proof(&platform.env(&platform.operator, "other").await);
    secrets.set(&env, "A", &Secret::new(VALUE)).await.unwrap();
    let store = Store::open(&Location::Sqlite(platform.path().join("control.db"))).await.unwrap();
    let sealed = store.secrets().sealed(env.id(), "A").await.unwrap().unwrap();
    assert!(!sealed.sealed.contains(VALUE));
    let put = async |env: &Env, secret: SealedSecret| {
        store.secrets().set(env.id(), &secret, Timestamp::now()).await.unwrap().unwrap();
    };
    let broken =
        "internal internal error: a sealed value does not open: it was changed, or belongs elsewhere";
    put(&env, SealedSecret { name: "B".into(), ..sealed.clone() }).await;
    assert_eq!(said(secrets.reveal(&env, "B").await), broken);
    put(&other, sealed.clone()).await;
    assert_eq!(said(secrets.reveal(&other, "A").await), broken);
    put(&env, SealedSecret { kind: "egress".into(), ..sealed.clone() }).await;
    assert_eq!(said(secrets.reveal(&env, "A").await), "not_found there is no secret \"A\"");
    assert_eq!(said(secrets.egress(&env).await.map(drop)), broken);
    let mut changed = sealed.sealed.clone();
    changed.replace_range(9..10, if &changed[9..10] == "A" { "B" } else { "A" });
    put(&env, SealedSecret { sealed: changed, ..sealed.clone() }).await;
    assert_eq!(said(secrets.reveal(&env, "A").await), broken);
    put(&env, sealed).await;
    assert_eq!(secrets.reveal(&env, "A").await.unwrap().expose(), VALUE);
}

#[tokio::test]
async fn no_value_lies_on_disk_in_clear() {
    let platform = Platform::new().await;
    let (secrets, env) = (platform.control.secrets(), proof(&platform.default));
    secrets.set(&env, "A", &Secret::new(VALUE)).await.unwrap();
    platform.control.close().await;
    let stored = std::fs::read(platform.path().join("control.db")).unwrap();
    assert!(!stored.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()));
}

#[tokio::test]
async fn a_secret_for_hosts_is_for_nothing_else() {
    let platform = Platform::new().await;
    let (secrets, env) = (platform.control.secrets(), proof(&platform.default));
    let hosts = vec!["a.example".to_owned(), "*.b.example:8443".to_owned()];
    let info = secrets.set_egress(&env, "TOKEN", hosts.clone(), &Secret::new(VALUE)).await.unwrap();
    assert_eq!((info.kind, info.version), (SecretKind::Egress, 1));
    assert_eq!(said(secrets.reveal(&env, "TOKEN").await), "not_found there is no secret \"TOKEN\"");
    let all = secrets.egress(&env).await.unwrap();
    let all: Vec<_> = all.iter().map(|s| (s.name.as_str(), s.hosts.as_slice(), s.value.expose())).collect();
    assert_eq!(all, [("TOKEN", hosts.as_slice(), VALUE)]);
    let other = proof(&platform.env(&platform.operator, "other").await);
    assert!(secrets.egress(&other).await.unwrap().is_empty());
    // Set anew for functions, it is for those, and goes out no more.
    secrets.set(&env, "TOKEN", &Secret::new("other")).await.unwrap();
    assert!(secrets.egress(&env).await.unwrap().is_empty());
    for n in 0..64 {
        let name = format!("T{n}");
        secrets.set_egress(&env, &name, hosts.clone(), &Secret::new(VALUE)).await.unwrap();
    }
    let refused = secrets.set_egress(&env, "ONE_MORE", hosts.clone(), &Secret::new(VALUE)).await;
    assert!(said(refused.map(drop)).starts_with("quota_exceeded"));
    assert!(secrets.set_egress(&env, "T5", hosts, &Secret::new(VALUE)).await.is_ok(), "it is there already");
}
