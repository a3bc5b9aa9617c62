//! Releases on real databases and blobs: plans, applies, rollbacks.

mod access;
mod apply;
mod back;
mod buckets;
mod columns;
mod function_refusals;
mod functions;
mod guarding;
mod keeping;
mod merging;
mod running;
mod schedules;
mod services;
mod sign_in;
mod tables;

use std::sync::Mutex;

use futures::future::BoxFuture;
use kernel::{Caller, EnvId, KeyId, Principal, Proof as _, Scope, TenantId};
use serde_json::{Value, json};

use super::*;
use crate::database::{Limits, Migrate, Mode, Query};
use crate::functions::copier::Copier;
use crate::hosting::Site;

/// Notes what was tried out, and refuses when told to.
#[derive(Default)]
struct Witness {
    seen: Mutex<Vec<u64>>,
    refuse: std::sync::atomic::AtomicBool,
}

impl LiveCheck for Witness {
    fn check<'a>(&'a self, _: &'a Env, served: &'a Served) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.seen.lock().unwrap().push(served.release);
            if self.refuse.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::new(Code::Unavailable, "it does not answer"));
            }
            Ok(())
        })
    }
}

struct Yard {
    releases: Releases,
    databases: Arc<Databases>,
    witness: Arc<Witness>,
    builder: Arc<Copier>,
    env: Env,
    dir: tempfile::TempDir,
}

impl Yard {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        let databases = Arc::new(Databases::new(dir.path().to_owned(), Limits::default()));
        databases.create(env.id()).await.unwrap();
        let blobs = Blobs::new(dir.path()).unwrap();
        let witness = Arc::new(Witness::default());
        let logs = Logs::new(dir.path());
        let check = Arc::clone(&witness) as Arc<dyn LiveCheck>;
        let builder = Arc::new(Copier::new(blobs.clone()));
        let releases = Releases::new(Arc::clone(&databases), blobs, logs, check)
            .with_functions(Arc::clone(&builder) as Arc<dyn crate::functions::Builder>);
        Self { releases, databases, witness, builder, env, dir }
    }

    async fn apply(&self, manifest: Value) -> Result<Applied> {
        let wanted = Wanted::Manifest(Box::new(parse(manifest)));
        self.releases.apply(&self.env, wanted, &[], &CancellationToken::new()).await
    }

    /// The environment with no more than these scopes.
    fn env_with(&self, scopes: &[Scope]) -> Env {
        let scopes = scopes.iter().copied().collect();
        let caller = Caller::new(Principal::Key, self.env.tenant(), KeyId::new(), scopes);
        Env::authorize(&caller.in_env(Some(self.env.id())), &[]).unwrap()
    }

    async fn plan(&self, manifest: Value) -> Result<Plan> {
        self.releases.plan(&self.env, parse(manifest), &[]).await
    }

    async fn apply_plan(&self, id: PlanId, confirm: Option<&str>) -> Result<Applied> {
        let wanted = Wanted::Plan { id, confirm: confirm.map(str::to_owned) };
        self.releases.apply(&self.env, wanted, &[], &CancellationToken::new()).await
    }

    async fn rollback(&self, release: u64) -> Result<Applied> {
        self.releases.rollback(&self.env, release, &[], &CancellationToken::new()).await
    }

    async fn execute(&self, sql: &str) {
        self.databases.execute(&self.env, sql, &[], &CancellationToken::new()).await.unwrap();
    }

    async fn rows(&self, sql: &str) -> Value {
        let query = Query { sql: sql.to_owned(), ..Query::default() };
        json!(self.databases.query(&self.env, query, &CancellationToken::new()).await.unwrap().rows)
    }

    async fn schema(&self) -> String {
        self.databases.schema(&self.env).await.unwrap().fingerprint
    }
}

fn parse(manifest: Value) -> Manifest {
    serde_json::from_value(manifest).unwrap()
}

fn todos(columns: Value) -> Value {
    json!({ "database": { "tables": { "todos": { "columns": columns } } } })
}

fn changes(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|c| {
            let action = serde_json::to_value(c.action).unwrap();
            let detail = c.detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default();
            format!("{} {}{detail}", action.as_str().unwrap(), c.target)
        })
        .collect()
}

fn effects(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|e| format!("{:?} {}: {}", e.kind, e.target, e.message)).collect()
}
