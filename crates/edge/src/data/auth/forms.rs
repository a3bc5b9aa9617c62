//! What requests about accounts say.

use capabilities::auth::{Credentials, Shown};
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
