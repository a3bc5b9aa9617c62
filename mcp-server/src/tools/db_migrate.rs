//! `db_migrate`: changes the schema by SQL.

use capabilities::database::{self, Migrate, Migrated, Mode};
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::confirm::Confirm;
use super::shorten::few;
use crate::platform::Platform;

pub struct DbMigrate;

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
    /// The names of those that have run, newest first.
    history: Vec<String>,
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
        let mut migrate = Migrate { name: input.name, sql: input.sql, mode: Mode::DryRun, release: None };
        let trial = platform.databases.migrate(cx.env(), &migrate, cx.cancel()).await?;
        let lost: Vec<_> = trial.effects.iter().filter(|e| e.loses()).cloned().collect();
        let losses: Vec<_> = lost.iter().map(words).collect();
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
        // Rows may have come since the trial.
        let done = platform.databases.migrate_as_shown(cx.env(), &migrate, &lost, cx.cancel()).await?;
        Ok(output(done, None))
    }
}

fn output(mut done: Migrated, confirm: Option<String>) -> Output {
    done.effects.sort_by_key(|effect| !effect.loses());
    let latest = done.history.into_iter().rev().map(|applied| applied.name).collect();
    Output {
        applied: done.applied,
        effects: few(done.effects.iter().map(words).collect(), 2_500),
        confirm,
        history: few(latest, 800),
    }
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
