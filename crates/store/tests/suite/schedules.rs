//! Schedules: of many programs one runs each of them once, and what one died over is another's.

use std::time::Duration;

use kernel::{EnvId, Timestamp};
use store::{Beside, Due, Fired, Firing, ScheduleRow, Store};

use crate::place::{Place, environment, now};

const MINUTE: Duration = Duration::from_secs(60);

fn row(name: &str, cron: &str, due: Option<Timestamp>) -> ScheduleRow {
    ScheduleRow { name: name.to_owned(), cron: cron.to_owned(), timezone: "UTC".to_owned(), due, last: None }
}

async fn due(store: &Store, at: Timestamp) -> Vec<Due> {
    store.schedules().due(at, None, 9).await.unwrap()
}

async fn claimed(store: &Store, of: &Due, next: Timestamp, beside: Beside) -> Fired {
    store.schedules().claim(of, of.at, Some(next), beside, next.plus(MINUTE)).await.unwrap()
}

async fn begun(store: &Store, env: EnvId, at: Timestamp) -> Firing {
    store.schedules().settle(env, &[row("a", "* * * * *", Some(at))]).await.unwrap();
    let of = due(store, at).await.remove(0);
    match claimed(store, &of, at.plus(MINUTE), Beside::Nothing).await {
        Fired::Here(firing) => firing,
        other => panic!("{other:?}"),
    }
}

pub async fn a_time_is_run_by_one_of_many_who_see_it(place: &Place) {
    let (store, _, env) = place.with_env().await;
    let at = now();
    store.schedules().settle(env, &[row("a", "* * * * *", Some(at))]).await.unwrap();
    // Two programs on one database, each with many that want it.
    let stores = [store.clone(), place.open().await];
    for tick in 0..5_u32 {
        let at = at.plus(MINUTE * tick);
        let of = due(&store, at).await.remove(0);
        assert_eq!(of.at, at);
        let racing = (0..12).map(|i| {
            let (store, of) = (stores[i % 2].clone(), of.clone());
            tokio::spawn(async move { claimed(&store, &of, at.plus(MINUTE), Beside::Runs).await })
        });
        let mut here = 0;
        for one in racing.collect::<Vec<_>>() {
            here += u32::from(matches!(one.await.unwrap(), Fired::Here(_)));
        }
        assert_eq!(here, 1, "tick {tick}");
    }
    assert_eq!(
        store.schedules().waiting(at.plus(MINUTE * 9), Timestamp::from_micros(0), 9).await.unwrap().len(),
        5
    );
}

pub async fn a_run_that_is_not_over_holds_up_the_next_where_that_is_wanted(place: &Place) {
    let (store, _, env) = place.with_env().await;
    let at = now();
    let first = begun(&store, env, at).await;
    let next = at.plus(MINUTE);
    let of = due(&store, next).await.remove(0);
    assert_eq!(claimed(&store, &of, next.plus(MINUTE), Beside::Nothing).await, Fired::Overlaps);
    assert_eq!(
        claimed(&store, &of, next.plus(MINUTE), Beside::Nothing).await,
        Fired::Gone,
        "it has moved on"
    );
    let of = due(&store, next.plus(MINUTE)).await.remove(0);
    let second = claimed(&store, &of, next.plus(MINUTE * 2), Beside::Runs).await;
    assert!(matches!(second, Fired::Here(_)), "{second:?}");
    assert!(store.schedules().over(&first, "ok").await.unwrap());
    assert!(!store.schedules().over(&first, "ok").await.unwrap());
    assert_eq!(store.schedules().list(env).await.unwrap()[0].last, Some((at, "ok".to_owned())));
}

