//! What is spent on models: never more than there is, counted once, and known for as long as it is billed.

use std::time::Duration;

use kernel::{BudgetId, EnvId, ModelCallId, NodeId, TenantId, Timestamp};
use store::{
    Aside, Budget, Limit, Period, Price, Reservation, Reserved, Setter, Settled, Spending, Standing,
    Statement, Store, Unit, Used,
};

use crate::place::{Place, environment, now, tenant};
use crate::races::{RACERS, race};

/// What every environment has on a day, where a test is not about it.
const PLENTY: u64 = u64::MAX;

const LEASE: Duration = Duration::from_secs(60);

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A request of so many tokens, half of them sent, that costs as many millionths.
fn wanted(tenant: TenantId, env: EnvId, tokens: u64, at: Timestamp) -> Reservation {
    let (id, node, ends) = (ModelCallId::new(), NodeId::new(), at.plus(LEASE));
    let aside = Aside { prompt: tokens / 2, completion: tokens.div_ceil(2), micro: Some(tokens) };
    Reservation { id, tenant, env, model: "small".to_owned(), node, at, ends, aside }
}

fn used(prompt: u64, completion: u64) -> Option<Used> {
    Some(Used { prompt, cached: 0, completion, micro: Some(prompt + completion) })
}

fn budget(tenant: TenantId, env: Option<EnvId>, unit: Unit, period: Period, most: u64) -> Budget {
    let (id, setter) = (BudgetId::new(), Setter::Operator);
    Budget { id, tenant, env, unit, period, setter, most, updated: now() }
}

async fn set(store: &Store, budget: Budget) -> Budget {
    store.budgets().set(&budget).await.unwrap().unwrap()
}

async fn reserve(store: &Store, wanted: &Reservation, usual: u64) -> Reserved {
    store.model_calls().reserve(wanted, usual).await.unwrap()
}

async fn settle(store: &Store, id: ModelCallId, used: Option<Used>) -> Option<Settled> {
    store.model_calls().settle(id, used).await.unwrap()
}

async fn spending(store: &Store, env: EnvId, period: Period, at: Timestamp) -> Spending {
    store.budgets().spending(env, period, at).await.unwrap()
}

async fn statement(store: &Store, tenant: TenantId, env: Option<EnvId>) -> Statement {
    let ever = (Timestamp::from_micros(0), now().plus(LEASE));
    store.model_calls().statement(tenant, env, ever.0, ever.1).await.unwrap()
}

pub async fn of_many_at_once_no_more_is_set_aside_than_there_is(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let other = environment(tenant, "other");
    store.environments().insert(&other).await.unwrap();
    let (most, at) = (1_000, now());
    // Tokens of one environment, and money of the tenant with both.
    let tokens = set(&store, budget(tenant, Some(env), Unit::Tokens, Period::Day, most)).await;
    let money = set(&store, budget(tenant, None, Unit::Micro, Period::Month, 3 * most / 2)).await;
    let envs = [env, other.id];
    let mut charged = [0, 0];
    for round in 1..=4 {
        let outcomes = race(|number| {
            let store = store.clone();
            let limits = [&tokens, &money].map(|it| Limit::Set(it.clone()));
            async move {
                let wanted = wanted(tenant, envs[number % 2], 37 * round + number as u64, at);
                match reserve(&store, &wanted, PLENTY).await {
                    Reserved::Made => {}
                    Reserved::Refused(lacking) => {
                        assert!(!lacking.is_empty());
                        return 0;
                    }
                    Reserved::Unpriced(limit) => panic!("{limit:?}"),
                }
                for limit in limits {
                    let it = store.budgets().standing(limit, at).await.unwrap();
                    assert!(it.spent + it.aside <= it.limit.most(), "{it:?}");
                }
                let calls = store.model_calls();
                // Some were not made, some use less, and some more than was set aside.
                match number % 4 {
                    0 => {
                        calls.release(wanted.id).await.unwrap();
                        0
                    }
                    1 => calls.settle(wanted.id, used(1, 9)).await.unwrap().unwrap().tokens,
                    2 => calls.settle(wanted.id, used(5_000, 70)).await.unwrap().unwrap().tokens,
                    _ => calls.settle(wanted.id, None).await.unwrap().unwrap().tokens,
                }
            }
        })
        .await;
        outcomes.iter().enumerate().for_each(|(number, tokens)| charged[number % 2] += tokens);
        for (env, charged) in envs.into_iter().zip(charged) {
            for period in Period::ALL {
                let now = spending(&store, env, period, at).await;
                assert_eq!((now.tokens, now.tokens_aside), (charged, 0), "{now:?}");
                assert_eq!((now.micro, now.micro_aside), (charged, 0), "{now:?}");
            }
        }
        assert!(charged[0] <= most && charged[0] + charged[1] <= 3 * most / 2, "{charged:?}");
    }
    assert!(charged[0] > 0 && charged[1] > 0, "{charged:?}");
    let all = statement(&store, tenant, None).await;
    assert_eq!((all.tokens, all.micro), (charged[0] + charged[1], charged[0] + charged[1]));
    let left = (most - charged[0]).min(3 * most / 2 - charged[0] - charged[1]);
    let more = wanted(tenant, env, left + 1, at);
    assert!(matches!(reserve(&store, &more, PLENTY).await, Reserved::Refused(_)));
    assert_eq!(reserve(&store, &wanted(tenant, env, left, at), PLENTY).await, Reserved::Made);
}

