//! Readers, the one writer, deadlines and cancellation.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::fixture::Fixture;
use super::{TABLE, with_todo};
use crate::database::connection::{Connection, Kind};
use crate::database::guard::Bounds;
use crate::database::rows::RunRows as _;
use crate::database::watch::Stop;
use crate::database::{Durability, Error, Limits, Query, Role, Switch};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_see_whole_transactions_while_one_writes() {
    let fixture = with_todo().await;
    let writes = async {
        for round in 0..40 {
            let sql = "INSERT INTO todo (title) VALUES (?1 || 'a'), (?1 || 'b')";
            fixture.execute(sql, &[json!(round.to_string())]).await.unwrap();
        }
    };
    let reads = async {
        let readers = (0..8).map(|_| async {
            for _ in 0..40 {
                let count = fixture.rows("SELECT count(*) FROM todo").await[0][0].as_u64().unwrap();
                assert_eq!(count % 2, 0);
            }
        });
        futures::future::join_all(readers).await;
    };
    futures::future::join(writes, reads).await;
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(80)]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_take_turns_and_one_that_waits_too_long_is_told() {
    let limits = Limits { turn: Duration::from_millis(100), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    writer.begin(Durability::Normal).await.unwrap();
    writer.run(Role::Writer, "INSERT INTO todo (title) VALUES ('held')", &[]).await.unwrap();
    let error = kernel::Error::from(fixture.execute("DELETE FROM todo", &[]).await.unwrap_err());
    assert_eq!((error.code(), error.retry_after_secs()), (kernel::Code::Unavailable, Some(1)));
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(0)]]);
    drop(writer);
    // The dropped writer's connection closes beside us; its place is free once it has.
    let after = loop {
        match fixture.execute("INSERT INTO todo (title) VALUES ('next')", &[]).await {
            Err(Error::Busy) => {}
            other => break other,
        }
    };
    assert_eq!(after.unwrap().changed, 1);
    assert_eq!(fixture.rows("SELECT title FROM todo").await, [[json!("next")]]);
}

#[tokio::test]
async fn a_writer_keeps_its_transaction_or_says_that_it_is_gone() {
    let fixture = with_todo().await;
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    assert!(matches!(writer.run(Role::Writer, "SELECT 1", &[]).await, Err(Error::Transaction("not open"))));
    assert!(matches!(writer.commit().await, Err(Error::Transaction("not open"))));
    writer.begin(Durability::Full).await.unwrap();
    assert!(matches!(writer.begin(Durability::Full).await, Err(Error::Transaction(_))));
    assert!(matches!(writer.foreign_keys(Switch::Off).await, Err(Error::Transaction(_))));
    writer.run(Role::Writer, "INSERT INTO todo (title) VALUES ('a')", &[]).await.unwrap();
    assert!(writer.run(Role::Writer, "INSERT INTO todo (title) VALUES ('a')", &[]).await.is_err());
    assert_eq!(writer.script(Role::Migrator, "CREATE TABLE x (a); CREATE TABLE y (b);").await.unwrap(), 2);
    assert_eq!(writer.schema().await.unwrap().tables.len(), 3);
    writer.rollback().await.unwrap();
    writer.rollback().await.unwrap();
    assert_eq!(writer.schema().await.unwrap().tables.len(), 1);
    writer.begin(Durability::Normal).await.unwrap();
    writer
        .run(Role::Platform, "INSERT INTO _steading_state VALUES (?1, ?2)", &[json!("k"), json!("v")])
        .await
        .unwrap();
    let state = writer.run(Role::Platform, "SELECT * FROM _steading_state", &[]).await.unwrap();
    assert_eq!(state.rows, [[json!("k"), json!("v")]]);
    // An INSERT OR ROLLBACK takes the transaction with it; nothing may run as if it were open.
    writer.run(Role::Writer, "INSERT INTO todo (title) VALUES ('b')", &[]).await.unwrap();
    assert!(
        writer.run(Role::Writer, "INSERT OR ROLLBACK INTO todo (title) VALUES ('b')", &[]).await.is_err()
    );
    assert!(matches!(
        writer.run(Role::Writer, "SELECT 1", &[]).await,
        Err(Error::Transaction("rolled back already"))
    ));
    assert!(matches!(writer.commit().await, Err(Error::Transaction("rolled back already"))));
    writer.rollback().await.unwrap();
    drop(writer);
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(0)]]);
    assert!(fixture.platform("SELECT * FROM _steading_state").await.is_empty());
}

