//! `env_delete`: removes an environment and everything in it.

use kernel::{Result, Scope, Tenant};
use schemars::JsonSchema;
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use super::confirm::{Deletion, LOSSES, unconfirmed};
use super::outcome::lines;
use crate::platform::Platform;

pub struct EnvDelete;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its slug or id.
    env: String,
    dry_run: Option<bool>,
    /// From the dry run.
    confirm: Option<String>,
}

impl Tool<Platform> for EnvDelete {
    type Proof = Tenant;
    type Input = Input;
    type Output = Deletion;

    const SPEC: Spec = Spec {
        title: "Delete an environment",
        about: "Deletes an environment: database, site, releases, secrets, logs. Needs a dry run first.",
        scopes: &[Scope::EnvDelete],
        effect: Effect::Destroy,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Tenant>, input: Input) -> Result<Deletion> {
        let platform = cx.platform();
        let effects = platform.losses(cx.tenant(), &input.env).await.map_err(|e| e.field("/env"))?;
        let environments = platform.control.environments();
        let losses = effects.join("\n").into_bytes();
        if input.dry_run.unwrap_or_default() {
            let confirm = environments.confirm_delete(cx.tenant(), &input.env, &losses).await?.token;
            return Ok(Deletion { deleted: false, effects: lines(effects, LOSSES), confirm: Some(confirm) });
        }
        let Some(confirm) = input.confirm else { return Err(unconfirmed(&effects)) };
        let doomed = environments.begin_delete(cx.tenant(), &input.env, &losses, &confirm).await?;
        platform.remove_environment(&doomed).await?;
        Ok(Deletion { deleted: true, effects: lines(effects, LOSSES), confirm: None })
    }
}
