//! Confirmation tokens: what a dry run hands out, and what the deed asks for.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Code, Error, Result, Timestamp};
use sha2::{Digest, Sha256};
use store::Store;
use zeroize::Zeroizing;

use crate::vault::{Master, mac, mac_begins_with};

const LIFETIME: Duration = Duration::from_secs(600);
const PREFIX: &str = "confirm_";
const DIGEST: usize = 16;
const TAG: usize = 16;

/// What a dry run hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// To be given back as `confirm`.
    pub token: String,
    /// Until when it counts: ten minutes.
    pub expires: Timestamp,
}

/// Issues and redeems confirmation tokens. A token stands for one action on one subject in one state, for ten
/// minutes, once.
pub struct Confirmations {
    key: Zeroizing<[u8; 32]>,
    store: Store,
}

impl Confirmations {
    pub(crate) fn new(master: &Master, store: Store) -> Self {
        Self { key: master.derive("steading confirm"), store }
    }

    /// A token for `action` (the tool's name) on `subject` (an id, and whose) while `state` (whatever would be
    /// lost) is as it is.
    #[must_use]
    pub fn issue(&self, action: &str, subject: &str, state: &[u8]) -> Confirmation {
        let expires = Timestamp::now().plus(LIFETIME);
        let digest = short_digest(state);
        let until = expires.as_micros().to_be_bytes();
        let tag = mac(&self.key, &[action.as_bytes(), subject.as_bytes(), &digest, &until]);
        let bytes = [&until[..], &digest[..], &tag[..TAG]].concat();
        Confirmation { token: format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)), expires }
    }

    /// Uses a token up.
    ///
    /// # Errors
    /// `invalid_input` where it was not issued for this action and subject, has expired or was used; `conflict`
    /// where the state has moved since.
    pub async fn redeem(&self, action: &str, subject: &str, state: &[u8], token: &str) -> Result<()> {
        let refuse = |message: &str| {
            Err(Error::invalid("/confirm", message)
                .hint("call it with dry_run and give the token it returns"))
        };
        let bytes = token.strip_prefix(PREFIX).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let Some(bytes) = bytes.filter(|bytes| bytes.len() == 8 + DIGEST + TAG) else {
            return refuse("this is not a confirmation token");
        };
        let (signed, tag) = bytes.split_at(8 + DIGEST);
        let (until, digest) = signed.split_at(8);
        if !mac_begins_with(&self.key, &[action.as_bytes(), subject.as_bytes(), digest, until], tag) {
            return refuse("the confirmation token belongs to something else");
        }
        let micros = until.iter().fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
        let expires = Timestamp::from_micros(micros);
        if expires <= Timestamp::now() {
            return refuse("the confirmation token has expired");
        }
        if digest != short_digest(state) {
            return Err(Error::new(Code::Conflict, "what would be lost has changed since the dry run")
                .hint("call it with dry_run again and look at what it returns")
                .field("/confirm"));
        }
        if !self.store.spent().spend(token, expires).await? {
            return refuse("the confirmation token has been used");
        }
        Ok(())
    }
}

fn short_digest(state: &[u8]) -> [u8; DIGEST] {
    let whole: [u8; 32] = Sha256::digest(state).into();
    let mut short = [0; DIGEST];
    short.copy_from_slice(&whole[..DIGEST]);
    short
}
