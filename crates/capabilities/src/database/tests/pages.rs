//! Results: pages, cursors, and what is too wide for one.

use expect_test::expect;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, told};
use super::{fill, with_todo};
use crate::database::{Error, Query};

#[tokio::test]
async fn what_returning_gives_is_never_cut() {
    let fixture = with_todo().await;
    fill(&fixture, 2_000).await;
    expect![
        "too_large /sql: the rows that RETURNING gives are too many for one result, and nothing was changed"
    ]
    .assert_eq(&told(fixture.execute("UPDATE todo SET done = 1 RETURNING *", &[]).await));
    assert_eq!(fixture.rows("SELECT count(*) FROM todo WHERE done = 1").await, [[json!(0)]]);
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT hex(zeroblob(1000)) FROM n";
    assert!(matches!(fixture.execute(endless, &[]).await, Err(Error::WideReturning)));
}

#[tokio::test]
async fn cursors_page_over_everything_exactly_once() {
    let fixture = with_todo().await;
    fill(&fixture, 2_345).await;
    for (limit, budget) in [(None, 0), (Some(1_000), 100_000), (Some(7), 100), (Some(4_000_000_000), 700)] {
        let mut query = Query {
            sql: "SELECT id FROM todo WHERE id > $1 ORDER BY id".to_owned(),
            params: vec![json!(0)],
            limit,
            cursor: None,
            budget,
        };
        let mut seen = Vec::new();
        loop {
            let page = fixture
                .databases
                .query(&fixture.env, query.clone(), &CancellationToken::new())
                .await
                .unwrap();
            assert!(!page.rows.is_empty() && page.rows.len() <= 1_000);
            seen.extend(page.rows.iter().map(|row| row[0].as_u64().unwrap()));
            query.cursor = page.cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, (1..=2_345).collect::<Vec<_>>(), "{limit:?} {budget}");
    }
    let page = fixture.query("SELECT id FROM todo ORDER BY id LIMIT 100").await.unwrap();
    assert_eq!((page.rows.len(), page.cursor), (100, None));
}

#[tokio::test]
async fn a_cursor_serves_its_own_statement_alone() {
    let fixture = with_todo().await;
    fill(&fixture, 200).await;
    let cursor = fixture.query("SELECT id FROM todo").await.unwrap().cursor;
    for (sql, params, cursor) in [
        ("SELECT id FROM todo ", vec![], cursor.clone()),
        ("SELECT id FROM todo", vec![json!(1)], cursor.clone()),
        ("SELECT id FROM todo", vec![], Some("nonsense".to_owned())),
        ("SELECT id FROM todo", vec![], Some(String::new())),
    ] {
        let query = Query { sql: sql.to_owned(), params, cursor, ..Query::default() };
        let answer = fixture.databases.query(&fixture.env, query, &CancellationToken::new()).await;
        assert!(matches!(answer, Err(Error::Cursor)), "{sql}");
    }
}

#[tokio::test]
async fn a_row_wider_than_a_result_is_an_error_that_says_what_to_do() {
    let fixture = Fixture::new().await;
    let error =
        kernel::Error::from(fixture.query("SELECT 1 AS id, hex(zeroblob(10000)) AS body").await.unwrap_err());
    expect!["row 1 is about 11119 tokens, most of them in the column body, and a result may be 3500"]
        .assert_eq(error.message());
    assert!(error.advice().unwrap().contains("substr("));
}
