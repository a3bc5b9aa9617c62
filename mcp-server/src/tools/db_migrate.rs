//! `db_migrate`: changes the schema by SQL.

use capabilities::database::{DryRun, Migrate};
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct DbMigrate;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name, such as 003_drop_notes.
    name: String,
    /// The statements, all or nothing.
    sql: String,
    /// Only show the effects.
    dry_run: Option<bool>,
    /// From the dry run, where data is lost.
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
    /// The names of all that have run, in order.
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
        let (env, sql) = (cx.env(), input.sql.clone());
        let migrate = |run| Migrate { name: input.name.clone(), sql: sql.clone(), run };
        let trial = platform.databases.migrate(env, migrate(Run::Dry), cx.cancel()).await?;
        let subject = format!("{}\0{}\0{}", env.id(), input.sql, trial.losses.join("\0"));
        let dry = input.dry_run.unwrap_or_default();
        if !dry && !trial.losses.is_empty() {
            super::confirmed(platform, "db_migrate", &subject, &trial.losses, input.confirm.as_deref())?;
        }
        if !dry {
            let done = platform.databases.migrate(env, migrate(Run::Commit { losses: trial.losses }), cx.cancel()).await?;
            return Ok(Output { applied: done.applied, effects: done.effects, confirm: None, history: done.history });
        }
        let confirm = (!trial.losses.is_empty()).then(|| platform.control.confirmation("db_migrate", &subject));
        Ok(Output { applied: false, effects: trial.effects, confirm, history: trial.history })
    }
}
