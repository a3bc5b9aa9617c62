//! What requests about accounts say.

use capabilities::auth::{self, Credentials, NewPasskey, Presence, Second, Shown};
use kernel::{Error, Result, Secret};
use serde::Deserialize;

/// What nothing more is to be said to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    pub email: String,
    pub password: Secret,
}

impl From<Known> for Credentials {
    fn from(known: Known) -> Self {
        Self { email: known.email, password: known.password }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    pub email: String,
    pub password: Secret,
    /// Where the link of the mail leads on to, where there is one.
    pub redirect: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refreshing {
    pub refresh_token: Secret,
    /// What the client has written down before it asks, and says again where no answer came.
    pub attempt: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leaving {
    #[serde(default)]
    pub everywhere: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mailing {
    pub email: String,
    /// Where the link of the mail leads on to.
    pub redirect: Option<String>,
}

/// What was mailed: the code with its address, or the end of the link.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Showing {
    pub email: Option<String>,
    pub code: Option<Secret>,
    pub token: Option<Secret>,
}

impl Showing {
    pub fn read(self) -> Result<Shown> {
        match self {
            Self { email: Some(email), code: Some(code), token: None } => Ok(Shown::Code { email, code }),
            Self { email: None, code: None, token: Some(token) } => Ok(Shown::Link(token)),
            _ => Err(Error::invalid("", "send email and code, or token")
                .hint("the token is what the mail's link ends with, after =")),
        }
    }
}

/// The same, with the password that was signed up with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verifying {
    pub email: Option<String>,
    pub code: Option<Secret>,
    pub token: Option<Secret>,
    pub password: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resetting {
    pub email: Option<String>,
    pub code: Option<Secret>,
    pub token: Option<Secret>,
    pub password: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changing {
    pub password: Secret,
    /// The password that is changed; not needed a moment after signing in.
    pub current: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Moving {
    pub email: String,
    /// The password; not needed a moment after signing in.
    pub current: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TakingUp {
    pub code: Secret,
    pub verifier: Secret,
    /// Whether it is one more way in for who is signed in.
    #[serde(default)]
    pub link: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vouched {
    pub token: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leave {
    /// The password; not needed a moment after signing in.
    pub current: Option<Secret>,
}

/// By what somebody shows to be there in person; nothing a moment after signing in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Present {
    /// The password.
    pub current: Option<Secret>,
    pub code: Option<Secret>,
    pub recovery_code: Option<Secret>,
}

impl Present {
    pub fn read(self) -> Result<Presence> {
        match self {
            Self { current: None, code: None, recovery_code: None } => Ok(Presence::Fresh),
            Self { current: Some(current), code: None, recovery_code: None } => {
                Ok(Presence::Password(current))
            }
            Self { current: None, code, recovery_code } => second(code, recovery_code).map(Presence::Second),
            Self { .. } => Err(one()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enrolling {
    /// What the authenticator is to be called.
    pub name: Option<String>,
    pub current: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Activating {
    pub code: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seconding {
    pub ticket: Secret,
    pub code: Option<Secret>,
    pub recovery_code: Option<Secret>,
}

/// The one second factor that was sent.
pub(super) fn second(code: Option<Secret>, recovery_code: Option<Secret>) -> Result<Second> {
    match (code, recovery_code) {
        (Some(code), None) => Ok(Second::Code(code)),
        (None, Some(code)) => Ok(Second::Recovery(code)),
        _ => Err(one()),
    }
}

fn one() -> Error {
    Error::invalid("", "send one of code and recovery_code")
        .hint("the code is the authenticator's of this moment")
}

/// A passkey that a browser has made; all but the name in base64url.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SentPasskey {
    pub name: Option<String>,
    pub client_data: String,
    pub attestation: String,
}

impl From<SentPasskey> for NewPasskey {
    fn from(SentPasskey { name, client_data, attestation }: SentPasskey) -> Self {
        Self { name, client_data, attestation }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedPasskey {
    pub name: String,
}

/// A passkey that a browser shows, all in base64url.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShownPasskey {
    pub id: String,
    pub client_data: String,
    pub authenticator_data: String,
    pub signature: String,
    /// Whose it is, as the authenticator knows it.
    pub user: Option<String>,
}

impl From<ShownPasskey> for auth::ShownPasskey {
    fn from(shown: ShownPasskey) -> Self {
        let ShownPasskey { id: credential, client_data, authenticator_data, signature, user } = shown;
        Self { credential, client_data, authenticator_data, signature, user }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Phoning {
    /// The number, with its country: `+49…`.
    pub phone: String,
}

/// What was sent to a phone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Phoned {
    pub phone: String,
    pub code: Secret,
}
