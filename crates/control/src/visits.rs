//! Visits of the console: somebody has shown a key once, and a browser has a cookie since. Inside the gateway the requests of
//! a visit carry a text in the key's place, which nobody outside is told. It is judged as the key itself is, each time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{KeyId, Secret, Timestamp};

use crate::Control;
use crate::vault::{mac, mac_begins_with};

const PREFIX: &str = "stead_visit_";
const PURPOSE: &[u8] = b"visit of the console";

impl Control {
    /// What stands for the key of this id in a request of a visit, until then at most. It never leaves the gateway: what a
    /// browser has is made with another purpose, and this cannot be told from that.
    #[must_use]
    pub fn visit(&self, key: KeyId, until: Timestamp) -> Secret {
        let (key, until) = (key.to_string(), until.as_secs().to_string());
        let tag = mac(&self.oauth_key, &[PURPOSE, key.as_bytes(), until.as_bytes()]);
        Secret::new(format!("{PREFIX}{key}.{until}.{}", URL_SAFE_NO_PAD.encode(tag)))
    }

    /// The key that a text of a visit stands for; `None` for any other text, and for one that is over.
    pub(crate) fn visited(&self, text: &str) -> Option<KeyId> {
        let (key, rest) = text.strip_prefix(PREFIX)?.split_once('.')?;
        let (until, tag) = rest.split_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok().filter(|tag| tag.len() == 32)?;
        let is_ours = mac_begins_with(&self.oauth_key, &[PURPOSE, key.as_bytes(), until.as_bytes()], &tag);
        let lives = until.parse::<i64>().is_ok_and(|until| until > Timestamp::now().as_secs());
        key.parse().ok().filter(|_| is_ours && lives)
    }
}

/// Whether a text would be one of a visit, which is looked at each time: what is remembered of it says nothing of its end.
pub(crate) fn is_one(text: &str) -> bool {
    text.starts_with(PREFIX)
}
