//! What happens in an app that has a function run: as a manifest writes it, and as a release keeps it.

use std::fmt;

use kernel::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many a function has at most.
const MOST: usize = 20;

/// How often an event may be tried again, and how often it is where that is not said.
const RETRIES: u8 = 4;

/// What a function is told of when it has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSpec {
    /// Of what.
    pub on: On,
    /// The table, for `rows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The bucket, for `files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// What happens to it; all that can, where it is left out.
    #[serde(default, rename = "do", skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<Did>,
    /// How often one that fails is tried again, 0 to 4: after 2 s, 10 s, 1 min and 5 min; 4 where it is left out.
    #[serde(default = "usual", skip_serializing_if = "is_usual")]
    pub retries: u8,
}

/// Of what a function is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// Rows of a table.
    Rows,
    /// Files of a bucket.
    Files,
    /// The app's users.
    Auth,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Did {
    /// A row is made.
    Create,
    /// A row is changed.
    Update,
    /// A row, a file or an account goes.
    Delete,
    /// A file comes, or another content in its place.
    Upload,
    /// An account is made.
    Signup,
    /// Somebody signs in.
    Login,
}

const fn usual() -> u8 {
    RETRIES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_usual(retries: &u8) -> bool {
    *retries == RETRIES
}

impl On {
    /// Its name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Files => "files",
            Self::Auth => "auth",
        }
    }

    /// What can happen there.
    const fn all(self) -> &'static [Did] {
        match self {
            Self::Rows => &[Did::Create, Did::Update, Did::Delete],
            Self::Files => &[Did::Upload, Did::Delete],
            Self::Auth => &[Did::Signup, Did::Login, Did::Delete],
        }
    }
}

impl Did {
    /// Its name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Upload => "upload",
            Self::Signup => "signup",
            Self::Login => "login",
        }
    }
}

impl EventSpec {
    /// The table or the bucket; nothing for users.
    #[must_use]
    pub fn about(&self) -> &str {
        self.table.as_deref().or(self.bucket.as_deref()).unwrap_or_default()
    }

    /// What of it the function is told of.
    #[must_use]
    pub fn told(&self) -> Vec<Did> {
        let is_told = |did: &Did| self.what.is_empty() || self.what.contains(did);
        self.on.all().iter().copied().filter(is_told).collect()
    }

    /// Refuses what cannot be, with its place below it.
    fn check(&self) -> Result<()> {
        let named = [("table", On::Rows, &self.table), ("bucket", On::Files, &self.bucket)];
        for (name, on, given) in named {
            let wrong = |message: String| Err(Error::invalid(format!("/{name}"), message));
            match given {
                None if self.on == on => {
                    return wrong(format!("events of {} are of one {name}: name it", on.as_str()));
                }
                Some(_) if self.on != on => {
                    return wrong(format!("events of {} have no {name}", self.on.as_str()));
                }
                _ => {}
            }
        }
        let all: Vec<&str> = self.on.all().iter().map(|it| it.as_str()).collect();
        for (i, did) in self.what.iter().enumerate() {
            if !self.on.all().contains(did) || self.what[..i].contains(did) {
                let message = format!("events of {} are {}, each once", self.on.as_str(), all.join(", "));
                return Err(Error::invalid(format!("/do/{i}"), message));
            }
        }
        if self.retries > RETRIES {
            return Err(Error::invalid("/retries", format!("retries is 0 to {RETRIES}")));
        }
        Ok(())
    }

    /// The same, as it is kept: what is said without being otherwise is left out.
    fn in_order(mut self) -> Self {
        let told = self.told();
        self.what = if told.len() == self.on.all().len() { Vec::new() } else { told };
        self
    }
}

impl fmt::Display for EventSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<&str> = self.told().into_iter().map(Did::as_str).collect();
        f.write_str(self.on.as_str())?;
        if self.on != On::Auth {
            write!(f, " of {}", self.about())?;
        }
        write!(f, ": {}", told.join(", "))?;
        if self.retries != RETRIES {
            write!(f, ", retries {}", self.retries)?;
        }
        Ok(())
    }
}

/// Refuses events that cannot be, with the place of the first; no two are of the same.
pub(super) fn check(events: &[EventSpec]) -> Result<()> {
    if events.len() > MOST {
        return Err(Error::invalid(
            "",
            format!("a function has at most {MOST} events; these are {}", events.len()),
        ));
    }
    for (i, event) in events.iter().enumerate() {
        event.check().map_err(|e| e.under(&format!("/{i}")))?;
        let same =
            |other: &&EventSpec| other.on == event.on && other.about().eq_ignore_ascii_case(event.about());
        if events[..i].iter().any(|other| same(&other)) {
            let message = "there is another entry of the same: say all of it in one `do`";
            return Err(Error::invalid(format!("/{i}"), message));
        }
    }
    Ok(())
}

/// The same, as they are kept.
pub(super) fn in_order(events: Vec<EventSpec>) -> Vec<EventSpec> {
    events.into_iter().map(EventSpec::in_order).collect()
}
