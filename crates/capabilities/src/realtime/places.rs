//! Places in the log of changes, as clients hold them: sealed, so that they tell nothing of what others do.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Error, Result};

const NONCE: usize = 12;

/// A longer text is no place of ours.
const LONGEST: usize = 96;

/// How far somebody was told, as whom, and under which rules: for anybody else, and under others, it is no place to go on
/// from, for what was told and what was not depends on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the last change.
    pub seq: u64,
    /// How many releases with other tables there have been.
    pub rules: u64,
    /// Whom it was told, as a hash.
    pub who: u64,
}

/// Seals and opens places for as long as one log lives. Those of another log do not open.
pub(super) struct Places(Aes256Gcm);

impl Places {
    pub fn new() -> Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(Error::internal)?;
        Ok(Self(Aes256Gcm::new(&key.into())))
    }

    /// The place as a text. No two are the same.
    pub fn seal(&self, place: Place) -> Option<String> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let plain = [place.seq, place.rules, place.who].map(u64::to_be_bytes).concat();
        let sealed = self.0.encrypt(&Nonce::from(nonce), plain.as_slice()).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// A place of this log.
    pub fn open(&self, text: &str) -> Option<Place> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let nonce: [u8; NONCE] = nonce.try_into().ok()?;
        let opened = self.0.decrypt(&Nonce::from(nonce), sealed).ok()?;
        let (numbers, []) = opened.as_chunks::<8>() else { return None };
        let [seq, rules, who] = *<&[[u8; 8]; 3]>::try_from(numbers).ok()?;
        let [seq, rules, who] = [seq, rules, who].map(u64::from_be_bytes);
        Some(Place { seq, rules, who })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_opens_where_it_was_sealed_and_nowhere_else() {
        let (places, others) = (Places::new().unwrap(), Places::new().unwrap());
        let seven = Place { seq: 7, rules: 1, who: u64::MAX };
        let place = places.seal(seven).unwrap();
        assert_eq!(places.open(&place), Some(seven));
        assert_ne!(places.seal(seven).unwrap(), place);
        assert_eq!(others.open(&place), None);
        for bad in ["", "7", "AAAA", &place[1..], &format!("{place}A"), &"A".repeat(1_000)] {
            assert_eq!(places.open(bad), None, "{bad}");
        }
    }
}
