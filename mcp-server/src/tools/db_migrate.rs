//! `db_migrate`: changes the schema by SQL.

use capabilities::database::{self, Migrate, Migrated, Mode};
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use super::confirm::Confirm;
use crate::platform::Platform;

pub struct DbMigrate;

/// What effects may cost, and the history, in tokens.
const EFFECTS: usize = 2_400;
const HISTORY: usize = 800;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Such as 003_drop_notes.
    name: String,
    /// The statements, all or nothing.
    sql: String,
    dry_run: Option<bool>,
    /// From the dry run, if data is lost.
    confirm: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Whether it ran; not on a dry run, nor where the same text has run before.
    applied: bool,
    /// What it does to tables, columns and rows.
    effects: Vec<String>,
    /// What to pass to run it, where data is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<String>,
    /// The names of those that have run, in order; of many, the latest.
    history: Vec<String>,
    /// What there is more of than is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    omitted: Vec<String>,
}

impl Tool<Platform> for DbMigrate {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Migrate the database",
        about: "Runs SQL that may change or drop tables, once: the same text again does nothing.",
        scopes: &[Scope::DbWrite],
        effect: Effect::Write,
        examples: &[r#"{"name":"001_notes","sql":"CREATE TABLE IF NOT EXISTS notes (text TEXT) STRICT"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let mut migrate =
            Migrate { name: input.name, sql: input.sql, mode: Mode::DryRun, release: None, accepted: None };
        let trial = platform.databases.migrate(cx.env(), &migrate, cx.cancel()).await?;
        let losses: Vec<_> = trial.effects.iter().filter(|e| e.loses()).map(words).collect();
        let subject = format!("{} {}", cx.env_id(), migrate.sql);
        let confirm = Confirm { action: "db_migrate", subject: &subject, losses: &losses };
        if input.dry_run.unwrap_or_default() {
            let confirm = (!losses.is_empty()).then(|| confirm.issue(platform));
            return Ok(output(trial, confirm));
        }
        if !losses.is_empty() {
            confirm.redeem(platform, input.confirm.as_deref()).await?;
        }
        migrate.mode = Mode::Apply;
        migrate.accepted = Some(trial.effects.into_iter().filter(database::Effect::loses).collect());
        Ok(output(platform.databases.migrate(cx.env(), &migrate, cx.cancel()).await?, None))
    }
}

fn output(done: Migrated, confirm: Option<String>) -> Output {
    let mut effects = done.effects;
    effects.sort_by_key(|effect| !effect.loses());
    let (effects, more_effects) = budget::fit(effects.iter().map(words).collect(), EFFECTS);
    let latest = done.history.into_iter().rev().map(|applied| applied.name).collect();
    let (mut history, earlier) = budget::fit(latest, HISTORY);
    history.reverse();
    let omitted = [(more_effects, "effects"), (earlier, "earlier migrations")]
        .into_iter()
        .filter(|(left, _)| *left > 0)
        .map(|(left, what)| format!("{left} {what}"))
        .collect();
    Output { applied: done.applied, effects, confirm, history, omitted }
}

fn words(effect: &database::Effect) -> String {
    use database::Effect as E;
    match effect {
        E::TableDropped { table, rows } => format!("table {table} goes with {rows} rows"),
        E::ColumnDropped { table, column, values } => {
            format!("column {table}.{column} goes with {values} values")
        }
        E::RowsRemoved { table, rows } => format!("{rows} rows of {table} are deleted"),
        E::ColumnRetyped { table, column, from, to } => format!("column {table}.{column}: {from} → {to}"),
        E::TableCreated { table } => format!("table {table} comes"),
        E::TableRenamed { from, to } => format!("table {from} becomes {to}"),
        E::ColumnAdded { table, column } => format!("column {table}.{column} comes"),
        E::ColumnRenamed { table, from, to } => format!("column {table}.{from} becomes {to}"),
        E::RowsAdded { table, rows } => format!("{rows} rows come to {table}"),
        E::ObjectDropped { name } => format!("{name} goes"),
        E::ObjectCreated { name } => format!("{name} comes"),
    }
}
