//! `db_query`: reads rows.

use capabilities::database::Query;
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct DbQuery;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// One SELECT.
    sql: String,
    /// Values for ?1, ?2 …
    #[serde(default)]
    #[schemars(schema_with = "super::params")]
    params: Vec<Value>,
    /// Default 100, at most 1000.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    columns: Vec<String>,
    /// Values in the order of the columns.
    #[schemars(schema_with = "super::rows")]
    rows: Vec<Vec<Value>>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Tool<Platform> for DbQuery {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Query the database",
        about: "Runs one read-only SQLite statement.",
        scopes: &[Scope::DbRead],
        effect: Effect::Read,
        examples: &[r#"{"sql":"SELECT ?1 + 1 AS two","params":[1]}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let query = Query {
            sql: input.sql,
            params: input.params,
            limit: input.limit,
            cursor: input.cursor,
            ..Query::default()
        };
        let page = cx.platform().databases.query(cx.env(), query, cx.cancel()).await?;
        Ok(Output { columns: page.columns, rows: page.rows, cursor: page.cursor })
    }
}