pub async fn a_request_is_counted_once_whoever_ends_it(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    for round in 0..8 {
        let wanted = wanted(tenant, env, 100, now());
        assert_eq!(reserve(&store, &wanted, PLENTY).await, Reserved::Made);
        let before = spending(&store, env, Period::Day, wanted.at).await;
        // Whoever makes it, and others that take its process to be dead.
        race(|number| {
            let (store, id) = (store.clone(), wanted.id);
            async move {
                match number {
                    7 if round % 2 == 0 => {
                        settle(&store, id, used(10, 20)).await;
                    }
                    7 => store.model_calls().release(id).await.unwrap(),
                    _ => {
                        settle(&store, id, None).await;
                    }
                }
            }
        })
        .await;
        let now = spending(&store, env, Period::Day, wanted.at).await;
        // What its own process knows counts in the end, whoever was first.
        let tokens = if round % 2 == 0 { 30 } else { 0 };
        assert_eq!((now.tokens - before.tokens, now.tokens_aside), (tokens, 0), "{round}");
        assert_eq!((now.micro - before.micro, now.micro_aside), (tokens, 0), "{round}");
        assert_eq!(settle(&store, wanted.id, used(1, 2)).await, None);
    }
    let (all, now) =
        (statement(&store, tenant, Some(env)).await, spending(&store, env, Period::Month, now()).await);
    assert_eq!((all.tokens, all.estimated, all.tokens), (4 * 30, 0, now.tokens));
}

pub async fn what_was_not_set_aside_is_charged_to_nobody(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    for (used, tokens, micro) in [
        (Some(Used { prompt: 30, cached: 10, completion: 20, micro: Some(7) }), 50, 7),
        (Some(Used { prompt: 300, cached: 0, completion: 20, micro: Some(900) }), 100, 100),
        (Some(Used { prompt: u64::MAX, cached: 0, completion: u64::MAX, micro: Some(u64::MAX) }), 100, 100),
        (None, 100, 100),
    ] {
        let wanted = wanted(tenant, env, 100, now());
        assert_eq!(reserve(&store, &wanted, PLENTY).await, Reserved::Made);
        let settled = settle(&store, wanted.id, used).await.unwrap();
        assert_eq!((settled.tokens, settled.micro), (tokens, Some(micro)), "{used:?}");
        // All that a provider says together is what is charged and what is nobody's.
        if used.is_none_or(|it| it.prompt < 1_000) {
            let all = statement(&store, tenant, Some(env)).await;
            assert_eq!(all.prompt + all.completion, all.tokens + all.unattributed_tokens, "{all:?}");
        }
    }
    let now = spending(&store, env, Period::Month, now()).await;
    assert_eq!((now.calls, now.tokens, now.tokens_aside, now.micro), (4, 350, 0, 307));
    let all = statement(&store, tenant, None).await;
    assert_eq!((all.calls, all.estimated, all.tokens, all.micro), (4, 1, 350, 307));
}

