//! The data keys: one for each tenant, made when it is first needed, and one for what is the platform's own.

use std::sync::{Arc, PoisonError, RwLock};

use kernel::{Code, Error, Result, TenantId, Timestamp};
use quick_cache::sync::Cache;
use store::{DataKeyRow, Store};
use zeroize::Zeroizing;

use crate::data_key::{DataKey, key_of};
use crate::key_command::KeyCommand;
use crate::key_encryption::{COMMAND, Kek, KekFile, Unwrappable};
use crate::vault::{Master, Unsealable, Vault};
use crate::{ControlConfig, OpenError};

/// How many data keys stay in memory.
const OPENED: usize = 1_024;
/// Who has two data keys: what the platform seals with, and what its other keys are derived from.
const PLATFORM: &str = "platform";
const ROOT: &str = "root";

/// The data keys, and what they are wrapped under.
pub(crate) struct DataKeys {
    pub(crate) store: Store,
    pub(crate) file: KekFile,
    kek: RwLock<Arc<Kek>>,
    /// Opens what is older than data keys.
    before: Vault,
    platform: DataKey,
    opened: Cache<String, Arc<DataKey>>,
    current: Cache<TenantId, Arc<DataKey>>,
    /// Rotations, one at a time; where re-encryption of older values goes on.
    pub(crate) turns: tokio::sync::Mutex<crate::rotation::Places>,
}

impl DataKeys {
    /// The data keys as the database has them, and what the platform's other keys are derived from. On the first start all of
    /// it is made.
    pub(crate) async fn open(
        store: Store,
        config: &ControlConfig,
        file: KekFile,
        failed: &impl Fn(store::Error) -> OpenError,
    ) -> Result<(Self, Master), OpenError> {
        let rows = store.data_keys();
        let in_force = rows.in_force().await.map_err(failed)?;
        let before = file.read()?.filter(|_| in_force.is_some());
        let kek = in_force_or_first(&store, config, &file, in_force, failed).await?;
        let root = match rows.current(ROOT).await.map_err(failed)? {
            Some(row) => kek.unwrap(&row).await?,
            None => {
                // What there was before data keys stays what everything else is derived from.
                let bytes = before.map(|master| master.bytes());
                made(&store, &kek, ROOT, bytes, failed).await?
            }
        };
        let platform = match rows.current(PLATFORM).await.map_err(failed)? {
            Some(row) => kek.unwrap(&row).await?,
            None => made(&store, &kek, PLATFORM, None, failed).await?,
        };
        let root = Master::of(Zeroizing::new(*root.bytes()));
        let keys = Self {
            file,
            before: Vault::new(&root),
            platform,
            opened: Cache::new(OPENED),
            current: Cache::new(OPENED),
            kek: RwLock::new(Arc::new(kek)),
            turns: tokio::sync::Mutex::default(),
            store,
        };
        if let Some(words) = config.key_command.clone().filter(|_| !keys.kek().is_command()) {
            keys.give_to_command(KeyCommand::new(words)).await?;
        }
        Ok((keys, root))
    }

    /// What the platform's own values are sealed with.
    pub(crate) fn platform(&self) -> &DataKey {
        &self.platform
    }

    /// Opens one of the platform's own values.
    pub(crate) fn open_platform(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        match key_of(sealed) {
            None => self.before.open(place, sealed),
            Some(_) => self.platform.open(place, sealed),
        }
    }

    /// The data key that seals for this tenant; made where it has none.
    ///
    /// # Errors
    /// `unavailable` where what wraps it does not answer; `not_found` where the tenant is gone.
    pub(crate) async fn current(&self, tenant: TenantId) -> Result<Arc<DataKey>> {
        if let Some(key) = self.current.get(&tenant) {
            return Ok(key);
        }
        let owner = tenant.to_string();
        let row = match self.store.data_keys().current(&owner).await? {
            Some(row) => row,
            None => self.first(tenant, &owner).await?,
        };
        let key = self.opened(&row).await?;
        self.current.insert(tenant, Arc::clone(&key));
        Ok(key)
    }

    /// Opens a value of this tenant.
    ///
    /// # Errors
    /// `internal` where it was changed or moved; `unavailable` where what wraps its key does not answer.
    pub(crate) async fn open_value(
        &self,
        tenant: TenantId,
        place: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let Some(id) = key_of(sealed) else {
            return self.before.open(place, sealed).map_err(Error::internal);
        };
        let key = match self.opened.get(id) {
            Some(key) => key,
            None => {
                let row = self.store.data_keys().find(id).await?;
                let owner = tenant.to_string();
                let row = row.filter(|row| row.owner == owner).ok_or_else(|| Error::internal(Unsealable))?;
                self.opened(&row).await?
            }
        };
        if key.owner() != tenant.to_string() {
            return Err(Error::internal(Unsealable));
        }
        key.open(place, sealed).map_err(Error::internal)
    }

    /// Forgets which key seals for this tenant: it may be another one by now.
    pub(crate) fn forget(&self, tenant: TenantId) {
        self.current.remove(&tenant);
    }

    /// Drops every key of a tenant that is gone from memory.
    pub(crate) fn drop_tenant(&self, tenant: TenantId) {
        let owner = tenant.to_string();
        self.forget(tenant);
        self.opened.retain(|_, key| key.owner() != owner);
    }

    pub(crate) fn forget_all_current(&self) {
        self.current.clear();
    }

