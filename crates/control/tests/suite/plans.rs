//! What a plan bounds, and how soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{Control, ControlConfig, NewEnvironment, NewTenant, TenantChange};
use kernel::{Caller, Code, EnvId, Proof, Scope, Secret, Surface, Tenant};
use serde_json::{Value, json};
use tool::Limiter;

use crate::platform::{Platform, tenant};

fn admin(caller: &Caller) -> Tenant {
    Tenant::authorize(caller, &[Scope::TenantAdmin]).unwrap()
}

async fn give(platform: &Platform, slug: &str, plan: Option<&str>, limits: Option<Value>) {
    let change = TenantChange { plan: plan.map(str::to_owned), limits, ..TenantChange::default() };
    platform.control.tenants().change(&admin(&platform.operator), slug, change).await.unwrap();
}

fn passes(platform: &Platform, caller: &Caller, of: usize) -> usize {
    (0..of).filter(|_| platform.control.limiter().admit(caller).is_ok()).count()
}

#[tokio::test]
async fn a_plan_holds_at_once_and_a_tenants_own_limits_go_before_it() {
    let platform = Platform::new().await;
    let acme = platform.tenant("acme").await;
    let other = platform.tenant("other").await;
    let few = json!({ "tenant": { "calls_per_second": 1, "calls_burst": 5 } });
    platform.control.plans().set(&platform.operator, "few", &few).await.unwrap();
    give(&platform, "acme", Some("few"), None).await;
    assert_eq!(passes(&platform, &acme, 20), 5);
    let refused = platform.control.limiter().admit(&acme).unwrap_err();
    assert_eq!((refused.code(), refused.limit_info().unwrap().value), (Code::RateLimited, 5));
    assert_eq!(passes(&platform, &other, 20), 20);
    // The plan changes, for all that have it.
    let more = json!({ "tenant": { "calls_per_second": 1, "calls_burst": 7 } });
    platform.control.plans().set(&platform.operator, "few", &more).await.unwrap();
    assert_eq!(passes(&platform, &acme, 20), 7);
    give(&platform, "acme", None, Some(json!({ "tenant": { "calls_burst": 9 } }))).await;
    assert_eq!(passes(&platform, &acme, 20), 9, "a second of the plan, and a burst of its own");
    give(&platform, "acme", Some("default"), Some(json!({}))).await;
    assert_eq!(passes(&platform, &acme, 20), 20);
    // What everybody has who has nothing else.
    platform.control.plans().set(&platform.operator, "default", &few).await.unwrap();
    assert_eq!(passes(&platform, &other, 20), 5);
}

