//! Changes of the data plane by themselves: made in a queue, committed together, each answered for itself.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use futures::poll;
use serde_json::json;

use super::TABLE;
use super::fixture::Fixture;
use super::turns::ENDLESS;
use crate::database::rows::RunRows as _;
use crate::database::{Durability, Error, Limits, Role};

/// Makes one change, of the title that `sql` says.
async fn change(fixture: &Fixture, sql: &str, title: &str) -> Result<(), Error> {
    let mut turn = fixture.databases.rows_turn(&fixture.env, 0).await?;
    turn.run(sql.to_owned(), vec![json!(title)]).await.map(drop)
}

const INSERT: &str = "INSERT INTO todo (title) VALUES (?)";
/// The same, after a while that its limit does not allow.
const SLOW: &str = "INSERT INTO todo (title) SELECT ? || count(*) FROM (WITH RECURSIVE n(i) AS \
     (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n)";

async fn titles(fixture: &Fixture) -> BTreeSet<String> {
    let rows = fixture.rows("SELECT group_concat(title) FROM todo").await;
    rows[0][0].as_str().unwrap().split(',').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_made_at_once_are_answered_each_for_itself() {
    let fixture = Fixture::new().await;
    fixture.execute(TABLE, &[]).await.unwrap();
    // Every third is there already, every seventh lacks what it needs, and others take the whole turn meanwhile.
    let all = (0..300).map(async |i: usize| {
        let title = format!("{:03}", if i % 3 == 2 { i - 1 } else { i });
        match i {
            i if i % 50 == 0 => {
                let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
                writer.begin(Durability::Normal).await.unwrap();
                let both = writer.run(Role::Writer, INSERT, &[json!(title)]).await;
                writer.commit().await.unwrap();
                (title, both.map(drop))
            }
            i if i % 7 == 0 => (
                title.clone(),
                change(&fixture, "INSERT INTO todo (title) VALUES (nullif(?1, ?1))", &title).await,
            ),
            _ => (title.clone(), change(&fixture, INSERT, &title).await),
        }
    });
    let answers = join_all(all).await;
    let made: Vec<&String> =
        answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(title, _)| title).collect();
    let distinct: BTreeSet<String> = made.iter().map(|title| (*title).clone()).collect();
    assert_eq!(distinct.len(), made.len(), "two were told that they made the same");
    assert_eq!(titles(&fixture).await, distinct);
    let refused = answers.iter().filter_map(|(_, answer)| answer.as_ref().err());
    assert!(refused.clone().all(|e| matches!(e, Error::Duplicate(_) | Error::Value(_))));
    assert!(refused.count() > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_change_that_is_stopped_takes_none_of_the_others_along() {
    let limits = Limits { statement: Duration::from_millis(200), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    let all = (0..40).map(async |i| {
        let sql = if i == 20 { SLOW } else { INSERT };
        change(&fixture, sql, &format!("{i:02}")).await
    });
    let answers = join_all(all).await;
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(matches!(answer, Err(Error::TooSlow(_))), i == 20, "{i}: {answer:?}");
        assert_eq!(answer.is_ok(), i != 20, "{i}: {answer:?}");
    }
    assert_eq!(titles(&fixture).await.len(), 39);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_shows_only_when_all_is_committed_refuses_the_one_it_is_about() {
    let fixture = Fixture::new().await;
    fixture.execute("CREATE TABLE todo (title TEXT PRIMARY KEY) STRICT", &[]).await.unwrap();
    let child = "CREATE TABLE part (of TEXT REFERENCES todo (title) DEFERRABLE INITIALLY DEFERRED) STRICT";
    fixture.execute(child, &[]).await.unwrap();
    let all = (0..40).map(async |i| {
        let sql = if i % 8 == 7 { "INSERT INTO part (of) VALUES ('not ' || ?)" } else { INSERT };
        change(&fixture, sql, &format!("{i:02}")).await
    });
    for (i, answer) in join_all(all).await.iter().enumerate() {
        assert_eq!(matches!(answer, Err(Error::ForeignKey)), i % 8 == 7, "{i}: {answer:?}");
        assert_eq!(answer.is_ok(), i % 8 != 7, "{i}: {answer:?}");
    }
    assert_eq!(titles(&fixture).await.len(), 35);
    assert_eq!(fixture.rows("SELECT count(*) FROM part").await, [[json!(0)]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_database_keeps_what_it_has_answered_for() {
    let fixture = Fixture::with(Limits { pages: 60, ..Limits::default() }).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    let long = "x".repeat(3_000);
    let all = (0..200).map(async |i| (i, change(&fixture, INSERT, &format!("{i:03}{long}")).await));
    let answers = join_all(all).await;
    let made: BTreeSet<String> =
        answers.iter().filter(|(_, a)| a.is_ok()).map(|(i, _)| format!("{i:03}{long}")).collect();
    assert!(!made.is_empty());
    assert!(answers.iter().all(|(_, a)| matches!(a, Ok(()) | Err(Error::Quota { .. }))), "{answers:?}");
    assert!(made.len() < 200);
    let kept = fixture.rows("SELECT substr(title, 1, 3) FROM todo ORDER BY 1 LIMIT 1000").await;
    let kept: Vec<_> = kept.iter().map(|row| row[0].as_str().unwrap()).collect();
    assert_eq!(kept, made.iter().map(|title| &title[..3]).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_that_is_given_up_before_its_turn_is_not_made() {
    let limits = Limits { statement: Duration::from_millis(500), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    change(&fixture, INSERT, "first").await.unwrap();
    let mut slow = std::pin::pin!(change(&fixture, SLOW, "slow"));
    let mut given_up = Box::pin(change(&fixture, INSERT, "given up"));
    let mut kept = std::pin::pin!(change(&fixture, INSERT, "kept"));
    assert!(poll!(slow.as_mut()).is_pending());
    assert!(poll!(given_up.as_mut()).is_pending());
    assert!(poll!(kept.as_mut()).is_pending());
    drop(given_up);
    // Who takes the whole turn waits for all of them, also where nobody waits for their answers.
    let writer = fixture.databases.writer(&fixture.env);
    let (slow, kept, writer) = futures::future::join3(slow, kept, writer).await;
    assert!(matches!(slow, Err(Error::TooSlow(_))), "{slow:?}");
    kept.unwrap();
    drop(writer.unwrap());
    assert_eq!(titles(&fixture).await, ["first", "kept"].map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_that_waits_too_long_is_told_so_and_is_not_made() {
    let limits = Limits {
        statement: Duration::from_millis(800),
        turn: Duration::from_millis(100),
        ..Limits::default()
    };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    change(&fixture, INSERT, "first").await.unwrap();
    let mut slow = std::pin::pin!(change(&fixture, SLOW, "slow"));
    assert!(poll!(slow.as_mut()).is_pending());
    let (slow, waits) = futures::future::join(slow, change(&fixture, INSERT, "waits")).await;
    assert!(matches!(slow, Err(Error::TooSlow(_))), "{slow:?}");
    assert!(matches!(waits, Err(Error::Busy)), "{waits:?}");
    change(&fixture, INSERT, "last").await.unwrap();
    assert_eq!(titles(&fixture).await, ["first", "last"].map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_environment_closes_while_changes_are_given_up() {
    let limits = Limits { statement: Duration::from_millis(50), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TABLE, &[]).await.unwrap();
    for round in 0..20 {
        change(&fixture, INSERT, &round.to_string()).await.unwrap();
        {
            let mut slow = std::pin::pin!(change(&fixture, SLOW, "slow"));
            assert!(poll!(slow.as_mut()).is_pending());
        }
        fixture.databases.close().await;
    }
    assert_eq!(titles(&fixture).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_refusal_the_next_change_has_another_connection() {
    let fixture = Fixture::new().await;
    fixture.execute(TABLE, &[]).await.unwrap();
    let refused = change(&fixture, "DELETE FROM _steading_user WHERE id = ?", "a").await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    change(&fixture, INSERT, "made").await.unwrap();
    assert_eq!(fixture.databases.environments.connections(fixture.env.id()), 2);
    assert!(matches!(change(&fixture, ENDLESS, "a").await, Err(Error::ParameterCount { .. })));
    assert_eq!(titles(&fixture).await, ["made"].map(str::to_owned).into());
}
