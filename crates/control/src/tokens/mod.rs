//! Minted tokens: short, bound to one environment, standing on the credential that minted them.

mod standing;

use std::sync::Arc;
use std::time::Duration;

use kernel::{
    Caller, Code, EnvId, Error, Held, KeyId, LimitInfo, LimitScope, Networks, Principal, Result, RunId,
    Scope, Scopes, Secret, TenantId, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Key, Minting, MostMinted, Run, Store};
use tokio::sync::Semaphore;

use crate::authentication::is_whole;
use crate::credentials::Credentials;
use crate::names::Names;
use crate::ring::Ring;
pub use standing::Standing;

const ISSUER: &str = "steading";
/// The platform's tools, and nothing else: an app's users have tokens of another audience.
const AUDIENCE: &str = "steading:tools";
/// How long a token may live. A signing key is kept as long after it has signed its last.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How many minted credentials may stand on each other.
const MAX_DEPTH: usize = 4;
/// How many live at once: of a tenant, and on one that a key has minted. So nobody who was given one takes them all.
const MAX_LIVE: MostMinted = MostMinted { of_tenant: 1_000, on_one: 100 };
/// How many are written at once: one tenant's wait for each other, and would do so with all connections there are.
pub(crate) const TURNS: usize = 4;
const MAX_PAGE: u32 = 100;

/// What a token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The one environment it opens.
    pub env: EnvId,
    /// What it may do; of these it gets what its maker has.
    pub scopes: Scopes,
    /// What it is held to, beside what its maker is held to.
    pub held: Held,
    /// Where it is good; as its maker, where nothing is said.
    pub source: Option<Networks>,
    /// How long it lives, at most 24 hours and no longer than its maker.
    pub expires_in: Duration,
    /// The run it is for; a new one where there is none.
    pub run: Option<RunId>,
}

impl NewToken {
    /// Whether it could be minted, but for what its maker may.
    ///
    /// # Errors
    /// `invalid_input` naming the field.
    pub fn check(&self) -> Result<()> {
        if self.expires_in.is_zero() || self.expires_in > MAX_LIFETIME {
            let message = format!("a credential lives 1 to {} seconds", MAX_LIFETIME.as_secs());
            return Err(Error::invalid("/expires_in", message));
        }
        Ok(())
    }
}

/// A token that was just minted.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The token itself.
    pub token: Secret,
    /// What is stored of it.
    pub row: Run,
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
    /// Of what was issued to a client, which is good at `aud` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
}

