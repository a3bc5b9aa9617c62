//! Rows on a real database, made by a real release: who reads and changes what, and what they are told.

mod attacks;
mod batch;
mod change;
mod lists;
mod rich;
mod switch;

use std::sync::Arc;

use futures::future::BoxFuture;
use kernel::{Env, EnvId, Result, TenantId, UserId};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::{Guest, Subject, User};
use crate::database::{Databases, Limits, Migrate, Mode, Query};
use crate::hosting::Blobs;
use crate::logs::Logs;
use crate::releases::{LiveCheck, Releases, Served, Wanted};

struct Unchecked;

impl LiveCheck for Unchecked {
    fn check<'a>(&'a self, _: &'a Env, _: &'a Served) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// An environment with an app.
struct Field {
    _dir: tempfile::TempDir,
    databases: Arc<Databases>,
    env: Env,
    rows: Rows,
}

impl Field {
    async fn new(tables: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        let databases = Arc::new(Databases::new(dir.path().to_owned(), Limits::default()));
        databases.create(env.id()).await.unwrap();
        let (blobs, logs) = (Blobs::new(dir.path()).unwrap(), Logs::new(dir.path()));
        let releases = Arc::new(Releases::new(Arc::clone(&databases), blobs, logs, Arc::new(Unchecked)));
        let manifest = serde_json::from_value(json!({ "database": { "tables": tables } })).unwrap();
        let wanted = Wanted::Manifest(Box::new(manifest));
        releases.apply(&env, wanted, &[], &CancellationToken::new()).await.unwrap();
        let rows = Rows::new(Arc::clone(&databases), releases);
        Self { _dir: dir, databases, env, rows }
    }

    /// The todo app: lists that everybody reads, todos that are private.
    async fn todos() -> Self {
        Self::new(json!({
            "lists": { "columns": { "name": { "type": "text", "required": true, "unique": true } }, "access": "public_read" },
            "todos": {
                "columns": { "title": "text!", "done": "bool = false", "rank": "int", "list": "ref:lists" },
                "access": "private",
            },
            "news": { "columns": { "title": "text!" }, "access": "admin_write" },
            "locked": { "columns": { "title": "text" } },
        }))
        .await
    }

    fn visitor(&self) -> Guest {
        Guest::visitor(self.env.clone())
    }

    fn user(&self) -> Guest {
        self.guest("user")
    }

    fn admin(&self) -> Guest {
        self.guest("admin")
    }

    fn guest(&self, role: &str) -> Guest {
        let user = User { id: UserId::new(), role: role.to_owned(), email: None, claims: Map::new() };
        Guest::new(self.env.clone(), Subject::User(user))
    }

    async fn create(&self, guest: &Guest, table: &str, row: Value) -> Result<Value> {
        Ok(read(&self.rows.create(guest, table, map(row)).await?))
    }

    async fn get(&self, guest: &Guest, table: &str, id: &str) -> Result<Value> {
        Ok(read(&self.rows.get(guest, table, id).await?))
    }

    async fn update(&self, guest: &Guest, table: &str, id: &str, row: Value) -> Result<Value> {
        Ok(read(&self.rows.update(guest, table, id, map(row), None).await?))
    }

    async fn delete(&self, guest: &Guest, table: &str, id: &str) -> Result<()> {
        self.rows.delete(guest, table, id, None).await
    }

    async fn list(&self, guest: &Guest, table: &str, query: Value) -> Result<Value> {
        let query = serde_json::from_value(query).unwrap();
        let json = self.rows.list(guest, table, &query).await?;
        Ok(serde_json::from_slice(&json).unwrap())
    }

    /// The values of one column of a list.
    async fn column(&self, guest: &Guest, table: &str, name: &str, query: Value) -> Value {
        let list = self.list(guest, table, query).await.unwrap();
        list["rows"].as_array().unwrap().iter().map(|row| row[name].clone()).collect()
    }

    async fn batch(&self, guest: &Guest, operations: Value) -> Result<Value> {
        let batch = serde_json::from_value(json!({ "operations": operations })).unwrap();
        Ok(serde_json::from_slice(&self.rows.batch(guest, batch).await?).unwrap())
    }

    /// What the database holds, whoever may see it.
    async fn sql(&self, sql: &str) -> Value {
        let query = Query { sql: sql.to_owned(), ..Query::default() };
        json!(self.databases.query(&self.env, query, &CancellationToken::new()).await.unwrap().rows)
    }

    async fn migrate(&self, sql: &str) {
        let migrate = Migrate {
            name: sql.chars().take(100).collect(),
            sql: sql.to_owned(),
            mode: Mode::Apply,
            release: None,
            accepted: None,
        };
        self.databases.migrate(&self.env, &migrate, &CancellationToken::new()).await.unwrap();
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn read(stored: &Stored) -> Value {
    let row: Value = serde_json::from_slice(&stored.json).unwrap();
    assert_eq!(row["id"], json!(stored.id));
    row
}

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap().to_owned()
}

fn uid(guest: &Guest) -> Value {
    guest.subject().uid().into()
}

/// What the caller is told: status, code, where, and the words.
fn told<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let at = error.pointer().map(|at| format!(" {at}")).unwrap_or_default();
            format!("{} {}{at}: {}", error.status(), error.code().as_str(), error.message())
        }
    }
}
