//! `app_rollback`: returns to an earlier release.

use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use super::outcome::Standing;
use crate::platform::Platform;

pub struct AppRollback;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The release to return to.
    release: u64,
    dry_run: Option<bool>,
}

impl Tool<Platform> for AppRollback {
    type Proof = Env;
    type Input = Input;
    type Output = Standing;

    const SPEC: Spec = Spec {
        title: "Roll back",
        about: "Returns tables, rules, sign-in and site to an earlier release. Loses no row, or refuses.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Idempotent,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Standing> {
        let platform = cx.platform();
        let secrets = platform.app_secrets(cx.env()).await?;
        let applied = if input.dry_run.unwrap_or_default() {
            platform.releases.plan_rollback(cx.env(), input.release, &secrets, cx.cancel()).await?
        } else {
            platform.releases.rollback(cx.env(), input.release, &secrets, cx.cancel()).await?
        };
        Ok(Standing::new(platform.url(cx.env()).await?, applied))
    }
}
