//! The seal, for parts of the platform that keep keys of their own in its tables.

use std::sync::Arc;

use kernel::{Error, Result};
use zeroize::Zeroizing;

use crate::data_keys::DataKeys;

/// Seals values with the platform's own data key. Cheap to clone.
#[derive(Clone)]
pub struct Sealing {
    pub(crate) keys: Arc<DataKeys>,
}

impl Sealing {
    /// Seals `value` for `place`: it opens nowhere else.
    ///
    /// # Errors
    /// `internal` where there is no randomness.
    pub fn seal(&self, place: &str, value: &[u8]) -> Result<String> {
        self.keys.platform().seal(&format!("part {place}"), value)
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// `internal` where the value was changed, moved, or sealed with another key.
    pub fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.keys.open_platform(&format!("part {place}"), sealed).map_err(Error::internal)
    }
}
