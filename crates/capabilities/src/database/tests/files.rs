//! Files: quotas, how many are open, and damaged ones.

use std::time::{Duration, Instant};

use expect_test::expect;
use kernel::{Env, EnvId, TenantId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, told};
use super::{fill, with_todo};
use crate::database::{Limits, Query, RunRows as _, search};

#[tokio::test]
async fn a_database_at_its_quota_refuses_more_and_goes_on_serving() {
    let limits = Limits { pages: 60, ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute("CREATE TABLE t (a)", &[]).await.unwrap();
    expect!["quota_exceeded: the database has reached its size quota"]
        .assert_eq(&told(fixture.execute("INSERT INTO t VALUES (zeroblob(1000000))", &[]).await));
    assert_eq!(fixture.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap().changed, 1);
    assert_eq!(fixture.rows("SELECT count(*) FROM t").await, [[json!(1)]]);
}

#[tokio::test]
async fn a_full_database_can_be_emptied_row_by_row_and_opens_sessions() {
    let fixture = Fixture::with(Limits { pages: 600, ..Limits::default() }).await;
    fixture.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)", &[]).await.unwrap();
    fixture
        .ours(&[
            &search::create_search("t", &["a"]),
            "CREATE TRIGGER \"t.search.insert\" AFTER INSERT ON t BEGIN INSERT INTO \"t.search\" (rowid, a) VALUES (new.id, new.a); END",
            "CREATE TRIGGER \"t.search.delete\" AFTER DELETE ON t BEGIN DELETE FROM \"t.search\" WHERE rowid = old.id; END",
        ])
        .await
        .unwrap();
    let row = "INSERT INTO t (a) WITH n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 4000) \
               SELECT group_concat(hex(randomblob(4)), ' ') FROM n";
    while fixture.execute(row, &[]).await.is_ok() {}
    assert_eq!(
        told(fixture.execute(row, &[]).await),
        "quota_exceeded: the database has reached its size quota"
    );
    let ids: Vec<_> = fixture.rows("SELECT id FROM t").await.concat();
    assert!(ids.len() > 10, "{}", ids.len());
    for (n, id) in ids.iter().enumerate() {
        // By a caller's statement, and by the data plane's.
        if n % 2 == 0 {
            fixture.execute("DELETE FROM t WHERE id = ?1", std::slice::from_ref(id)).await.unwrap();
        } else {
            let mut turn = fixture.databases.rows_turn(&fixture.env, 0).await.unwrap();
            turn.run("DELETE FROM t WHERE id = ?".to_owned(), vec![id.clone()]).await.unwrap();
        }
    }
    // Who signs in is a row of ours.
    fixture
        .ours(&["INSERT INTO _steading_state (key, value) VALUES ('k', hex(zeroblob(20000)))"])
        .await
        .unwrap();
    // And the reserve is nobody else's: what deletes have had of it is not for rows, however often.
    for n in 0..6 {
        if n % 2 == 0 {
            while fixture.execute(row, &[]).await.is_ok() {}
        } else {
            let mut turn = fixture.databases.rows_turn(&fixture.env, 0).await.unwrap();
            while turn.run(row.to_owned(), Vec::new()).await.is_ok() {}
        }
        let ids: Vec<_> = fixture.rows("SELECT id FROM t").await.concat();
        assert!(ids.len() > 10, "{}", ids.len());
        for id in ids {
            fixture.execute("DELETE FROM t WHERE id = ?1", &[id]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_creation_that_died_is_finished_and_what_it_half_wrote_goes() {
    let fixture = Fixture::new().await;
    let env = EnvId::new();
    let home = fixture.directory.path().join(env.to_string());
    std::fs::create_dir(&home).unwrap();
    // Before its file was in place, and after.
    for _ in 0..2 {
        std::fs::write(home.join("main.db.new-x"), "half").unwrap();
        fixture.databases.recreate(env).await.unwrap();
        let names = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["main.db"]);
    }
    let env = Env::for_upkeep(TenantId::new(), env);
    fixture.databases.schema(&env).await.unwrap();
}

/// How many files below the fixture's directory this process has open.
fn open_files(fixture: &Fixture) -> usize {
    let below = fixture.directory.path().canonicalize().unwrap();
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter(|link| {
            link.as_ref().is_ok_and(|link| link.path().read_link().is_ok_and(|to| to.starts_with(&below)))
        })
        .count()
}

#[tokio::test]
async fn environments_touched_in_turn_keep_few_files_open() {
    let limits = Limits { open: 3, idle: Duration::from_secs(600), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let mut envs = Vec::new();
    for number in 0..20 {
        let env = fixture.another().await;
        let cancel = CancellationToken::new();
        fixture.databases.execute(&env, "CREATE TABLE t (n)", &[], &cancel).await.unwrap();
        fixture
            .databases
            .execute(&env, "INSERT INTO t VALUES (?1)", &[json!(number)], &cancel)
            .await
            .unwrap();
        // Each open environment has at most a writer and readers, each with file and log, and one index.
        assert!(open_files(&fixture) <= 3 * 7, "{}", open_files(&fixture));
        envs.push(env);
    }
    for (number, env) in envs.iter().enumerate() {
        let query = Query { sql: "SELECT n FROM t".to_owned(), ..Query::default() };
        let page = fixture.databases.query(env, query, &CancellationToken::new()).await.unwrap();
        assert_eq!(page.rows, [[json!(number)]]);
    }
    assert_eq!(fixture.databases.environments.open(), 3);
    fixture.databases.close().await;
    assert_eq!((fixture.databases.environments.open(), open_files(&fixture)), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_environments_than_there_is_room_for_are_served_in_turn() {
    let limits = Limits { open: 2, ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let mut envs = Vec::new();
    for _ in 0..8 {
        envs.push(fixture.another().await);
    }
    let work = envs.iter().map(|env| async {
        for _ in 0..5 {
            let query = Query { sql: "SELECT 1".to_owned(), ..Query::default() };
            fixture.databases.query(env, query, &CancellationToken::new()).await.unwrap();
        }
    });
    futures::future::join_all(work).await;
    assert!(fixture.databases.environments.open() <= 2);
}

#[tokio::test]
async fn idle_environments_are_closed() {
    let limits = Limits { idle: Duration::from_millis(20), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute("CREATE TABLE t (n)", &[]).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while open_files(&fixture) > 0 {
        assert!(Instant::now() < until, "still open");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // And opens again, with its sweeper.
    assert_eq!(fixture.rows("SELECT count(*) FROM t").await, [[json!(0)]]);
    while open_files(&fixture) > 0 {
        assert!(Instant::now() < until, "still open");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn an_environment_is_made_once_and_removed_with_its_connections() {
    let fixture = with_todo().await;
    let id = fixture.env.id();
    assert_eq!(
        told(fixture.databases.create(id).await),
        format!("conflict: the environment {id} has a database already")
    );
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(0)]]);
    fixture.databases.remove(id).await.unwrap();
    assert_eq!(open_files(&fixture), 0);
    std::fs::remove_dir_all(fixture.directory.path().join(id.to_string())).unwrap();
    let unknown = format!("not_found: there is no database of the environment {id}");
    assert_eq!(told(fixture.query("SELECT 1").await), unknown);
    let never = Env::for_upkeep(TenantId::new(), EnvId::new());
    let answer = fixture.databases.platform_query(&never, "SELECT 1", &[]).await;
    assert_eq!(told(answer), unknown.replace(&id.to_string(), &never.id().to_string()));
}

#[tokio::test]
async fn damaged_files_are_said_to_be_and_never_opened_as_something_else() {
    let fixture = with_todo().await;
    fill(&fixture, 500).await;
    fixture.databases.close().await;
    let path = fixture.directory.path().join(fixture.env.id().to_string()).join("main.db");
    let whole = std::fs::read(&path).unwrap();
    let damage: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("text", b"this is not a database, whatever its name says".repeat(100)),
        ("header", [&[0_u8; 100], &whole[100..]].concat()),
        ("another's", {
            let mut other = whole.clone();
            other[68..72].fill(0);
            other
        }),
        ("schema", {
            let mut other = whole.clone();
            other[100..4096].fill(0xa5);
            other
        }),
    ];
    let expected = format!("unavailable: the database of the environment {} is damaged", fixture.env.id());
    for (name, bytes) in damage {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(told(fixture.query("SELECT * FROM todo").await), expected, "{name}");
        assert_eq!(told(fixture.execute("DELETE FROM todo", &[]).await), expected, "{name}");
        fixture.databases.close().await;
    }
    std::fs::remove_file(&path).unwrap();
    let missing =
        format!("unavailable: the database file of the environment {} is missing", fixture.env.id());
    assert_eq!(told(fixture.query("SELECT * FROM todo").await), missing);
    assert!(!path.exists());
    std::fs::write(&path, whole).unwrap();
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(500)]]);
}