    pub(crate) fn kek(&self) -> Arc<Kek> {
        Arc::clone(&self.kek.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_kek(&self, kek: Kek) {
        *self.kek.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(kek);
    }

    /// The key-encryption key of this name. Another gateway may have put it in force, and who runs the platform has to bring
    /// its file here.
    pub(crate) fn kek_named(&self, id: &str) -> Result<Arc<Kek>, Unwrappable> {
        let kek = self.kek();
        if kek.id() == id {
            return Ok(kek);
        }
        match self.file.find(id) {
            Ok(Some(master)) => {
                self.set_kek(Kek::of(&master));
                Ok(self.kek())
            }
            Ok(None) => Err(Unwrappable::Other(id.to_owned())),
            Err(error) => {
                tracing::error!(error = %error, "the key-encryption key cannot be read");
                Err(Unwrappable::Other(id.to_owned()))
            }
        }
    }

    async fn opened(&self, row: &DataKeyRow) -> Result<Arc<DataKey>> {
        let opening = async {
            let kek = self.kek_named(&row.kek)?;
            kek.unwrap(row).await.map(Arc::new)
        };
        self.opened.get_or_insert_async(&row.id, opening).await.map_err(refused)
    }

    async fn first(&self, tenant: TenantId, owner: &str) -> Result<DataKeyRow> {
        let rows = self.store.data_keys();
        let in_force = rows.in_force().await?.unwrap_or_default();
        let kek = self.kek_named(&in_force).map_err(refused)?;
        let key = DataKey::make(owner).map_err(Error::internal)?;
        let row = row(&kek, &key).await.map_err(refused)?;
        if let Some(row) = rows.get_or_insert(&row, Some(tenant)).await? {
            return Ok(row);
        }
        if self.store.tenants().find(owner).await?.is_none() {
            return Err(Error::not_found(format!("tenant \"{tenant}\"")));
        }
        Err(Error::new(Code::Unavailable, "the key-encryption key is just being replaced").hint("try again"))
    }
}

impl Kek {
    pub(crate) fn is_command(&self) -> bool {
        matches!(self, Kek::Command(_))
    }
}

/// What a caller is told; whoever runs the platform finds the rest in its log.
pub(crate) fn refused(why: Unwrappable) -> Error {
    let (message, hint) = match &why {
        Unwrappable::Changed => return Error::internal(why),
        Unwrappable::Other(_) => (
            "this gateway does not have the key-encryption key in force",
            "who runs the platform copies keys/master from the gateway that has rotated it",
        ),
        Unwrappable::Command(_) => (
            "the platform's key command gave no key",
            "who runs the platform looks at the setting keys.command and at the server's log",
        ),
    };
    let error = Error::new(Code::Unavailable, message).hint(hint).source(why);
    tracing::error!(error = error.chain(), "a data key cannot be had");
    error
}

/// A new data key as its row has it.
pub(crate) async fn row(kek: &Kek, key: &DataKey) -> Result<DataKeyRow, Unwrappable> {
    Ok(DataKeyRow {
        id: key.id().to_owned(),
        owner: key.owner().to_owned(),
        kek: kek.id().to_owned(),
        wrapped: kek.wrap(key).await?,
        created: Timestamp::now(),
        retired: None,
    })
}

/// The one of `owner`, made of these bytes or of random ones where nobody was quicker.
async fn made(
    store: &Store,
    kek: &Kek,
    owner: &str,
    bytes: Option<Zeroizing<[u8; 32]>>,
    failed: &impl Fn(store::Error) -> OpenError,
) -> Result<DataKey, OpenError> {
    let key = bytes.map_or_else(|| DataKey::make(owner), |bytes| DataKey::with(owner, bytes));
    let row = row(kek, &key.map_err(OpenError::Random)?).await?;
    let made = store.data_keys().get_or_insert(&row, None).await.map_err(failed)?;
    let made = made.ok_or_else(|| OpenError::DataKey(Unwrappable::Other(kek.id().to_owned()).to_string()))?;
    Ok(kek.unwrap(&made).await?)
}

/// The key-encryption key in force; on the first start a new one. It is never another one than the database names.
async fn in_force_or_first(
    store: &Store,
    config: &ControlConfig,
    file: &KekFile,
    in_force: Option<String>,
    failed: &impl Fn(store::Error) -> OpenError,
) -> Result<Kek, OpenError> {
    let command = || config.key_command.clone().map(|words| Kek::Command(KeyCommand::new(words)));
    let path = || file.path().to_owned();
    let Some(id) = in_force else {
        let kek = match (command(), file.read()?) {
            (Some(kek), _) => kek,
            (None, Some(master)) => Kek::of(&master),
            (None, None) => Kek::of(&Master::make(file.path())?),
        };
        // Another gateway may have been quicker.
        return match store.data_keys().first_in_force(kek.id()).await.map_err(failed)? {
            id if id == kek.id() => Ok(kek),
            id if id == COMMAND => Err(OpenError::KeyCommandMissing),
            _ => Err(OpenError::MasterForeign { path: path() }),
        };
    };
    if id == COMMAND {
        return command().ok_or(OpenError::KeyCommandMissing);
    }
    match file.find(&id)? {
        Some(master) => Ok(Kek::of(&master)),
        None if file.read()?.is_some() => Err(OpenError::MasterForeign { path: path() }),
        None => Err(OpenError::MasterMissing { path: path() }),
    }
}

#[cfg(test)]
#[path = "data_keys_tests.rs"]
mod tests;