pub async fn what_nobody_speaks_for_is_found_when_its_time_is_over(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let begun = now();
    let (dead, alive) = (wanted(tenant, env, 100, begun), wanted(tenant, env, 50, begun));
    for wanted in [&dead, &alive] {
        assert_eq!(reserve(&store, wanted, PLENTY).await, Reserved::Made);
    }
    let calls = store.model_calls();
    assert_eq!(calls.overdue(begun, 10).await.unwrap(), []);
    let later = begun.plus(LEASE);
    // Another process speaks for none of these, and this one not for what it has lost.
    calls.renew(NodeId::new(), &[alive.id, dead.id], later.plus(LEASE)).await.unwrap();
    assert_eq!(calls.overdue(later, 10).await.unwrap().len(), 2);
    calls.renew(alive.node, &[alive.id], later.plus(LEASE)).await.unwrap();
    assert_eq!(calls.overdue(later, 10).await.unwrap(), [dead.id]);
    // Many see it; it is counted once, with all that was set aside.
    let settled = race(|_| {
        let (store, id) = (store.clone(), dead.id);
        async move { settle(&store, id, None).await }
    })
    .await;
    let settled: Vec<_> = settled.into_iter().flatten().collect();
    assert_eq!(settled, [Settled { tokens: 100, micro: Some(100), unattributed: 0 }]);
    assert_eq!(calls.overdue(later, 10).await.unwrap(), []);
    let now = spending(&store, env, Period::Day, begun).await;
    assert_eq!((now.tokens, now.tokens_aside), (100, 50));
    assert_eq!(statement(&store, tenant, None).await.estimated, 1);
}

pub async fn a_budget_of_money_wants_a_price(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let mut unpriced = wanted(tenant, env, 100, now());
    unpriced.aside.micro = None;
    assert_eq!(reserve(&store, &unpriced, PLENTY).await, Reserved::Made);
    let settled = settle(&store, unpriced.id, used(10, 20)).await.unwrap();
    assert_eq!((settled.tokens, settled.micro), (30, None));
    let money = set(&store, budget(tenant, None, Unit::Micro, Period::Day, 1_000)).await;
    unpriced.id = ModelCallId::new();
    assert_eq!(reserve(&store, &unpriced, PLENTY).await, Reserved::Unpriced(Limit::Set(money)));
    assert_eq!(spending(&store, env, Period::Day, unpriced.at).await.tokens_aside, 0);
}

pub async fn all_that_bounds_an_environment_has_to_have_room(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let other = environment(tenant, "other");
    store.environments().insert(&other).await.unwrap();
    let at = now();
    let lacking =
        async |env, tokens, usual| match reserve(&store, &wanted(tenant, env, tokens, at), usual).await {
            Reserved::Refused(lacking) => lacking,
            outcome => panic!("{outcome:?}"),
        };
    // Without any budget there is what every environment has.
    let usual = Standing { limit: Limit::Usual { env, most: 500 }, spent: 0, aside: 0 };
    assert_eq!(lacking(env, 501, 500).await, [usual]);
    // In its place stands what the operator sets for the same, but not what the tenant does.
    let own = Budget { setter: Setter::Tenant, ..budget(tenant, Some(env), Unit::Tokens, Period::Day, 900) };
    let own = set(&store, own).await;
    assert_eq!(lacking(env, 600, 500).await.len(), 1);
    let of_env = set(&store, budget(tenant, Some(env), Unit::Tokens, Period::Day, 800)).await;
    assert_eq!(reserve(&store, &wanted(tenant, env, 600, at), 500).await, Reserved::Made);
    let limits: Vec<_> = lacking(env, 400, 500).await.into_iter().map(|it| it.limit).collect();
    assert_eq!(limits, [Limit::Set(own.clone()), Limit::Set(of_env)]);
    // The tenant's is of all its environments together, and what was spent before it was set counts.
    let of_tenant = set(&store, budget(tenant, None, Unit::Tokens, Period::Month, 1_000)).await;
    let limit = Limit::Set(of_tenant.clone());
    assert_eq!(lacking(other.id, 401, 500).await, [Standing { limit, spent: 0, aside: 600 }]);
    assert_eq!(reserve(&store, &wanted(tenant, other.id, 400, at), 500).await, Reserved::Made);
    let found = store.budgets().bounding(tenant, env, 500, at).await.unwrap();
    assert_eq!(found.iter().map(Standing::left).collect::<Vec<_>>(), [300, 200, 0]);
    assert!(store.budgets().remove(tenant, of_tenant.id).await.unwrap());
    // Whatever was refused has left nothing behind.
    assert_eq!(spending(&store, env, Period::Month, at).await.tokens_aside, 600);
}

