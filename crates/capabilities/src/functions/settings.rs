//! How a function runs: what may be said of it, and what holds where nothing is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use kernel::{Error, Result};
use serde::{Deserialize, Serialize};

use super::events::{self, EventSpec};
use super::spec::{Access, is_default};
use super::variables;
use crate::releases::is_secret;

const TIMEOUT_S: RangeInclusive<u32> = 1..=900;
const MAX_INSTANCES: RangeInclusive<u32> = 1..=8;
const IDLE_S: RangeInclusive<u32> = 10..=86_400;

/// What of an app runs code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Handlers, which are called.
    Function,
    /// A command, which listens.
    Service,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Service => "service",
        }
    }

    /// What its addresses on the app's host begin with.
    #[must_use]
    pub const fn below(self) -> &'static str {
        match self {
            Self::Function => "/_/fn/",
            Self::Service => "/_/svc/",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Function => Self::Service,
            Self::Service => Self::Function,
        }
    }
}

/// How a function runs, and for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Who may ask it at its own address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Access,
    /// Variables of its own, over those of the app.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Names of the secrets that it gets, over variables of the app; in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Memory of one process, where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Seconds until its answer must have begun, where they are said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Requests that one process works on at once, where they are said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Processes at once, where they are said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// Seconds without a request after which a process ends, where they are said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u32>,
    /// Whether one process runs always.
    #[serde(default, skip_serializing_if = "is_default")]
    pub always: bool,
    /// What it is told of when it has happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventSpec>,
}

/// What holds for a function, said or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionLimits {
    /// Memory of one process.
    pub memory_mb: u32,
    /// How long until its answer must have begun.
    pub timeout: Duration,
    /// Requests that one process works on at once.
    pub concurrency: u32,
    /// Processes at once.
    pub max_instances: u32,
    /// How long one waits for its next request, where it is said.
    pub idle: Option<Duration>,
}

/// A number of the settings: its name, what is said, what it is where nothing is, and what it may be.
type Number = (&'static str, Option<u32>, u32, RangeInclusive<u32>);

impl Settings {
    /// What holds for one of that kind, with what is not said as it usually is.
    pub(super) fn limits(&self, kind: Kind) -> FunctionLimits {
        let [memory_mb, timeout_s, concurrency, max_instances, _] =
            self.numbers(kind).map(|(_, said, usual, _)| said.unwrap_or(usual));
        let timeout = Duration::from_secs(timeout_s.into());
        let idle = self.idle_s.map(|seconds| Duration::from_secs(seconds.into()));
        FunctionLimits { memory_mb, timeout, concurrency, max_instances, idle }
    }

    /// Each number.
    pub(crate) fn numbers(&self, kind: Kind) -> [Number; 5] {
        let (memory, memory_mb, concurrency, instances) = match kind {
            Kind::Function => (128, 64..=1_024, 1..=200, 2),
            Kind::Service => (256, 64..=2_048, 1..=300, 1),
        };
        [
            ("memory_mb", self.memory_mb, memory, memory_mb),
            ("timeout_s", self.timeout_s, 30, TIMEOUT_S),
            ("concurrency", self.concurrency, 50, concurrency),
            ("max_instances", self.max_instances, instances, MAX_INSTANCES),
            ("idle_s", self.idle_s, 300, IDLE_S),
        ]
    }

    /// The same, as it is kept: what is said without being otherwise is left out, so that it is no change.
    pub(crate) fn in_order(mut self, kind: Kind) -> Self {
        let said = self.numbers(kind).map(|(_, said, usual, _)| said.filter(|it| *it != usual));
        [self.memory_mb, self.timeout_s, self.concurrency, self.max_instances, self.idle_s] = said;
        self.secrets.sort();
        self.events = events::in_order(self.events);
        self
    }

    /// The variables that it runs with, where these are the app's.
    #[must_use]
    pub fn variables_over<'a>(&'a self, app: &'a BTreeMap<String, String>) -> BTreeMap<&'a str, &'a str> {
        let all = app.iter().chain(&self.variables);
        all.map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Its own variables, when these have changed; none takes one away.
    pub(super) fn variables_with(
        &self,
        change: &BTreeMap<String, Option<String>>,
    ) -> BTreeMap<String, String> {
        let mut variables = self.variables.clone();
        for (name, value) in change {
            match value {
                Some(value) => variables.insert(name.clone(), value.clone()),
                None => variables.remove(name),
            };
        }
        variables
    }

    /// Refuses what cannot be, with its place below the function.
    pub(crate) fn check(&self, kind: Kind) -> Result<()> {
        if kind == Kind::Function && (self.always || self.idle_s.is_some()) {
            let at = if self.always { "/always" } else { "/idle_s" };
            return Err(Error::invalid(at, "a function has no such setting"));
        }
        if kind == Kind::Service && !self.events.is_empty() {
            return Err(Error::invalid("/events", "a service has no such setting"));
        }
        events::check(&self.events).map_err(|e| e.under("/events"))?;
        for (name, said, _, may) in self.numbers(kind) {
            if said.is_some_and(|said| !may.contains(&said)) {
                let message = format!("{name} is {} to {}", may.start(), may.end());
                return Err(Error::invalid(format!("/{name}"), message));
            }
        }
        variables::check(&self.variables).map_err(|e| e.under("/variables"))?;
        let mut seen = BTreeSet::new();
        for (i, name) in self.secrets.iter().enumerate() {
            let wrong = |message: String| Err(Error::invalid(format!("/secrets/{i}"), message));
            if !is_secret(name) {
                return wrong("this is not the name of a secret".to_owned());
            }
            if variables::is_reserved(name) {
                return wrong(format!(
                    "{name} is kept for what runs the function: store it under another name"
                ));
            }
            if !seen.insert(name) {
                return wrong(format!("the secret {name} is named twice"));
            }
            if self.variables.contains_key(name) {
                return wrong(format!("{name} is one of its variables too: call one of the two otherwise"));
            }
        }
        Ok(())
    }

    /// Refuses more variables than a function may have, where these are the app's.
    pub(crate) fn fits(&self, app: &BTreeMap<String, String>) -> Result<()> {
        let all = self.variables_over(app);
        variables::bounded(all.into_iter()).map_err(|e| e.field("/variables"))
    }

    /// That the secrets it names are among those that are `set`.
    pub(crate) fn has_secrets(&self, set: &[String]) -> Result<()> {
        match self.secrets.iter().position(|name| !set.contains(name)) {
            None => Ok(()),
            Some(i) => {
                let message = format!("the secret {} is not set", self.secrets[i]);
                Err(Error::invalid(format!("/secrets/{i}"), message).hint(crate::releases::SET_FIRST))
            }
        }
    }
}
