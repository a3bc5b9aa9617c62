//! The users of an app: how they sign in, and how their requests are recognized.

use kernel::{Code, Env, Error, Result, Secret};

use crate::access::Guest;

/// The users of every environment's app.
#[derive(Debug, Default)]
pub struct Auth {}

impl Auth {
    /// Who sends `token`, an access token of this environment.
    ///
    /// # Errors
    /// `unauthenticated` where it does not hold.
    pub async fn recognize(&self, _env: &Env, _token: &Secret) -> Result<Guest> {
        Err(Error::new(Code::Unauthenticated, "the access token is not valid (any more)"))
    }

    /// What pages of other origins show with each request: public, and the same for an environment's whole life.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn publishable_key(&self, _env: &Env) -> Result<String> {
        Err(Error::new(Code::Unavailable, "there is no key"))
    }

    /// The public keys that access tokens are verified by (RFC 7517).
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn jwks(&self, _env: &Env) -> Result<serde_json::Value> {
        Ok(serde_json::json!({ "keys": [] }))
    }
}
