//! One data key: what is sealed with it opens for its owner, at its place, and nowhere else.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::vault::{Unsealable, mac, mac_begins_with};

/// What a value begins with that is sealed with a data key; its id comes next.
const FORM: &str = "v2";
const NONCE: usize = 12;
const TAG: usize = 16;

/// A data key. It is wiped from memory when it is dropped.
pub(crate) struct DataKey {
    id: String,
    owner: String,
    key: Zeroizing<[u8; 32]>,
}

impl DataKey {
    /// A new one of this owner.
    pub(crate) fn make(owner: &str) -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice())?;
        Self::with(owner, key)
    }

    /// A new one of this owner, with these bytes.
    pub(crate) fn with(owner: &str, key: Zeroizing<[u8; 32]>) -> Result<Self, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(Self { id: format!("dk_{}", URL_SAFE_NO_PAD.encode(id)), owner: owner.to_owned(), key })
    }

    /// The one of this id and owner, where `tag` says that these are its bytes: a key that was put into another row is not one.
    pub(crate) fn known(
        id: &str,
        owner: &str,
        key: Zeroizing<[u8; 32]>,
        tag: &str,
    ) -> Result<Self, Unsealable> {
        let tag = URL_SAFE_NO_PAD.decode(tag).ok().filter(|tag| tag.len() == TAG).ok_or(Unsealable)?;
        if !mac_begins_with(&key, &parts(id, owner), &tag) {
            return Err(Unsealable);
        }
        Ok(Self { id: id.to_owned(), owner: owner.to_owned(), key })
    }

    /// Tells whose these bytes are, to whoever has them.
    pub(crate) fn tag(&self) -> String {
        URL_SAFE_NO_PAD.encode(&mac(&self.key, &parts(&self.id, &self.owner))[..TAG])
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// Seals `value` for `place`, which is not kept: it must be said again to open it.
    pub(crate) fn seal(&self, place: &str, value: &[u8]) -> kernel::Result<String> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(kernel::Error::internal)?;
        let bound = self.bound(place);
        let sealed = Aes256Gcm::new((&*self.key).into())
            .encrypt(&Nonce::from(nonce), Payload { msg: value, aad: &bound })
            .map_err(|_| kernel::Error::internal("a value cannot be sealed"))?;
        let sealed = URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat());
        Ok(format!("{FORM}.{}.{sealed}", self.id))
    }

    /// Opens what it has sealed for `place`.
    pub(crate) fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let text = sealed.strip_prefix(FORM).and_then(|rest| rest.strip_prefix('.')).ok_or(Unsealable)?;
        let (id, text) = text.split_once('.').ok_or(Unsealable)?;
        if id != self.id {
            return Err(Unsealable);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unsealable)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(Unsealable)?;
        let bound = self.bound(place);
        Aes256Gcm::new((&*self.key).into())
            .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: &bound })
            .map(Zeroizing::new)
            .map_err(|_| Unsealable)
    }

    /// What a sealed value is bound to: the form, the key, whose it is, and the place. Each part with its length, so that none
    /// slides into another.
    fn bound(&self, place: &str) -> Vec<u8> {
        let mut bound = Vec::new();
        for part in [FORM, &self.id, &self.owner, place] {
            bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bound.extend_from_slice(part.as_bytes());
        }
        bound
    }
}

fn parts<'a>(id: &'a str, owner: &'a str) -> [&'a [u8]; 3] {
    [b"steading data key", id.as_bytes(), owner.as_bytes()]
}

/// The id of the data key that a value is sealed with; `None` for one from before there were any.
pub(crate) fn key_of(sealed: &str) -> Option<&str> {
    let (form, rest) = sealed.split_once('.')?;
    let (id, _) = rest.split_once('.')?;
    (form == FORM).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_at_its_place_with_its_key_and_for_its_owner_only() {
        let key = DataKey::make("acme").unwrap();
        let sealed = key.seal("here", b"hunter2").unwrap();
        assert_eq!(key.open("here", &sealed).unwrap().as_slice(), b"hunter2");
        assert_eq!(key_of(&sealed), Some(key.id()));
        assert_ne!(sealed, key.seal("here", b"hunter2").unwrap());
        assert!(key.open("there", &sealed).is_err());
        let same =
            |id: &str, owner: &str| DataKey { id: id.into(), owner: owner.into(), key: key.key.clone() };
        assert!(same(key.id(), "acme").open("here", &sealed).is_ok());
        assert!(same(key.id(), "other").open("here", &sealed).is_err());
        let renamed = sealed.replace(key.id(), "dk_other");
        assert!(same("dk_other", "acme").open("here", &renamed).is_err(), "its name is bound too");
        assert!(DataKey::make("acme").unwrap().open("here", &sealed).is_err());
    }

    #[test]
    fn no_changed_byte_and_no_missing_one_goes_unseen() {
        let key = DataKey::make("acme").unwrap();
        let sealed = key.seal("here", b"x").unwrap();
        let (before, text) = sealed.rsplit_once('.').unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        let open = |bytes: &[u8]| key.open("here", &format!("{before}.{}", URL_SAFE_NO_PAD.encode(bytes)));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(open(&changed).is_err(), "byte {at}");
            assert!(open(&bytes[..at]).is_err(), "{at} bytes");
        }
        for broken in
            ["", "v2", "v2.", "v2..", "v1.AAAA", &format!("v2.{}.", key.id()), &format!("{before}.!")]
        {
            assert!(key.open("here", broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_key_in_another_row_is_not_one() {
        let key = DataKey::make("acme").unwrap();
        let known = |id: &str, owner: &str, tag: &str| DataKey::known(id, owner, key.key.clone(), tag);
        assert!(known(key.id(), "acme", &key.tag()).is_ok());
        assert!(known("dk_other", "acme", &key.tag()).is_err());
        assert!(known(key.id(), "other", &key.tag()).is_err());
        for tag in ["", "AAAA", "!"] {
            assert!(known(key.id(), "acme", tag).is_err(), "{tag}");
        }
    }
}
