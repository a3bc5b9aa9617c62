//! A control plane with a tenant's worth of things in it.

use std::path::Path;
use std::sync::Arc;

use control::{Control, ControlConfig, Environment, NewEnvironment, NewKey, NewTenant};
use kernel::{Caller, Env, Error, Proof, Scope, Scopes, Secret, Surface, Tenant};
use tempfile::TempDir;

pub struct Platform {
    pub control: Control,
    pub operator: Arc<Caller>,
    pub operator_key: Secret,
    /// The environment `default`, ready.
    pub default: Environment,
    pub data: TempDir,
}

impl Platform {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ControlConfig)) -> Self {
        let data = TempDir::new().unwrap();
        let mut config = ControlConfig::new(data.path());
        change(&mut config);
        let (control, bootstrap) = Control::open(config).await.unwrap();
        let operator_key = bootstrap.operator_key.unwrap();
        let operator = control.authenticate(operator_key.expose(), Surface::Http, None).await.unwrap();
        let record = control.environments().unfinished().await.unwrap().remove(0);
        let default = control.environments().ready(&record).await.unwrap();
        Self { control, operator, operator_key, default, data }
    }

    pub fn path(&self) -> &Path {
        self.data.path()
    }

    /// A ready environment of the caller's tenant.
    pub async fn env(&self, caller: &Caller, slug: &str) -> Environment {
        let new = NewEnvironment { slug: Some(slug.parse().unwrap()), ..NewEnvironment::default() };
        let made = self.control.environments().create(&tenant(caller), new).await.unwrap();
        self.control.environments().ready(&made.environment).await.unwrap()
    }

    /// The operator in a new tenant.
    pub async fn tenant(&self, slug: &str) -> Arc<Caller> {
        let proof = Tenant::authorize(&self.operator, &[Scope::TenantAdmin]).unwrap();
        let new = NewTenant { slug: Some(slug.parse().unwrap()), ..NewTenant::default() };
        self.control.tenants().create(&proof, new).await.unwrap();
        self.control.select_env(&self.operator, None, Some(slug)).await.unwrap()
    }

    /// A key with everything a key of its level can carry, and its caller.
    pub async fn key(&self, maker: &Caller, env: Option<&Environment>) -> (Secret, Arc<Caller>) {
        let new = NewKey { env: env.map(|env| env.id), ..key("ci") };
        let made = self.control.keys().create(maker, new).await.unwrap();
        let caller = self.control.authenticate(made.secret.expose(), Surface::Http, None).await.unwrap();
        (made.secret, caller)
    }
}

pub fn key(name: &str) -> NewKey {
    NewKey { name: name.to_owned(), env: None, scopes: None, expires_in: None, cidrs: None }
}

pub fn scopes(list: &[Scope]) -> Scopes {
    list.iter().copied().collect()
}

pub fn tenant(caller: &Caller) -> Tenant {
    Tenant::authorize(caller, &[]).unwrap()
}

pub fn proof(env: &Environment) -> Env {
    Env::for_upkeep(env.tenant, env.id)
}

/// An error as one line: code, field, message.
pub fn said<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}
