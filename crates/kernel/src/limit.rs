//! The limit that a call ran into: whose it is, how much it allows, when it frees, and who can raise it.

use std::borrow::Cow;

use serde_json::{Value, json};

/// Whose limit it is: what is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// One key.
    Key,
    /// One minted credential.
    Token,
    /// One tenant, with all its credentials and environments.
    Tenant,
    /// One environment, whoever asks.
    Environment,
    /// One user of an app.
    User,
    /// One route of an app, whoever asks.
    Route,
    /// One network address, or the network around it.
    Address,
    /// One connection.
    Connection,
    /// The whole platform.
    Platform,
}

impl LimitScope {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            LimitScope::Key => "key",
            LimitScope::Token => "token",
            LimitScope::Tenant => "tenant",
            LimitScope::Environment => "environment",
            LimitScope::User => "user",
            LimitScope::Route => "route",
            LimitScope::Address => "address",
            LimitScope::Connection => "connection",
            LimitScope::Platform => "platform",
        }
    }

    /// Who raises such a limit, where nothing finer is known.
    const fn raise(self) -> &'static str {
        match self {
            LimitScope::Key | LimitScope::Token | LimitScope::Tenant | LimitScope::Platform => {
                "ask who runs the platform"
            }
            LimitScope::Environment
            | LimitScope::User
            | LimitScope::Route
            | LimitScope::Address
            | LimitScope::Connection => "ask who runs the app",
        }
    }
}

/// The limit a call ran into, or runs under, as problems say it and the `RateLimit` and `RateLimit-Policy` headers of
/// doors write it (draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitInfo {
    /// The limit's name.
    pub name: &'static str,
    /// Whose it is.
    pub scope: LimitScope,
    /// How much it allows, in a window where it has one.
    pub value: u64,
    /// What is counted, such as `calls`, `bytes`, `tokens`.
    pub unit: &'static str,
    /// The window, in seconds; none where it is not by time.
    pub window_s: Option<u64>,
    /// How much is left.
    pub left: u64,
    /// Seconds until there is more, rounded up; none where that is not known.
    pub reset_s: Option<u64>,
    /// How to have it raised.
    pub raise: Cow<'static, str>,
}

impl LimitInfo {
    /// A limit of which nothing is left, and which is not by time.
    #[must_use]
    pub const fn new(name: &'static str, scope: LimitScope, value: u64, unit: &'static str) -> Self {
        let raise = Cow::Borrowed(scope.raise());
        Self { name, scope, value, unit, window_s: None, left: 0, reset_s: None, raise }
    }

    /// The same in each window of so many seconds.
    #[must_use]
    pub fn window(self, seconds: u64) -> Self {
        Self { window_s: Some(seconds), ..self }
    }

    /// The same with so much left.
    #[must_use]
    pub fn left(self, left: u64) -> Self {
        Self { left, ..self }
    }

    /// The same with more in so many seconds.
    #[must_use]
    pub fn reset(self, seconds: u64) -> Self {
        Self { reset_s: Some(seconds), ..self }
    }

    /// The same, raised as `how` says: a next action.
    #[must_use]
    pub fn raised(self, how: impl Into<Cow<'static, str>>) -> Self {
        Self { raise: how.into(), ..self }
    }

    /// The member `limit` of a problem.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut limit = json!({
            "name": self.name, "scope": self.scope.as_str(), "value": self.value, "unit": self.unit,
            "left": self.left, "raise": self.raise,
        });
        for (name, value) in [("window_s", self.window_s), ("reset_s", self.reset_s)] {
            if let Some(value) = value {
                limit[name] = value.into();
            }
        }
        limit
    }
}