impl Claims {
    /// Whether they are this platform's: for its tools everywhere, or issued to a client for one of its addresses.
    fn are_ours(&self) -> bool {
        match &self.client_id {
            None => self.iss == ISSUER && self.aud == AUDIENCE,
            Some(_) => {
                let rest = self.aud.strip_prefix(&self.iss);
                is_whole(&self.iss) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// A token that holds.
pub(crate) struct Token {
    pub(crate) caller: Caller,
    pub(crate) standing: Standing,
    pub(crate) audience: Option<Arc<str>>,
}

/// Mints and verifies tokens.
pub struct Tokens {
    pub(crate) store: Store,
    pub(crate) ring: Arc<Ring>,
    pub(crate) names: Arc<Names>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) turns: Semaphore,
}

impl Tokens {
    /// Mints a token: what its maker may, at this moment, and what was asked for, both.
    ///
    /// # Errors
    /// `forbidden` where nothing of what was asked for is the maker's, or too many stand on each other; `not_found` for an
    /// environment out of its reach; `invalid_input` for the lifetime; `quota_exceeded` where its tenant has too many.
    pub async fn mint(&self, caller: &Caller, new: NewToken) -> Result<Minted> {
        new.check()?;
        let place = self.names.find(&new.env.to_string()).await?.filter(|place| {
            place.tenant == caller.tenant && caller.env.is_none_or(|bound| bound == place.env)
        });
        let place =
            place.ok_or_else(|| Error::not_found(format!("environment \"{}\"", new.env)).field("/env"))?;
        let now = Timestamp::now();
        let parent = self.standing_of(caller, now).await?.ok_or_else(|| {
            Error::new(Code::Forbidden, "this credential makes no others")
                .hint("use a key, or one that it minted")
        })?;
        let row = child(&parent, place.tenant, new, now)?;
        let token = Secret::new(self.ring.sign(&claims(&row)).map_err(Error::internal)?);
        self.insert(&row).await?;
        Ok(Minted { token, row })
    }

    /// Writes a child of `parent` under this id, for as long as is asked.
    pub(crate) async fn add(&self, parent: &Standing, id: KeyId, new: NewToken) -> Result<Run> {
        let place = self.names.find(&new.env.to_string()).await?;
        let place = place.filter(|place| parent.opens(place.tenant, place.env));
        let place = place.ok_or_else(|| Error::not_found(format!("environment \"{}\"", new.env)))?;
        let mut row = child(parent, place.tenant, new, Timestamp::now())?;
        row.id = id;
        row.path.pop();
        row.path.push(id);
        self.insert(&row).await?;
        Ok(row)
    }

    /// The token of a row, issued to a client for one address of the platform.
    pub(crate) fn signed_for(&self, row: &Run, client: &str, resource: &str) -> Result<Secret> {
        let path = resource.find("://").and_then(|at| resource[at + 3..].find('/').map(|path| at + 3 + path));
        let iss = resource[..path.unwrap_or(resource.len())].to_owned();
        let (aud, client_id) = (resource.to_owned(), Some(client.to_owned()));
        let claims = Claims { iss, aud, client_id, ..claims(row) };
        self.ring.sign(&claims).map(Secret::new).map_err(Error::internal)
    }

    /// What a user's consent may at this moment, and the run it is for.
    pub(crate) async fn consent(&self, id: KeyId) -> Result<Option<(Standing, RunId)>> {
        let Some((key, chain)) = self.chain(id).await? else { return Ok(None) };
        let standing = Standing::of_chain(&key, &chain, Timestamp::now());
        Ok(standing.zip(chain.last().map(|row| row.run)))
    }

    async fn insert(&self, row: &Run) -> Result<()> {
        let _turn = self.turns.acquire().await.map_err(Error::internal)?;
        match self.store.runs().insert(row, MAX_LIVE).await? {
            Minting::Made => Ok(()),
            Minting::Gone => {
                Err(Error::new(Code::Conflict, "the credential or the environment has just ended")
                    .hint("look at what is there, then ask again"))
            }
            Minting::Full => {
                let most = MAX_LIVE.of_tenant;
                Err(full(
                    LimitScope::Tenant,
                    most,
                    format!("the tenant has {most} minted credentials that live"),
                ))
            }
            Minting::Crowded => {
                let most = MAX_LIVE.on_one;
                let message = format!("{most} credentials stand on the first one that this stands on");
                Err(full(LimitScope::Token, most, message))
            }
        }
    }

    /// At most `limit` (1 to 100) minted credentials that live, made after `after`, oldest first: those that stand on the
    /// caller's credential, or with `key:admin` all of its tenant, or its environment where it has one.
    ///
    /// # Errors
    /// `invalid_input` where the limit is out of range.
    pub async fn list(&self, caller: &Caller, after: Option<KeyId>, limit: u32) -> Result<Vec<Run>> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit must be 1 to {MAX_PAGE}")));
        }
        Ok(self.store.runs().list(reach(caller), Timestamp::now(), after, limit).await?)
    }

    /// Ends a minted credential before its time, with all that stand on it: the caller's own, one that stands on it, or
    /// with `key:admin` any of its tenant, or its environment where it has one. When this returns, they open nothing here;
    /// elsewhere within a second. A repeat changes nothing.
    ///
    /// # Errors
    /// `not_found` where there is none, or it is another's.
    pub async fn revoke(&self, caller: &Caller, id: KeyId) -> Result<()> {
        if !self.store.runs().revoke(reach(caller), id, Timestamp::now()).await? {
            return Err(Error::not_found(format!("credential \"{id}\"")));
        }
        self.credentials.revoked(id);
        Ok(())
    }

    /// The public keys, for whoever verifies our tokens (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.ring.jwks()
    }

