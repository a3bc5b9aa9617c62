//! Keys: made, listed, revoked. A key is shown once and only its hash is stored.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernel::{
    Caller, Code, EnvId, Error, KeyId, Networks, Result, Scope, Scopes, Secret, TenantId, Timestamp,
};
use store::{Key, KeyKind, Store};

use crate::credentials::{self, Credentials, hash};
use crate::environments::check_text;
use crate::{OpenError, private};

const MAX_NAME: usize = 100;
const MAX_PAGE: u32 = 100;
/// How long two keys may be good beside each other.
const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name for people, 1 to 100 characters.
    pub name: String,
    /// The environment to bind it to; the caller's, where the caller has one.
    pub env: Option<EnvId>,
    /// What it may do, at most what the caller may; everything a key of its level can carry and the caller
    /// carries, where nothing is said.
    pub scopes: Option<Scopes>,
    /// How long it lives; until it is revoked, where nothing is said.
    pub expires_in: Option<Duration>,
    /// Where it is good, at most where its maker is; as its maker, where nothing is said.
    pub cidrs: Option<Networks>,
}

/// A key that was just made. Its secret is here and nowhere else.
#[derive(Debug, Clone)]
pub struct NewKeyMade {
    /// What is stored of it.
    pub key: Key,
    /// The key itself, to be shown once.
    pub secret: Secret,
}

/// The keys of all tenants.
pub struct Keys {
    pub(crate) store: Store,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) operator_file: PathBuf,
    /// The operator's key is replaced by one at a time.
    pub(crate) replacing: tokio::sync::Mutex<()>,
}

impl Keys {
    /// Makes a key. It can do no more than its maker, lives in its maker's tenant, and in its maker's environment
    /// where the maker has one.
    ///
    /// # Errors
    /// `forbidden` naming the scope that the caller lacks; `not_found` for an environment out of its reach;
    /// `invalid_input` naming the field.
    pub async fn create(&self, caller: &Caller, new: NewKey) -> Result<NewKeyMade> {
        check_text("/name", "name", Some(&new.name), MAX_NAME)?;
        if !caller.scopes.contains(Scope::KeyAdmin) {
            return Err(lacks(Scope::KeyAdmin));
        }
        if !caller.principal.is_root() {
            return Err(minted());
        }
        let no_env = |env: EnvId| Error::not_found(format!("environment \"{env}\"")).field("/env");
        let env = match (caller.env, new.env) {
            (Some(own), Some(other)) if own != other => return Err(no_env(other)),
            (own, wanted) => wanted.or(own),
        };
        let level = if env.is_some() { Scopes::of_environment() } else { Scopes::of_tenant() };
        let scopes =
            new.scopes.unwrap_or_else(|| level.intersection(caller.scopes).without(Scope::SandboxUse));
        for scope in scopes.iter() {
            if !level.contains(scope) {
                let what = if env.is_some() { "bound to an environment" } else { "of a tenant" };
                return Err(Error::invalid("/scopes", format!("a key {what} cannot carry {scope}")));
            }
            if !caller.scopes.contains(scope) {
                return Err(lacks(scope).field("/scopes"));
            }
        }
        if scopes == Scopes::NONE {
            return Err(Error::invalid("/scopes", "a key needs at least one scope")
                .hint("name some, or leave it out: then it has those of its maker"));
        }
        let secret = credentials::generate(credentials::TENANT).map_err(Error::internal)?;
        let key = row(KeyKind::Tenant, caller.tenant, env, new.name, scopes);
        let expires = new.expires_in.map(|after| key.created.plus(after));
        if expires.is_some_and(|expires| expires <= key.created) {
            return Err(Error::invalid("/expires_in", "a key must live for a while")
                .hint("say for how many seconds, or leave it out: then it lives until it is revoked"));
        }
        // A key that ends makes none that outlives it.
        let expires = expires.into_iter().chain(caller.expires).min();
        let cidrs = self.networks(caller, new.cidrs).await?;
        let key = Key { expires, cidrs, ..key };
        if !self.store.keys().insert(&key, &hash(secret.expose())).await? {
            return Err(env.map_or_else(|| Error::internal("a key without environment was refused"), no_env));
        }
        Ok(NewKeyMade { key, secret })
    }

