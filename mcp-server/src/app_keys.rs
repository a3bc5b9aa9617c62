//! The keys that sign the tokens of apps' users and links to their files, apps' secrets, and the seal, out of the
//! control plane.

use std::sync::Arc;

use capabilities::auth::{Claims, TokenKeys};
use capabilities::outbound::SecretValues;
use capabilities::storage::LinkKeys;
use control::Control;
use futures::future::BoxFuture;
use kernel::{Code, Env, KeyId, Result, Scopes, Secret};
use serde_json::Value;
use zeroize::Zeroizing;

/// The control plane's keys, one for each environment.
pub struct AppKeys(pub Arc<Control>);

impl TokenKeys for AppKeys {
    fn sign<'a>(&'a self, env: &'a Env, claims: &'a Claims) -> BoxFuture<'a, Result<Secret>> {
        Box::pin(self.0.app_keys().sign(env, claims))
    }

    fn verify<'a>(&'a self, env: &'a Env, token: &'a Secret) -> BoxFuture<'a, Result<Option<Claims>>> {
        Box::pin(self.0.app_keys().verify(env, token.expose()))
    }

    fn service<'a>(
        &'a self,
        env: &'a Env,
        key: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<(KeyId, Scopes)>>> {
        Box::pin(self.0.service(env, key))
    }

    fn jwks<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Value>> {
        Box::pin(self.0.app_keys().jwks(env))
    }

    fn kid<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<String>> {
        Box::pin(self.0.app_keys().kid(env))
    }

    fn seal(&self, place: &str, value: &[u8]) -> Result<String> {
        self.0.sealing().seal(place, value)
    }

    fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.0.sealing().open(place, sealed)
    }
}

impl LinkKeys for AppKeys {
    fn mac<'a>(&'a self, env: &'a Env, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 32]>> {
        Box::pin(self.0.app_keys().mac(env, message))
    }

    fn is_good<'a>(&'a self, env: &'a Env, key: KeyId) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.0.is_key_of(env, key))
    }
}

impl SecretValues for AppKeys {
    fn value<'a>(&'a self, env: &'a Env, name: &'a str) -> BoxFuture<'a, Result<Option<Secret>>> {
        Box::pin(async move {
            match self.0.secrets().reveal(env, name).await {
                Ok(value) => Ok(Some(value)),
                Err(error) if error.code() == Code::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}
