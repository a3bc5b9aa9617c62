//! Who asks for rows: somebody without a session, a user, or the app's own server.

use std::net::IpAddr;
use std::sync::Arc;

use kernel::{Env, KeyId, UserId};
use serde_json::{Map, Value};

use crate::database::Client;

/// Who asks, as rules see it.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// Somebody without a session.
    Visitor,
    /// Somebody with a session, signed in anonymously or not.
    User(User),
    /// The app's own server, which rules do not hold back.
    Service,
}

/// A signed-in user, as rules see it.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Who it is; `auth.uid`, and what `owner` holds.
    pub id: UserId,
    /// `user`, `admin`, or what the app has given; `auth.role`.
    pub role: String,
    /// The address, where there is one and it was confirmed; `auth.email`.
    pub email: Option<String>,
    /// What the app has noted about the user; `auth.claims`.
    pub claims: Map<String, Value>,
}

impl Subject {
    /// `auth.uid`: the user's id, none for others.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        match self {
            Subject::User(user) => Some(user.id.to_string()),
            Subject::Visitor | Subject::Service => None,
        }
    }
}

/// The data plane's proof: a request to this environment's app comes from this subject. Only `auth` makes it of a
/// user, and only after the token was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Guest {
    env: Env,
    subject: Arc<Subject>,
    key: Option<KeyId>,
    network: Option<IpAddr>,
    depth: u8,
}

impl Guest {
    /// Somebody without a session.
    #[must_use]
    pub fn visitor(env: Env) -> Self {
        Self::new(env, Subject::Visitor)
    }

    /// The app's makers, by the proof that they may act in its environment: rules do not hold them back.
    #[must_use]
    pub fn maker(env: Env) -> Self {
        Self::new(env, Subject::Service)
    }

    /// A subject that was verified, or that is made up to try rules.
    pub(crate) fn new(env: Env, subject: Subject) -> Self {
        Self { env, subject: Arc::new(subject), key: None, network: None, depth: 0 }
    }

    /// The same, who showed this platform key: what they lend ends with it.
    #[must_use]
    pub fn with_key(self, key: KeyId) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The same, who comes from this network.
    #[must_use]
    pub fn at(self, network: Option<IpAddr>) -> Self {
        Self { network, ..self }
    }

    /// The same, for whom a function asks that others have set off: so many times until here.
    #[must_use]
    pub fn at_depth(self, depth: u8) -> Self {
        Self { depth, ..self }
    }

    /// How many times functions have set each other off until here; 0 where none asks.
    #[must_use]
    pub const fn depth(&self) -> u8 {
        self.depth
    }

    /// The network that the request comes from, where that is known.
    #[must_use]
    pub const fn network(&self) -> Option<IpAddr> {
        self.network
    }

    /// Whom what this guest makes wait is counted for: nobody, where it is the app's own server.
    pub(crate) fn clients(&self) -> Vec<Client> {
        let user = match self.subject() {
            Subject::Service => return Vec::new(),
            Subject::User(user) => Some(Client::User(user.id)),
            Subject::Visitor => None,
        };
        user.into_iter().chain(self.network.map(Client::Network)).collect()
    }

    /// The platform key that was shown, where one was.
    #[must_use]
    pub const fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// The environment of the app.
    #[must_use]
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// Who asks.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}
