//! An environment's database in a directory of its own, for tests.

use kernel::{Env, EnvId, TenantId};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::database::{
    Databases, Durability, Error, Limits, Migrate, Migrated, Mode, Outcome, Page, Query, Role,
};

pub(super) struct Fixture {
    pub directory: tempfile::TempDir,
    pub databases: Databases,
    pub env: Env,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let databases = Databases::new(directory.path().to_owned(), limits);
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        databases.create(env.id()).await.unwrap();
        Self { directory, databases, env }
    }

    /// Another environment beside the first.
    pub async fn another(&self) -> Env {
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        self.databases.create(env.id()).await.unwrap();
        env
    }

    pub async fn query(&self, sql: &str) -> Result<Page, Error> {
        let query = Query { sql: sql.to_owned(), ..Query::default() };
        self.databases.query(&self.env, query, &CancellationToken::new()).await
    }

    pub async fn execute(&self, sql: &str, params: &[Value]) -> Result<Outcome, Error> {
        self.databases.execute(&self.env, sql, params, &CancellationToken::new()).await
    }

    pub async fn migrate(&self, name: &str, sql: &str, mode: Mode) -> Result<Migrated, Error> {
        let migrate =
            Migrate { name: name.to_owned(), sql: sql.to_owned(), mode, release: None, accepted: None };
        self.databases.migrate(&self.env, &migrate, &CancellationToken::new()).await
    }

    pub async fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        self.query(sql).await.unwrap().rows
    }

    pub async fn platform(&self, sql: &str) -> Vec<Vec<Value>> {
        self.databases.platform_query(&self.env, sql, &[]).await.unwrap()
    }

    /// Runs statements of the platform in one transaction.
    pub async fn ours(&self, statements: &[&str]) -> Result<(), Error> {
        let mut db = self.databases.writer(&self.env).await?;
        db.begin(Durability::Normal).await?;
        for sql in statements {
            db.run(Role::Platform, sql, &[]).await?;
        }
        db.commit().await
    }

    /// The names of all files below the directory, without the environments' own.
    pub fn stray_files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![self.directory.path().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    open.push(path);
                } else if !["main.db", "main.db-wal", "main.db-shm"].contains(&name.as_str()) {
                    found.push(name);
                }
            }
        }
        found
    }
}

/// What a caller is told: the code, where, and the words.
pub(super) fn told<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let error = kernel::Error::from(error);
            let field = error.pointer().map(|field| format!(" {field}")).unwrap_or_default();
            format!("{}{field}: {}", error.code().as_str(), error.message())
        }
    }
}
