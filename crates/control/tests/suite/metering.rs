//! What was used, and what that costs by date.

use std::time::Duration;

use control::metering::{Line, Used};
use kernel::{Code, Meter, Metering as _, Timestamp};
use store::{MeterPrice, Metered, hour_of};

use crate::platform::Platform;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn each_hour_costs_what_was_the_price_then() {
    let platform = Platform::new().await;
    let (control, env) = (&platform.control, &platform.default);
    let this = hour_of(Timestamp::now());
    let (from, to) = (this.minus(HOUR * 10), this.plus(HOUR));
    let at = |hours: u32| from.plus(HOUR * hours);
    for (hours, amount) in [(0, 1_000_000), (4, 2_000_000), (8, 500_001)] {
        let hour = at(hours);
        let it = Metered { tenant: env.tenant, env: Some(env.id), hour, meter: Meter::Visits, amount };
        control.store().meters().add(&format!("{hours}"), &[it], Timestamp::now()).await.unwrap();
    }
    let lines = async || control.metering().lines(env.tenant, None, from, to).await.unwrap();
    let line = |amount, micro| Line { env: Some(env.id), of: Used::Meter(Meter::Visits), amount, micro };
    assert_eq!(lines().await, [line(3_500_001, None)], "nothing is asked for it");
    for (hours, micro) in [(2, 10), (6, 100)] {
        let price = MeterPrice { meter: Meter::Visits, since: at(hours), micro };
        control.store().meters().set_price(price).await.unwrap();
    }
    // Nothing for the first hour, 20 for the second, 50.0001 for the third.
    assert_eq!(lines().await, [line(3_500_001, Some(71))]);
    // What is counted now comes along at once.
    control.metering().count(env.tenant, env.id, Meter::Visits, 9_999);
    assert_eq!(lines().await, [line(3_510_000, Some(71))]);
    control.metering().count(env.tenant, env.id, Meter::Egress, 5);
    assert_eq!(lines().await.len(), 2);
    let past = control.metering().set_price(&platform.operator, Meter::Visits, Some(at(1)), 1).await;
    assert_eq!(past.unwrap_err().code(), Code::InvalidInput);
    let set = control.metering().set_price(&platform.operator, Meter::Visits, None, 1_000).await.unwrap();
    assert_eq!(set.since, this);
    let (_, theirs) = platform.key(&platform.operator, None).await;
    let refused = control.metering().set_price(&theirs, Meter::Visits, None, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::Forbidden);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_count_while_it_is_written_is_all_there() {
    let platform = Platform::new().await;
    let (meters, env) = (platform.control.metering().clone(), platform.default.clone());
    let counting: Vec<_> = (0..4)
        .map(|_| {
            let (meters, env) = (meters.clone(), env.clone());
            tokio::spawn(async move {
                for _ in 0..500 {
                    meters.count(env.tenant, env.id, Meter::Visits, 1);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..20 {
        meters.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for one in counting {
        one.await.unwrap();
    }
    let this = hour_of(Timestamp::now());
    let lines = meters.lines(env.tenant, None, this.minus(HOUR), this.plus(HOUR)).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.amount).sum::<u64>(), 2_000);
}
