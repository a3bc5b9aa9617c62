//! Databases whose platform tables are of another layout.

use std::path::PathBuf;

use expect_test::expect;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::fixture::{Fixture, told};
use super::{fill, with_todo};
use crate::database::rows::RunRows as _;
use crate::database::template::{LAYOUT, RELEASES_BEFORE, TABLES};
use crate::database::{Limits, Mode};

fn path(fixture: &Fixture) -> PathBuf {
    fixture.directory.path().join(fixture.env.id().to_string()).join("main.db")
}

async fn raw(fixture: &Fixture) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path(fixture)).connect().await.unwrap()
}

/// Makes the fixture's database what it was before the first change of the layout.
async fn grow_old(fixture: &Fixture) {
    fixture.databases.close().await;
    let mut connection = raw(fixture).await;
    for sql in ["DROP TABLE _steading_session", "DROP TABLE _steading_user", "PRAGMA user_version = 0"] {
        connection.execute(sql).await.unwrap();
    }
    connection.close().await.unwrap();
}

async fn ours(fixture: &Fixture) -> Vec<(String, String)> {
    let sql =
        "SELECT name, sql FROM sqlite_schema WHERE name LIKE '\\_steading\\_%' ESCAPE '\\' ORDER BY name";
    let rows = fixture.platform(sql).await;
    rows.iter().map(|row| (row[0].as_str().unwrap().into(), row[1].as_str().unwrap().into())).collect()
}

fn expected() -> Vec<(String, String)> {
    let mut tables = TABLES.map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    tables.sort();
    tables.into()
}

#[tokio::test]
async fn a_new_database_has_the_tables_of_the_list() {
    let fixture = Fixture::new().await;
    assert_eq!(ours(&fixture).await, expected());
    assert_eq!(fixture.platform("PRAGMA user_version").await, [[json!(LAYOUT)]]);
}

#[tokio::test]
async fn an_older_database_gets_what_it_lacks_before_anything_reads_it() {
    let fixture = with_todo().await;
    fill(&fixture, 3).await;
    grow_old(&fixture).await;
    assert_eq!(ours(&fixture).await, expected());
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(3)]]);
    // A connection that reads does only that afterwards, and changes of the schema pass the seal.
    let deleted = fixture.databases.platform_query(&fixture.env, "DELETE FROM todo", &[]).await;
    assert!(deleted.is_err(), "{deleted:?}");
    fixture.migrate("more", "CREATE TABLE more (a)", Mode::Apply).await.unwrap();
}

#[tokio::test]
async fn sessions_of_the_first_layout_go_on() {
    let fixture = Fixture::new().await;
    fixture.databases.close().await;
    let mut connection = raw(&fixture).await;
    for sql in [
        "DROP TABLE _steading_session",
        "DROP TABLE _steading_identity",
        "DROP TABLE _steading_code",
        "DROP TABLE _steading_mail",
        "CREATE TABLE _steading_session (id TEXT PRIMARY KEY, user TEXT NOT NULL, family TEXT NOT NULL UNIQUE, \
         refresh TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL) STRICT",
        "CREATE INDEX _steading_session_by_user ON _steading_session (user, created_at)",
        "INSERT INTO _steading_user VALUES ('u1', 'a@example.org', NULL, 'user', '{}', 0, 1, 1)",
        "INSERT INTO _steading_session VALUES ('s1', 'u1', 'f1', 'r1', 5, 9), ('s2', 'u2', 'f2', 'r2', 6, 8)",
        "PRAGMA user_version = 1",
    ] {
        connection.execute(sql).await.unwrap();
    }
    connection.close().await.unwrap();
    assert_eq!(ours(&fixture).await, expected());
    let sql = "SELECT id, user, family, refresh, spent, attempt, method, device, created_at, used_at, expires_at \
               FROM _steading_session ORDER BY id";
    assert_eq!(
        fixture.platform(sql).await,
        [
            json!(["s1", "u1", "f1", "r1", null, null, "password", null, 5, 5, 9]),
            json!(["s2", "u2", "f2", "r2", null, null, "anonymous", null, 6, 6, 8]),
        ]
        .map(|row| row.as_array().unwrap().clone())
    );
}

#[tokio::test]
async fn sessions_of_the_second_layout_go_on_without_a_second_factor() {
    let fixture = Fixture::new().await;
    fixture.databases.close().await;
    let mut connection = raw(&fixture).await;
    for sql in [
        "DROP TABLE _steading_session",
        "DROP TABLE _steading_totp",
        "CREATE TABLE _steading_session (id TEXT PRIMARY KEY, user TEXT NOT NULL, \
         family TEXT NOT NULL UNIQUE, refresh TEXT NOT NULL, spent TEXT, attempt TEXT, method TEXT NOT NULL, device TEXT, \
         created_at INTEGER NOT NULL, used_at INTEGER NOT NULL, expires_at INTEGER NOT NULL) STRICT",
        "CREATE INDEX _steading_session_by_user ON _steading_session (user, created_at)",
        "INSERT INTO _steading_session VALUES ('s1', 'u1', 'f1', 'r1', 'p1', 'a1', 'mail', 'a browser', 5, 6, 9)",
        "PRAGMA user_version = 2",
    ] {
        connection.execute(sql).await.unwrap();
    }
    connection.close().await.unwrap();
    assert_eq!(ours(&fixture).await, expected());
    let found = fixture.platform("SELECT * FROM _steading_session").await;
    assert_eq!(
        json!(found),
        json!([["s1", "u1", "f1", "r1", "p1", "a1", "mail", "a browser", 5, 6, 9, null]])
    );
}

