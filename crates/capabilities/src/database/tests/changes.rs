//! What is told of changes: all that is committed, nothing that is rolled back.

use std::sync::Arc;

use kernel::Env;
use serde_json::{Value, json};

use super::fixture::Fixture;
use crate::database::rows::RunRows as _;
use crate::database::{Changed, Durability, Entry, Mode, Role, Since};

const NOTES: &str =
    "CREATE TABLE notes (id TEXT NOT NULL PRIMARY KEY, title TEXT, n INTEGER, body BLOB) STRICT";

async fn watching() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.execute(NOTES, &[]).await.unwrap();
    fixture.execute("CREATE TABLE others (id TEXT NOT NULL PRIMARY KEY) STRICT", &[]).await.unwrap();
    fixture.databases.watch(&fixture.env, &["Notes"]).await.unwrap();
    fixture
}

/// What is told since `seq`, in words.
fn told_since(fixture: &Fixture, seq: u64) -> Vec<String> {
    let Since::Entries(entries) = fixture.databases.feed(fixture.env.id()).since(seq, usize::MAX) else {
        return vec!["lost".to_owned()];
    };
    entries.iter().map(words).collect()
}

fn told(fixture: &Fixture) -> Vec<String> {
    told_since(fixture, 0)
}

fn words(entry: &Arc<Entry>) -> String {
    match &entry.what {
        Changed::Much => format!("{} much", entry.table),
        Changed::Row { id, before: None } => format!("{} {id}", entry.table),
        Changed::Row { id, before: Some(before) } => {
            let values: Vec<String> = before
                .columns
                .iter()
                .zip(&before.values)
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{} {id} was {}", entry.table, values.join(" "))
        }
    }
}

async fn rows(fixture: &Fixture, env: &Env, statements: &[&str]) {
    let mut writer = fixture.databases.rows_writer(env, 0).await.unwrap();
    writer.begin().await.unwrap();
    for sql in statements {
        writer.run((*sql).to_owned(), Vec::new()).await.unwrap();
    }
    writer.commit().await.unwrap();
}

#[tokio::test]
async fn both_connections_tell_what_rows_were_before_they_changed() {
    let fixture = watching().await;
    fixture
        .execute("INSERT INTO notes VALUES ('a', 'one', 1, x'00ff'), ('b', NULL, 2, NULL)", &[])
        .await
        .unwrap();
    rows(
        &fixture,
        &fixture.env,
        &["UPDATE notes SET n = 5 WHERE id = 'b'", "DELETE FROM notes WHERE id = 'a'"],
    )
    .await;
    assert_eq!(
        told(&fixture),
        [
            "notes a",
            "notes b",
            "notes b was id=\"b\" title=null n=2 body=null",
            "notes a was id=\"a\" title=\"one\" n=1 body={\"base64\":\"AP8=\"}",
        ]
    );
}

#[tokio::test]
async fn a_column_that_is_computed_when_it_is_read_hides_no_change() {
    let fixture = Fixture::new().await;
    let table = "CREATE TABLE notes (id TEXT NOT NULL PRIMARY KEY, n INTEGER, kept AS (n + 1) STORED)";
    fixture.execute(table, &[]).await.unwrap();
    fixture.execute("ALTER TABLE notes ADD COLUMN twice AS (n * 2) VIRTUAL", &[]).await.unwrap();
    fixture.databases.watch(&fixture.env, &["notes"]).await.unwrap();
    let statements = ["INSERT INTO notes VALUES ('a', 1)", "UPDATE notes SET n = 2", "DELETE FROM notes"];
    for sql in statements {
        rows(&fixture, &fixture.env, &[sql]).await;
    }
    assert_eq!(
        told(&fixture),
        [
            "notes a",
            "notes a was id=\"a\" n=1 kept=2 twice=null",
            "notes a was id=\"a\" n=2 kept=3 twice=null"
        ]
    );
}

#[tokio::test]
async fn a_transaction_tells_of_a_row_once_with_what_it_was_before_it() {
    let fixture = watching().await;
    let statements = [
        "INSERT INTO notes (id, n) VALUES ('a', 1)",
        "UPDATE notes SET n = 2",
        "UPDATE notes SET n = 3",
        "INSERT INTO notes (id) VALUES ('b')",
        "DELETE FROM notes WHERE id = 'b'",
    ];
    rows(&fixture, &fixture.env, &statements).await;
    assert_eq!(told(&fixture), ["notes a", "notes b"]);
    rows(&fixture, &fixture.env, &["UPDATE notes SET n = 4", "DELETE FROM notes"]).await;
    assert_eq!(told_since(&fixture, 2), ["notes a was id=\"a\" title=null n=3 body=null"]);
}

#[tokio::test]
async fn a_row_whose_id_changes_is_two() {
    let fixture = watching().await;
    fixture.execute("INSERT INTO notes (id, n) VALUES ('a', 1)", &[]).await.unwrap();
    fixture.execute("UPDATE notes SET id = 'b'", &[]).await.unwrap();
    assert_eq!(told_since(&fixture, 1), ["notes a was id=\"a\" title=null n=1 body=null", "notes b"]);
}