#[tokio::test]
async fn an_environments_plan_makes_it_smaller_and_never_larger() {
    let platform = Platform::new().await;
    let acme = platform.tenant("acme").await;
    let (control, operator) = (&platform.control, &platform.operator);
    let small = json!({ "environment": { "files_bytes": 10, "visits_at_once": 1 } });
    control.plans().set(operator, "small", &small).await.unwrap();
    let large = json!({ "environment": { "files_bytes": 1_000, "database_bytes": 8 << 20 } });
    control.plans().set(operator, "large", &large).await.unwrap();
    let make = async |slug: &str, plan: &str| {
        let (slug, plan) = (slug.parse().ok(), Some(plan.to_owned()));
        let new = NewEnvironment { slug, plan, ..NewEnvironment::default() };
        let made = control.environments().create(&tenant(&acme), new).await?;
        control.environments().ready(&made.environment).await
    };
    give(&platform, "acme", Some("small"), None).await;
    let wide = make("wide", "large").await.unwrap();
    let of = |env: EnvId| control.plans().of(acme.tenant, Some(env)).environment;
    let bounds = of(wide.id);
    assert_eq!((bounds.files_bytes, bounds.database_bytes), (Some(10), Some(8 << 20)));
    give(&platform, "acme", Some("large"), None).await;
    let narrow = make("narrow", "small").await.unwrap();
    assert_eq!((of(narrow.id).files_bytes, of(wide.id).files_bytes), (Some(10), Some(1_000)));
    let visit = control.limiter().visit(acme.tenant, narrow.id).unwrap();
    let refused = control.limiter().visit(acme.tenant, narrow.id).unwrap_err();
    assert_eq!(refused.limit_info().unwrap().name, "visits_at_once");
    drop(visit);
    drop(control.limiter().visit(acme.tenant, narrow.id).unwrap());
    let unknown = make("third", "none").await.unwrap_err();
    assert_eq!((unknown.code(), unknown.pointer()), (Code::InvalidInput, Some("/plan")));
    // One that somebody has stays.
    let used = control.plans().remove(operator, "small").await.unwrap_err();
    assert_eq!(used.code(), Code::Conflict);
    assert_eq!(control.plans().remove(operator, "default").await.unwrap_err().code(), Code::Conflict);
    control.plans().remove(operator, "pro").await.unwrap();
    assert_eq!(control.plans().remove(operator, "pro").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_tenant_makes_as_many_environments_as_its_plan_allows() {
    let platform = Platform::new().await;
    let acme = platform.tenant("acme").await;
    give(&platform, "acme", None, Some(json!({ "tenant": { "environments": 2 } }))).await;
    for slug in ["one", "two"] {
        platform.env(&acme, slug).await;
    }
    let create =
        async || platform.control.environments().create(&tenant(&acme), NewEnvironment::default()).await;
    let refused = create().await.unwrap_err();
    let info = refused.limit_info().unwrap();
    assert_eq!((refused.code(), info.name, info.value), (Code::QuotaExceeded, "environments", 2));
    give(&platform, "acme", None, Some(json!({ "tenant": { "environments": 3 } }))).await;
    create().await.unwrap();
    let copy = platform.control.environments().create_copy(&tenant(&acme), NewEnvironment::default()).await;
    assert_eq!(copy.unwrap_err().code(), Code::QuotaExceeded, "a branch is one too");
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_allowed() {
    let platform = Platform::new().await;
    let acme = platform.tenant("acme").await;
    let env = platform.env(&acme, "shop").await;
    let inside = platform.control.select_env(&acme, Some("shop"), None).await.unwrap();
    let limits = json!({ "tenant": { "calls_at_once": 3 }, "environment": { "calls_at_once": 2 } });
    give(&platform, "acme", None, Some(limits)).await;
    let limiter = platform.control.limiter();
    let one = limiter.enter(&inside).await.unwrap();
    let two = limiter.enter(&inside).await.unwrap();
    assert_eq!(limiter.underway(acme.tenant, Some(env.id)), (2, 2));
    let refused = limiter.enter(&inside).await.err().unwrap();
    assert_eq!(refused.limit_info().unwrap().name, "environment_at_once");
    assert_eq!(
        limiter.underway(acme.tenant, Some(env.id)),
        (2, 2),
        "who gets no place in the one takes none in the other"
    );
    let three = limiter.enter(&acme).await.unwrap();
    let refused = limiter.enter(&acme).await.err().unwrap();
    assert_eq!(refused.limit_info().unwrap().name, "tenant_at_once");
    // Who waits has the place of whoever ends.
    let (fourth, ()) = tokio::join!(limiter.enter(&inside), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop((one, two, three));
    });
    drop(fourth.unwrap());
    assert_eq!(limiter.underway(acme.tenant, Some(env.id)), (0, 0));
}

#[tokio::test]
async fn plans_are_the_operators_and_what_is_wrong_changes_nothing() {
    let platform = Platform::new().await;
    let acme = platform.tenant("acme").await;
    let (_, theirs) = platform.key(&acme, None).await;
    let plans = platform.control.plans();
    let empty = json!({});
    assert_eq!(plans.set(&theirs, "free", &empty).await.unwrap_err().code(), Code::Forbidden);
    assert_eq!(plans.remove(&theirs, "free").await.unwrap_err().code(), Code::Forbidden);
    assert_eq!(plans.list(&theirs).await.unwrap_err().code(), Code::Forbidden);
    let before = plans.list(&platform.operator).await.unwrap();
    for (name, limits) in [
        ("Free", json!({})),
        ("", json!({})),
        ("free", json!({ "tenant": { "calls_at_once": 0 } })),
        ("free", json!({ "limits": {} })),
        ("free", json!([])),
    ] {
        let refused = plans.set(&platform.operator, name, &limits).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidInput, "{refused:?}");
    }
    assert_eq!(plans.list(&platform.operator).await.unwrap(), before);
    let wrong = TenantChange { limits: Some(json!({ "tenant": { "moons": 1 } })), ..TenantChange::default() };
    let wrong = TenantChange { name: Some("Another".to_owned()), ..wrong };
    let refused =
        platform.control.tenants().change(&admin(&platform.operator), "acme", wrong).await.unwrap_err();
    assert_eq!(refused.pointer(), Some("/limits/tenant/moons"));
    let there = platform.control.tenants().get(&admin(&platform.operator), "acme").await.unwrap();
    assert_ne!(there.name, "Another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_gateway_holds_to_a_plan_within_a_second() {
    let server = testkit::require(testkit::Postgres::shared());
    let url = Secret::new(server.fresh_database().unwrap());
    let platform = Platform::with(|config| config.database_url = Some(url.clone())).await;
    let data = tempfile::TempDir::new().unwrap();
    std::fs::create_dir_all(data.path()).unwrap();
    let copy = |from: &str| {
        std::fs::create_dir_all(data.path().join("keys")).unwrap();
        std::fs::copy(platform.path().join(from), data.path().join(from)).unwrap();
    };
    copy("keys/master");
    copy("operator.key");
    let config = ControlConfig { database_url: Some(url), ..ControlConfig::new(data.path()) };
    let (other, _) = Control::open(config).await.unwrap();
    let acme = platform.tenant("acme").await;
    let (secret, _) = platform.key(&acme, None).await;
    let there = other.authenticate(secret.expose(), Surface::Http, None).await.unwrap();
    let passes = |caller: &Arc<Caller>| (0..20).filter(|_| other.limiter().admit(caller).is_ok()).count();
    assert_eq!(passes(&there), 20);
    let few = json!({ "tenant": { "calls_per_second": 1, "calls_burst": 3 } });
    give(&platform, "acme", None, Some(few.clone())).await;
    let began = Instant::now();
    let bound = || other.plans().of(acme.tenant, None).tenant.tenant.calls_burst;
    while bound() != Some(3) {
        assert!(began.elapsed() < Duration::from_secs(20), "it was not heard of");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(passes(&there), 3);
    // Of a tenant that is made with it, too, and of a plan.
    platform.control.plans().set(&platform.operator, "few", &few).await.unwrap();
    let new = NewTenant { slug: "zeta".parse().ok(), plan: Some("few".to_owned()), ..NewTenant::default() };
    let (zeta, _) = platform.control.tenants().create(&admin(&platform.operator), new).await.unwrap();
    let bound = || other.plans().of(zeta.id, None).tenant.tenant.calls_burst;
    let began = Instant::now();
    while bound() != Some(3) {
        assert!(began.elapsed() < Duration::from_secs(20), "it was not heard of");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.close().await;
}