#[tokio::test]
async fn releases_of_the_fourth_layout_go_on_without_functions() {
    let fixture = Fixture::new().await;
    fixture.databases.close().await;
    let mut connection = raw(&fixture).await;
    for sql in [
        "DROP TABLE _steading_release",
        RELEASES_BEFORE,
        "INSERT INTO _steading_release VALUES (1, '{}', 'null', 5, NULL), (2, '{\"name\":\"x\"}', '{\"files\":{}}', 6, 'n')",
        "INSERT INTO _steading_state VALUES ('release', '2')",
        "PRAGMA user_version = 4",
    ] {
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    connection.close().await.unwrap();
    assert_eq!(ours(&fixture).await, expected());
    let found = fixture.platform("SELECT * FROM _steading_release ORDER BY number").await;
    assert_eq!(
        json!(found),
        json!([[1, "{}", "null", 5, null, null], [2, "{\"name\":\"x\"}", "{\"files\":{}}", 6, "n", null],])
    );
}

#[tokio::test]
async fn an_older_database_gets_what_it_lacks_before_anything_writes_it() {
    let fixture = with_todo().await;
    grow_old(&fixture).await;
    fixture.migrate("more", "CREATE TABLE more (a)", Mode::Apply).await.unwrap();
    assert_eq!(ours(&fixture).await, expected());
}

#[tokio::test]
async fn an_older_database_gets_what_it_lacks_before_the_data_plane_reads_or_writes_it() {
    let fixture = with_todo().await;
    fill(&fixture, 3).await;
    grow_old(&fixture).await;
    let databases = &fixture.databases;
    let titles =
        databases.read_rows(&fixture.env, "SELECT title FROM todo".to_owned(), Vec::new(), usize::MAX).await;
    assert_eq!(titles.unwrap().iter().len(), 3);
    assert_eq!(ours(&fixture).await, expected());

    grow_old(&fixture).await;
    let mut writer = databases.rows_writer(&fixture.env, 0).await.unwrap();
    writer.begin().await.unwrap();
    writer.run("DELETE FROM todo".to_owned(), Vec::new()).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(0)]]);
    assert_eq!(ours(&fixture).await, expected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_open_an_older_database_at_once_agree() {
    for _ in 0..5 {
        let fixture = Fixture::with(Limits { readers: 4, ..Limits::default() }).await;
        grow_old(&fixture).await;
        let reads = (0..8).map(|_| ours(&fixture));
        let writes = (0..4).map(async |n| {
            fixture.execute(&format!("CREATE TABLE t{n} (a)"), &[]).await.unwrap();
        });
        let (reads, _) = futures::join!(futures::future::join_all(reads), futures::future::join_all(writes));
        assert!(reads.iter().all(|found| *found == expected()), "{reads:?}");
    }
}

#[tokio::test]
async fn an_older_database_at_its_quota_is_brought_up_to_date_too() {
    let limits = Limits { pages: 40, ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    grow_old(&fixture).await;
    let mut connection = raw(&fixture).await;
    connection.execute("CREATE TABLE t (a)").await.unwrap();
    while sqlx::query_scalar::<_, i64>("PRAGMA page_count").fetch_one(&mut connection).await.unwrap() < 40 {
        connection.execute(AssertSqlSafe("INSERT INTO t VALUES (zeroblob(3000))")).await.unwrap();
    }
    connection.close().await.unwrap();
    assert_eq!(ours(&fixture).await, expected());
    expect!["quota_exceeded: the database has reached its size quota"]
        .assert_eq(&told(fixture.execute("INSERT INTO t VALUES (zeroblob(100000))", &[]).await));
}

#[tokio::test]
async fn a_database_of_a_later_program_is_not_touched() {
    let fixture = with_todo().await;
    fixture.databases.close().await;
    let mut connection = raw(&fixture).await;
    connection.execute(AssertSqlSafe(format!("PRAGMA user_version = {}", LAYOUT + 1))).await.unwrap();
    connection.close().await.unwrap();
    let expected = format!(
        "unavailable: the database of the environment {} belongs to a later version of this program",
        fixture.env.id()
    );
    assert_eq!(told(fixture.query("SELECT 1").await), expected);
    assert_eq!(told(fixture.execute("DELETE FROM todo", &[]).await), expected);
}
