//! `service_deploy`: runs a command of any language as a service and lets it answer.

use std::collections::BTreeMap;
use std::time::Duration;

use capabilities::functions::{Access, ServiceChange};
use capabilities::releases::CodeChange;
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use super::code::{Deployed, access, deploy, distinct, named, variables};
use super::files::{FilesInput, given};
use crate::platform::Platform;

pub struct ServiceDeploy;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    name: String,
    /// Path → text.
    files: Option<FilesInput>,
    /// Instead: a directory of your sandbox.
    workspace_path: Option<String>,
    /// Bash; listens at $PORT.
    command: Option<String>,
    /// Bash, once.
    build: Option<String>,
    health_path: Option<String>,
    #[serde(default)]
    #[schemars(schema_with = "access")]
    access: Option<Access>,
    #[serde(default)]
    #[schemars(schema_with = "variables")]
    variables: BTreeMap<String, Option<String>>,
    secrets: Option<Vec<String>>,
    always: Option<bool>,
}

impl Tool<Platform> for ServiceDeploy {
    type Proof = Env;
    type Input = Input;
    type Output = Deployed;

    const SPEC: Spec = Spec {
        title: "Deploy a service",
        about: "Serves HTTP in any language at /_/svc/{name}.",
        scopes: &[Scope::FunctionWrite],
        effect: Effect::Write,
        examples: &[
            r#"{"name":"hello","files":{"index.html":"hi"},"command":"python3 -m http.server $PORT","access":"public"}"#,
        ],
    };

    const PATIENCE: Duration = Duration::from_secs(540);

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Deployed> {
        let name = named(&input.name)?;
        let of_workspace = input.workspace_path.is_some();
        let change = CodeChange::Service(ServiceChange {
            files: given(cx, input.files, input.workspace_path.as_deref()).await?,
            command: input.command,
            build: input.build,
            health_path: input.health_path,
            access: input.access,
            variables: input.variables,
            secrets: input.secrets.map(distinct),
            always: input.always,
        });
        deploy(cx, name, change, of_workspace).await
    }
}
