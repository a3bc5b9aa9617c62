//! Typed identifiers: a prefix that says the kind, then a UUIDv7 (RFC 9562 §5.7) in 32 hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not the id it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {expected}: write {prefix}_ and 32 hexadecimal digits")]
pub struct IdError {
    given: String,
    expected: &'static str,
    prefix: &'static str,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A new id; ids made later sort later.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "an id is made on purpose, never as a default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(|digits| Uuid::try_parse(digits).ok())
                    .map(Self)
                    .ok_or_else(|| IdError {
                        given: text.chars().take(64).collect(),
                        expected: $what,
                        prefix: $prefix,
                    })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

typed_id!(
    /// A customer of the platform.
    TenantId, "ten", "a tenant id");
typed_id!(
    /// One isolated environment of a tenant.
    EnvId, "env", "an environment id");
typed_id!(
    /// A stored credential; names it without being it.
    KeyId, "key", "a key id");
typed_id!(
    /// One person of a tenant.
    MemberId, "mem", "a member's id");
typed_id!(
    /// One call of one tool; the `request_id` of its errors.
    CallId, "req", "a request id");
typed_id!(
    /// A plan made by `app_plan`.
    PlanId, "plan", "a plan id");
typed_id!(
    /// A point in the life of an environment that can be returned to.
    SnapshotId, "snap", "a snapshot id");
typed_id!(
    /// A run of an agent or a function.
    RunId, "run", "a run id");
typed_id!(
    /// An agent conversation.
    SessionId, "ses", "a session id");
typed_id!(
    /// A sandbox.
    SandboxId, "sbx", "a sandbox id");
typed_id!(
    /// The files of sandboxes, which outlive them.
    WorkspaceId, "wsp", "a workspace id");
typed_id!(
    /// What a workspace held at one moment.
    WorkspaceSnapshotId, "wss", "a workspace snapshot's id");
typed_id!(
    /// A directory of one machine where workspaces lie.
    PlaceId, "plc", "a place's id");
typed_id!(
    /// How much may be spent on models, by whom.
    BudgetId, "bud", "a budget's id");
typed_id!(
    /// One request to a model, which is counted once.
    ModelCallId, "mdl", "the id of a model's call");
typed_id!(
    /// One process of the platform.
    NodeId, "nod", "a node's id");
typed_id!(
    /// An end user of an app.
    UserId, "usr", "a user id");

/// The SHA-256 (FIPS 180-4) of a blob's bytes, 64 lower-case hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobHash([u8; 32]);

impl BlobHash {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The hash from its 32 raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 raw bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobHash {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError {
            given: text.chars().take(64).collect(),
            expected: "a SHA-256 (64 lower-case hexadecimal digits)",
            prefix: "sha256",
        };
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for BlobHash {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<BlobHash> for String {
    fn from(hash: BlobHash) -> String {
        hash.to_string()
    }
}

impl From<RunId> for KeyId {
    /// What the calls of a run are counted and recorded under: the same digits.
    fn from(run: RunId) -> Self {
        Self(run.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_its_kind_and_reads_back() {
        let id = EnvId::new();
        assert!(id.to_string().starts_with("env_"));
        assert_eq!(id.to_string().parse::<EnvId>(), Ok(id));
    }

    #[test]
    fn an_id_of_another_kind_is_refused_with_what_was_expected() {
        let tenant = TenantId::new().to_string();
        let error = tenant.parse::<EnvId>().map_err(|e| e.to_string());
        assert_eq!(
            error,
            Err(format!("{tenant:?} is not an environment id: write env_ and 32 hexadecimal digits"))
        );
    }

    #[test]
    fn later_ids_sort_later() {
        let first = EnvId::new();
        let second = EnvId::new();
        assert!(first.to_string() < second.to_string());
    }

    #[test]
    fn a_hash_is_64_lower_case_digits_and_nothing_else() {
        let hash = BlobHash::of(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for bad in ["", "BA78", &hash.to_string().to_uppercase(), &"é".repeat(32)] {
            assert!(bad.parse::<BlobHash>().is_err(), "{bad}");
        }
    }
}
