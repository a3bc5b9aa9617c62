//! `env_merge`: takes a branch's app into the environment that it is a branch of.

use capabilities::releases::Applied;
use kernel::{Code, Env, Error, Proof as _, Result, Scope, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::confirm::LOSSES;
use super::outcome::{Standing, lines};
use crate::platform::Platform;

pub struct EnvMerge;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The branch's slug or id.
    from: String,
    dry_run: Option<bool>,
    /// From the dry run.
    confirm: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    #[serde(flatten)]
    standing: Standing,
    /// What both sides have changed, each differently: nothing is merged while there is any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<String>,
    /// What to pass to merge it, after a dry run without conflicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<String>,
}

impl Tool<Platform> for EnvMerge {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Merge a branch",
        about: "Brings a branch's tables, rules, sign-in, site and migrations back here; rows stay apart. Needs a dry run first.",
        scopes: &[Scope::EnvWrite, Scope::AppWrite],
        effect: Effect::Destroy,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let (platform, env) = (cx.platform(), cx.env());
        // The credential carries `env:write`, so it is one of the whole tenant.
        let tenant = Tenant::authorize(cx.caller(), Self::SPEC.scopes)?;
        let found = platform.control.environments().get(&tenant, &input.from).await;
        let found = found.map_err(|e| e.field("/from"))?;
        let branch = Env::for_upkeep(found.tenant, found.id);
        let (url, secrets) = (platform.url(env).await?, platform.app_secrets(env).await?);
        match (input.dry_run.unwrap_or_default(), input.confirm) {
            (false, Some(confirm)) => {
                let applied = platform.snapshots.merge(env, &branch, &secrets, &confirm, cx.cancel()).await?;
                Ok(Output { standing: Standing::new(url, applied), conflicts: Vec::new(), confirm: None })
            }
            (false, None) => Err(Error::new(Code::Conflict, "a merge needs the confirmation of its dry run")
                .field("/confirm")
                .hint("call with dry_run, then again with the `confirm` that it returns")),
            (true, _) => {
                let merging = platform.snapshots.plan_merge(env, &branch, &secrets).await?;
                let live = platform.releases.live(env).await?.map_or(0, |live| live.release);
                let mut applied =
                    Applied { release: live, changed: false, changes: Vec::new(), effects: Vec::new() };
                let mut confirm = None;
                if let Some(plan) = merging.plan {
                    confirm = Some(plan.confirmation());
                    (applied.changes, applied.effects) = (plan.changes, plan.effects);
                }
                let conflicts = lines(merging.conflicts, LOSSES / 4);
                Ok(Output { standing: Standing::new(url, applied), conflicts, confirm })
            }
        }
    }
}
