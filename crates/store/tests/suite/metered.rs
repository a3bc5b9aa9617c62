//! What environments have used by the hour.

use std::time::Duration;

use kernel::{BlobHash, CallId, EnvId, KeyId, Meter, TenantId, Timestamp};
use store::{Call, MeterPrice, Metered, Sum, hour_of};

use crate::audit::Scribe;
use crate::place::{Place, now};
use crate::races::{RACERS, race};

const HOUR: Duration = Duration::from_secs(3_600);

pub async fn what_is_written_again_is_counted_once_and_what_many_write_adds_up(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let hour = hour_of(now());
    let amounts = [Meter::Visits, Meter::Egress].map(|meter| {
        let amount = if meter == Meter::Visits { 1 } else { 1_000 };
        Metered { tenant, env: Some(env), hour, meter, amount }
    });
    let added = race(|number| {
        let store = store.clone();
        // Each batch is written by two at once.
        async move { store.meters().add(&format!("batch {}", number / 2), &amounts, now()).await.unwrap() }
    })
    .await;
    assert_eq!(added.iter().filter(|added| **added).count(), RACERS / 2);
    let sums = store.meters().sums(tenant, None, hour, hour.plus(HOUR)).await.unwrap();
    let sum = |meter, each: u64| Sum { env: Some(env), meter, amount: each * RACERS as u64 / 2 };
    assert_eq!(sums, [sum(Meter::Egress, 1_000), sum(Meter::Visits, 1)]);
    store.meters().purge(now().plus(HOUR)).await.unwrap();
    assert!(store.meters().add("batch 0", &amounts, now()).await.unwrap(), "it is forgotten");
}

pub async fn hours_are_listed_page_by_page_with_the_calls_of_their_tenant_alone(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let first = hour_of(now()).minus(HOUR * 5);
    let at = |hours: u32| first.plus(HOUR * hours);
    let other = crate::place::tenant("other");
    store.tenants().insert(&other).await.unwrap();
    for (tenant, hours) in [(tenant, 0), (tenant, 2), (other.id, 2)] {
        let amount = Metered { tenant, env: Some(env), hour: at(hours), meter: Meter::Cpu, amount: 7 };
        store.meters().add(&format!("{tenant} {hours}"), &[amount], now()).await.unwrap();
    }
    let calls: Vec<_> = [0, 0, 1]
        .into_iter()
        .map(|hours| call(tenant, env, at(hours).plus(Duration::from_secs(60))))
        .collect();
    store.records().append(&calls, &[], &Scribe).await.unwrap();
    let mut all = Vec::new();
    let mut after: Option<(Timestamp, String, Meter)> = None;
    loop {
        let from = after.as_ref().map(|(hour, env, meter)| (*hour, env.as_str(), meter.as_str()));
        let page = store.meters().hours(tenant, (first, at(5)), from, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.hour, last.env.map(|env: EnvId| env.to_string()).unwrap_or_default(), last.meter));
        all.extend(page);
    }
    let told: Vec<_> = all.iter().map(|it| (it.hour, it.meter, it.amount)).collect();
    let expected =
        [(at(0), Meter::Calls, 2), (at(0), Meter::Cpu, 7), (at(1), Meter::Calls, 1), (at(2), Meter::Cpu, 7)];
    assert_eq!(told, expected);
    let later = store.meters().sums(tenant, Some(env), at(1), at(3)).await.unwrap();
    assert_eq!(
        later.iter().map(|it| (it.meter, it.amount)).collect::<Vec<_>>(),
        [(Meter::Calls, 1), (Meter::Cpu, 7)]
    );
    assert_eq!(store.meters().sums(tenant, Some(EnvId::new()), first, at(5)).await.unwrap(), []);
}

pub async fn a_meters_price_counts_from_its_hour_on(place: &Place) {
    let (store, ..) = place.with_env().await;
    let hour = hour_of(now());
    let price = |since, micro| MeterPrice { meter: Meter::Visits, since, micro };
    store.meters().set_price(price(hour.plus(Duration::from_secs(59)), 1)).await.unwrap();
    store.meters().set_price(price(hour, 2)).await.unwrap();
    store.meters().set_price(price(hour.plus(HOUR), 3)).await.unwrap();
    assert_eq!(store.meters().prices().await.unwrap(), [price(hour, 2), price(hour.plus(HOUR), 3)]);
}

fn call(tenant: TenantId, env: EnvId, at: Timestamp) -> Call {
    Call {
        id: CallId::new(),
        at,
        tenant,
        env: Some(env),
        principal: "key".into(),
        credential: KeyId::new(),
        surface: "mcp".into(),
        tool: "db_query".into(),
        effect: "read".into(),
        error: None,
        took: Duration::from_micros(10),
        input_digest: BlobHash::of(b"{}"),
    }
}
