//! Places in the log of changes, as clients hold them: sealed, so that they tell nothing of what others do.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Error, Result};

const NONCE: usize = 12;

/// A longer text is no place of ours.
const LONGEST: usize = 64;

/// Seals and opens places for as long as one log lives. Those of another log do not open.
pub(super) struct Places(Aes256Gcm);

impl Places {
    pub fn new() -> Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(Error::internal)?;
        Ok(Self(Aes256Gcm::new(&key.into())))
    }

    /// The place after the change with this number. No two texts are the same.
    pub fn seal(&self, seq: u64) -> Option<String> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let sealed = self.0.encrypt(&Nonce::from(nonce), seq.to_be_bytes().as_slice()).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// The number of a place of this log.
    pub fn open(&self, text: &str) -> Option<u64> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let nonce: [u8; NONCE] = nonce.try_into().ok()?;
        let opened = self.0.decrypt(&Nonce::from(nonce), sealed).ok()?;
        Some(u64::from_be_bytes(opened.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_opens_where_it_was_sealed_and_nowhere_else() {
        let (places, others) = (Places::new().unwrap(), Places::new().unwrap());
        let place = places.seal(7).unwrap();
        assert_eq!(places.open(&place), Some(7));
        assert_ne!(places.seal(7).unwrap(), place);
        assert_eq!(others.open(&place), None);
        for bad in ["", "7", "AAAA", &place[1..], &format!("{place}A"), &"A".repeat(1_000)] {
            assert_eq!(places.open(bad), None, "{bad}");
        }
    }
}