    /// The caller behind a token, `None` where it does not hold.
    pub(crate) async fn verify(&self, token: &str) -> Result<Option<Token>> {
        let Ok(claims) = self.ring.verify::<Claims>(token) else { return Ok(None) };
        let now = Timestamp::now();
        if !claims.are_ours() || claims.exp <= now.as_secs() {
            return Ok(None);
        }
        let place = self.names.find(&claims.env.to_string()).await?;
        if place.is_none_or(|place| place.tenant != claims.tenant) {
            return Ok(None);
        }
        let Some((key, chain)) = self.chain(claims.jti).await? else { return Ok(None) };
        let Some(standing) = Standing::of_chain(&key, &chain, now) else { return Ok(None) };
        let is_said =
            |row: &Run| row.env == claims.env && row.tenant == claims.tenant && row.run == claims.sub;
        if !chain.last().is_some_and(is_said) {
            return Ok(None);
        }
        let held = (!standing.held.is_free()).then(|| Arc::new(standing.held.clone()));
        let caller = Caller::new(Principal::Run(claims.sub), claims.tenant, claims.jti, standing.scopes)
            .in_env(Some(claims.env))
            .until(standing.ends)
            .held_to(held)
            .standing_on(standing.above());
        let Some(_) = claims.client_id else { return Ok(Some(Token { caller, standing, audience: None })) };
        // What it leaves behind is the user's, whichever token of theirs it is.
        let family = standing.path.iter().rev().nth(1).copied();
        let caller = caller.in_place_of(family.unwrap_or(claims.jti)).consented();
        Ok(Some(Token { caller, standing, audience: Some(claims.aud.into()) }))
    }

    /// What the caller's credential may at this moment.
    async fn standing_of(&self, caller: &Caller, now: Timestamp) -> Result<Option<Standing>> {
        match caller.principal {
            Principal::Operator | Principal::Key | Principal::Member | Principal::Run(_) => {
                self.at(caller.credential, now).await
            }
            Principal::EndUser(_) | Principal::Visitor => Ok(None),
        }
    }

    /// What the key or the minted credential of this id may at this moment; `None` where it has ended, or is none.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn standing(&self, id: KeyId) -> Result<Option<Standing>> {
        self.at(id, Timestamp::now()).await
    }

    /// What the owner of something may at this moment: the key of this id, or the last that took its place, or a minted
    /// credential.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn standing_of_owner(&self, id: KeyId) -> Result<Option<Standing>> {
        let now = Timestamp::now();
        match self.store.keys().living(id, now).await? {
            Some(key) => Ok(Standing::of_key(&key, now)),
            None => self.at(id, now).await,
        }
    }

    /// Whether the key or the minted credential of this id has ended. A run that was never minted has not.
    pub(crate) async fn has_ended(&self, id: KeyId) -> Result<bool> {
        let now = Timestamp::now();
        if let Some(key) = self.store.keys().get(id).await? {
            return Ok(!key.is_live(now));
        }
        let Some((key, chain)) = self.chain(id).await? else { return Ok(false) };
        let Some(env) = chain.last().map(|run| run.env) else { return Ok(false) };
        // That of a tenant which is not active is none, also where the operator's key has minted it.
        Ok(Standing::of_chain(&key, &chain, now).is_none()
            || self.names.find(&env.to_string()).await?.is_none())
    }

    async fn at(&self, id: KeyId, now: Timestamp) -> Result<Option<Standing>> {
        if let Some(key) = self.store.keys().get(id).await? {
            return Ok(Standing::of_key(&key, now));
        }
        let found = self.chain(id).await?;
        Ok(found.and_then(|(key, chain)| Standing::of_chain(&key, &chain, now)))
    }

    /// A minted credential with all that it stands on.
    async fn chain(&self, id: KeyId) -> Result<Option<(Key, Vec<Run>)>> {
        let chain = self.store.runs().chain(id).await?;
        let Some(first) = chain.first() else { return Ok(None) };
        let key = self.store.keys().get(first.root).await?;
        Ok(key.map(|key| (key, chain)))
    }
}

