//! `app_rollback`: returns to an earlier release.

use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::outcome::Outcome;
use crate::platform::Platform;

pub struct AppRollback;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The release to return to.
    release: u64,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The current release.
    release: u64,
    /// Where the app answers.
    url: String,
    /// Whether anything was done.
    changed: bool,
    /// What was done, and what was kept so that no data is lost.
    #[serde(flatten)]
    outcome: Outcome,
}

impl Tool<Platform> for AppRollback {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Roll back",
        about: "Returns tables and site to an earlier release. Rows are never lost; what would lose some is refused.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Idempotent,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let applied = platform.releases.rollback(cx.env(), input.release, cx.cancel()).await?;
        Ok(Output {
            release: applied.release,
            url: platform.url(cx.env()).await?,
            changed: applied.changed,
            outcome: Outcome::new(applied.changes, applied.effects),
        })
    }
}
