//! From a bearer text to a caller, and from a caller to a caller in an environment.

use std::sync::Arc;

use kernel::{
    Caller, Code, Env, Error, KeyId, Principal, Result, Scopes, Secret, Surface, TenantId, Timestamp,
};
use store::{EnvState, EnvironmentFilter, Key, KeyKind};

use crate::credentials::{self, Verified, hash};
use crate::{Control, Place};

/// A longer text is no credential of ours and is not worth hashing.
const MAX_BEARER: usize = 4_096;
/// At most so many slugs are named in an error.
const MAX_SLUGS: u32 = 50;

impl Control {
    /// The caller behind a bearer text: a key, or a minted token.
    ///
    /// # Errors
    /// `unauthenticated` for anything else, and for what has expired or was revoked.
    pub async fn authenticate(&self, bearer: &str, surface: Surface) -> Result<Arc<Caller>> {
        if bearer.len() > MAX_BEARER {
            return Err(unknown());
        }
        let hash = hash(bearer);
        let memory = self.credentials.memory();
        let verified = match memory.get(&hash) {
            Some(verified) => verified,
            None => {
                let asked = memory.asking();
                let verified = self.verify(bearer, &hash).await?;
                memory.keep(asked, hash, verified.clone());
                verified
            }
        };
        let caller = verified.caller(surface);
        if caller.expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err(Error::new(Code::Unauthenticated, "the credential has expired")
                .hint("ask who made it for another"));
        }
        Ok(Arc::clone(caller))
    }

    /// The id of a tenant's key that is bound to this very environment, and what it may do; `None` for any other text.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn service(&self, env: &Env, key: &Secret) -> Result<Option<(KeyId, Scopes)>> {
        if !credentials::is_well_formed(credentials::TENANT, key.expose()) {
            return Ok(None);
        }
        match self.authenticate(key.expose(), Surface::Http).await {
            Ok(caller) => {
                let bound = caller.env == Some(env.id()) && caller.tenant == env.tenant();
                Ok((bound && caller.principal == Principal::Key)
                    .then_some((caller.credential, caller.scopes)))
            }
            Err(error) if error.code() == Code::Unauthenticated => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the key of this id is still good, and opens this environment.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn is_key_of(&self, env: &Env, id: KeyId) -> Result<bool> {
        let Some(key) = self.store.keys().get(id).await? else { return Ok(false) };
        let lives = key.revoked.is_none() && key.expires.is_none_or(|expires| expires > Timestamp::now());
        let opens = key.tenant == env.tenant() && key.env.is_none_or(|bound| bound == env.id());
        Ok(lives && (opens || key.kind == KeyKind::Operator))
    }

    /// The caller in the environment (by slug or id) and tenant (by slug or id) that a call names. A credential
    /// bound to an environment stays there; the operator may choose any tenant and any environment.
    ///
    /// # Errors
    /// `not_found`, with the same words for what is missing and what is another's.
    pub async fn select_env(
        &self,
        caller: &Arc<Caller>,
        env: Option<&str>,
        tenant: Option<&str>,
    ) -> Result<Arc<Caller>> {
        if env.is_none() && tenant.is_none() {
            return Ok(Arc::clone(caller));
        }
        let mut chosen = Caller::clone(caller);
        let operator = caller.principal == Principal::Operator && caller.env.is_none();
        if let Some(name) = tenant {
            let found = self.tenant(name).await?.filter(|found| operator || *found == caller.tenant);
            chosen.tenant = found.ok_or_else(|| missing("tenant", name))?;
        }
        if let Some(name) = env {
            let reachable = |place: &Place| {
                let of_tenant = place.tenant == chosen.tenant || (operator && tenant.is_none());
                of_tenant && caller.env.is_none_or(|bound| bound == place.env)
            };
            let place = self.names.find(name).await?.filter(reachable);
            let place = place.ok_or_else(|| missing("environment", name))?;
            (chosen.tenant, chosen.env) = (place.tenant, Some(place.env));
        }
        Ok(Arc::new(chosen))
    }

    /// The slugs of the environments that the caller may choose, for an error that asks to choose one; at most 50.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn env_slugs(&self, caller: &Caller) -> Result<Vec<String>> {
        if let Some(env) = caller.env {
            let place = self.names.find(&env.to_string()).await?;
            return Ok(place.map(|place| place.slug.to_string()).into_iter().collect());
        }
        let filter = EnvironmentFilter::default();
        let rows = self.store.environments().list(caller.tenant, &filter, None, MAX_SLUGS).await?;
        let ready = rows.into_iter().filter(|env| env.state == EnvState::Ready);
        Ok(ready.map(|env| env.slug.to_string()).collect())
    }

    async fn tenant(&self, name: &str) -> Result<Option<TenantId>> {
        let name = name.to_owned();
        if let Some(tenant) = self.tenant_names.get(&name) {
            return Ok(Some(tenant));
        }
        let asked = self.tenant_names.asking();
        let Some(tenant) = self.store.tenants().find(&name).await? else { return Ok(None) };
        self.tenant_names.keep(asked, name, tenant.id);
        Ok(Some(tenant.id))
    }

    async fn verify(&self, bearer: &str, hash: &[u8; 32]) -> Result<Verified> {
        let is_key = [credentials::OPERATOR, credentials::TENANT]
            .iter()
            .any(|prefix| credentials::is_well_formed(prefix, bearer));
        if is_key {
            let key = self.store.keys().by_hash(hash).await?.ok_or_else(unknown)?;
            return if key.revoked.is_none() {
                Ok(Verified::new(of_key(&key), None))
            } else {
                Err(unknown())
            };
        }
        let token = self.tokens.verify(bearer).await?.ok_or_else(unknown)?;
        Ok(Verified::new(token.caller, Some(token.parent)))
    }
}

fn of_key(key: &Key) -> Caller {
    let principal = match key.kind {
        KeyKind::Operator => Principal::Operator,
        KeyKind::Tenant => Principal::Key,
    };
    Caller {
        principal,
        tenant: key.tenant,
        env: key.env,
        scopes: key.scopes,
        surface: Surface::Http,
        credential: key.id,
        expires: key.expires,
    }
}

fn unknown() -> Error {
    Error::new(Code::Unauthenticated, "the credential is not valid")
        .hint("send Authorization: Bearer with a key, or with a token that has not expired")
}

fn missing(what: &str, name: &str) -> Error {
    let name: String = name.chars().take(64).collect();
    Error::not_found(format!("{what} {name:?}"))
}
