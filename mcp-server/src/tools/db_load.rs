//! `db_load`: loads rows from CSV, JSON or NDJSON.

use capabilities::database::{self, Load};
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
    /// CSV begins with column names.
    text: String,
    /// Rows whose key is there; default: fail.
    on_conflict: Option<OnConflict>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Json,
    Ndjson,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    Fail,
    Skip,
    Update,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Rows that are there now.
    loaded: u64,
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
        let format = match input.format {
            Format::Csv => database::Format::Csv,
            Format::Json => database::Format::Json,
            Format::Ndjson => database::Format::Ndjson,
        };
        let on_conflict = match input.on_conflict.unwrap_or(OnConflict::Fail) {
            OnConflict::Fail => database::OnConflict::Fail,
            OnConflict::Skip => database::OnConflict::Skip,
            OnConflict::Update => database::OnConflict::Update,
        };
        let load = Load { table: input.table, format, text: input.text, on_conflict };
        let loaded = cx.platform().databases.load(cx.env(), &load, cx.cancel()).await?;
        Ok(Output { loaded: loaded.loaded, skipped: loaded.skipped })
    }
}
