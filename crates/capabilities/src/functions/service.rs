//! Services as a manifest writes them: a command of any language that listens.

use std::collections::BTreeMap;

use kernel::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::spec::{Access, is_default};
use crate::hosting::FileSpec;

/// The longest command, in bytes, and the longest path of a health check.
const COMMAND: usize = 4_096;
const PATH: usize = 512;

/// Seconds until it listens, where they are not said, and at most.
const STARTS_WITHIN: u32 = 30;
const STARTS_WITHIN_AT_MOST: u32 = 90;

/// One service: a command that listens at `PORT` and answers HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// A directory next to the manifest. Only the command line reads it; over MCP and HTTP send `files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Path to content, as a site's.
    #[serde(default)]
    pub files: BTreeMap<String, FileSpec>,
    /// A line of bash that runs where the files are, and listens at $PORT: `python3 app.py`.
    pub command: String,
    /// A line of bash that runs once, when it is deployed, and reaches the registries of npm and pip alone: `npm ci`,
    /// `pip install -r requirements.txt --target .`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// What it has below /usr/local; where it is left out, all of these that the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Base>,
    /// When it is there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: Health,
    /// Who may ask it at /_/svc/{name}.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Access,
    /// Variables of its own, over those of the app.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Names of the secrets that it gets as variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Memory of one process with what it begins, 64 to 2048; 256 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Seconds until its answer must have begun, 1 to 900; 30 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Requests that one process works on at once, 1 to 300; 50 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Processes at once, 1 to 8; 1 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// Seconds without a request after which a process ends, 10 to 86400; 300 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u32>,
    /// One process runs always, whether anybody asks or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
}

/// What shall be otherwise about a service; what is none stays, or is what it is without being said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceChange {
    /// All of its files.
    pub files: Option<BTreeMap<String, FileSpec>>,
    /// What runs.
    pub command: Option<String>,
    /// What runs once, when it is deployed; an empty one is none.
    pub build: Option<String>,
    /// The path of its health check; an empty one is none.
    pub health_path: Option<String>,
    /// Who may ask it at its own address.
    pub access: Option<Access>,
    /// Variables of its own, over those that it has; none takes one away.
    pub variables: BTreeMap<String, Option<String>>,
    /// Names of all secrets that it gets.
    pub secrets: Option<Vec<String>>,
    /// Whether one process runs always.
    pub always: Option<bool>,
}

/// What a service has below `/usr/local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// Node.js and npm.
    Node,
    /// pip, for the Python that is there anyway.
    Python,
    /// Nothing.
    Blank,
}

/// When a service is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A path that answers with 200 to 399 then; where it is left out, it is there when it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Seconds until then, 1 to 90; 30 where they are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
}

/// How a service is run, as a release keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// A line of bash.
    pub command: String,
    /// Another one, which runs once when it is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// What it has below `/usr/local`; all that there is, where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Base>,
    /// When it is there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: Health,
}

impl Base {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
            Self::Blank => "blank",
        }
    }
}

impl Health {
    /// Seconds until it must be there.
    #[must_use]
    pub fn within_s(&self) -> u32 {
        self.timeout_s.unwrap_or(STARTS_WITHIN)
    }
}

impl Serving {
    /// Refuses what cannot be, with its place below the service.
    pub(crate) fn check(&self) -> Result<()> {
        let lines = [("command", Some(&self.command)), ("build", self.build.as_ref())];
        for (name, line) in lines {
            let Some(line) = line else { continue };
            let at = format!("/{name}");
            if line.trim().is_empty() {
                return Err(Error::invalid(at, format!("the {name} is empty"))
                    .hint("write a line of bash: python3 app.py, node server.js"));
            }
            if line.len() > COMMAND || line.contains('\0') {
                let message = format!("a {name} is a text of at most {COMMAND} bytes");
                return Err(Error::invalid(at, message).hint("put a script among the files, and run that"));
            }
        }
        if let Some(path) = &self.health.path {
            let is_path =
                path.starts_with('/') && path.len() <= PATH && path.bytes().all(|b| b.is_ascii_graphic());
            if !is_path {
                let message = "the path of a health check begins with / and has at most 512 ASCII characters";
                return Err(Error::invalid("/health/path", message));
            }
        }
        if self.health.timeout_s.is_some_and(|it| !(1..=STARTS_WITHIN_AT_MOST).contains(&it)) {
            let message = format!("timeout_s is 1 to {STARTS_WITHIN_AT_MOST}");
            return Err(Error::invalid("/health/timeout_s", message));
        }
        Ok(())
    }

    /// The same, as it is kept: what is said without being otherwise is left out.
    pub(crate) fn in_order(mut self) -> Self {
        self.build = self.build.filter(|line| !line.is_empty());
        self.health.timeout_s = self.health.timeout_s.filter(|it| *it != STARTS_WITHIN);
        self.health.path = self.health.path.filter(|path| !path.is_empty());
        self
    }

    /// As much of it as what is built depends on.
    pub(super) fn of_build(&self) -> Self {
        Self { command: String::new(), health: Health::default(), ..self.clone() }
    }
}

impl ServiceSpec {
    /// How it is run.
    #[must_use]
    pub fn serving(&self) -> Serving {
        let (command, build) = (self.command.clone(), self.build.clone());
        Serving { command, build, template: self.template, health: self.health.clone() }.in_order()
    }

    /// How it runs, and for whom.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let Self { access, memory_mb, timeout_s, concurrency, max_instances, idle_s, always, .. } = *self;
        let (variables, secrets) = (self.variables.clone(), self.secrets.clone());
        Settings {
            access,
            variables,
            secrets,
            memory_mb,
            timeout_s,
            concurrency,
            max_instances,
            idle_s,
            always,
            events: Vec::new(),
        }
    }
}

impl ServiceChange {
    /// How a service runs that runs as `before` says, when this has changed.
    #[must_use]
    pub fn settings(&self, before: &Settings) -> Settings {
        Settings {
            access: self.access.unwrap_or(before.access),
            variables: before.variables_with(&self.variables),
            secrets: self.secrets.clone().unwrap_or_else(|| before.secrets.clone()),
            always: self.always.unwrap_or(before.always),
            ..before.clone()
        }
    }

    /// How a service is run that was run as `before` says.
    ///
    /// # Errors
    /// Where nothing says what runs.
    pub(crate) fn serving(&self, before: Option<&Serving>) -> Result<Serving> {
        let command = self.command.clone().or_else(|| before.map(|it| it.command.clone()));
        let command = command.ok_or_else(|| {
            Error::invalid("/command", "there is no such service yet: say what runs")
                .hint("a line of bash that listens at $PORT: python3 app.py")
        })?;
        let mut health = before.map(|it| it.health.clone()).unwrap_or_default();
        health.path = self.health_path.clone().or(health.path);
        let build = self.build.clone().or_else(|| before.and_then(|it| it.build.clone()));
        let template = before.and_then(|it| it.template);
        let serving = Serving { command, build, template, health }.in_order();
        serving.check()?;
        Ok(serving)
    }
}
