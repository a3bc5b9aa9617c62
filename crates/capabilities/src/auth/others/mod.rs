//! Signing in by somebody else's word: a provider's, or a token that the app's own server signs.
//!
//! What a provider says is held against what was asked, written down, and taken up by the very page that has begun: the
//! browser that comes back must hold the cookie that it left with, and the page a text that it has told nobody. Neither
//! ever sees what the provider gives to us, and no address holds what opens anything.

mod custom;
mod directory;
mod flow;
mod issuers;
mod jose;
pub(super) mod links;
mod pending;
mod providers;
mod trusted;
mod vouching;

pub use custom::CustomToken;
pub use directory::{Directory, DirectorySettings, Entry, Return};
pub use flow::{Arrival, CALLBACK, Cookie, Departure, Handover, Landing, Taken, Wish, is_of_a_way};
pub(super) use issuers::Issuers;
pub(super) use links::Vouched;
pub(crate) use providers::check;
pub use providers::{Custom, Provider};
pub use trusted::TrustedIssuer;

use crate::outbound;
use jose::Bad;

/// Why somebody is not believed. It goes to the app's log, for its makers; the browser is told one word.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// Nobody answers.
    #[error("{0}")]
    Outside(#[from] outbound::Failure),
    /// The answer is a refusal, or something else.
    #[error("{0} answered {1}{2}")]
    Answer(&'static str, u16, String),
    /// The answer says something that cannot be.
    #[error("{0}")]
    Said(&'static str),
    /// The token does not hold.
    #[error("{0}")]
    Token(#[from] Bad),
    /// A secret is missing.
    #[error("the secret {0} is not set")]
    NoSecret(String),
    /// The private key is none.
    #[error("the private key cannot sign: {0}")]
    Key(&'static str),
    /// We have failed ourselves.
    #[error("{0}")]
    Ours(#[from] kernel::Error),
}

impl Failed {
    /// The word that a page is told.
    fn word(&self) -> &'static str {
        match self {
            Failed::Outside(_) | Failed::Ours(_) => "unavailable",
            Failed::Answer(_, status, _) if *status >= 500 => "unavailable",
            Failed::Answer(..)
            | Failed::Said(_)
            | Failed::Token(_)
            | Failed::NoSecret(_)
            | Failed::Key(_) => "failed",
        }
    }
}
