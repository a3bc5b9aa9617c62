//! Certificates out of files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use kernel::{Code, Error, Result};

use super::Chain;

/// The files, and what they held when they were last read.
pub(super) struct CertificateFiles {
    pairs: Vec<(PathBuf, PathBuf)>,
    directory: Option<PathBuf>,
    read: RwLock<Read>,
}

#[derive(Default)]
struct Read {
    chains: Vec<Chain>,
    stamps: Vec<(PathBuf, SystemTime)>,
}

impl CertificateFiles {
    /// Reads all of them.
    ///
    /// # Errors
    /// `invalid_input` with the path of the first that cannot be used.
    pub(super) fn read(pairs: Vec<(PathBuf, PathBuf)>, directory: Option<PathBuf>) -> Result<Self> {
        let files = Self { pairs, directory, read: RwLock::default() };
        let all = files.all()?;
        let read = Read { stamps: stamps(&all), chains: chains(&all)? };
        *files.read.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(files)
    }

    /// The certificate for a host; one that names it before one with `*.`.
    pub(super) fn find(&self, host: &str) -> Option<Chain> {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        let named = read.chains.iter().find(|chain| chain.names.iter().any(|name| name == host));
        named.or_else(|| read.chains.iter().find(|chain| chain.covers(host))).cloned()
    }

    /// Reads them again where one has changed; whether it did. What cannot be used is said, and what was there stays.
    pub(super) fn reread(&self) -> bool {
        let Ok(all) = self.all() else { return false };
        let now = stamps(&all);
        if now == self.read.read().unwrap_or_else(PoisonError::into_inner).stamps {
            return false;
        }
        match chains(&all) {
            Ok(chains) => {
                *self.read.write().unwrap_or_else(PoisonError::into_inner) = Read { chains, stamps: now };
                tracing::info!("certificates were read again from their files");
                true
            }
            Err(error) => {
                tracing::warn!(
                    error = error.chain(),
                    "changed certificates cannot be used, the earlier ones stay"
                );
                self.read.write().unwrap_or_else(PoisonError::into_inner).stamps = now;
                false
            }
        }
    }

    fn all(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut all = self.pairs.clone();
        if let Some(directory) = &self.directory {
            let entries =
                std::fs::read_dir(directory).map_err(|error| unusable(directory, error.to_string()))?;
            let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            found.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
            found.sort();
            all.extend(found.into_iter().map(|path| (path.clone(), path.with_extension("key"))));
        }
        Ok(all)
    }
}

fn chains(all: &[(PathBuf, PathBuf)]) -> Result<Vec<Chain>> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| unusable(path, error.to_string()));
    let pair = |(chain, key): &(PathBuf, PathBuf)| {
        let (chain_pem, key_pem) = (read(chain)?, zeroize::Zeroizing::new(read(key)?));
        Chain::read(&chain_pem, &key_pem).map_err(|error| {
            let at_key = error.pointer() == Some("/key");
            unusable(if at_key { key } else { chain }, error.message())
        })
    };
    all.iter().map(pair).collect()
}

fn stamps(all: &[(PathBuf, PathBuf)]) -> Vec<(PathBuf, SystemTime)> {
    let paths = all.iter().flat_map(|(chain, key)| [chain, key]);
    let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|found| found.modified()).ok();
    paths.filter_map(|path| Some((path.clone(), changed(path)?))).collect()
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidInput, format!("the certificate file {} cannot be used: {why}", path.display()))
        .hint("see tls.cert_file, tls.key_file and tls.cert_dir")
}