pub async fn a_request_counts_in_the_day_and_month_in_which_it_was_made(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let (last, first) = (at("2026-11-30T23:59:59.999999Z"), at("2026-12-01T00:00:00Z"));
    set(&store, budget(tenant, Some(env), Unit::Tokens, Period::Month, 150)).await;
    let before = wanted(tenant, env, 100, last);
    assert_eq!(reserve(&store, &before, 100).await, Reserved::Made);
    assert!(matches!(reserve(&store, &wanted(tenant, env, 1, last), 100).await, Reserved::Refused(_)));
    let after = wanted(tenant, env, 100, first);
    assert_eq!(reserve(&store, &after, 100).await, Reserved::Made);
    // It ends when another day has begun.
    settle(&store, before.id, used(30, 40)).await.unwrap();
    for period in Period::ALL {
        let (before, after) =
            (spending(&store, env, period, last).await, spending(&store, env, period, first).await);
        assert_eq!((before.tokens, before.tokens_aside), (70, 0), "{period}");
        assert_eq!((after.tokens, after.tokens_aside), (0, 100), "{period}");
    }
    // Of the new month a day is over, and of the old one there is still what the first request has not used.
    let next = at("2026-12-02T00:00:00Z");
    assert!(matches!(reserve(&store, &wanted(tenant, env, 51, next), 100).await, Reserved::Refused(_)));
    assert_eq!(reserve(&store, &wanted(tenant, env, 50, next), 100).await, Reserved::Made);
    assert_eq!(reserve(&store, &wanted(tenant, env, 30, last), 100).await, Reserved::Made);
    // Days go, months and what was used stay.
    store.model_calls().purge(at("2027-12-01T00:00:00Z")).await.unwrap();
    assert_eq!(spending(&store, env, Period::Day, last).await, Spending::default());
    assert_eq!(spending(&store, env, Period::Month, last).await.tokens, 70);
    let found = |all: Statement| (all.calls, all.tokens);
    let calls = store.model_calls();
    assert_eq!(found(calls.statement(tenant, None, last, first).await.unwrap()), (1, 70));
    assert_eq!(found(calls.statement(tenant, None, first, next).await.unwrap()), (0, 0));
}

pub async fn what_is_nearly_spent_is_said_once_in_a_period(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let first = at("2026-11-30T12:00:00Z");
    let day = set(&store, budget(tenant, Some(env), Unit::Tokens, Period::Day, 100)).await;
    let month = set(&store, budget(tenant, None, Unit::Micro, Period::Month, 200)).await;
    let said = async |tokens, at| {
        let wanted = wanted(tenant, env, tokens, at);
        assert_eq!(reserve(&store, &wanted, PLENTY).await, Reserved::Made);
        settle(&store, wanted.id, None).await.unwrap();
        let warnings = store.model_calls().warnings(tenant, env, PLENTY, at).await.unwrap();
        warnings.into_iter().map(|it| (it.limit, it.spent)).collect::<Vec<_>>()
    };
    assert_eq!(said(79, first).await, []);
    assert_eq!(said(1, first).await, [(Limit::Set(day.clone()), 80)]);
    assert_eq!(said(10, first).await, [], "once");
    assert_eq!(said(5, at("2026-12-01T00:00:00Z")).await, []);
    assert_eq!(said(75, at("2026-12-01T00:00:00Z")).await, [(Limit::Set(day), 80)], "and in the next day");
    assert_eq!(said(80, at("2026-12-02T00:00:00Z")).await.len(), 2, "of the day and of the month");
    // Set anew it is another amount.
    set(&store, Budget { most: 201, ..month.clone() }).await;
    let said = said(1, at("2026-12-03T00:00:00Z")).await;
    assert_eq!(said.iter().map(|(limit, spent)| (limit.most(), *spent)).collect::<Vec<_>>(), [(201, 161)]);
}

