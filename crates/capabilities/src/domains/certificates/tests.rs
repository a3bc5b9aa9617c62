//! What counts of a tenant's orders. Certificates that are issued are tried with a real authority elsewhere.

use std::collections::BTreeMap;
use std::future::ready;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kernel::TenantId;
use store::{EnvState, Environment, Location, Tenant};
use zeroize::Zeroizing;

use super::super::acme::Method;
use super::*;

struct Plain;

impl Seal for Plain {
    fn seal(&self, _: &str, value: &[u8]) -> Result<String> {
        String::from_utf8(value.to_vec()).map_err(Error::internal)
    }

    fn open(&self, _: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        Ok(Zeroizing::new(sealed.as_bytes().to_vec()))
    }

    fn domain_changed(&self, _: &str) {}
}

/// `*.apps.platform.test` is the address of an app, all else a proven domain of the same environment.
struct Known(Env);

impl Owners for Known {
    fn owner<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Owner>>> {
        let is_app = host.ends_with(".apps.platform.test");
        let owner = if is_app { Owner::App(self.0.clone()) } else { Owner::Domain(self.0.clone()) };
        ready(Ok(Some(owner))).boxed()
    }
}

#[tokio::test]
async fn neither_an_authority_that_is_away_nor_strangers_use_up_the_orders_of_proven_domains() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("keys")).unwrap();
    let store = Store::open(&Location::Sqlite(directory.path().join("control.db"))).await.unwrap();
    let env = Env::for_upkeep(TenantId::new(), EnvId::new());
    let (tenant, start) = (env.tenant(), Timestamp::now());
    let row = Tenant::new("acme".parse().unwrap(), "Acme".into(), tenant, start);
    assert!(store.tenants().insert(&row).await.unwrap().is_made());
    let environment = Environment {
        id: env.id(),
        tenant,
        slug: "shop".parse().unwrap(),
        name: "Shop".into(),
        state: EnvState::Creating,
        template: "empty".into(),
        plan: "default".into(),
        tags: BTreeMap::new(),
        external_id: None,
        created: start,
    };
    assert!(matches!(store.environments().insert(&environment).await.unwrap(), store::Insertion::Made));
    // Nobody listens there any more.
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let acme = AcmeSettings {
        directory: format!("https://{away}/dir"),
        root: None,
        contact: None,
        methods: vec![Method::Http01],
        orders_per_tenant: 3,
    };
    let settings = CertificateSettings {
        data_dir: directory.path().to_owned(),
        hosts: vec!["cloud.platform.test".into()],
        apps: vec!["apps.platform.test".into()],
        authority: Authority::Acme(acme),
        files: Vec::new(),
        directory: None,
    };
    let owners = Arc::new(Known(env.clone()));
    let clock: Clock = Arc::new(Timestamp::now);
    let certificates = Certificates::open(settings, store.clone(), Arc::new(Plain), owners, clock).unwrap();
    let tried = async |host: &str| {
        certificates.want(host, Some(&env)).await.unwrap();
        certificates.round().await;
        let row = store.certificates().get(host, CertificateSource::Acme).await.unwrap();
        row.unwrap().error.unwrap()
    };
    let away = "the certificate authority cannot be reached";
    for n in 0..5 {
        assert_eq!(tried(&format!("app{n}.apps.platform.test")).await, away);
    }
    assert_eq!(store.certificates().orders(tenant, start.minus(WEEK)).await.unwrap(), 0);
    // Two of three were taken: what is left is for what somebody has proven.
    for id in ["1", "2"] {
        store.certificates().count_order(tenant, id, start.minus(WEEK), start).await.unwrap();
    }
    assert_eq!(
        tried("app9.apps.platform.test").await,
        "the tenant has ordered 2 certificates in seven days, which is its limit for such hosts"
    );
    assert_eq!(tried("www.customer.test").await, away);
    store.certificates().count_order(tenant, "3", start.minus(WEEK), start).await.unwrap();
    assert_eq!(
        tried("shop.customer.test").await,
        "the tenant has ordered 3 certificates in seven days, which is its limit for such hosts"
    );
}

#[test]
fn what_is_renewed_has_the_whole_share() {
    let env = Env::for_upkeep(TenantId::new(), EnvId::new());
    let shares = [(50, false), (50, true), (1, false)].map(|(most, renewed)| {
        [share(most, &Owner::App(env.clone()), renewed), share(most, &Owner::Domain(env.clone()), renewed)]
    });
    assert_eq!(shares, [[25, 50], [50, 50], [1, 1]]);
}
