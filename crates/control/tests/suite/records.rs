//! Limits, records of calls, and the memory of repeated ones.

use std::sync::Arc;
use std::time::Duration;

use control::{Backlog, Control, ControlConfig, NewToken, RateLimit};
use kernel::{
    CallId, Caller, Code, KeyId, LimitInfo, LimitScope, Principal, RunId, Scopes, TenantId, Timestamp,
};
use serde_json::json;
use tool::{Attempt, Effect, Ledger, Limiter, Record, ReplayKey, Replays};

use crate::platform::{Platform, said, tenant};

fn record(caller: &Caller, effect: Effect) -> Record {
    Record {
        took: Duration::from_micros(7),
        input_digest: [1; 32],
        ..Record::of(CallId::new(), caller, "db_query", effect)
    }
}

#[tokio::test]
async fn each_key_token_and_tenant_has_its_own_limit() {
    let platform = Platform::with(|config| {
        config.limits.key = RateLimit::new(1, 3).unwrap();
        config.limits.token = RateLimit::new(1, 2).unwrap();
        config.limits.tenant = RateLimit::new(1, 5).unwrap();
    })
    .await;
    let passes = |caller: &Caller, of: u32| {
        (0..of).filter(|_| platform.control.limiter().admit(caller).is_ok()).count()
    };
    let with = |principal, tenant| Caller {
        principal,
        tenant,
        credential: KeyId::new(),
        ..Caller::clone(&platform.operator)
    };
    let (acme, zeta) = (TenantId::new(), TenantId::new());
    let one = with(Principal::Key, acme);
    assert_eq!(passes(&one, 9), 3);
    let refused = platform.control.limiter().admit(&one).unwrap_err();
    assert_eq!((refused.code(), refused.retry_after_secs()), (Code::RateLimited, Some(1)));
    let info = LimitInfo::new("key", LimitScope::Key, 3, "calls").window(3).reset(1);
    let info = info.raised("ask who runs the platform to raise limits.key_per_second and limits.key_burst");
    assert_eq!(refused.limit_info(), Some(&info));
    assert_eq!(passes(&with(Principal::Run(RunId::new()), zeta), 9), 2);

    assert_eq!(passes(&with(Principal::Key, acme), 9), 2, "the tenant has five");
    let refused = platform.control.limiter().admit(&with(Principal::Key, acme)).unwrap_err();
    assert_eq!(refused.limit_info().unwrap().name, "tenant");
    assert_eq!(passes(&with(Principal::Key, zeta), 9), 3, "another tenant is not held up");
    // Those of the tenant are the one call of its second key that this key still had, and the one of the third.
    let refused = platform.control.limiter().refused();
    let (key, token, tenant) = (LimitScope::Key, LimitScope::Token, LimitScope::Tenant);
    let environment = (LimitScope::Environment, 0);
    assert_eq!(refused, [(key, 6 + 1 + 6 + 6), (token, 7), (tenant, 1 + 1), environment]);
}

