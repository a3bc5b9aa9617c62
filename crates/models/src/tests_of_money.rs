//! Budgets against a provider that uses what it likes: overspend is nothing, and the statement is what the provider counts.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::future::join_all;
use kernel::{Caller, EnvId, KeyId, Principal, Scope, Scopes, Timestamp};
use serde_json::json;
use testkit::{Provider, Turn, eventually};

use super::tests::{Ground, aside, streamed};
use super::*;

/// A provider that says it has used this much of each call, and keeps count.
fn greedy(prompt: u64, completion: u64) -> (Provider, Arc<AtomicU64>) {
    let counted = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&counted);
    let provider = Provider::start(move |_, _| {
        counts.fetch_add(prompt + completion, Ordering::SeqCst);
        let usage = json!({ "prompt_tokens": prompt, "completion_tokens": completion });
        let choice = json!({ "index": 0, "delta": {}, "finish_reason": "stop" });
        let end = json!({ "choices": [choice], "usage": usage });
        Turn::Events(format!("data: {end}\n\ndata: [DONE]\n\n"), 40, Duration::from_millis(1))
    });
    (provider.unwrap(), counted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_uses_more_than_it_may_overspends_nothing() {
    for (prompt, completion) in [(3, 40), (90_000, 400), (10, 700_000)] {
        let (provider, counted) = greedy(prompt, completion);
        let ground = Ground::new(&provider, 1_000_000).await;
        ground.price(1_000_000).await;
        let (tokens, micro) = (4 * aside(), 10_000);
        ground.set(Some(ground.env.id()), Unit::Tokens, Period::Day, tokens).await;
        ground.set(None, Unit::Micro, Period::Month, micro).await;
        let outcomes = join_all((0..64).map(|_| async {
            match ground.ask(json!({ "stream": true })).await {
                Ok(Answer::Events(events)) => Ok(events.collect::<Vec<_>>().await),
                Ok(Answer::Whole(_)) => panic!("no events"),
                Err(error) => Err(error),
            }
        }))
        .await;
        let made = outcomes.iter().filter(|it| it.is_ok()).count();
        assert!(made >= 3, "{made}");
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!((error.code(), error.status()), (Code::BudgetExceeded, 402));
        }
        let (today, all) = (ground.today().await, ground.statement().await);
        assert!(today.tokens <= tokens && today.micro <= micro, "{today:?}");
        assert_eq!((today.tokens_aside, today.micro_aside), (0, 0));
        assert_eq!((all.calls, all.estimated), (made as u64, 0));
        assert_eq!((all.tokens, all.micro), (today.tokens, today.micro));
        assert_eq!(all.prompt + all.completion, counted.load(Ordering::SeqCst), "the provider's count");
        assert_eq!(all.tokens + all.unattributed_tokens, counted.load(Ordering::SeqCst));
        let cost = made as u64 * (prompt + 5 * completion);
        assert_eq!(all.micro + all.unattributed_micro, cost, "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_wants_a_price_and_is_bounded_by_the_dearest() {
    let (provider, _) = greedy(10, 20);
    let ground = Ground::new(&provider, 1_000_000).await;
    assert!(
        ground.ask(json!({ "stream": true })).await.is_ok(),
        "without a price, where no money is bounded"
    );
    ground.set(None, Unit::Micro, Period::Day, 1_000).await;
    let error = ground.refused(json!({})).await;
    assert_eq!(error.code(), Code::BudgetExceeded);
    assert!(error.advice().unwrap().contains("steading price set small"), "{error:?}");
    // Exactly what it may cost at most, and one less.
    ground.price(1_000_000).await;
    let most = aside() - 100 + 5 * 100;
    ground.set(None, Unit::Micro, Period::Day, most - 1).await;
    let error = ground.refused(json!({})).await;
    let limit = error.limit_info().unwrap();
    assert_eq!(
        (limit.name, limit.value, limit.unit, limit.left),
        ("money_of_day", most - 1, "micro", most - 1)
    );
    ground.set(None, Unit::Micro, Period::Day, most).await;
    // What it is asked for in a stream is longer.
    assert!(ground.ask(json!({ "stream": true })).await.is_err());
    let said = ground.streamed(json!({ "max_tokens": 50 })).await;
    assert!(said.ends_with("[DONE]\n\n"), "{said}");
    let spent = ground.spent.lock().unwrap().last().cloned().unwrap();
    assert_eq!((spent.micro, spent.warnings), (Some(10 + 5 * 20), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_in_the_middle_is_charged_with_what_the_provider_says_at_the_end() {
    // Slowly, in pieces.
    let provider = Provider::always(Turn::Events(streamed(), 20, Duration::from_millis(15))).unwrap();
    let ground = Ground::new(&provider, 10_000).await;
    let Answer::Events(mut events) = ground.ask(json!({ "stream": true })).await.unwrap() else {
        panic!("no events")
    };
    assert!(events.next().await.is_some());
    assert!(ground.spent().is_empty());
    drop(events);
    let told = || (!ground.spent().is_empty()).then(|| ground.spent());
    let told = tokio::task::block_in_place(|| eventually(Duration::from_secs(10), told));
    assert_eq!(told.unwrap(), [(7, 5, true)]);
    // Who goes before the answer has begun, too.
    let provider = Provider::start(|_, _| {
        std::thread::sleep(Duration::from_millis(200));
        Turn::Says(
            200,
            Vec::new(),
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 5 } }),
        )
    });
    let ground = Ground::new(&provider.unwrap(), 10_000).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), ground.ask(json!({}))).await.is_err());
    let told = || (!ground.spent().is_empty()).then(|| ground.spent());
    let told = tokio::task::block_in_place(|| eventually(Duration::from_secs(10), told));
    assert_eq!(told.unwrap(), [(7, 5, true)]);
    assert_eq!((ground.today().await.tokens, ground.today().await.tokens_aside), (12, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_nearly_spent_is_told_with_the_call_that_did_it() {
    let (provider, _) = greedy(30, 60);
    let ground = Ground::new(&provider, 1_000).await;
    for _ in 0..9 {
        ground.streamed(json!({ "max_tokens": 10 })).await;
    }
    // Nine times ninety are more than four fifths; said once.
    let warnings: Vec<_> = ground.spent.lock().unwrap().iter().flat_map(|it| it.warnings.clone()).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0]
            .starts_with("81 % of what the environment has this day for models is spent: 810 of 1000 tokens")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_process_is_gone_is_charged_by_another() {
    let provider = Provider::always(Turn::Hangs).unwrap();
    let ground = Ground::new(&provider, 10_000).await;
    let (store, now) = (ground.store().clone(), Timestamp::now());
    let dead = Arc::new(Purse::new(store.clone(), 10_000));
    let told = Box::new(|_| panic!("nobody is there to be told"));
    let tokens = Tokens { prompt: 100, cached: 0, completion: 50 };
    let reserved = dead.reserve(&ground.env, "small", tokens, told).await.unwrap();
    // As if it were killed: it says nothing any more.
    std::mem::forget(reserved);
    let alive = &ground.models.purse;
    alive.look_after(now.plus(Duration::from_secs(25))).await.unwrap();
    assert_eq!((ground.today().await.tokens, ground.today().await.tokens_aside), (0, 150));
    // It is slow, and says so.
    dead.look_after(now.plus(Duration::from_secs(25))).await.unwrap();
    alive.look_after(now.plus(Duration::from_secs(50))).await.unwrap();
    assert_eq!(ground.today().await.tokens_aside, 150);
    alive.look_after(now.plus(Duration::from_secs(56))).await.unwrap();
    assert_eq!((ground.today().await.tokens, ground.today().await.tokens_aside), (150, 0));
    assert_eq!(ground.statement().await.estimated, 1);
}

/// What time it is for one test.
static TIME: AtomicI64 = AtomicI64::new(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_day_and_a_new_month_begin_at_midnight_in_utc() {
    let (provider, _) = greedy(100, 300);
    let mut ground = Ground::new(&provider, 10_000).await;
    Arc::get_mut(&mut ground.models.purse).unwrap().clock =
        || Timestamp::from_micros(TIME.load(Ordering::SeqCst));
    ground.set(None, Unit::Tokens, Period::Month, 1_100).await;
    ground.set(Some(ground.env.id()), Unit::Tokens, Period::Day, 900).await;
    let mut outcomes = Vec::new();
    for (at, max_tokens) in [
        ("2026-11-29T23:59:58Z", 300),
        ("2026-11-29T23:59:59Z", 300),
        ("2026-11-30T00:00:00Z", 300),
        ("2026-11-30T12:00:00Z", 150),
        ("2026-12-01T00:00:00Z", 300),
    ] {
        TIME.store(Timestamp::parse(at).unwrap().as_micros(), Ordering::SeqCst);
        let outcome = ground.ask(json!({ "stream": true, "max_tokens": max_tokens })).await;
        outcomes.push(match outcome {
            Ok(Answer::Events(events)) => {
                events.collect::<Vec<_>>().await;
                "made".to_owned()
            }
            Ok(Answer::Whole(_)) => panic!("no events"),
            Err(error) => {
                let limit = error.limit_info().unwrap();
                format!("{} {:?}", limit.name, limit.reset_s)
            }
        });
    }
    assert_eq!(outcomes, ["made", "tokens_of_day Some(1)", "made", "tokens_of_month Some(43200)", "made"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sets_budgets_of_its_environments_below_its_own() {
    let (provider, _) = greedy(1, 1);
    let ground = Ground::new(&provider, 5_000).await;
    let (tenant, env, budgets) = (ground.env.tenant(), ground.env.id(), ground.models.budgets());
    let caller = |principal, scopes: Scopes| Caller::new(principal, tenant, KeyId::new(), scopes);
    let operator = caller(Principal::Operator, Scopes::all());
    let key = caller(Principal::Key, Scopes::of_tenant());
    let reader = caller(Principal::Key, [Scope::EnvRead].into_iter().collect());
    let new = |env, period, most| NewBudget { env, unit: Unit::Tokens, period, most };
    let refused = async |caller: &Caller, new| {
        let error = budgets.set(caller, new).await.unwrap_err();
        (error.code(), error.pointer().unwrap_or_default().to_owned())
    };
    let own = budgets.set(&operator, new(None, Period::Month, 1_000)).await.unwrap();
    assert_eq!((own.limit.most(), own.left()), (1_000, 1_000));
    for (caller, new, expected) in [
        (&reader, new(Some(env), Period::Day, 1), (Code::Forbidden, "")),
        (&key, new(None, Period::Day, 1), (Code::Forbidden, "")),
        (&key, new(Some(env), Period::Day, 1_001), (Code::InvalidInput, "/most")),
        (&key, new(Some(env), Period::Month, 1_001), (Code::InvalidInput, "/most")),
        (&key, new(Some(EnvId::new()), Period::Day, 1), (Code::NotFound, "/env")),
        (&operator, new(Some(EnvId::new()), Period::Day, 1), (Code::NotFound, "/env")),
        (&operator, new(None, Period::Day, u64::MAX), (Code::InvalidInput, "/most")),
    ] {
        assert_eq!(refused(caller, new).await, (expected.0, expected.1.to_owned()));
    }
    let run = caller(Principal::Run(kernel::RunId::new()), Scopes::all());
    assert_eq!(refused(&run, new(Some(env), Period::Day, 1)).await.0, Code::Forbidden);
    let id = |standing: &Standing| match &standing.limit {
        store::Limit::Set(budget) => budget.id,
        limit => panic!("{limit:?}"),
    };
    let theirs = budgets.set(&key, new(Some(env), Period::Day, 1_000)).await.unwrap();
    // Neither changes what the other has set.
    let change = async |caller, standing: &Standing, most| {
        budgets.change(caller, id(standing), most).await.map(|it| it.limit.most()).map_err(|e| e.code())
    };
    assert_eq!(change(&key, &own, 9).await, Err(Code::Forbidden));
    assert_eq!(change(&operator, &theirs, 9).await, Err(Code::Conflict));
    assert_eq!(change(&key, &theirs, 1_001).await, Err(Code::InvalidInput));
    assert_eq!(change(&key, &theirs, 900).await, Ok(900));
    assert_eq!(change(&operator, &own, 2_000).await, Ok(2_000));
    assert_eq!(budgets.remove(&key, id(&own)).await.map_err(|e| e.code()), Err(Code::Forbidden));
    // Another tenant's is not there.
    let other = Caller { tenant: kernel::TenantId::new(), ..key.clone() };
    assert_eq!(change(&other, &theirs, 1).await, Err(Code::NotFound));
    assert_eq!(budgets.show(&other, id(&theirs)).await.map_err(|e| e.code()), Err(Code::NotFound));
    // Who sees what.
    let shown = async |caller: &Caller| {
        let listed = budgets.list(caller, None).await.map_err(|e| e.code())?;
        Ok::<_, Code>(listed.iter().map(|it| it.limit.most()).collect::<Vec<_>>())
    };
    assert_eq!(shown(&reader).await, Ok(vec![2_000, 900]));
    let bound = caller(Principal::Key, Scopes::of_environment()).in_env(Some(env));
    assert_eq!(shown(&bound).await, Ok(vec![2_000, 900, 5_000]), "also what every environment has");
    assert_eq!(shown(&Caller { env: None, ..bound.clone() }).await, Err(Code::Forbidden));
    assert!(budgets.show(&bound, id(&theirs)).await.is_ok());
    let elsewhere = bound.in_env(Some(EnvId::new()));
    assert_eq!(budgets.show(&elsewhere, id(&theirs)).await.map_err(|e| e.code()), Err(Code::NotFound));
    assert!(budgets.remove(&key, id(&theirs)).await.is_ok());
    assert_eq!(shown(&reader).await, Ok(vec![2_000]));
}
