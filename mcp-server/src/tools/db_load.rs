//! `db_load`: loads rows from CSV, JSON or NDJSON.

use capabilities::database::{Format, Load, OnConflict};
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct DbLoad;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    table: String,
    format: Format,
    /// The rows; CSV begins with column names.
    text: String,
    /// Rows whose key is there; default: fail.
    on_conflict: Option<OnConflict>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Rows inserted.
    inserted: u64,
    /// Rows that replaced others.
    updated: u64,
    /// Rows left out because their key was there.
    skipped: u64,
}

impl Tool<Platform> for DbLoad {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Load rows",
        about: "Inserts many rows into a table, all or none.",
        scopes: &[Scope::DbWrite],
        effect: Effect::Write,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let load = Load {
            table: input.table,
            format: input.format,
            text: input.text,
            on_conflict: input.on_conflict.unwrap_or_default(),
        };
        let loaded = cx.platform().databases.load(cx.env(), load, cx.cancel()).await?;
        Ok(Output { inserted: loaded.inserted, updated: loaded.updated, skipped: loaded.skipped })
    }
}
