//! From a bearer text to a caller, and from a caller to a caller in an environment.

use std::net::IpAddr;
use std::sync::Arc;

use kernel::{
    Caller, Code, Env, Error, KeyId, Networks, Principal, Result, Scopes, Secret, Surface, TenantId,
    Timestamp,
};
use store::{EnvState, EnvironmentFilter, Key, KeyKind};
use tokio::sync::broadcast::error::RecvError;

use crate::credentials::{self, Ended, Revocations, Verified, hash};
use crate::environments::suspended;
use crate::{Control, Place, tokens, visits};

/// A longer text is no credential of ours and is not worth hashing.
const MAX_BEARER: usize = 4_096;
/// At most so many slugs are named in an error.
const MAX_SLUGS: u32 = 50;

impl Control {
    /// The caller behind a bearer text (a key, a minted token, or what stands for a key in a visit of the console), who comes from `source` by a door.
    ///
    /// # Errors
    /// `unauthenticated` for anything else, and for what has expired, was revoked, or is not good from there.
    pub async fn authenticate(
        &self,
        bearer: &str,
        surface: Surface,
        source: Option<IpAddr>,
    ) -> Result<Arc<Caller>> {
        self.authenticate_at(bearer, surface, source, None).await
    }

    /// The same, who has dialled `at`: the platform's own address, or below it that of an MCP door. A token that was issued
    /// for one address is good there and nowhere else.
    ///
    /// # Errors
    /// As [`Control::authenticate`].
    pub async fn authenticate_at(
        &self,
        bearer: &str,
        surface: Surface,
        source: Option<IpAddr>,
        at: Option<&Arc<str>>,
    ) -> Result<Arc<Caller>> {
        if bearer.len() > MAX_BEARER || (visits::is_one(bearer) && self.visited(bearer).is_none()) {
            return Err(unknown());
        }
        let hash = hash(bearer);
        let memory = self.credentials.memory();
        let verified = match memory.get(&hash).filter(|_| self.news.is_current()) {
            Some(verified) => verified,
            None => {
                let asked = memory.asking();
                let verified = self.verify(bearer, &hash).await?;
                memory.keep(asked, hash, verified.clone());
                verified
            }
        };
        let caller = verified.caller;
        if caller.expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err(Error::new(Code::Unauthenticated, "the credential has expired")
                .hint("ask who made it for another"));
        }
        let is_good = |networks: &Networks| source.is_some_and(|source| networks.have(source));
        if !verified.source.as_ref().is_none_or(is_good) {
            let from = source.map_or_else(|| "no known address".to_owned(), |source| source.to_string());
            tracing::warn!(
                credential.id = %caller.credential, tenant.id = %caller.tenant, from,
                "a credential was shown where it is not good"
            );
            return Err(Error::new(Code::Unauthenticated, "the credential is not good from this address").hint(
                format!("this came from {from}: call from where it is good; behind a proxy, trusted_proxies has to list it"),
            ));
        }
        if let Some(audience) = &verified.audience
            && !at.is_some_and(|at| is_of(at, audience))
        {
            return Err(Error::new(Code::Unauthenticated, "the token was issued for another address").hint(
                "sign in at the address that is called: a token is good at the one it was issued for",
            ));
        }
        Ok(Arc::new(caller.by(surface, source).at(at.cloned())))
    }

    /// The id of a tenant's key that is bound to this very environment, and what it may do; `None` for any other text.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn service(&self, env: &Env, key: &Secret) -> Result<Option<(KeyId, Scopes)>> {
        if !credentials::is_well_formed(credentials::TENANT, key.expose()) {
            return Ok(None);
        }
        match self.authenticate(key.expose(), Surface::Http, None).await {
            Ok(caller) => {
                let bound = caller.env == Some(env.id()) && caller.tenant == env.tenant();
                Ok((bound && caller.principal == Principal::Key)
                    .then_some((caller.credential, caller.scopes)))
            }
            Err(error) if error.code() == Code::Unauthenticated => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Comes when the credential of a caller is revoked, or anything that it stands on: at once where this gateway is told, and
    /// within a second elsewhere.
    pub async fn revoked(&self, caller: &Caller) {
        let is_of_it = |id: &KeyId| caller.credential == *id || caller.above.contains(id);
        let mut told = self.credentials.told();
        loop {
            let ids = match told.recv().await {
                Ok(Ended::Credential(id)) => vec![id],
                Ok(Ended::Anything) | Err(RecvError::Lagged(_)) => {
                    caller.above.iter().copied().chain([caller.credential]).collect()
                }
                Err(RecvError::Closed) => return std::future::pending().await,
            };
            for id in ids.into_iter().filter(is_of_it) {
                // Told is also of a key that another one replaces later. Where it cannot be told, it counts as ended.
                if self.tokens.has_ended(id).await.unwrap_or(true) {
                    return;
                }
            }
        }
    }

    /// Tells when any credential may have ended, from now on.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        Revocations(self.credentials.told())
    }

    /// Whether the key or the minted credential of this id is still good, and opens this environment.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn is_key_of(&self, env: &Env, id: KeyId) -> Result<bool> {
        let standing = self.tokens.standing(id).await?;
        Ok(standing.is_some_and(|standing| standing.opens(env.tenant(), env.id())))
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

    /// The ready environment of a tenant with this slug or id.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn place_of(&self, tenant: &store::Tenant, env: &str) -> Result<Option<Place>> {
        Ok(self.names.find(env).await?.filter(|place| place.tenant == tenant.id))
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
        let visited = self.visited(bearer);
        if is_key || visited.is_some() {
            let keys = self.store.keys();
            let found = match visited {
                Some(key) => keys.get(key).await?,
                None => keys.by_hash(hash).await?,
            };
            let key = found.ok_or_else(unknown)?;
            return if key.suspended && key.revoked.is_none() {
                Err(suspended())
            } else if key.revoked.is_none() {
                Ok(Verified {
                    caller: of_key(&key),
                    stands_on: vec![key.id],
                    source: key.cidrs,
                    audience: None,
                })
            } else {
                Err(unknown())
            };
        }
        let token = self.tokens.verify(bearer).await?.ok_or_else(unknown)?;
        let tokens::Standing { root, path, source, .. } = token.standing;
        let stands_on = std::iter::once(root).chain(path).collect();
        Ok(Verified { caller: token.caller, stands_on, source, audience: token.audience })
    }
}

pub(crate) fn of_key(key: &Key) -> Caller {
    let principal = match key.kind {
        KeyKind::Operator => Principal::Operator,
        KeyKind::Tenant => Principal::Key,
        KeyKind::Member => Principal::Member,
    };
    let caller = Caller::new(principal, key.tenant, key.id, key.scopes);
    caller.in_env(key.env).until(key.expires).in_place_of(key.lineage)
}

/// Whether `at` is what a token for `audience` is good at: that very address, and with the platform's own all below it.
fn is_of(at: &str, audience: &str) -> bool {
    let below = at.strip_prefix(audience);
    below.is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && is_whole(audience)))
}

/// Whether an address is the platform's own, and not one of its doors.
pub(crate) fn is_whole(address: &str) -> bool {
    address.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'))
}

fn unknown() -> Error {
    Error::new(Code::Unauthenticated, "the credential is not valid")
        .hint("send Authorization: Bearer with a key, or with a token that has not expired")
}

fn missing(what: &str, name: &str) -> Error {
    let name: String = name.chars().take(64).collect();
    Error::not_found(format!("{what} {name:?}"))
}