pub(super) const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_statement_ends_at_once_and_its_connection_serves_on() {
    let limits = Limits { readers: 1, statement: Duration::from_secs(600), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    for _ in 0..3 {
        let cancel = CancellationToken::new();
        let query = Query { sql: ENDLESS.to_owned(), ..Query::default() };
        let work = fixture.databases.query(&fixture.env, query, &cancel);
        let (answer, ()) = futures::future::join(work, async { cancel.cancel() }).await;
        assert!(matches!(answer, Err(Error::Cancelled)), "{answer:?}");
    }
    let cancel = CancellationToken::new();
    let sql = ENDLESS.replace("SELECT count(*)", "INSERT INTO t SELECT count(*)");
    fixture.execute("CREATE TABLE t (n)", &[]).await.unwrap();
    let work = fixture.databases.execute(&fixture.env, &sql, &[], &cancel);
    let (answer, ()) = futures::future::join(work, async { cancel.cancel() }).await;
    assert!(matches!(answer, Err(Error::Cancelled)), "{answer:?}");
    assert_eq!(fixture.rows("SELECT count(*) FROM t").await, [[json!(0)]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_that_goes_away_stops_its_statement() {
    let limits = Limits { readers: 1, statement: Duration::from_secs(600), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let gone = tokio::time::timeout(Duration::from_millis(50), fixture.query(ENDLESS)).await;
    assert!(gone.is_err());
    assert_eq!(fixture.rows("SELECT 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn every_call_may_move_between_threads() {
    fn may_move<T: Send>(_: T) {}
    let fixture = with_todo().await;
    let (databases, env, cancel) = (&fixture.databases, &fixture.env, CancellationToken::new());
    let load = crate::database::Load {
        table: "todo".to_owned(),
        format: crate::database::Format::Csv,
        text: String::new(),
        on_conflict: crate::database::OnConflict::Fail,
    };
    let migrate = crate::database::Migrate {
        name: "m".to_owned(),
        sql: String::new(),
        mode: crate::database::Mode::Apply,
        release: None,
        accepted: None,
    };
    may_move(databases.create(env.id()));
    may_move(databases.query(env, Query::default(), &cancel));
    may_move(databases.execute(env, "", &[], &cancel));
    may_move(databases.migrate(env, &migrate, &cancel));
    may_move(databases.load(env, &load, &cancel));
    may_move(databases.schema(env));
    may_move(databases.platform_query(env, "", &[]));
    let mut writer = databases.writer(env).await.unwrap();
    may_move(writer.begin(Durability::Full));
    may_move(writer.run(Role::Writer, "", &[]));
    may_move(writer.script(Role::Migrator, ""));
    may_move(writer.schema());
    may_move(writer.commit());
    may_move(writer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_function_that_cannot_be_interrupted_does_not_hold_its_caller() {
    let limits = Limits { statement: Duration::from_millis(100), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let quadratic = "SELECT instr(zeroblob(1200000), CAST(zeroblob(600000) || x'01' AS BLOB))";
    assert!(matches!(fixture.query(quadratic).await, Err(Error::TooSlow(_))));
    // Its connection is given up and closes when it can; the other reader serves.
    assert_eq!(fixture.rows("SELECT 1").await, [[json!(1)]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_data_plane_writes_in_the_same_turn_and_keeps_no_more_connections_than_it_may() {
    let limits = Limits { turn: Duration::from_millis(100), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    let writer = fixture.databases.writer(&fixture.env).await.unwrap();
    assert!(matches!(fixture.databases.rows_writer(&fixture.env, 0).await.err(), Some(Error::Busy)));
    drop(writer);
    let mut rows = fixture.databases.rows_writer(&fixture.env, 0).await.unwrap();
    assert!(matches!(fixture.databases.writer(&fixture.env).await.err(), Some(Error::Busy)));
    let insert = "INSERT INTO todo (title) VALUES (?)";
    rows.run(insert.to_owned(), vec![json!("a")]).await.unwrap();
    drop(rows);
    // One that is dropped with its transaction open leaves nothing.
    let mut rows = fixture.databases.rows_writer(&fixture.env, 0).await.unwrap();
    rows.begin().await.unwrap();
    rows.run(insert.to_owned(), vec![json!("b")]).await.unwrap();
    drop(rows);
    loop {
        match fixture.databases.rows_writer(&fixture.env, 0).await {
            Err(Error::Busy) => {}
            other => break drop(other.unwrap()),
        }
    }
    assert_eq!(fixture.rows("SELECT title FROM todo").await, [[json!("a")]]);
    // Readers of both kinds, all at once, share their places.
    let mut counts = Vec::new();
    for round in 0..20 {
        let one = fixture.databases.read_rows(
            &fixture.env,
            "SELECT title FROM todo".to_owned(),
            Vec::new(),
            usize::MAX,
        );
        let two = fixture.databases.read_rows(
            &fixture.env,
            "SELECT id FROM todo".to_owned(),
            Vec::new(),
            usize::MAX,
        );
        let (one, two, three) = if round % 2 == 0 {
            let (one, two) = futures::future::join(one, two).await;
            (one, two, fixture.rows("SELECT 1").await)
        } else {
            futures::future::join3(one, two, fixture.rows("SELECT 1")).await
        };
        assert!(one.is_ok() && two.is_ok() && three == [[json!(1)]]);
        counts.push(fixture.databases.environments.connections(fixture.env.id()));
    }
    assert!(counts.iter().all(|count| *count <= 3 + 2), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_statement_of_the_data_plane_is_stopped_and_its_connection_serves_on() {
    let limits = Limits { readers: 1, statement: Duration::from_millis(100), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    let read = fixture.databases.read_rows(&fixture.env, ENDLESS.to_owned(), Vec::new(), usize::MAX).await;
    assert!(matches!(read, Err(Error::TooSlow(_))), "{read:?}");
    let slow = ENDLESS.replace("SELECT count(*)", "INSERT INTO todo (title) SELECT count(*)");
    let mut rows = fixture.databases.rows_writer(&fixture.env, 0).await.unwrap();
    rows.begin().await.unwrap();
    rows.run("INSERT INTO todo (title) VALUES ('first')".to_owned(), Vec::new()).await.unwrap();
    assert!(matches!(rows.run(slow, Vec::new()).await, Err(Error::TooSlow(_))));
    rows.rollback().await.unwrap();
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(0)]]);
    let read = fixture.databases.read_rows(
        &fixture.env,
        "SELECT title FROM todo".to_owned(),
        Vec::new(),
        usize::MAX,
    );
    assert_eq!(read.await.unwrap().iter().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_of_the_data_plane_is_closed_in_order_whoever_gives_up_waiting_for_it() {
    let fixture = Fixture::new().await;
    fixture.execute(TABLE, &[]).await.unwrap();
    fixture.databases.close().await;
    let path = fixture.directory.path().join(fixture.env.id().to_string()).join("main.db");
    let limits = Arc::new(Limits { statement: Duration::from_secs(600), ..Limits::default() });
    let bounds = || Bounds { most: usize::MAX, limit: Duration::from_secs(600), queue: None, depth: 0 };
    for _ in 0..10 {
        let env = fixture.env.id();
        let connection =
            Connection::open(env, &path, Kind::RowsWriter, &limits, Arc::default()).await.unwrap();
        connection.step_kept("SELECT * FROM todo".to_owned(), Vec::new(), bounds()).await.unwrap();
        let watch = connection.watch();
        let slow = connection.step_kept(ENDLESS.to_owned(), Vec::new(), bounds());
        assert!(tokio::time::timeout(Duration::from_millis(5), slow).await.is_err());
        let closing = tokio::time::timeout(Duration::from_millis(5), connection.close()).await;
        assert!(closing.is_err(), "the statement has no end of its own");
        watch.stop(Stop::Cancelled);
        // The last connection that closes as it should takes its log along.
        let log = path.with_extension("db-wal");
        let gone = async {
            while log.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_lists_leave_a_reader_to_the_others() {
    let limits = Limits { readers: 2, statement: Duration::from_secs(2), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let list = || fixture.databases.list_rows(&fixture.env, &[], ENDLESS.to_owned(), Vec::new(), usize::MAX);
    let mut lists = std::pin::pin!(futures::future::join3(list(), list(), list()));
    let read = fixture.databases.read_rows(&fixture.env, "SELECT 1".to_owned(), Vec::new(), usize::MAX);
    tokio::select! {
        biased;
        lists = &mut lists => panic!("the lists came first: {lists:?}"),
        read = read => assert_eq!(read.unwrap().iter().len(), 1),
    }
}

/// Goes away after so many waits; whether it came to its end before.
pub(super) async fn within_waits<T>(waits: usize, work: impl Future<Output = T>) -> bool {
    let (mut work, mut left) = (std::pin::pin!(work), waits);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_goes_away_while_it_begins_holds_up_nobody() {
    let limits = Limits { turn: Duration::from_secs(2), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    for waits in 0.. {
        let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
        writer.at_depth(1);
        let begun = within_waits(waits, writer.begin(Durability::Normal)).await;
        drop(writer);
        let mut rows = fixture.databases.rows_turn(&fixture.env, 0).await.unwrap();
        let insert = "INSERT INTO todo (title) VALUES (?)".to_owned();
        rows.run(insert, vec![json!(waits.to_string())])
            .await
            .unwrap_or_else(|e| panic!("after {waits} waits: {e}"));
        if begun {
            assert!(waits > 1);
            break;
        }
    }
}