pub async fn what_somebody_died_over_is_taken_by_one_other(place: &Place) {
    let (store, _, env) = place.with_env().await;
    let (schedules, at) = (store.schedules(), now());
    let first = begun(&store, env, at).await;
    let zero = Timestamp::from_micros(0);
    assert_eq!(schedules.waiting(at.plus(MINUTE), zero, 9).await.unwrap(), [], "it has its time");
    assert!(schedules.renew(&first, at.plus(MINUTE * 3)).await.unwrap());
    assert_eq!(schedules.waiting(at.plus(MINUTE * 2), zero, 9).await.unwrap(), [], "it goes on");
    let dead = at.plus(MINUTE * 4);
    let found = schedules.waiting(dead, zero, 9).await.unwrap().remove(0);
    assert!(found.running);
    let racing = (0..8).map(|_| {
        let (store, found) = (store.clone(), found.clone());
        tokio::spawn(async move { store.schedules().take(&found, dead.plus(MINUTE)).await.unwrap() })
    });
    let mut taken = Vec::new();
    for one in racing.collect::<Vec<_>>() {
        taken.extend(one.await.unwrap());
    }
    assert_eq!(taken.iter().map(|it| it.attempt).collect::<Vec<_>>(), [2], "one of them");
    // Whoever was held to be dead says nothing any more.
    assert!(!schedules.renew(&first, dead.plus(MINUTE * 9)).await.unwrap());
    assert!(!schedules.over(&first, "late").await.unwrap());
    assert!(!schedules.again(&first, dead, "late").await.unwrap());
    assert!(schedules.again(&taken[0], dead.plus(MINUTE), "failed").await.unwrap());
    let again = schedules.waiting(dead.plus(MINUTE), zero, 9).await.unwrap().remove(0);
    assert_eq!((again.attempt, again.running), (2, false));
}

pub async fn schedules_are_those_of_the_release_and_go_with_the_environment(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let (schedules, at) = (store.schedules(), now());
    let all = [
        row("a", "0 * * * *", Some(at)),
        row("b", "0 1 * * *", Some(at.plus(MINUTE))),
        row("c", "0 0 0 1 1 * 2020", None),
    ];
    schedules.settle(env, &all).await.unwrap();
    assert_eq!(schedules.list(env).await.unwrap(), all);
    assert_eq!(due(&store, at).await.len(), 1);
    assert_eq!(schedules.soonest(at).await.unwrap(), Some(at.plus(MINUTE)));
    assert_eq!(schedules.soonest(at.plus(MINUTE)).await.unwrap(), None);
    // Pages do not repeat one, nor leave one out.
    let first = schedules.due(at.plus(MINUTE), None, 1).await.unwrap();
    let second = schedules.due(at.plus(MINUTE), first.first(), 1).await.unwrap();
    assert_eq!([&first[0].name, &second[0].name], ["a", "b"]);
    assert_eq!(schedules.due(at.plus(MINUTE), second.first(), 1).await.unwrap(), []);
    // What has other times begins anew, what has the same goes on.
    let moved = Due { at, ..first[0].clone() };
    assert!(schedules.pass(&moved, Some(at.plus(MINUTE * 5)), "missed").await.unwrap());
    assert!(!schedules.pass(&moved, Some(at.plus(MINUTE * 9)), "missed").await.unwrap());
    let other = at.plus(MINUTE * 7);
    schedules
        .settle(env, &[row("a", "0 * * * *", Some(other)), row("b", "0 2 * * *", Some(other))])
        .await
        .unwrap();
    let now = schedules.list(env).await.unwrap();
    assert_eq!((now[0].due, now[1].due, now.len()), (Some(at.plus(MINUTE * 5)), Some(other), 2));
    assert_eq!(now[0].last, Some((at, "missed".to_owned())));

    let unready = environment(tenant, "other");
    store.environments().insert(&unready).await.unwrap();
    schedules.settle(unready.id, &all).await.unwrap();
    assert_eq!(schedules.list(unready.id).await.unwrap(), []);
    store.environments().begin_delete(env).await.unwrap();
    assert_eq!(due(&store, other).await, [], "its environment is going");
    store.environments().remove(env).await.unwrap();
    assert_eq!(schedules.list(env).await.unwrap(), []);
}
