//! An installation from before there were data keys.

use std::collections::BTreeMap;

use kernel::{EnvId, Slug};
use store::{EnvState, Environment, Insertion, Location, SealedSecret, SigningKeyRow, Tenant};
use tempfile::TempDir;

use super::*;
use crate::SecretKind;
use crate::signing::Signing;

struct Old {
    data: TempDir,
    store: Store,
    tenant: TenantId,
    env: EnvId,
    master: Master,
    kid: String,
}

impl Old {
    fn file(&self) -> KekFile {
        KekFile::new(self.data.path().join("master"))
    }

    async fn open(&self) -> Result<(DataKeys, Master), OpenError> {
        let failed = |source| OpenError::Store { place: "here".to_owned(), source };
        DataKeys::open(self.store.clone(), &ControlConfig::new(self.data.path()), self.file(), &failed).await
    }

    fn secret_place(&self) -> String {
        crate::secrets::place(self.env, "A", SecretKind::Function)
    }

    async fn sealed(&self) -> String {
        self.store.secrets().sealed(self.env, "A").await.unwrap().unwrap().sealed
    }
}

/// As the platform left it when everything was sealed with the master key.
async fn old() -> Old {
    let data = TempDir::new().unwrap();
    let store = Store::open(&Location::Sqlite(data.path().join("control.db"))).await.unwrap();
    let now = Timestamp::now();
    let (tenant, env) = (TenantId::new(), EnvId::new());
    let slug = |text: &str| text.parse::<Slug>().unwrap();
    assert!(
        store
            .tenants()
            .insert(&Tenant::new(slug("acme"), "Acme".to_owned(), tenant, now))
            .await
            .unwrap()
            .is_made()
    );
    let environment = Environment {
        id: env,
        tenant,
        slug: slug("shop"),
        name: "shop".to_owned(),
        state: EnvState::Creating,
        template: "empty".to_owned(),
        plan: "default".to_owned(),
        tags: BTreeMap::new(),
        external_id: None,
        created: now,
    };
    assert_eq!(store.environments().insert(&environment).await.unwrap(), Insertion::Made);
    store.environments().ready(env).await.unwrap();
    let master = Master::make(&data.path().join("master")).unwrap();
    store.data_keys().first_in_force(&master.fingerprint()).await.unwrap();
    let vault = Vault::new(&master);
    let place = crate::secrets::place(env, "A", SecretKind::Function);
    let secret = SealedSecret {
        name: "A".to_owned(),
        kind: "function".to_owned(),
        sealed: vault.seal(&place, b"old value").unwrap(),
        data_key: None,
    };
    store.secrets().set(env, &secret, now).await.unwrap().unwrap();
    let (purpose, seed) = (env.to_string(), [9; 32]);
    let kid = Signing::from_seed(&seed).kid().to_owned();
    let key = SigningKeyRow {
        id: kid.clone(),
        purpose: purpose.clone(),
        public: Signing::from_seed(&seed).public(),
        sealed: vault.seal(&crate::signing::place(&purpose, &kid), &seed).unwrap(),
        created: now,
        data_key: None,
    };
    store.signing_keys().get_or_insert_of(env, &key).await.unwrap().unwrap();
    Old { data, store, tenant, env, master, kid }
}

#[tokio::test]
async fn what_was_sealed_before_opens_is_sealed_anew_and_outlives_its_key() {
    let old = old().await;
    let platform = Vault::new(&old.master).seal("part certificate", b"a key").unwrap();
    let (keys, root) = old.open().await.unwrap();
    assert_eq!(root.bytes(), old.master.bytes(), "audit logs go on under the keys that they had");
    let opened = keys.open_value(old.tenant, &old.secret_place(), &old.sealed().await).await.unwrap();
    assert_eq!(opened.as_slice(), b"old value");
    assert_eq!(keys.shown().await.unwrap().older_values, 2);
    keys.upkeep().await.unwrap();
    assert_eq!(keys.shown().await.unwrap().older_values, 0);
    assert!(old.sealed().await.starts_with("v2."));

    keys.rotate().await.unwrap();
    assert_ne!(old.file().read().unwrap().unwrap().bytes(), old.master.bytes());
    let (keys, root) = old.open().await.unwrap();
    assert_eq!(root.bytes(), old.master.bytes());
    let opened = keys.open_value(old.tenant, &old.secret_place(), &old.sealed().await).await.unwrap();
    assert_eq!(opened.as_slice(), b"old value");
    assert_eq!(keys.open_platform("part certificate", &platform).unwrap().as_slice(), b"a key");
    let row = old.store.signing_keys().current(&old.env.to_string()).await.unwrap().unwrap();
    let place = crate::signing::place(&row.purpose, &row.id);
    let seed = keys.open_value(old.tenant, &place, &row.sealed).await.unwrap();
    assert_eq!(Signing::opened(&old.kid, &seed).unwrap().kid(), old.kid);
}

#[tokio::test]
async fn another_key_than_the_one_in_force_opens_nothing() {
    let old = old().await;
    let there = old.file().path().to_owned();
    std::fs::write(&there, [1; 32]).unwrap();
    assert!(matches!(old.open().await, Err(OpenError::MasterForeign { .. })));
    std::fs::write(&there, [1; 31]).unwrap();
    assert!(matches!(old.open().await, Err(OpenError::MasterMalformed { .. })));
    std::fs::remove_file(&there).unwrap();
    assert!(matches!(old.open().await, Err(OpenError::MasterMissing { .. })));
    assert!(!there.exists());
    assert_eq!(old.store.data_keys().all().await.unwrap(), [], "nothing was made up");
}
