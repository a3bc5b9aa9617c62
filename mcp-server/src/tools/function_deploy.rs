//! `function_deploy`: builds a function and lets it answer.

use std::collections::BTreeMap;
use std::time::Duration;

use capabilities::functions::{Access, FunctionChange, Runtime};
use capabilities::releases::CodeChange;
use kernel::{Env, Result, Scope};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use super::code::{Deployed, access, deploy, distinct, named, variables};
use super::files::{FilesInput, given};
use crate::platform::Platform;

pub struct FunctionDeploy;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    name: String,
    /// Path → text; index.ts exports fetch. Left out: the code stays.
    files: Option<FilesInput>,
    /// Instead: a directory of your sandbox.
    workspace_path: Option<String>,
    entry: Option<String>,
    #[serde(default)]
    #[schemars(schema_with = "runtime")]
    runtime: Option<Runtime>,
    #[serde(default)]
    #[schemars(schema_with = "access")]
    access: Option<Access>,
    #[serde(default)]
    #[schemars(schema_with = "variables")]
    variables: BTreeMap<String, Option<String>>,
    secrets: Option<Vec<String>>,
    #[schemars(with = "Option<u64>")]
    timeout_s: Option<u32>,
}

fn runtime(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["bun", "node"] })
}

impl Tool<Platform> for FunctionDeploy {
    type Proof = Env;
    type Input = Input;
    type Output = Deployed;

    const SPEC: Spec = Spec {
        title: "Deploy a function",
        about: "Builds TypeScript or JavaScript with npm packages and serves it at /_/fn/{name}.",
        scopes: &[Scope::FunctionWrite],
        effect: Effect::Write,
        examples: &[
            r#"{"name":"hello","files":{"index.ts":"export default { fetch: () => new Response('hi') }"},"access":"public"}"#,
        ],
    };

    const PATIENCE: Duration = Duration::from_secs(420);

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Deployed> {
        let name = named(&input.name)?;
        let of_workspace = input.workspace_path.is_some();
        let change = CodeChange::Function(FunctionChange {
            files: given(cx, input.files, input.workspace_path.as_deref()).await?,
            entry: input.entry,
            runtime: input.runtime,
            access: input.access,
            variables: input.variables,
            secrets: input.secrets.map(distinct),
            timeout_s: input.timeout_s,
            ..FunctionChange::default()
        });
        deploy(cx, name, change, of_workspace).await
    }
}