    /// At most `limit` (1 to 100) keys of the caller's tenant, or of its environment where it has one, made
    /// after `after`, oldest first.
    ///
    /// # Errors
    /// `forbidden` without `key:admin`; `invalid_input` where the limit is out of range.
    pub async fn list(&self, caller: &Caller, after: Option<KeyId>, limit: u32) -> Result<Vec<Key>> {
        if !caller.scopes.contains(Scope::KeyAdmin) {
            return Err(lacks(Scope::KeyAdmin));
        }
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit must be 1 to {MAX_PAGE}")));
        }
        Ok(self.store.keys().list(caller.tenant, caller.env, after, limit).await?)
    }

    /// Revokes a key of the caller's tenant, or of its environment where it has one. When this returns, the key
    /// and every token that stands on it open nothing. A repeat changes nothing.
    ///
    /// # Errors
    /// `forbidden` without `key:admin`; `not_found` where there is no such key, or it is another tenant's.
    pub async fn revoke(&self, caller: &Caller, id: KeyId) -> Result<()> {
        if !caller.scopes.contains(Scope::KeyAdmin) {
            return Err(lacks(Scope::KeyAdmin));
        }
        if !self.store.keys().revoke(caller.tenant, caller.env, id, Timestamp::now()).await? {
            return Err(Error::not_found(format!("key \"{id}\"")));
        }
        self.credentials.revoked(id);
        Ok(())
    }

    /// Makes a key that takes the place of another: with its name, environment, scopes, networks and, from now, its lifetime,
    /// but no longer than the caller's: one that takes its own place gets no more time, or who has it had it for ever.
    /// The old one ends after `overlap`, and with it every token that stands on it.
    ///
    /// # Errors
    /// `forbidden` without `key:admin`, or where the key may do more than the caller; `not_found` where there is no such
    /// key, or it is another tenant's; `conflict` where it has ended, or another takes its place already.
    pub async fn rotate(&self, caller: &Caller, id: KeyId, overlap: Duration) -> Result<NewKeyMade> {
        if !caller.scopes.contains(Scope::KeyAdmin) {
            return Err(lacks(Scope::KeyAdmin));
        }
        if !caller.principal.is_root() {
            return Err(minted());
        }
        if overlap > MAX_OVERLAP {
            let message = format!("both keys are good for at most {} seconds", MAX_OVERLAP.as_secs());
            return Err(Error::invalid("/overlap_s", message));
        }
        let is_its = |key: &Key| {
            key.kind == KeyKind::Tenant
                && key.tenant == caller.tenant
                && caller.env.is_none_or(|bound| key.env == Some(bound))
        };
        let old = self.store.keys().get(id).await?.filter(is_its);
        let old = old.ok_or_else(|| Error::not_found(format!("key \"{id}\"")))?;
        // Who is shown the new one has all that it may.
        if let Some(scope) = old.scopes.iter().find(|scope| !caller.scopes.contains(*scope)) {
            let message = format!("the key carries {scope}, which the credential lacks");
            return Err(Error::new(Code::Forbidden, message).field("/key").hint(
                "who is shown the new key may do all that it may: use a credential that carries as much",
            ));
        }
        let secret = credentials::generate(credentials::TENANT).map_err(Error::internal)?;
        let key = row(KeyKind::Tenant, old.tenant, old.env, old.name.clone(), old.scopes);
        let lasted = |ends: Timestamp| {
            let micros = ends.as_micros().saturating_sub(old.created.as_micros());
            Duration::from_micros(micros.try_into().unwrap_or_default())
        };
        let lifetime = old.expires.map(|ends| key.created.plus(lasted(ends)));
        let cidrs = self.networks(caller, old.cidrs.clone()).await?;
        let expires = lifetime.into_iter().chain(caller.expires).min();
        let key = Key { expires, cidrs, lineage: old.lineage, ..key };
        let ends = key.created.plus(overlap);
        if !self.store.keys().rotate(id, ends, &key, &hash(secret.expose())).await? {
            return Err(Error::new(Code::Conflict, "the key has ended, or another takes its place already")
                .field("/key")
                .hint("GET /v1/keys shows which; create a key where none is left"));
        }
        self.credentials.revoked(id);
        Ok(NewKeyMade { key, secret })
    }

    /// The networks of a key that the caller makes: no more than its own.
    async fn networks(&self, caller: &Caller, wanted: Option<Networks>) -> Result<Option<Networks>> {
        let maker = self.store.keys().get(caller.credential).await?;
        let both = match (maker.and_then(|key| key.cidrs), wanted) {
            (Some(own), Some(wanted)) => Some(own.intersection(&wanted)),
            (own, wanted) => wanted.or(own),
        };
        if both.as_ref().is_some_and(Networks::is_empty) {
            let message = "the credential is good in none of these networks";
            return Err(Error::new(Code::Forbidden, message).field("/cidrs").hint(
                "name networks that its maker is good in, or none: then it is good where its maker is",
            ));
        }
        Ok(both)
    }

    /// Makes another operator key in place of `old`, and writes it to its file; `None` where `old` is the operator's no more.
    /// Whatever happens, the file or the one beside it has the key that is good.
    ///
    /// # Errors
    /// Where the file or the database cannot be written.
    pub(crate) async fn reset_operator(
        &self,
        tenant: TenantId,
        old: KeyId,
    ) -> Result<Option<NewKeyMade>, OpenError> {
        let _turn = self.replacing.lock().await;
        // What somebody has died over may be the only copy of the key.
        self.settle_operator().await?;
        let secret = credentials::generate(credentials::OPERATOR).map_err(OpenError::Random)?;
        let next = self.next_file();
        private::write(&next, format!("{}\n", secret.expose()).as_bytes())?;
        let key = row(KeyKind::Operator, tenant, None, "operator".to_owned(), Scopes::all());
        let outcome = self.store.keys().replace_operator(Some(old), &key, &hash(secret.expose())).await;
        self.credentials.forget_all();
        let settled = self.settle_operator().await;
        match (outcome, settled) {
            (Ok(true), settled) => {
                // It is in the answer, and the next start knows the file beside.
                if let Err(error) = settled {
                    tracing::error!(%error, "the operator's new key is in operator.key.next alone");
                }
                Ok(Some(NewKeyMade { key, secret }))
            }
            // The answer of a commit may be lost: what is there counts.
            (Err(_), Ok(true)) => Ok(Some(NewKeyMade { key, secret })),
            (Err(source), _) => Err(self.failed(source)),
            (Ok(false), _) => Ok(None),
        }
    }

    /// Where a key is until it is known whether it is the operator's.
    fn next_file(&self) -> PathBuf {
        self.operator_file.with_file_name("operator.key.next")
    }

    /// Puts what lies beside the file in its place where that is the operator's key, else removes it; says which.
    async fn settle_operator(&self) -> Result<bool, OpenError> {
        let next = self.next_file();
        let Some(bytes) = private::read(&next)? else { return Ok(false) };
        let found = self.store.keys().by_hash(&hash(String::from_utf8_lossy(&bytes).trim())).await;
        let found = found.map_err(|source| self.failed(source))?;
        let is_good = found.is_some_and(|key| key.kind == KeyKind::Operator && key.is_live(Timestamp::now()));
        let settled =
            if is_good { std::fs::rename(&next, &self.operator_file) } else { std::fs::remove_file(&next) };
        settled.map_err(|source| OpenError::File { path: next, source })?;
        Ok(is_good)
    }

    /// Makes the operator key where the platform has none. One that lies in its file is taken: the program may
    /// have died between the file and the database, or the database is new and the file is not.
    pub(crate) async fn first_operator(&self, tenant: TenantId) -> Result<Option<Secret>, OpenError> {
        self.settle_operator().await?;
        // Read on every start, for that takes everyone else's rights to it.
        let kept = private::read(&self.operator_file)?;
        if self.store.keys().has_operator().await.map_err(|source| self.failed(source))? {
            return Ok(None);
        }
        let secret = match kept {
            None => credentials::generate(credentials::OPERATOR).map_err(OpenError::Random)?,
            Some(bytes) => String::from_utf8(bytes)
                .ok()
                .map(|text| text.trim().to_owned())
                .filter(|text| credentials::is_well_formed(credentials::OPERATOR, text))
                .map(Secret::new)
                .ok_or_else(|| OpenError::OperatorKey { path: self.operator_file.clone() })?,
        };
        self.install_operator(tenant, &secret).await?;
        Ok(Some(secret))
    }

    async fn install_operator(&self, tenant: TenantId, secret: &Secret) -> Result<(), OpenError> {
        private::write(&self.operator_file, format!("{}\n", secret.expose()).as_bytes())?;
        let key = row(KeyKind::Operator, tenant, None, "operator".to_owned(), Scopes::all());
        let done = self.store.keys().replace_operator(None, &key, &hash(secret.expose())).await;
        done.map_err(|source| self.failed(source))?;
        self.credentials.forget_all();
        Ok(())
    }

    fn failed(&self, source: store::Error) -> OpenError {
        OpenError::Store { place: "while the operator key is made".to_owned(), source }
    }
}

pub(crate) fn row(kind: KeyKind, tenant: TenantId, env: Option<EnvId>, name: String, scopes: Scopes) -> Key {
    let id = KeyId::new();
    Key {
        id,
        tenant,
        env,
        kind,
        name,
        scopes,
        created: Timestamp::now(),
        expires: None,
        revoked: None,
        last_used: None,
        cidrs: None,
        rotated_to: None,
        lineage: id,
        suspended: false,
    }
}

fn minted() -> Error {
    Error::new(Code::Forbidden, "a minted token cannot make keys")
        .hint("use a key with key:admin, or mint a credential with POST /v1/credentials")
}

fn lacks(scope: Scope) -> Error {
    Error::new(Code::Forbidden, format!("the credential lacks the scope {scope}"))
        .hint("use a credential that carries it, or ask who made this one")
}
