//! What a call meets of limits and credentials: the limiter with 100,000 tenants, and tokens minted and verified.
//!
//! `cargo xtask bench credentials` prints one line of JSON: nanoseconds of one admission beside those of one look into a
//! hash map of as many tenants (the machine's own pace), bytes for each tenant that is counted, and microseconds for a token
//! to be minted (with its row on the disk) and to be verified where nobody remembers it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use control::{Control, ControlConfig, NewTenant, NewToken, RateLimit};
use kernel::{Caller, Held, Proof as _, Scope, Scopes, Surface, Tenant, TenantId};
use serde_json::json;
use tool::Limiter as _;

const TENANTS: usize = 100_000;
const ROUNDS: usize = 5;
const TOKENS: usize = 500;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let data = tempfile::tempdir().unwrap();
    let mut config = ControlConfig::new(data.path());
    let plenty = RateLimit::new(1_000_000_000, 1_000_000_000).unwrap();
    (config.limits.key, config.limits.token, config.limits.tenant) = (plenty, plenty, plenty);
    let (control, bootstrap) = Control::open(config).await.unwrap();
    let secret = bootstrap.operator_key.unwrap();
    let operator = control.authenticate(secret.expose(), Surface::Http, None).await.unwrap();

    let others: Vec<TenantId> = (0..TENANTS).map(|_| TenantId::new()).collect();
    let beside: HashMap<TenantId, u64> = others.iter().map(|tenant| (*tenant, 1)).collect();
    let mut caller = Caller::clone(&operator);
    let before = resident();
    for tenant in &others {
        caller.tenant = *tenant;
        control.limiter().admit(&caller).unwrap();
    }
    let bytes = resident().saturating_sub(before) / TENANTS as u64;
    let (mut admit, mut look) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for tenant in &others {
            caller.tenant = *tenant;
            black_box(control.limiter().admit(black_box(&caller))).unwrap();
        }
        admit = admit.min(began.elapsed());
        let began = Instant::now();
        for tenant in &others {
            black_box(beside.get(black_box(tenant)));
        }
        look = look.min(began.elapsed());
    }

    let proof = Tenant::authorize(&operator, &[Scope::TenantAdmin]).unwrap();
    let limits = json!({ "tenant": { "calls_per_second": 1_000_000_000, "calls_burst": 1_000_000_000 } });
    control.plans().set(&operator, "bench", &limits).await.unwrap();
    let planned =
        NewTenant { slug: "planned".parse().ok(), plan: Some("bench".to_owned()), ..NewTenant::default() };
    let (planned, _) = control.tenants().create(&proof, planned).await.unwrap();
    caller.tenant = planned.id;
    let began = Instant::now();
    for _ in 0..TENANTS {
        black_box(control.limiter().admit(black_box(&caller))).unwrap();
    }
    let one = began.elapsed();

    let env = control.environments().unfinished().await.unwrap().remove(0);
    let env = control.environments().ready(&env).await.unwrap();
    let wanted = || NewToken {
        env: env.id,
        scopes: [Scope::DbRead].into_iter().collect::<Scopes>(),
        held: Held::default(),
        source: None,
        expires_in: Duration::from_secs(600),
        run: None,
    };
    let inside = control.select_env(&operator, Some("default"), None).await.unwrap();
    let (mut minted, mut mint, mut verify) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TOKENS {
        let began = Instant::now();
        minted.push(control.tokens().mint(&inside, wanted()).await.unwrap());
        mint.push(began.elapsed());
    }
    for token in &minted {
        let began = Instant::now();
        control.authenticate(token.token.expose(), Surface::Http, None).await.unwrap();
        verify.push(began.elapsed());
    }
    let each = |all: Duration| all.as_nanos() as u64 / TENANTS as u64;
    let found = json!({
        "tenants": TENANTS,
        "admit_ns": each(admit), "hash_map_ns": each(look), "one_tenant_with_a_plan_ns": each(one),
        "bytes_per_tenant": bytes,
        "mint_us": median(&mut mint), "verify_us": median(&mut verify),
    });
    println!("{found}");
    control.close().await;
}

fn median(times: &mut [Duration]) -> u64 {
    times.sort_unstable();
    times[times.len() / 2].as_micros() as u64
}

/// The bytes of memory that this process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4_096
}
