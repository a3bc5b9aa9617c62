//! What a call meets on its way costs no look at the disk.

use std::time::{Duration, Instant};

use control::{NewEnvironment, RateLimit};
use kernel::{CallId, Surface};
use tool::{Effect, Ledger, Limiter, Record};

use crate::platform::{Platform, tenant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_credential_passes_without_the_database() {
    let platform = Platform::with(|config| {
        let plenty = RateLimit::new(1_000_000, 1_000_000).unwrap();
        (config.limits.key, config.limits.tenant) = (plenty, plenty);
    })
    .await;
    let control = &platform.control;
    let began = Instant::now();
    const CALLS: u32 = 5_000;
    for _ in 0..CALLS {
        let caller = control.authenticate(platform.operator_key.expose(), Surface::Mcp, None).await.unwrap();
        let caller = control.select_env(&caller, Some("default"), None).await.unwrap();
        control.limiter().admit(&caller).unwrap();
        control.ledger().record(Record::of(CallId::new(), &caller, "db_query", Effect::Read)).await.unwrap();
    }
    let each = began.elapsed() / CALLS;
    // Far above what it takes, also unoptimised on a busy machine; a query and its commit would be above it.
    assert!(each < Duration::from_micros(500), "{each:?}");
}

#[tokio::test]
async fn an_environments_record_takes_milliseconds() {
    let platform = Platform::new().await;
    let owner = tenant(&platform.operator);
    let mut took = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let made = platform.control.environments().create(&owner, NewEnvironment::default()).await.unwrap();
        platform.control.environments().ready(&made.environment).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    assert!(took[25] < Duration::from_millis(100), "{:?}", took[25]);
}
