//! An environment's secrets: written by anyone who may, read by the runtime alone.

use std::str::FromStr;
use std::sync::Arc;

use kernel::{Code, Env, EnvId, Error, Result, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use store::{SealedSecret, SecretRow, Store};

use crate::data_keys::DataKeys;

const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 64 * 1024;
/// How many secrets of an environment may be bound to hosts.
const MAX_EGRESS: usize = 64;
/// How often it is tried to seal a value.
const ATTEMPTS: usize = 2;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// Delivered to the environment's functions.
    Function,
    /// Put into requests to the hosts it is bound to; it never enters a sandbox.
    Egress,
}

impl SecretKind {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SecretKind::Function => "function",
            SecretKind::Egress => "egress",
        }
    }
}

impl FromStr for SecretKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [SecretKind::Function, SecretKind::Egress]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a kind of secret"))
    }
}

/// What may be known of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: SecretKind,
    /// How many times it was set.
    pub version: i64,
    /// When it was last set.
    pub updated_at: Timestamp,
}

/// A secret that goes out to its hosts alone.
#[derive(Debug, Clone)]
pub struct EgressSecret {
    /// Its name.
    pub name: String,
    /// The hosts.
    pub hosts: Vec<String>,
    /// Its value.
    pub value: Secret,
}

/// What is sealed of one: its hosts cannot be changed without its value.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound<'a> {
    hosts: Vec<String>,
    value: std::borrow::Cow<'a, str>,
}

/// The secrets of all environments, sealed.
pub struct Secrets {
    pub(crate) store: Store,
    pub(crate) keys: Arc<DataKeys>,
}

impl Secrets {
    /// Sets a secret for the environment's functions. Its name is `[A-Z_][A-Z0-9_]*`, at most 64 characters; its value at
    /// most 64 KiB.
    ///
    /// # Errors
    /// `invalid_input` for the name; `too_large` for the value; `not_found` where the environment is going.
    pub async fn set(&self, env: &Env, name: &str, value: &Secret) -> Result<SecretInfo> {
        check(name, value)?;
        self.put(env, name, SecretKind::Function, value.expose()).await
    }

    /// Sets a secret that goes out to `hosts` alone.
    ///
    /// # Errors
    /// As [`Secrets::set`]; `quota_exceeded` where there are too many such.
    pub async fn set_egress(
        &self,
        env: &Env,
        name: &str,
        hosts: Vec<String>,
        value: &Secret,
    ) -> Result<SecretInfo> {
        check(name, value)?;
        let there = self.names(env).await?;
        let others = there.iter().filter(|info| info.kind == SecretKind::Egress && info.name != name).count();
        if others >= MAX_EGRESS {
            let message = format!("{MAX_EGRESS} secrets are bound to hosts, which is all there may be");
            return Err(Error::new(Code::QuotaExceeded, message).hint("delete one that is not needed"));
        }
        let bound = Bound { hosts, value: value.expose().into() };
        let sealed = Secret::new(serde_json::to_string(&bound).map_err(Error::internal)?);
        self.put(env, name, SecretKind::Egress, sealed.expose()).await
    }

    async fn put(&self, env: &Env, name: &str, kind: SecretKind, value: &str) -> Result<SecretInfo> {
        // The data key may have been followed by another since it was remembered.
        for _ in 0..ATTEMPTS {
            let key = self.keys.current(env.tenant()).await?;
            let secret = SealedSecret {
                name: name.to_owned(),
                kind: kind.as_str().to_owned(),
                sealed: key.seal(&place(env.id(), name, kind), value.as_bytes())?,
                data_key: Some(key.id().to_owned()),
            };
            if let Some(row) = self.store.secrets().set(env.id(), &secret, Timestamp::now()).await? {
                return info(row);
            }
            self.keys.forget(env.tenant());
        }
        Err(Error::not_found(format!("environment \"{}\"", env.id())))
    }

    /// What may be known of the environment's secrets, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn names(&self, env: &Env) -> Result<Vec<SecretInfo>> {
        self.store.secrets().list(env.id()).await?.into_iter().map(info).collect()
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// `not_found` where there is none of that name.
    pub async fn delete(&self, env: &Env, name: &str) -> Result<()> {
        check_name(name)?;
        if self.store.secrets().delete(env.id(), name).await? {
            return Ok(());
        }
        Err(Error::not_found(format!("secret {name:?}")))
    }

    /// The value of a secret for functions, for the one place that uses it. No tool gives it out.
    ///
    /// # Errors
    /// `not_found` where there is none of that name, or it is bound to hosts; `internal` where the stored value was changed
    /// or moved.
    pub async fn reveal(&self, env: &Env, name: &str) -> Result<Secret> {
        check_name(name)?;
        let found = self.open(env, name, SecretKind::Function).await?;
        found.ok_or_else(|| Error::not_found(format!("secret {name:?}")))
    }

    /// The secrets that are bound to hosts, for the way out of sandboxes.
    ///
    /// # Errors
    /// Where the database fails; `internal` where a stored value was changed or moved.
    pub async fn egress(&self, env: &Env) -> Result<Vec<EgressSecret>> {
        let mut all = Vec::new();
        for SecretInfo { name, kind, .. } in self.names(env).await? {
            if kind != SecretKind::Egress {
                continue;
            }
            // It may have gone, or become another, since.
            let Some(opened) = self.open(env, &name, SecretKind::Egress).await? else { continue };
            let bound: Bound<'_> = serde_json::from_str(opened.expose())
                .map_err(|_| Error::internal("a secret for hosts does not name them"))?;
            all.push(EgressSecret { name, hosts: bound.hosts, value: Secret::new(bound.value) });
        }
        Ok(all)
    }

    async fn open(&self, env: &Env, name: &str, kind: SecretKind) -> Result<Option<Secret>> {
        let found = self.store.secrets().sealed(env.id(), name).await?;
        let Some(secret) = found.filter(|secret| secret.kind == kind.as_str()) else { return Ok(None) };
        let place = place(env.id(), name, kind);
        let value = self.keys.open_value(env.tenant(), &place, &secret.sealed).await?;
        let text = std::str::from_utf8(&value).map_err(|_| Error::internal("a secret is not text"))?;
        Ok(Some(Secret::new(text)))
    }
}

/// What a sealed value is bound to: it opens for no other environment, name or kind.
pub(crate) fn place(env: EnvId, name: &str, kind: SecretKind) -> String {
    format!("secret {env} {name} {}", kind.as_str())
}

fn info(row: SecretRow) -> Result<SecretInfo> {
    let kind = row.kind.parse::<SecretKind>().map_err(Error::internal)?;
    Ok(SecretInfo { name: row.name, kind, version: row.version, updated_at: row.updated })
}

fn check(name: &str, value: &Secret) -> Result<()> {
    check_name(name)?;
    let length = value.expose().len();
    if length > MAX_VALUE {
        let message = format!("the value has {length} bytes, {MAX_VALUE} are allowed");
        return Err(Error::new(Code::TooLarge, message).field("/value"));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let good = (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    if good {
        return Ok(());
    }
    let message = format!(
        "a secret's name is made of A-Z, 0-9 and _, at most {MAX_NAME}, and does not begin with a digit"
    );
    Err(Error::invalid("/name", message))
}
