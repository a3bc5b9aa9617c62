//! Tokens: what an access token says, who signs it, and the refresh tokens of a session.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use kernel::{Env, Error, Result, Scopes, Secret, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// How far clocks may differ, in seconds.
const SKEW: i64 = 60;

/// A longer text is no token of ours.
pub(super) const LONGEST: usize = 4_096;

/// What an access token says (RFC 9068).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who has issued it: `steading`.
    pub iss: String,
    /// For whom: the id of the environment.
    pub aud: String,
    /// Of which user.
    pub sub: UserId,
    /// Of which session.
    pub sid: String,
    /// The user's role when it was signed.
    pub role: String,
    /// Whether the user had no address when it was signed.
    pub anonymous: bool,
    /// When it was signed, in seconds since the Unix epoch.
    pub iat: i64,
    /// When it ends, likewise.
    pub exp: i64,
}

impl Claims {
    /// Whether a token that says this is of `env` and of this moment.
    pub(super) fn hold(&self, env: &Env, now: Timestamp) -> bool {
        let now = now.as_secs();
        self.are_of(env) && self.exp > now && self.iat <= now.saturating_add(SKEW)
    }

    /// Whether a token that says this is of `env`, of whatever moment.
    pub(super) fn are_of(&self, env: &Env) -> bool {
        let env = env.id().to_string();
        self.iss == env && self.aud == env
    }
}

/// The keys that sign access tokens, one for each environment, and the seal for what is kept of their users.
pub trait TokenKeys: Send + Sync + 'static {
    /// Signs claims with the environment's key.
    fn sign<'a>(&'a self, env: &'a Env, claims: &'a Claims) -> BoxFuture<'a, Result<Secret>>;

    /// The claims of a token that this environment's key has signed; none where it has not. What they say is not
    /// looked at.
    fn verify<'a>(&'a self, env: &'a Env, token: &'a Secret) -> BoxFuture<'a, Result<Option<Claims>>>;

    /// The public half as a key set (RFC 7517).
    fn jwks<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Value>>;

    /// The id of a platform key that is bound to this very environment, and what it may do; none for any other text. Its holder is the
    /// app's own server.
    fn service<'a>(
        &'a self,
        env: &'a Env,
        key: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<(kernel::KeyId, Scopes)>>>;

    /// Seals `value` for `place`: it opens nowhere else, and only here.
    ///
    /// # Errors
    /// `internal` where there is no randomness.
    fn seal(&self, place: &str, value: &[u8]) -> Result<String>;

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// `internal` where it was changed, moved, or sealed elsewhere.
    fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>>;

    /// What the key is called: public, and the same for as long as it is in use.
    fn kid<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<String>>;
}

/// What refresh tokens begin with, so that secret scanners find them.
const PREFIX: &str = "stead_rt_";
const HALF: usize = 32;

/// A refresh token: 32 random bytes that all tokens of its session share, then 32 of its own. Who shows the first half
/// with another second half than the current one shows a token that was spent.
pub(super) struct Refresh([u8; 2 * HALF]);

impl Refresh {
    /// The first token of a new session.
    pub fn first() -> Result<Self> {
        Ok(Self(random()?))
    }

    /// The token after this one.
    pub fn next(&self) -> Result<Self> {
        let mut bytes = self.0;
        getrandom::fill(&mut bytes[HALF..]).map_err(Error::internal)?;
        Ok(Self(bytes))
    }

    /// Reads a token; none where the text has another form.
    pub fn parse(text: &Secret) -> Option<Self> {
        let text = text.expose().strip_prefix(PREFIX).filter(|rest| rest.len() < LONGEST)?;
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub fn to_secret(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}", text(&self.0)))
    }

    /// What is stored of what all tokens of the session share. A plain hash: there is nothing to guess.
    pub fn family(&self) -> String {
        hexadecimal(&hash(&self.0[..HALF]))
    }

    /// What is stored of the token.
    pub fn hash(&self) -> String {
        hexadecimal(&hash(&self.0))
    }
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    Ok(bytes)
}

/// Bytes as text that stands in an address as it is.
pub(super) fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_reads_back_and_its_successor_is_of_the_same_family() {
        let first = Refresh::first().unwrap();
        let text = first.to_secret();
        assert_eq!(Refresh::parse(&text).map(|t| t.0), Some(first.0));
        let next = first.next().unwrap();
        assert_eq!(next.family(), first.family());
        assert_ne!(next.hash(), first.hash());
        assert_ne!(Refresh::first().unwrap().family(), first.family());
        for bad in ["", "stead_rt_", "stead_rt_AAAA", &text.expose()[1..], &format!("{}A", text.expose())] {
            assert!(Refresh::parse(&Secret::new(bad)).is_none(), "{bad}");
        }
    }
}
