//! The seal, for parts of the platform that keep keys of their own in its tables.

use std::sync::Arc;

use kernel::{Error, Result};
use zeroize::Zeroizing;

use crate::vault::Vault;

/// Seals values with the platform's master key. Cheap to clone.
#[derive(Clone)]
pub struct Sealing {
    pub(crate) vault: Arc<Vault>,
}

impl Sealing {
    /// Seals `value` for `place`: it opens nowhere else.
    ///
    /// # Errors
    /// `internal` where there is no randomness.
    pub fn seal(&self, place: &str, value: &[u8]) -> Result<String> {
        self.vault.seal(&format!("part {place}"), value)
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// `internal` where the value was changed, moved, or sealed with another key.
    pub fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.vault.open(&format!("part {place}"), sealed).map_err(Error::internal)
    }
}
