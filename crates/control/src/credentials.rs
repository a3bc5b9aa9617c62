//! The form of keys, and the memory of credentials that were checked.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Caller, EnvId, KeyId, Networks, Result, Secret};
use sha2::{Digest, Sha256};
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use crate::remembered::Remembered;

/// What an operator's key begins with.
pub(crate) const OPERATOR: &str = "stead_op_";
/// What a tenant's key begins with.
pub(crate) const TENANT: &str = "stead_key_";

const CAPACITY: usize = 4_096;
/// How long a credential is not looked up. What was revoked meanwhile is forgotten before: see `news.rs`.
const LIFETIME: Duration = Duration::from_secs(10);

/// A new key: 32 random bytes behind a prefix that secret scanners can find.
pub(crate) fn generate(prefix: &str) -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

/// Whether a text has the form of a key with this prefix.
pub(crate) fn is_well_formed(prefix: &str, text: &str) -> bool {
    let Some(rest) = text.strip_prefix(prefix) else { return false };
    URL_SAFE_NO_PAD.decode(rest).is_ok_and(|bytes| bytes.len() == 32)
}

/// What is stored of a credential. A plain hash, for there is nothing to guess in 256 random bits; and a look-up
/// by it tells a clock nothing of the credential.
pub(crate) fn hash(credential: &str) -> [u8; 32] {
    Sha256::digest(credential).into()
}

/// So many are told of to whoever is slow to listen; who has missed one looks for itself.
const TOLD: usize = 256;

/// What has ended, as whoever works for a credential is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// This one may have.
    Credential(KeyId),
    /// Any may have.
    Anything,
}

/// Tells when credentials may have ended, from when it was asked for.
pub struct Revocations(pub(crate) broadcast::Receiver<Ended>);

impl Revocations {
    /// Comes when any may have, since it came last.
    pub async fn next(&mut self) {
        if self.0.recv().await == Err(RecvError::Closed) {
            std::future::pending::<()>().await;
        }
        // Many that end at once are one piece of news.
        while !matches!(self.0.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
    }
}

/// Credentials that were checked a moment ago, and the news of those that have ended.
pub(crate) struct Credentials {
    known: Remembered<[u8; 32], Verified>,
    told: broadcast::Sender<Ended>,
}

/// One of them, whichever door it is shown at.
#[derive(Clone)]
pub(crate) struct Verified {
    pub(crate) caller: Caller,
    /// What it stands on: itself, and for a minted one its key and all between.
    pub(crate) stands_on: Vec<KeyId>,
    /// Where it is good; anywhere, where nothing is said.
    pub(crate) source: Option<Networks>,
    /// The one address of the platform that it is good at; all of them, where nothing is said.
    pub(crate) audience: Option<Arc<str>>,
}

impl Credentials {
    pub(crate) fn new() -> Self {
        Self { known: Remembered::new(CAPACITY, LIFETIME), told: broadcast::channel(TOLD).0 }
    }

    pub(crate) fn memory(&self) -> &Remembered<[u8; 32], Verified> {
        &self.known
    }

    /// What ends from now on.
    pub(crate) fn told(&self) -> broadcast::Receiver<Ended> {
        self.told.subscribe()
    }

    /// To be called after a credential was revoked: drops it, and all that stand on it.
    pub(crate) fn revoked(&self, id: KeyId) {
        self.known.forget(|_, verified| verified.stands_on.contains(&id));
        // Nobody may be listening.
        let _ = self.told.send(Ended::Credential(id));
    }

    /// To be called after an environment has begun to go: drops the credentials bound to it.
    pub(crate) fn env_gone(&self, env: EnvId) {
        self.known.forget(|_, verified| verified.caller.env == Some(env));
    }

    /// Drops everything.
    pub(crate) fn forget_all(&self) {
        self.known.forget(|_, _| true);
        let _ = self.told.send(Ended::Anything);
    }
}
