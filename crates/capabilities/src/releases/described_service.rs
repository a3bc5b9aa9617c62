//! A service in a description.

use schemars::JsonSchema;
use serde::Serialize;

use crate::functions::{Access, Base, Function, FunctionName, Health, Serving, Settings};

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ServiceInfo {
    /// The same as long as the same runs.
    pub version: String,
    /// What runs.
    pub command: String,
    /// What has run once, when it was deployed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// What it has below /usr/local, where it was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Base>,
    /// When it is there, where that is not when it listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Who may ask it at its path.
    pub access: Access,
    /// Its own path below the app's URL.
    pub path: String,
    /// Paths of its files.
    pub files: Vec<String>,
    /// Names of its own variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// Names of the secrets that it gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Memory of one process, where it is not 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Seconds until its answer must have begun, where they are not 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Requests that one process works on at once, where they are not 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Processes at once, where there may be more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// Seconds without a request after which it ends, where they are not 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u32>,
    /// Whether one process runs always.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
}

impl ServiceInfo {
    /// What may be long.
    pub fn lists_mut(&mut self) -> [&mut Vec<String>; 3] {
        [&mut self.files, &mut self.variables, &mut self.secrets]
    }

    pub(super) fn of(name: &FunctionName, function: &Function, serving: &Serving) -> Self {
        let settings = function.settings.clone();
        let Settings { access, variables, secrets, memory_mb, timeout_s, .. } = settings;
        let Settings { concurrency, max_instances, idle_s, always, .. } = function.settings;
        let Serving { command, build, template, health } = serving.clone();
        Self {
            version: function.version(),
            command,
            build,
            template,
            health: Some(health).filter(|health| *health != Health::default()),
            access,
            path: function.path(name),
            files: function.sources.files.keys().map(ToString::to_string).collect(),
            variables: variables.into_keys().collect(),
            secrets,
            memory_mb,
            timeout_s,
            concurrency,
            max_instances,
            idle_s,
            always,
        }
    }
}
