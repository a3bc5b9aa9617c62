//! What the database of an environment does, on the real engine.

mod changes;
mod events;
mod files;
mod fixture;
mod guard;
mod layouts;
mod loads;
mod migrations;
mod noted;
mod pages;
mod statements;
mod together;
mod turns;

use serde_json::json;

use self::fixture::Fixture;

const TABLE: &str =
    "CREATE TABLE todo (id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, done INTEGER) STRICT";

async fn with_todo() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.execute(TABLE, &[]).await.unwrap();
    fixture
}

async fn fill(fixture: &Fixture, rows: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1) \
               INSERT INTO todo (id, title) SELECT i, 'title ' || i FROM n";
    fixture.execute(sql, &[json!(rows)]).await.unwrap();
}
