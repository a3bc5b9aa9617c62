//! Keys: made, listed, revoked. A key is shown once and only its hash is stored.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernel::{
    Caller, Code, EnvId, Error, KeyId, Principal, Result, Scope, Scopes, Secret, TenantId, Timestamp,
};
use store::{Key, KeyKind, Store};

use crate::credentials::{self, Credentials, hash};
use crate::environments::check_text;
use crate::{OpenError, private};

const MAX_NAME: usize = 100;
const MAX_PAGE: u32 = 100;

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
        if !matches!(caller.principal, Principal::Operator | Principal::Key) {
            return Err(Error::new(Code::Forbidden, "a minted token cannot make keys"));
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
            return Err(Error::invalid("/scopes", "a key needs at least one scope"));
        }
        let secret = credentials::generate(credentials::TENANT).map_err(Error::internal)?;
        let key = row(KeyKind::Tenant, caller.tenant, env, new.name, scopes);
        let expires = new.expires_in.map(|after| key.created.plus(after));
        if expires.is_some_and(|expires| expires <= key.created) {
            return Err(Error::invalid("/expires_in", "a key must live for a while"));
        }
        // A key that ends makes none that outlives it.
        let expires = expires.into_iter().chain(caller.expires).min();
        let key = Key { expires, ..key };
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

    /// Makes another operator key in place of all there were, and writes it to its file. For who has lost it.
    ///
    /// # Errors
    /// Where the file or the database cannot be written.
    pub(crate) async fn reset_operator(&self, tenant: TenantId) -> Result<Secret, OpenError> {
        let secret = credentials::generate(credentials::OPERATOR).map_err(OpenError::Random)?;
        self.install_operator(tenant, &secret).await?;
        Ok(secret)
    }

    /// Makes the operator key where the platform has none. One that lies in its file is taken: the program may
    /// have died between the file and the database, or the database is new and the file is not.
    pub(crate) async fn first_operator(&self, tenant: TenantId) -> Result<Option<Secret>, OpenError> {
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
        let done = self.store.keys().replace_operator(&key, &hash(secret.expose())).await;
        done.map_err(|source| self.failed(source))?;
        self.credentials.forget_all();
        Ok(())
    }

    fn failed(&self, source: store::Error) -> OpenError {
        OpenError::Store { place: "while the operator key is made".to_owned(), source }
    }
}

fn row(kind: KeyKind, tenant: TenantId, env: Option<EnvId>, name: String, scopes: Scopes) -> Key {
    Key {
        id: KeyId::new(),
        tenant,
        env,
        kind,
        name,
        scopes,
        created: Timestamp::now(),
        expires: None,
        revoked: None,
        last_used: None,
    }
}

fn lacks(scope: Scope) -> Error {
    Error::new(Code::Forbidden, format!("the credential lacks the scope {scope}"))
        .hint("use a credential that carries it, or ask who made this one")
}
