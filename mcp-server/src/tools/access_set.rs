//! `access_set`: says who may do what with a table's rows.

use std::borrow::Cow;

use capabilities::access::{AccessSpec, Matrix};
use kernel::{Env, Result, Scope};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool::{Cx, Effect, Spec, Tool};

use super::outcome::{Standing, lines, shorten};
use crate::platform::Platform;

pub struct AccessSet;

/// What lint may cost, in tokens, and how long one finding may be, in characters.
const LINT: usize = 400;
const FINDING: usize = 300;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    table: String,
    access: AccessInput,
    dry_run: Option<bool>,
}

/// Access that has not been checked: a text or an object to a model.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct AccessInput(Value);

impl AccessInput {
    /// Checks its form; what expressions say is checked against what they are about.
    ///
    /// # Errors
    /// `invalid_input` below `/access`.
    pub fn parse(self) -> Result<AccessSpec> {
        tool::decode(self.0).map_err(|e| e.under("/access"))
    }
}

impl JsonSchema for AccessInput {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Access".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "object" }] })
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    #[serde(flatten)]
    standing: Standing,
    /// Who may do what with a row that `user` owns.
    #[schemars(with = "std::collections::BTreeMap<String, Vec<capabilities::access::Operation>>")]
    matrix: Matrix,
    /// What is likely wrong.
    lint: Vec<String>,
}

impl Tool<Platform> for AccessSet {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Set access",
        about: "Sets who reads and writes a table: private, public_read, admin_write, admin_only, or an expression each \
                for list, get, create, update, delete.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Idempotent,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let access = input.access.parse()?;
        let (platform, env) = (cx.platform(), cx.env());
        let set = if input.dry_run.unwrap_or_default() {
            platform.releases.plan_access(env, &input.table, access, cx.cancel()).await?
        } else {
            platform.releases.set_access(env, &input.table, access, cx.cancel()).await?
        };
        let mut lint = set.lint;
        lint.iter_mut().for_each(|finding| shorten(finding, FINDING));
        let standing = Standing::new(platform.url(env).await?, set.applied);
        Ok(Output { standing, matrix: set.matrix, lint: lines(lint, LINT) })
    }
}
