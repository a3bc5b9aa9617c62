//! Where a test's database is, and rows to begin with.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::{EnvId, KeyId, Scope, Secret, TenantId, Timestamp};
use store::{EnvState, Environment, Key, KeyKind, Location, Store, Tenant};
use tempfile::TempDir;

/// A fresh database of one test.
pub struct Place {
    pub location: Location,
    _keep: Keep,
}

#[expect(dead_code, reason = "held so that the engine outlives the test")]
enum Keep {
    Directory(TempDir),
    Server(Arc<testkit::Postgres>),
}

impl Place {
    pub fn sqlite() -> Self {
        let directory = TempDir::new().unwrap();
        let location = Location::Sqlite(directory.path().join("control.db"));
        Self { location, _keep: Keep::Directory(directory) }
    }

    pub fn postgres() -> Self {
        let server = testkit::require(testkit::Postgres::shared());
        let location = Location::Postgres(Secret::new(server.fresh_database().unwrap()));
        Self { location, _keep: Keep::Server(server) }
    }

    pub async fn open(&self) -> Store {
        Store::open(&self.location).await.unwrap()
    }

    /// The open store, and a tenant in it.
    pub async fn with_tenant(&self) -> (Store, TenantId) {
        let store = self.open().await;
        let tenant = tenant("acme");
        assert!(store.tenants().insert(&tenant).await.unwrap().is_made());
        (store, tenant.id)
    }

    /// The open store, and a ready environment of a tenant in it.
    pub async fn with_env(&self) -> (Store, TenantId, EnvId) {
        let (store, tenant) = self.with_tenant().await;
        let env = environment(tenant, "shop");
        store.environments().insert(&env).await.unwrap();
        assert!(store.environments().ready(env.id).await.unwrap());
        (store, tenant, env.id)
    }

    /// A connection beside the store's.
    pub async fn raw(&self) -> sqlx::AnyPool {
        let url = match &self.location {
            Location::Sqlite(path) => format!("sqlite://{}", path.display()),
            Location::Postgres(url) => url.expose().to_owned(),
        };
        sqlx::AnyPool::connect(&url).await.unwrap()
    }
}

pub fn tenant(slug: &str) -> Tenant {
    Tenant::new(slug.parse().unwrap(), slug.to_uppercase(), TenantId::new(), now())
}

pub fn environment(tenant: TenantId, slug: &str) -> Environment {
    Environment {
        id: EnvId::new(),
        tenant,
        slug: slug.parse().unwrap(),
        name: "Shöp '; --".to_owned(),
        state: EnvState::Creating,
        template: "empty".to_owned(),
        plan: "default".to_owned(),
        tags: BTreeMap::new(),
        external_id: None,
        created: now(),
    }
}

pub fn key(tenant: TenantId, env: Option<EnvId>) -> Key {
    let id = KeyId::new();
    Key {
        id,
        tenant,
        env,
        kind: KeyKind::Tenant,
        name: "ci".to_owned(),
        scopes: [Scope::DbRead, Scope::DbWrite].into_iter().collect(),
        created: now(),
        expires: None,
        revoked: None,
        last_used: None,
        cidrs: None,
        rotated_to: None,
        lineage: id,
        suspended: false,
    }
}

pub fn now() -> Timestamp {
    Timestamp::now()
}