#[tokio::test]
async fn what_is_rolled_back_is_not_told() {
    let fixture = watching().await;
    let mut writer = fixture.databases.rows_writer(&fixture.env, 0).await.unwrap();
    writer.begin().await.unwrap();
    writer.run("INSERT INTO notes (id) VALUES ('a')".to_owned(), Vec::new()).await.unwrap();
    writer.rollback().await.unwrap();
    // One that goes away with its transaction open.
    let mut writer = fixture.databases.rows_writer(&fixture.env, 0).await.unwrap();
    writer.begin().await.unwrap();
    writer.run("INSERT INTO notes (id) VALUES ('b')".to_owned(), Vec::new()).await.unwrap();
    drop(writer);
    let failing = "INSERT INTO notes (id) SELECT value FROM json_each('[\"c\", \"d\", \"c\"]')";
    assert!(fixture.execute(failing, &[]).await.is_err());
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    writer.begin(Durability::Full).await.unwrap();
    writer.run(Role::Writer, "INSERT INTO notes (id) VALUES ('e')", &[]).await.unwrap();
    writer.rollback().await.unwrap();
    drop(writer);
    fixture.execute("INSERT INTO notes (id) VALUES ('f')", &[]).await.unwrap();
    rows(&fixture, &fixture.env, &["INSERT INTO notes (id) VALUES ('g')"]).await;
    assert_eq!(told(&fixture), ["notes f", "notes g"]);
}

#[tokio::test]
async fn tables_that_nobody_watches_and_those_of_the_platform_are_not_told_of() {
    let fixture = watching().await;
    fixture.execute("INSERT INTO others VALUES ('a')", &[]).await.unwrap();
    fixture.platform("SELECT 1").await;
    assert_eq!(told(&fixture), Vec::<String>::new());
    fixture.databases.feed(fixture.env.id()).rest();
    fixture.execute("INSERT INTO notes (id) VALUES ('a')", &[]).await.unwrap();
    assert_eq!(told(&fixture), Vec::<String>::new());
}

#[tokio::test]
async fn many_rows_of_one_transaction_are_told_as_one_thing() {
    let fixture = watching().await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1) \
                INSERT INTO notes (id, n) SELECT 'r' || i, i FROM n";
    fixture.execute(many, &[json!(1_000)]).await.unwrap();
    assert_eq!(told(&fixture).len(), 1_000);
    fixture.execute("UPDATE notes SET n = n + 1", &[]).await.unwrap();
    assert_eq!(told_since(&fixture, 1_000).len(), 1_000);
    fixture.execute("DELETE FROM notes", &[]).await.unwrap();
    fixture.execute(many, &[json!(1_001)]).await.unwrap();
    assert_eq!(told_since(&fixture, 3_000), ["notes much"]);
    let wide = "INSERT INTO notes (id, title) SELECT 'w' || value, printf('%.*c', 600000, 'x') FROM json_each('[1,2]')";
    fixture.execute(wide, &[]).await.unwrap();
    assert_eq!(told_since(&fixture, 3_001), ["notes w1", "notes w2"], "what a new row holds is not kept");
    fixture.execute("DELETE FROM notes WHERE id LIKE 'w%'", &[]).await.unwrap();
    assert_eq!(told_since(&fixture, 3_003), ["notes much"]);
}

#[tokio::test]
async fn a_change_of_the_schema_is_told_as_much_of_every_watched_table() {
    let fixture = watching().await;
    let renamed = "ALTER TABLE notes RENAME COLUMN title TO heading; UPDATE notes SET n = 9;";
    fixture.execute("INSERT INTO notes (id) VALUES ('a')", &[]).await.unwrap();
    fixture.migrate("rename", renamed, Mode::Apply).await.unwrap();
    let told = told_since(&fixture, 1);
    assert!(told.len() >= 2 && told.iter().all(|words| words == "notes much"), "{told:?}");
    // Nobody has read the columns anew.
    let head = fixture.databases.feed(fixture.env.id()).head();
    fixture.execute("UPDATE notes SET n = 10", &[]).await.unwrap();
    assert_eq!(told_since(&fixture, head), ["notes much"]);
    fixture.databases.watch(&fixture.env, &["notes"]).await.unwrap();
    fixture.execute("UPDATE notes SET n = 11", &[]).await.unwrap();
    assert_eq!(told_since(&fixture, head + 1), ["notes a was id=\"a\" heading=null n=10 body=null"]);
}

#[tokio::test]
async fn a_replaced_row_and_a_cascade_are_told_of() {
    let fixture = watching().await;
    let parts = "CREATE TABLE parts (id TEXT NOT NULL PRIMARY KEY, note TEXT REFERENCES notes (id) ON DELETE CASCADE) STRICT";
    fixture.execute(parts, &[]).await.unwrap();
    fixture.databases.watch(&fixture.env, &["notes", "parts"]).await.unwrap();
    let head = fixture.databases.feed(fixture.env.id()).head();
    fixture.execute("INSERT INTO notes (id, n) VALUES ('a', 1)", &[]).await.unwrap();
    fixture.execute("INSERT INTO parts VALUES ('p', 'a')", &[]).await.unwrap();
    fixture
        .execute("INSERT INTO notes (id, n) VALUES ('a', 2) ON CONFLICT (id) DO UPDATE SET n = 2", &[])
        .await
        .unwrap();
    fixture.execute("DELETE FROM notes", &[]).await.unwrap();
    assert_eq!(
        told_since(&fixture, head),
        [
            "notes a",
            "parts p",
            "notes a was id=\"a\" title=null n=1 body=null",
            "notes a was id=\"a\" title=null n=2 body=null",
            "parts p was id=\"p\" note=\"a\"",
        ]
    );
}

#[tokio::test]
async fn the_log_is_moved_into_the_file_while_somebody_watches() {
    let fixture = watching().await;
    let big = [Value::from("x".repeat(400_000))];
    for n in 0..40 {
        let sql = format!("INSERT INTO notes (id, title) VALUES ('{n}', ?1)");
        fixture.execute(&sql, &big).await.unwrap();
    }
    let log = fixture.directory.path().join(fixture.env.id().to_string()).join("main.db-wal");
    let bytes = std::fs::metadata(log).unwrap().len();
    assert!(bytes < 8 << 20, "the log has {bytes} bytes");
}
