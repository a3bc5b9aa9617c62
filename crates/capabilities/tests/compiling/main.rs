//! Statements that are short and take long to compile. In a process of its own: they drive the engine to the bounds
//! that the whole process shares.

#![cfg(test)]

use std::sync::Arc;

use capabilities::database::{Databases, Limits, Page, Query};
use kernel::{Code, Env, EnvId, Result, TenantId};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

struct Ground {
    databases: Databases,
    env: Env,
    _directory: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let databases = Databases::new(directory.path().to_owned(), Limits::default());
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        databases.create(env.id()).await.unwrap();
        Self { databases, env, _directory: directory }
    }

    async fn query(&self, sql: &str) -> Result<Page> {
        let query = Query { sql: sql.to_owned(), ..Query::default() };
        Ok(self.databases.query(&self.env, query, &CancellationToken::new()).await?)
    }
}

/// Names that each stand for the one before, twice.
fn doubled(times: usize) -> String {
    let mut sql = "WITH c0 AS (SELECT 1 AS x)".to_owned();
    for level in 1..=times {
        let before = level - 1;
        sql.push_str(&format!(", c{level} AS (SELECT a.x FROM c{before} a, c{before} b)"));
    }
    sql + &format!(" SELECT x FROM c{times}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_short_text_that_stands_for_millions_of_terms_is_given_up_and_others_go_on_meanwhile() {
    let (slow, quick) = (Ground::new().await, Ground::new().await);
    let began = Arc::new(Notify::new());
    let says = Arc::clone(&began);
    let compiling = tokio::spawn(async move {
        says.notify_one();
        // Long, but within the memory that others share.
        drop(slow.query(&doubled(16)).await);
        let first = slow.query(&doubled(24)).await.unwrap_err();
        // The same behind another statement.
        let second = slow.query(&format!("SELECT 1; {}", doubled(24))).await.unwrap_err();
        (first.code(), second.code(), slow.query("SELECT 1").await.unwrap().rows)
    });
    began.notified().await;
    // The only worker would be held by the compilation if that were not done aside.
    let rows =
        tokio::spawn(async move { quick.query("SELECT 1").await.map(|page| page.rows) }).await.unwrap();
    assert!(rows.is_ok_and(|rows| rows == [[json!(1)]]) && !compiling.is_finished());
    let (first, second, rows) = compiling.await.unwrap();
    assert!(matches!(first, Code::Timeout | Code::TooLarge), "{first:?}");
    assert_eq!(second, Code::InvalidInput);
    assert_eq!(rows, [[json!(1)]]);
}
