//! Who tells the functions of an environment of events: of many programs at once one does.

use std::time::Duration;

use sqlx::Executor;
use store::Location;

use crate::place::{Place, now};

const MINUTE: Duration = Duration::from_secs(60);

pub async fn who_cannot_have_the_turn_writes_nothing_to_learn_so(place: &Place) {
    let (store, _, env) = place.with_env().await;
    let (listeners, at) = (store.listeners(), now());
    assert!(!listeners.take(env, at, at.plus(MINUTE)).await.unwrap(), "nobody listens");
    listeners.add(env).await.unwrap();
    // Two programs on one database: one of many has it.
    let stores = [store.clone(), place.open().await];
    let racing = (0..12).map(|i| {
        let store = stores[i % 2].clone();
        tokio::spawn(async move { store.listeners().take(env, at, at.plus(MINUTE)).await.unwrap() })
    });
    let mut had = 0;
    for one in racing.collect::<Vec<_>>() {
        had += u32::from(one.await.unwrap());
    }
    assert_eq!(had, 1);

    // While somebody else writes, a write would wait.
    let raw = place.raw().await;
    let mut writing = raw.acquire().await.unwrap();
    let begin = match place.location {
        Location::Sqlite(_) => "BEGIN IMMEDIATE",
        Location::Postgres(_) => "BEGIN; LOCK TABLE listeners IN EXCLUSIVE MODE",
    };
    writing.execute(begin).await.unwrap();
    assert!(!listeners.take(env, at, at.plus(MINUTE)).await.unwrap());
    writing.execute("ROLLBACK").await.unwrap();
    // When it has ended it is the next one's.
    assert!(listeners.take(env, at.plus(MINUTE), at.plus(MINUTE * 2)).await.unwrap());
    assert!(!listeners.renew(env, at.plus(MINUTE), at.plus(MINUTE * 3)).await.unwrap());
}