fn full(scope: LimitScope, most: u32, message: String) -> Error {
    let limit = LimitInfo::new("credentials", scope, most.into(), "credentials");
    Error::new(Code::QuotaExceeded, message)
        .limit(limit.raised("let some end, or revoke those that are not needed"))
        .hint("DELETE /v1/credentials/{id} ends one; shorter ones make room by themselves")
}

/// The row of a child: its parent's and what is asked for, both.
fn child(parent: &Standing, tenant: TenantId, new: NewToken, now: Timestamp) -> Result<Run> {
    if parent.path.len() >= MAX_DEPTH {
        return Err(Error::new(
            Code::Forbidden,
            format!("at most {MAX_DEPTH} credentials stand on each other"),
        )
        .hint("mint it with one that is nearer to the key"));
    }
    // Whole seconds, as the claim counts them: no shorter than was asked for.
    let wanted = now.plus(new.expires_in + Duration::from_micros(999_999));
    let wanted = Timestamp::from_micros(wanted.as_secs().saturating_mul(1_000_000));
    let both = parent.clone().narrowed(new.scopes, &new.held, new.source.as_ref(), wanted);
    let scopes = both.scopes.intersection(Scopes::of_environment());
    // Some tools need none.
    if scopes == Scopes::NONE && both.held.tools().is_none() {
        return Err(Error::new(Code::Forbidden, "the credential has none of these scopes")
            .field("/scopes")
            .hint("GET /v1/credentials and GET /v1/keys show what a credential has; ask for some of that"));
    }
    both.held.is_within_bounds()?;
    if both.held.is_empty() {
        return Err(Error::new(Code::Forbidden, "the credential is for none of these tools")
            .field("/tools")
            .hint("GET /v1/tools lists those that it may call"));
    }
    if both.source.as_ref().is_some_and(Networks::is_empty) {
        let message = "the credential is good in none of these networks";
        return Err(Error::new(Code::Forbidden, message)
            .field("/source")
            .hint("name networks that its maker is good in, or none: then it is good where its maker is"));
    }
    // Its maker's end may be in the middle of a second.
    let ends = both.ends.map_or(wanted, |ends| ends.min(wanted)).as_secs().saturating_mul(1_000_000);
    let ends = Timestamp::from_micros(ends);
    if ends <= now {
        return Err(Error::new(Code::Forbidden, "the credential ends before another could begin")
            .field("/expires_in")
            .hint("use one that lives longer"));
    }
    let id = KeyId::new();
    let path = both.path.iter().copied().chain([id]).collect();
    Ok(Run {
        id,
        run: new.run.unwrap_or_else(RunId::new),
        tenant,
        env: new.env,
        root: both.root,
        path,
        scopes,
        held: both.held,
        source: both.source,
        created: now,
        ends,
        revoked: None,
    })
}

fn claims(row: &Run) -> Claims {
    Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: row.run,
        jti: row.id,
        iat: row.created.as_secs(),
        exp: row.ends.as_secs(),
        tenant: row.tenant,
        env: row.env,
        scope: row.scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" "),
        client_id: None,
    }
}

/// Which minted credentials a caller may see and end: a tenant's, an environment's, those below a credential.
fn reach(caller: &Caller) -> (TenantId, Option<EnvId>, Option<KeyId>) {
    let all = caller.scopes.contains(Scope::KeyAdmin);
    (caller.tenant, caller.env, (!all).then_some(caller.credential))
}

#[cfg(test)]
mod tests;
