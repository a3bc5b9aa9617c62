//! Minted tokens: short, bound to one environment, standing on the key that minted them.

use std::sync::Arc;
use std::time::Duration;

use kernel::{
    Caller, Code, EnvId, Error, KeyId, Principal, Result, RunId, Scope, Scopes, Secret, Surface, TenantId,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Store;

use crate::credentials::Credentials;
use crate::names::Names;
use crate::signing::Signing;

const ISSUER: &str = "steading";
/// The platform's tools, and nothing else: an app's users have tokens of another audience.
const AUDIENCE: &str = "steading:tools";
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What a token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The one environment it opens.
    pub env: EnvId,
    /// What it may do; of these it gets what its maker has.
    pub scopes: Scopes,
    /// How long it lives, at most 24 hours and no longer than its maker.
    pub expires_in: Duration,
    /// The run it is for; a new one where there is none.
    pub run: Option<RunId>,
}

/// A token that was just minted.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The token itself.
    pub token: Secret,
    /// Its name, in records and limits.
    pub id: KeyId,
    /// The run it stands for.
    pub run: RunId,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends.
    pub expires: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: RunId,
    jti: KeyId,
    iat: i64,
    exp: i64,
    tenant: TenantId,
    env: EnvId,
    scope: String,
    parent: KeyId,
}

/// A token that holds.
pub(crate) struct Token {
    pub(crate) caller: Caller,
    pub(crate) parent: KeyId,
}

/// Mints and verifies tokens.
pub struct Tokens {
    pub(crate) store: Store,
    pub(crate) signing: Signing,
    pub(crate) names: Arc<Names>,
    pub(crate) credentials: Arc<Credentials>,
}

impl Tokens {
    /// Mints a token: what its maker has and what was asked for, both.
    ///
    /// # Errors
    /// `forbidden` where the caller is itself a minted token, or nothing it has was asked for; `not_found` for an
    /// environment out of its reach; `invalid_input` for the lifetime.
    pub async fn mint(&self, caller: &Caller, new: NewToken) -> Result<Minted> {
        if !matches!(caller.principal, Principal::Operator | Principal::Key) {
            return Err(Error::new(Code::Forbidden, "a minted token cannot mint another"));
        }
        if new.expires_in.is_zero() || new.expires_in > MAX_LIFETIME {
            let message = format!("a token lives 1 to {} seconds", MAX_LIFETIME.as_secs());
            return Err(Error::invalid("/expires_in", message));
        }
        let place = self.names.find(&new.env.to_string()).await?.filter(|place| {
            place.tenant == caller.tenant && caller.env.is_none_or(|bound| bound == place.env)
        });
        let place =
            place.ok_or_else(|| Error::not_found(format!("environment \"{}\"", new.env)).field("/env"))?;
        let scopes = new.scopes.intersection(caller.scopes).intersection(Scopes::of_environment());
        if scopes == Scopes::NONE {
            return Err(
                Error::new(Code::Forbidden, "the credential has none of these scopes").field("/tools")
            );
        }
        let now = Timestamp::now();
        let wanted = now.plus(new.expires_in.max(Duration::from_secs(1)));
        let expires = caller.expires.map_or(wanted, |ends| ends.min(wanted));
        // Whole seconds, as the claim counts them.
        let expires = Timestamp::from_micros(expires.as_secs().saturating_mul(1_000_000));
        let (id, run) = (KeyId::new(), new.run.unwrap_or_else(RunId::new));
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: run,
            jti: id,
            iat: now.as_secs(),
            exp: expires.as_secs(),
            tenant: place.tenant,
            env: place.env,
            scope: scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" "),
            parent: caller.credential,
        };
        let token = Secret::new(self.signing.sign(&claims).map_err(Error::internal)?);
        Ok(Minted { token, id, run, scopes, expires })
    }

    /// Ends a token before its time: whoever holds it may (RFC 7009). When this returns, it opens nothing. A text
    /// that is no token of ours changes nothing and is no error (RFC 7009 §2.2).
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn revoke(&self, token: &Secret) -> Result<()> {
        let Ok(claims) = self.signing.verify::<Claims>(token.expose()) else { return Ok(()) };
        let until = Timestamp::from_micros(claims.exp.saturating_mul(1_000_000));
        self.store.spent().spend(&spent(claims.jti), until).await?;
        self.credentials.revoked(claims.jti);
        Ok(())
    }

    /// The public keys, for whoever verifies our tokens (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.signing.jwks()
    }

    /// The caller behind a token, `None` where it does not hold.
    pub(crate) async fn verify(&self, token: &str) -> Result<Option<Token>> {
        let Ok(claims) = self.signing.verify::<Claims>(token) else { return Ok(None) };
        let now = Timestamp::now();
        if claims.iss != ISSUER || claims.aud != AUDIENCE || claims.exp <= now.as_secs() {
            return Ok(None);
        }
        let place = self.names.find(&claims.env.to_string()).await?;
        if place.is_none_or(|place| place.tenant != claims.tenant) {
            return Ok(None);
        }
        let parent = self.store.keys().get(claims.parent).await?;
        if !parent.is_some_and(|key| key.is_live(now))
            || self.store.spent().contains(&spent(claims.jti)).await?
        {
            return Ok(None);
        }
        let caller = Caller {
            principal: Principal::Run(claims.sub),
            tenant: claims.tenant,
            env: Some(claims.env),
            scopes: claims.scope.split(' ').filter_map(|scope| scope.parse::<Scope>().ok()).collect(),
            surface: Surface::Http,
            credential: claims.jti,
            expires: Some(Timestamp::from_micros(claims.exp.saturating_mul(1_000_000))),
        };
        Ok(Some(Token { caller, parent: claims.parent }))
    }
}

fn spent(minted: KeyId) -> String {
    format!("token {minted}")
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
