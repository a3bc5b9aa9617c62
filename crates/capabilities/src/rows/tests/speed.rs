//! What one operation costs; `cargo test -p capabilities --profile fast rows::tests::speed -- --ignored --nocapture`.

use std::time::Instant;

use serde_json::json;

use super::*;

/// The time that this process has spent on all cores, in microseconds, as the kernel counts it: in hundredths.
fn spent() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, the 14th and 15th of all fields (proc(5)).
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() * 10_000.0
}

async fn measured<F: Future>(name: &str, times: u32, mut work: impl FnMut(u32) -> F) {
    for warm in 0..times / 10 {
        work(warm).await;
    }
    let (started, before) = (Instant::now(), spent());
    for turn in 0..times {
        work(turn).await;
    }
    let each = |micros: f64| micros / f64::from(times);
    let (wall, cpu) = (each(started.elapsed().as_secs_f64() * 1e6), each(spent() - before));
    eprintln!("{name:20}{wall:8.1} µs {cpu:8.1} µs of the processor");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn what_an_operation_costs() {
    let field = Field::todos().await;
    let user = field.user();
    let new = || map(json!({ "title": "Buy milk and bread", "done": false }));
    let mut ids = Vec::new();
    for _ in 0..500 {
        ids.push(field.rows.create(&user, "todos", new()).await.unwrap().id);
    }
    let rows = &field.rows;
    measured("get", 20_000, |turn| {
        let id = &ids[turn as usize % ids.len()];
        let user = &user;
        async move { rows.get(user, "todos", id).await.unwrap() }
    })
    .await;
    let query = ListQuery { limit: Some(20), ..ListQuery::default() };
    measured("list 20", 10_000, |_| async { rows.list(&user, "todos", &query).await.unwrap() }).await;
    let where_query = ListQuery {
        limit: Some(20),
        filter: Some("done == false && title != 'x'".to_owned()),
        order: Some("-created_at".to_owned()),
        ..ListQuery::default()
    };
    measured("list 20 where order", 5_000, |_| async {
        rows.list(&user, "todos", &where_query).await.unwrap()
    })
    .await;
    measured("update", 10_000, |turn| {
        let id = &ids[turn as usize % ids.len()];
        let row = map(json!({ "done": turn % 2 == 0 }));
        let user = &user;
        async move { rows.update(user, "todos", id, row, None).await.unwrap() }
    })
    .await;
    measured("insert", 10_000, |_| async { rows.create(&user, "todos", new()).await.unwrap() }).await;
}
