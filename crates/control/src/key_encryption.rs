//! What data keys are wrapped under: a key in a file of the data directory, or what the operator's command has.

use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::data_key::DataKey;
use crate::key_command::{CommandFailed, KeyCommand};
use crate::vault::{Master, Unsealable};
use crate::{OpenError, private};

/// What the command's key is called: which one it is, only the command knows.
pub(crate) const COMMAND: &str = "command";
const PURPOSE: &str = "steading data keys";
const NONCE: usize = 12;

/// A key-encryption key.
pub(crate) enum Kek {
    /// It lies in a file.
    File { id: String, key: Zeroizing<[u8; 32]> },
    /// It never is in this process.
    Command(KeyCommand),
}

/// Why a data key is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwrappable {
    #[error("a data key does not open: it was changed, or belongs elsewhere")]
    Changed,
    #[error("a data key is wrapped under the key-encryption key {0}, which this gateway does not have")]
    Other(String),
    #[error("the command that keys.command names gave no key")]
    Command(#[source] CommandFailed),
}

impl From<Unsealable> for Unwrappable {
    fn from(_: Unsealable) -> Self {
        Unwrappable::Changed
    }
}

impl From<CommandFailed> for Unwrappable {
    fn from(failed: CommandFailed) -> Self {
        Unwrappable::Command(failed)
    }
}

impl Kek {
    /// The key of a file.
    pub(crate) fn of(master: &Master) -> Self {
        Kek::File { id: master.fingerprint(), key: master.derive(PURPOSE) }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Kek::File { id, .. } => id,
            Kek::Command(_) => COMMAND,
        }
    }

    /// The data key as its row has it.
    pub(crate) async fn wrap(&self, key: &DataKey) -> Result<String, Unwrappable> {
        let wrapped = match self {
            Kek::File { id, key: kek } => {
                let mut nonce = [0; NONCE];
                getrandom::fill(&mut nonce).map_err(|_| Unwrappable::Changed)?;
                let bound = bound(id, key.id(), key.owner());
                let sealed = Aes256Gcm::new((&**kek).into())
                    .encrypt(&Nonce::from(nonce), Payload { msg: key.bytes(), aad: bound.as_bytes() })
                    .map_err(|_| Unwrappable::Changed)?;
                URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())
            }
            Kek::Command(command) => command.wrap(key.bytes()).await?,
        };
        // The command is not told whose a key is; the tag is.
        Ok(format!("{}.{wrapped}", key.tag()))
    }

    /// The data key of a row.
    pub(crate) async fn unwrap(&self, row: &store::DataKeyRow) -> Result<DataKey, Unwrappable> {
        if row.kek != self.id() {
            return Err(Unwrappable::Other(row.kek.clone()));
        }
        let (tag, wrapped) = row.wrapped.split_once('.').ok_or(Unwrappable::Changed)?;
        let key = match self {
            Kek::File { id, key: kek } => {
                let bytes = URL_SAFE_NO_PAD.decode(wrapped).map_err(|_| Unwrappable::Changed)?;
                let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(Unwrappable::Changed)?;
                let bound = bound(id, &row.id, &row.owner);
                let opened = Aes256Gcm::new((&**kek).into())
                    .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: bound.as_bytes() })
                    .map(Zeroizing::new)
                    .map_err(|_| Unwrappable::Changed)?;
                Zeroizing::new(<[u8; 32]>::try_from(opened.as_slice()).map_err(|_| Unwrappable::Changed)?)
            }
            Kek::Command(command) => command.unwrap(wrapped).await?,
        };
        Ok(DataKey::known(&row.id, &row.owner, key, tag)?)
    }
}

fn bound(kek: &str, id: &str, owner: &str) -> String {
    format!("steading data key\n{kek}\n{id}\n{owner}")
}

/// Where the key of a file lies, and beside it the one that follows while it is put in force.
pub(crate) struct KekFile {
    path: PathBuf,
    next: PathBuf,
}

impl KekFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { next: path.with_extension("next"), path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The key that lies there, whichever it is.
    pub(crate) fn read(&self) -> Result<Option<Master>, OpenError> {
        Master::read(&self.path)
    }

    /// The key of this name. Where it lies beside the file, who put it in force died before the file was replaced, and it is
    /// replaced here.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Master>, OpenError> {
        let there = self.read()?;
        if there.as_ref().is_some_and(|master| master.fingerprint() == id) {
            return Ok(there);
        }
        match Master::read(&self.next)? {
            Some(next) if next.fingerprint() == id => {
                self.follow()?;
                Ok(Some(next))
            }
            _ => Ok(None),
        }
    }

    /// The key that follows, beside the one there is: the one that lies there from an attempt of which nobody knows how it came
    /// out, else a new one.
    pub(crate) fn prepare(&self) -> Result<Master, OpenError> {
        match Master::read(&self.next)? {
            Some(next) => Ok(next),
            None => Master::make(&self.next),
        }
    }

    /// Puts the key that follows in place of the one there is, once nothing is wrapped under that.
    pub(crate) fn follow(&self) -> Result<(), OpenError> {
        private::replace(&self.next, &self.path)
    }

    /// Drops the key that follows, where nothing is wrapped under it.
    pub(crate) fn forget_next(&self) {
        if let Err(error) = std::fs::remove_file(&self.next) {
            tracing::warn!(error = %error, "keys/master.next, which nothing needs, could not be removed");
        }
    }
}
