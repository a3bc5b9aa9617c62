//! `db_execute`: writes rows.

use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct DbExecute;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// One INSERT, UPDATE, DELETE or CREATE.
    sql: String,
    /// Values for ?1, ?2 …
    #[serde(default)]
    #[schemars(schema_with = "super::params")]
    params: Vec<Value>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Rows changed.
    changed: u64,
    /// The columns of RETURNING.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<String>,
    /// The rows of RETURNING.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::rows")]
    rows: Vec<Vec<Value>>,
}

impl Tool<Platform> for DbExecute {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Write to the database",
        about: "Runs one SQLite statement that writes rows or adds to the schema; RETURNING works.",
        scopes: &[Scope::DbWrite],
        effect: Effect::Write,
        examples: &[r#"{"sql":"CREATE TABLE IF NOT EXISTS notes (text TEXT) STRICT"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let done = cx.platform().databases.execute(cx.env(), &input.sql, &input.params, cx.cancel()).await?;
        Ok(Output { changed: done.changed, columns: done.columns, rows: done.rows })
    }
}
