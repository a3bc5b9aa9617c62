//! Clients that act for users, as settings.

use super::Error;

/// The longest that a consent lasts: a year.
const MAX_CONSENT_S: u64 = 366 * 24 * 60 * 60;

/// Clients that act for users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth {
    /// Whether clients register themselves.
    pub registration: bool,
    /// Whether a client may be one that a document describes, which is fetched.
    pub documents: bool,
    /// How long a user's consent lasts, in seconds.
    pub consent_s: u64,
}

impl Default for OAuth {
    fn default() -> Self {
        Self { registration: true, documents: true, consent_s: 30 * 24 * 60 * 60 }
    }
}

impl OAuth {
    /// Refuses a consent that lasts for no time, or for ever.
    pub fn check(&self) -> Result<(), Error> {
        let (key, of) = ("oauth.consent_s", "");
        if self.consent_s < 60 {
            return Err(Error::Least { key, least: 60, of });
        }
        if self.consent_s > MAX_CONSENT_S {
            return Err(Error::Most { key, most: MAX_CONSENT_S });
        }
        Ok(())
    }
}
