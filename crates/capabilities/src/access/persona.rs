//! People made up to try rules.

use std::fmt;
use std::str::FromStr;

use kernel::UserId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Subject, User};

/// Somebody made up to try rules. Rows to try them on are the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Persona {
    /// Nobody is signed in.
    Anonymous,
    /// The user whose row it is.
    User,
    /// Another user.
    Other,
    /// A user whose role is `admin`; the row is not theirs.
    Admin,
}

impl Persona {
    /// Everybody, from who may least to who may most.
    pub const ALL: [Persona; 4] = [Persona::Anonymous, Persona::Other, Persona::User, Persona::Admin];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Persona::Anonymous => "anonymous",
            Persona::User => "user",
            Persona::Other => "other",
            Persona::Admin => "admin",
        }
    }

    /// The user's id, which no real user has; the same every time.
    pub(crate) fn id(self) -> Option<String> {
        let last = match self {
            Persona::Anonymous => return None,
            Persona::User => 1,
            Persona::Other => 2,
            Persona::Admin => 3,
        };
        Some(format!("usr_{last:032}"))
    }

    /// Who asks.
    pub(crate) fn subject(self) -> Subject {
        let id = self.id().and_then(|id| id.parse::<UserId>().ok());
        let role = if self == Persona::Admin { "admin" } else { "user" };
        id.map_or(Subject::Visitor, |id| {
            Subject::User(User { id, role: role.to_owned(), email: None, claims: Map::new() })
        })
    }

    /// `row` with `@user`, `@other` and `@admin` as the ids of those users, and `@row` as that of the row that is tried.
    pub(crate) fn name_users(mut row: Map<String, Value>, tried: &str) -> Map<String, Value> {
        for value in row.values_mut() {
            let named = value.as_str().and_then(|text| text.strip_prefix('@'));
            let id = match named {
                Some("row") if !tried.is_empty() => Some(tried.to_owned()),
                Some(name) => name.parse().ok().and_then(Persona::id),
                None => None,
            };
            if let Some(id) = id {
                *value = id.into();
            }
        }
        row
    }

    /// Where `row` says `"owner": "other"`, the id of that user.
    pub(crate) fn name_owner(row: &mut Map<String, Value>) {
        if let Some(Value::String(owner)) = row.get_mut("owner")
            && let Some(id) = owner.parse().ok().and_then(Persona::id)
        {
            *owner = id;
        }
    }
}

impl fmt::Display for Persona {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Persona {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Persona::ALL.into_iter().find(|persona| persona.as_str() == text).ok_or(())
    }
}
