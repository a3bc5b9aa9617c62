//! The form of keys, and the memory of credentials that were checked.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Caller, EnvId, KeyId, Result, Secret, Surface};
use sha2::{Digest, Sha256};

use crate::remembered::Remembered;

/// What an operator's key begins with.
pub(crate) const OPERATOR: &str = "stead_op_";
/// What a tenant's key begins with.
pub(crate) const TENANT: &str = "stead_key_";

const CAPACITY: usize = 4_096;
/// Other nodes' revocations are seen after this; this node's at once.
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

/// Credentials that were checked a moment ago.
pub(crate) struct Credentials(Remembered<[u8; 32], Verified>);

/// One of them, as a caller for each door.
#[derive(Clone)]
pub(crate) struct Verified {
    mcp: Arc<Caller>,
    http: Arc<Caller>,
    /// The key that a minted token stands on.
    parent: Option<KeyId>,
}

impl Verified {
    pub(crate) fn new(caller: Caller, parent: Option<KeyId>) -> Self {
        let http = Arc::new(Caller { surface: Surface::Http, ..caller.clone() });
        Self { http, mcp: Arc::new(Caller { surface: Surface::Mcp, ..caller }), parent }
    }

    pub(crate) fn caller(&self, surface: Surface) -> &Arc<Caller> {
        match surface {
            Surface::Mcp => &self.mcp,
            Surface::Http => &self.http,
        }
    }
}

impl Credentials {
    pub(crate) fn new() -> Self {
        Self(Remembered::new(CAPACITY, LIFETIME))
    }

    pub(crate) fn memory(&self) -> &Remembered<[u8; 32], Verified> {
        &self.0
    }

    /// To be called after a credential was revoked: drops it, and the tokens that stand on it.
    pub(crate) fn revoked(&self, id: KeyId) {
        self.0.forget(|_, verified| verified.http.credential == id || verified.parent == Some(id));
    }

    /// To be called after an environment has begun to go: drops the credentials bound to it.
    pub(crate) fn env_gone(&self, env: EnvId) {
        self.0.forget(|_, verified| verified.http.env == Some(env));
    }

    /// Drops everything.
    pub(crate) fn forget_all(&self) {
        self.0.forget(|_, _| true);
    }
}