#[tokio::test]
async fn a_change_is_on_disk_when_its_record_returns_and_a_read_when_the_platform_has_closed() {
    let platform = Platform::new().await;
    let (control, operator) = (&platform.control, &platform.operator);
    let (change, read) = (record(operator, Effect::Write), record(operator, Effect::Read));
    control.ledger().record(change.clone()).await.unwrap();
    // A second program reads the files as they are.
    let location = store::Location::Sqlite(platform.path().join("control.db"));
    let beside = store::Store::open(&location).await.unwrap();
    let ids = async || {
        let calls = beside.records().calls(operator.tenant, None, 10).await.unwrap();
        calls.into_iter().map(|call| call.id).collect::<Vec<_>>()
    };
    assert_eq!(ids().await, [change.call]);
    control.ledger().record(read.clone()).await.unwrap();
    control.close().await;
    assert_eq!(ids().await, [read.call, change.call]);
    let late = control.ledger().record(record(operator, Effect::Write)).await;
    assert_eq!(said(late), "unavailable the platform is stopping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_record_is_lost_among_many_at_once() {
    let platform = Arc::new(Platform::new().await);
    let mut callers = Vec::new();
    for number in 0..16 {
        let platform = Arc::clone(&platform);
        callers.push(tokio::spawn(async move {
            for _ in 0..50 {
                let effect = if number % 2 == 0 { Effect::Read } else { Effect::Write };
                platform.control.ledger().record(record(&platform.operator, effect)).await.unwrap();
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    platform.control.ledger().flush(platform.operator.tenant).await.unwrap();
    let hour = Timestamp::now().minus(Duration::from_secs(3600));
    let usage = platform.control.usage(&tenant(&platform.operator), None, hour).await.unwrap();
    assert_eq!(usage.iter().map(|u| (u.calls, u.took_us)).collect::<Vec<_>>(), [(800, 5600)]);
}

#[tokio::test]
async fn reads_that_come_faster_than_the_disk_are_dropped_oldest_first() {
    let platform = Platform::new().await;
    let mut last = None;
    for _ in 0..8_192 + 10 {
        let record = record(&platform.operator, Effect::Read);
        last = Some(record.call);
        // Not awaited by the writer: this task does not yield.
        futures::executor::block_on(platform.control.ledger().record(record)).unwrap();
    }
    let backlog = Backlog { waiting: 8_192, dropped: 10, failures: 0 };
    assert_eq!(platform.control.ledger().backlog(), backlog);
    platform.control.ledger().flush(platform.operator.tenant).await.unwrap();
    assert_eq!(platform.control.ledger().backlog(), Backlog { waiting: 0, ..backlog });
    let owner = tenant(&platform.operator);
    let usage = platform.control.usage(&owner, None, Timestamp::from_micros(0)).await.unwrap();
    assert_eq!(usage[0].calls, 8_192);
    assert_eq!(platform.control.calls(&owner, None, 1).await.unwrap()[0].id, last.unwrap());
}

#[tokio::test]
async fn the_last_use_of_a_key_is_noted() {
    let platform = Platform::new().await;
    let (_, caller) = platform.key(&platform.operator, None).await;
    let used = record(&caller, Effect::Read);
    platform.control.ledger().record(used.clone()).await.unwrap();
    platform.control.ledger().flush(platform.operator.tenant).await.unwrap();
    let keys = platform.control.keys().list(&platform.operator, None, 10).await.unwrap();
    assert_eq!(keys[0].last_used, Some(used.at));
    // Also where it is what it has minted that calls.
    let (_, other) = platform.key(&platform.operator, None).await;
    let minted = Caller::clone(&caller).standing_on([other.credential, KeyId::new()]);
    let minted = Caller { credential: KeyId::new(), principal: Principal::Run(RunId::new()), ..minted };
    let used = record(&minted, Effect::Write);
    platform.control.ledger().record(used.clone()).await.unwrap();
    platform.control.ledger().flush(platform.operator.tenant).await.unwrap();
    let row = platform.control.store().keys().get(other.credential).await.unwrap().unwrap();
    assert_eq!(row.last_used, Some(used.at));
}

#[tokio::test]
async fn a_repeated_call_gets_the_first_ones_answer_also_after_a_restart() {
    let platform = Platform::new().await;
    let (tenant, credential) = (TenantId::new(), KeyId::new());
    let key = |digest| ReplayKey { tenant, credential, key: "k".into(), digest: [digest; 32] };
    let replays = platform.control.replays();
    assert_eq!(replays.begin(&key(1)).await.unwrap(), Attempt::First);
    assert_eq!(
        said(replays.begin(&key(1)).await),
        "conflict the first call with this idempotency key is still running"
    );
    let misuse = replays.begin(&key(2)).await.unwrap_err();
    assert_eq!((misuse.code(), misuse.status()), (Code::Conflict, 422));
    replays.finish(&key(1), None).await.unwrap();
    assert_eq!(replays.begin(&key(1)).await.unwrap(), Attempt::First, "a failed call frees the key");

    // The program dies before the call has ended.
    let (next, _) = Control::open(ControlConfig::new(platform.path())).await.unwrap();
    assert_eq!(next.replays().begin(&key(1)).await.unwrap(), Attempt::Unknown);
    next.replays().finish(&key(1), Some(&json!({ "a": [1, null] }))).await.unwrap();
    assert_eq!(next.replays().begin(&key(1)).await.unwrap(), Attempt::Done(json!({ "a": [1, null] })));
    let mine = ReplayKey { credential: KeyId::new(), ..key(2) };
    assert_eq!(next.replays().begin(&mine).await.unwrap(), Attempt::First);
}

#[tokio::test]
async fn upkeep_removes_what_has_expired_and_nothing_else() {
    let platform = Platform::with(|config| config.keep_reads = Duration::ZERO).await;
    let (control, operator) = (&platform.control, &platform.operator);
    let (change, read) = (record(operator, Effect::Write), record(operator, Effect::Read));
    control.ledger().record(read).await.unwrap();
    control.ledger().record(change.clone()).await.unwrap();
    let key = ReplayKey {
        tenant: operator.tenant,
        credential: operator.credential,
        key: "k".into(),
        digest: [0; 32],
    };
    control.replays().begin(&key).await.unwrap();
    let new = NewToken {
        env: platform.default.id,
        scopes: Scopes::all(),
        held: kernel::Held::default(),
        source: None,
        expires_in: Duration::from_secs(60),
        run: None,
    };
    let minted = control.tokens().mint(operator, new).await.unwrap();
    control.tokens().revoke(operator, minted.row.id).await.unwrap();
    control.upkeep().await.unwrap();
    let calls = control.calls(&tenant(operator), None, 10).await.unwrap();
    assert_eq!(calls.iter().map(|call| call.id).collect::<Vec<_>>(), [change.call]);
    assert!(control.replays().begin(&key).await.is_err(), "it is still running");
    let tried = control.authenticate(minted.token.expose(), kernel::Surface::Http, None).await;
    assert_eq!(said(tried), "unauthenticated the credential is not valid");
}

#[tokio::test]
async fn what_was_written_though_nobody_was_told_so_is_written_once_and_stops_nothing() {
    let platform = Platform::new().await;
    let (control, operator) = (&platform.control, &platform.operator);
    let first = record(operator, Effect::Write);
    control.ledger().record(first.clone()).await.unwrap();
    // As after a commit whose answer was lost: it cannot be written again.
    assert_eq!(control.ledger().record(first.clone()).await.unwrap_err().code(), Code::Unavailable);
    let waits = control.ledger().backlog();
    assert_eq!((waits.waiting, waits.failures), (1, 1));
    // Others are not kept from being on record by it, and it is known for what it is.
    let later = record(operator, Effect::Write);
    let other = Record { tenant: TenantId::new(), ..record(operator, Effect::Write) };
    control.ledger().record(other.clone()).await.unwrap();
    control.ledger().record(later.clone()).await.unwrap();
    control.ledger().flush(operator.tenant).await.unwrap();
    assert_eq!(control.ledger().backlog().waiting, 0);
    let entries = control.audit().list(operator, None, None, 10).await.unwrap();
    let calls: Vec<bool> = [&later, &first]
        .map(|it| entries.iter().filter(|entry| entry.body.contains(&it.call.to_string())).count() == 1)
        .into();
    assert_eq!((entries.len(), calls), (2, vec![true, true]));
}
