//! The keys that sign the tokens of apps' users: one for each environment, made when it is first needed.

use std::sync::Arc;

use kernel::{Env, EnvId, Error, Result, Secret, Timestamp};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{SigningKeyRow, Store};

use crate::data_keys::DataKeys;
use crate::signing::{Signing, place};

/// How many opened keys stay in memory.
const OPENED: usize = 1_024;
/// How often it is tried to seal a new one.
const ATTEMPTS: usize = 2;

/// The environments' signing keys. They go with their environments.
pub struct AppKeys {
    store: Store,
    keys: Arc<DataKeys>,
    opened: Cache<EnvId, Arc<Signing>>,
}

impl AppKeys {
    pub(crate) fn new(store: Store, keys: Arc<DataKeys>) -> Self {
        Self { store, keys, opened: Cache::new(OPENED) }
    }

    /// Signs claims with the environment's key, as a compact JWS of type `at+jwt` (RFC 7515, RFC 9068).
    ///
    /// # Errors
    /// `not_found` where the environment is not a ready one; `internal` where its key does not open.
    pub async fn sign<T: Serialize + Sync>(&self, env: &Env, claims: &T) -> Result<Secret> {
        let signing = self.key(env).await?;
        Ok(Secret::new(signing.sign(claims).map_err(Error::internal)?))
    }

    /// The claims of a token that the environment's key signed; `None` where it did not. What they say is still
    /// to be looked at.
    ///
    /// # Errors
    /// As [`AppKeys::sign`].
    pub async fn verify<T: for<'de> Deserialize<'de>>(&self, env: &Env, token: &str) -> Result<Option<T>> {
        Ok(self.key(env).await?.verify(token).ok())
    }

    /// The public half as a key set (RFC 7517 §5).
    ///
    /// # Errors
    /// As [`AppKeys::sign`].
    pub async fn jwks(&self, env: &Env) -> Result<Value> {
        Ok(self.key(env).await?.jwks())
    }

    /// What the key is called in tokens: the thumbprint of its public half (RFC 7638).
    ///
    /// # Errors
    /// As [`AppKeys::sign`].
    pub async fn kid(&self, env: &Env) -> Result<String> {
        Ok(self.key(env).await?.kid().to_owned())
    }

    /// The code that only this environment's key gives for `message` (HMAC-SHA256, for links to files
    /// alone).
    ///
    /// # Errors
    /// As [`AppKeys::sign`].
    pub async fn mac(&self, env: &Env, message: &[u8]) -> Result<[u8; 32]> {
        Ok(self.key(env).await?.mac("file links", message))
    }

    /// Drops an environment's key from memory; to be called after it has begun to go.
    pub(crate) fn forget(&self, env: EnvId) {
        self.opened.remove(&env);
    }

    async fn key(&self, env: &Env) -> Result<Arc<Signing>> {
        if let Some(signing) = self.opened.get(&env.id()) {
            return Ok(signing);
        }
        let purpose = env.id().to_string();
        let row = match self.store.signing_keys().current(&purpose).await? {
            Some(row) => row,
            None => self.make(env, &purpose).await?,
        };
        let seed = self.keys.open_value(env.tenant(), &place(&purpose, &row.id), &row.sealed).await?;
        let signing = Arc::new(Signing::opened(&row.id, &seed).map_err(Error::internal)?);
        self.opened.insert(env.id(), Arc::clone(&signing));
        Ok(signing)
    }

    async fn make(&self, env: &Env, purpose: &str) -> Result<SigningKeyRow> {
        let new = Signing::generate().map_err(Error::internal)?;
        // The data key may have been followed by another since it was remembered.
        for _ in 0..ATTEMPTS {
            let key = self.keys.current(env.tenant()).await?;
            let row = SigningKeyRow {
                id: new.kid().to_owned(),
                purpose: purpose.to_owned(),
                public: new.public(),
                sealed: new.seal(&key, purpose)?,
                created: Timestamp::now(),
                data_key: Some(key.id().to_owned()),
            };
            if let Some(row) = self.store.signing_keys().get_or_insert_of(env.id(), &row).await? {
                return Ok(row);
            }
            self.keys.forget(env.tenant());
        }
        Err(Error::not_found(format!("environment \"{}\"", env.id())))
    }
}