pub async fn a_budget_that_is_set_bounds_all_that_is_not_set_aside_by_then(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    for round in 0..8 {
        set(&store, budget(tenant, Some(env), Unit::Tokens, Period::Day, PLENTY)).await;
        let asking: Vec<_> = (0..24)
            .map(|_| {
                let (store, wanted) = (store.clone(), wanted(tenant, env, 10, now()));
                tokio::spawn(async move { reserve(&store, &wanted, PLENTY).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(round)).await;
        set(&store, budget(tenant, Some(env), Unit::Tokens, Period::Day, 1)).await;
        let by_then = spending(&store, env, Period::Day, now()).await.tokens_aside;
        for asked in asking {
            drop(asked.await.unwrap());
        }
        assert_eq!(spending(&store, env, Period::Day, now()).await.tokens_aside, by_then);
    }
}

pub async fn what_an_environment_has_used_outlives_it(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    set(&store, budget(tenant, Some(env), Unit::Tokens, Period::Day, 1_000)).await;
    let of_tenant = set(&store, budget(tenant, None, Unit::Tokens, Period::Day, 1_000)).await;
    let (over, under_way) = (wanted(tenant, env, 100, now()), wanted(tenant, env, 40, now()));
    for wanted in [&over, &under_way] {
        assert_eq!(reserve(&store, wanted, PLENTY).await, Reserved::Made);
    }
    settle(&store, over.id, used(10, 20)).await.unwrap();
    assert!(store.environments().begin_delete(env).await.unwrap());
    assert!(store.environments().remove(env).await.unwrap());
    assert_eq!(store.budgets().list(tenant, None, 10).await.unwrap(), std::slice::from_ref(&of_tenant));
    // What was under way then is counted too.
    assert_eq!(settle(&store, under_way.id, used(3, 4)).await.unwrap().tokens, 7);
    let all = statement(&store, tenant, Some(env)).await;
    assert_eq!((all.calls, all.tokens), (2, 37));
    let of_tenant = store.budgets().standing(Limit::Set(of_tenant), now()).await.unwrap();
    assert_eq!((of_tenant.spent, of_tenant.aside), (37, 0));
}

pub async fn a_budget_is_set_listed_and_removed_by_its_tenant_alone(place: &Place) {
    let (store, acme, env) = place.with_env().await;
    let other = tenant("other");
    assert!(store.tenants().insert(&other).await.unwrap().is_made());
    let foreign = budget(other.id, Some(env), Unit::Tokens, Period::Day, 1);
    assert_eq!(store.budgets().set(&foreign).await.unwrap(), None, "the environment is another's");
    let of_nobody = budget(TenantId::new(), None, Unit::Tokens, Period::Day, 1);
    assert_eq!(store.budgets().set(&of_nobody).await.unwrap(), None);
    // Of many who set the same one there is one, with the amount of the last.
    let versions = race(|number| {
        let store = store.clone();
        async move { set(&store, budget(acme, Some(env), Unit::Micro, Period::Month, number as u64)).await }
    })
    .await;
    assert!(versions.iter().all(|it| it.id == versions[0].id));
    let own = Budget { setter: Setter::Tenant, ..budget(acme, Some(env), Unit::Micro, Period::Month, 7) };
    let own = set(&store, own).await;
    let listed = store.budgets().list(acme, None, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed[0].most < RACERS as u64 && listed[1] == own);
    assert_eq!(store.budgets().list(acme, Some(listed[0].id), 10).await.unwrap(), std::slice::from_ref(&own));
    assert_eq!(store.budgets().get(acme, own.id).await.unwrap(), Some(own.clone()));
    for id in [own.id, BudgetId::new()] {
        assert_eq!(store.budgets().get(other.id, id).await.unwrap(), None);
        assert!(!store.budgets().remove(other.id, id).await.unwrap());
    }
    assert!(store.budgets().remove(acme, own.id).await.unwrap());
    assert!(!store.budgets().remove(acme, own.id).await.unwrap());
}

pub async fn a_price_counts_from_its_day_on(place: &Place) {
    let store = place.open().await;
    let price = |model: &str, since: &str, input| Price {
        model: model.to_owned(),
        since: at(since),
        input,
        cached_input: input / 10,
        output: input * 5,
    };
    let (old, new) = (price("small", "2026-01-01T00:00:00Z", 3), price("small", "2026-12-01T00:00:00Z", 2));
    let other = price("large", "2026-01-01T00:00:00Z", 30);
    for price in [&new, &old, &other] {
        store.prices().set(price).await.unwrap();
    }
    let found = async |model, time| store.prices().at(model, at(time)).await.unwrap();
    assert_eq!(found("small", "2025-12-31T23:59:59Z").await, None);
    assert_eq!(found("small", "2026-11-30T23:59:59.999999Z").await, Some(old.clone()));
    assert_eq!(found("small", "2026-12-01T00:00:00Z").await, Some(new.clone()));
    assert_eq!(found("medium", "2026-12-01T00:00:00Z").await, None);
    let mended = Price { input: 4, ..old.clone() };
    store.prices().set(&mended).await.unwrap();
    let listed = store.prices().list(None, 10).await.unwrap();
    assert_eq!(listed, [other, mended.clone(), new.clone()]);
    assert_eq!(store.prices().list(Some(("small", mended.since)), 10).await.unwrap(), [new]);
}
