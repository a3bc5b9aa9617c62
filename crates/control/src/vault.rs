//! The keys of 32 bytes that others are derived from, and what was sealed before there were data keys.

use std::path::Path;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{OpenError, private};

/// What a sealed value begins with; another way of sealing would begin otherwise.
const FORM: &str = "v1.";
const NONCE: usize = 12;

/// A sealed value does not open: it was changed, moved, or sealed with another key.
#[derive(Debug, thiserror::Error)]
#[error("a sealed value does not open: it was changed, or belongs elsewhere")]
pub(crate) struct Unsealable;

/// 32 random bytes: those of a key-encryption key in a file of mode 0600, or those that the platform's own keys are derived from.
pub(crate) struct Master(Zeroizing<[u8; 32]>);

impl Master {
    pub(crate) fn of(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// Reads the master key, `None` where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, OpenError> {
        let Some(bytes) = private::read(path)?.map(Zeroizing::new) else { return Ok(None) };
        let bytes: [u8; 32] =
            bytes.as_slice().try_into().map_err(|_| OpenError::MasterMalformed { path: path.to_owned() })?;
        Ok(Some(Self(Zeroizing::new(bytes))))
    }

    /// Makes a master key and writes it.
    pub(crate) fn make(path: &Path) -> Result<Self, OpenError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(OpenError::Random)?;
        private::write(path, bytes.as_slice())?;
        Ok(Self(bytes))
    }

    /// The key for one purpose: HMAC-SHA256 as a pseudo-random function of its name (NIST SP 800-108r1 §4.1).
    pub(crate) fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(mac(&self.0, &[purpose.as_bytes()]))
    }

    /// Tells this key from another and says nothing of it.
    pub(crate) fn fingerprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.derive("steading fingerprint").as_slice())
    }
}

/// HMAC-SHA256 (RFC 2104) of the parts, each with its length before it.
pub(crate) fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    begun(key, parts).finalize().into_bytes().into()
}

/// Whether `tag` is the beginning of the parts' [`mac`], compared in constant time.
pub(crate) fn mac_begins_with(key: &[u8; 32], parts: &[&[u8]], tag: &[u8]) -> bool {
    begun(key, parts).verify_truncated_left(tag).is_ok()
}

fn begun(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    // A key shorter than a block is padded with zeros (RFC 2104 §2).
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

/// Opens what was sealed for the place where it is kept, before there were data keys (AES-256-GCM, NIST SP 800-38D).
pub(crate) struct Vault(Aes256Gcm);

impl Vault {
    pub(crate) fn new(master: &Master) -> Self {
        Self(Aes256Gcm::new((&*master.derive("steading seal")).into()))
    }

    /// Seals `value` as it was done then.
    #[cfg(test)]
    pub(crate) fn seal(&self, place: &str, value: &[u8]) -> kernel::Result<String> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(kernel::Error::internal)?;
        let sealed = self
            .0
            .encrypt(&Nonce::from(nonce), Payload { msg: value, aad: place.as_bytes() })
            .map_err(|_| kernel::Error::internal("a value cannot be sealed"))?;
        Ok(format!("{FORM}{}", URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())))
    }

    /// Opens what was sealed for `place`.
    pub(crate) fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let text = sealed.strip_prefix(FORM).ok_or(Unsealable)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unsealable)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(Unsealable)?;
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        self.0.decrypt(&Nonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| Unsealable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(byte: u8) -> Vault {
        Vault::new(&Master(Zeroizing::new([byte; 32])))
    }

    #[test]
    fn a_value_opens_at_its_own_place_with_its_own_key_only() {
        let sealed = vault(1).seal("here", b"hunter2").unwrap();
        assert_eq!(vault(1).open("here", &sealed).unwrap().as_slice(), b"hunter2");
        assert!(vault(1).open("there", &sealed).is_err());
        assert!(vault(2).open("here", &sealed).is_err());
        assert!(!sealed.contains("hunter2"));
        assert_ne!(sealed, vault(1).seal("here", b"hunter2").unwrap());
    }

    #[test]
    fn no_changed_byte_goes_unseen() {
        let sealed = vault(1).seal("here", b"x").unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&sealed[FORM.len()..]).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = format!("{FORM}{}", URL_SAFE_NO_PAD.encode(changed));
            assert!(vault(1).open("here", &changed).is_err(), "byte {at}");
        }
        for broken in ["", "v1.", "v1.AAAA", "v2.AAAA", "v1.!"] {
            assert!(vault(1).open("here", broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn parts_cannot_slide_into_each_other() {
        assert_ne!(mac(&[0; 32], &[b"ab", b"c"]), mac(&[0; 32], &[b"a", b"bc"]));
        let tag = mac(&[0; 32], &[b"ab"]);
        assert!(mac_begins_with(&[0; 32], &[b"ab"], &tag[..16]));
        assert!(!mac_begins_with(&[0; 32], &[b"ac"], &tag[..16]));
        assert!(!mac_begins_with(&[1; 32], &[b"ab"], &tag[..16]));
    }
}
