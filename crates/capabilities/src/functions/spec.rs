//! Functions as a manifest writes them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::events::EventSpec;
use super::settings::Settings;
use crate::hosting::FileSpec;

/// One function: code that answers requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// A directory next to the manifest. Only the command line reads it; over MCP and HTTP send `files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Path to content, as a site's: TypeScript or JavaScript, and package.json where npm packages are used.
    #[serde(default)]
    pub files: BTreeMap<String, FileSpec>,
    /// The file that exports the handlers: `main` of package.json, else index.ts, index.js and so on, where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: Runtime,
    /// Who may ask it at /_/fn/{name}.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Access,
    /// Variables of its own, over those of the app.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Names of the secrets that it gets, as `env.NAME`, over variables of the app.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Memory of one process, 64 to 1024; 128 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Seconds until its answer must have begun, 1 to 900; 30 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Requests that one process works on at once, 1 to 200; 50 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Processes at once, 1 to 8; 2 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// What its `event` is told of when it has happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventSpec>,
}

/// What shall be otherwise about a function; what is none stays, or is what it is without being said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FunctionChange {
    /// All of its files.
    pub files: Option<BTreeMap<String, FileSpec>>,
    /// The file that exports the handlers; the one before stays where it is among the files.
    pub entry: Option<String>,
    /// What it runs on.
    pub runtime: Option<Runtime>,
    /// Who may ask it at its own address.
    pub access: Option<Access>,
    /// Variables of its own, over those that it has; none takes one away.
    pub variables: BTreeMap<String, Option<String>>,
    /// Names of all secrets that it gets.
    pub secrets: Option<Vec<String>>,
    /// Memory of one process.
    pub memory_mb: Option<u32>,
    /// Seconds until its answer must have begun.
    pub timeout_s: Option<u32>,
    /// Requests that one process works on at once.
    pub concurrency: Option<u32>,
    /// Processes at once.
    pub max_instances: Option<u32>,
}

/// What a function runs on; each of its versions says which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Bun, which starts in a few milliseconds.
    #[default]
    Bun,
    /// Node.js.
    Node,
}

/// Who may ask a function at its own address. Routes, schedules and other functions ask it whatever this says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everybody.
    Public,
    /// Who is signed in, and who has a key of the platform.
    #[default]
    SignedIn,
    /// Who has a key of the platform.
    Service,
}

impl Runtime {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bun => "bun",
            Self::Node => "node",
        }
    }
}

impl FunctionSpec {
    /// How it runs, and for whom.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let Self { access, memory_mb, timeout_s, concurrency, max_instances, .. } = *self;
        let (variables, secrets) = (self.variables.clone(), self.secrets.clone());
        let limits = Settings { memory_mb, timeout_s, concurrency, max_instances, ..Settings::default() };
        Settings { access, variables, secrets, events: self.events.clone(), ..limits }
    }
}

impl FunctionChange {
    /// How a function runs that runs as `before` says, when this has changed.
    #[must_use]
    pub fn settings(&self, before: &Settings) -> Settings {
        Settings {
            access: self.access.unwrap_or(before.access),
            variables: before.variables_with(&self.variables),
            secrets: self.secrets.clone().unwrap_or_else(|| before.secrets.clone()),
            memory_mb: self.memory_mb.or(before.memory_mb),
            timeout_s: self.timeout_s.or(before.timeout_s),
            concurrency: self.concurrency.or(before.concurrency),
            max_instances: self.max_instances.or(before.max_instances),
            events: before.events.clone(),
            ..Settings::default()
        }
    }
}

impl Access {
    /// Its name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::SignedIn => "signed_in",
            Self::Service => "service",
        }
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
