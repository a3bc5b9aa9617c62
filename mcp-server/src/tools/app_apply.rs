//! `app_apply`: makes the app what a manifest says.

use std::time::Duration;

use capabilities::releases::Wanted;
use kernel::{Env, Error, PlanId, Result, Scope};
use schemars::JsonSchema;
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use super::app_plan::{in_manifest, may_run};
use super::manifest::ManifestInput;
use super::outcome::Standing;
use crate::platform::Platform;

pub struct AppApply;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What the app shall be; sections left out stay as they are.
    manifest: Option<ManifestInput>,
    /// Instead: a plan from app_plan.
    plan_id: Option<String>,
    /// The plan's `confirm`, where it loses data.
    confirm: Option<String>,
}

impl Tool<Platform> for AppApply {
    type Proof = Env;
    type Input = Input;
    type Output = Standing;

    const SPEC: Spec = Spec {
        title: "Apply the app",
        about: "Makes the app what a manifest says, all or nothing, and checks it live. Example: \
                {\"database\":{\"tables\":{\"todos\":{\"columns\":{\"title\":\"text!\",\"done\":\"bool = false\"},\
                \"access\":\"private\"}}},\"site\":{\"files\":{\"index.html\":\"<h1>Hi</h1>\"},\"spa\":true}}. \
                Types: text int real bool json blob timestamp ref:<table>. Each table has id, created_at, updated_at.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Write,
        examples: &[r#"{"manifest":{"site":{"files":{"index.html":"<h1>Hi</h1>"}}}}"#],
    };

    const ENTRY: bool = true;

    /// What it brings is built, with packages that have to be fetched.
    const PATIENCE: Duration = Duration::from_secs(420);

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Standing> {
        let platform = cx.platform();
        let secrets = platform.app_secrets(cx.env()).await?;
        let wanted = match (input.manifest, input.plan_id) {
            (Some(manifest), None) if input.confirm.is_none() => {
                let manifest = manifest.parse()?;
                may_run(cx.caller(), &manifest)?;
                Wanted::Manifest(Box::new(manifest))
            }
            (Some(_), None) => {
                return Err(Error::invalid("/confirm", "a confirmation belongs to a plan")
                    .hint("call app_plan, then app_apply with its plan_id and confirm"));
            }
            (None, Some(id)) => {
                let id: PlanId = id.parse().map_err(|e| Error::invalid("/plan_id", format!("{e}")))?;
                Wanted::Plan { id, confirm: input.confirm }
            }
            _ => return Err(Error::invalid("", "give either manifest or plan_id")),
        };
        let of_manifest = matches!(wanted, Wanted::Manifest(_));
        cx.progress(0, 2, "applying");
        let applied = platform.releases.apply(cx.env(), wanted, &secrets, cx.cancel()).await;
        let applied = applied.map_err(|e| {
            let e = platform.masks.covered(cx.env().id(), e);
            if of_manifest { in_manifest(e) } else { e }
        })?;
        cx.progress(2, 2, "live");
        Ok(Standing::new(platform.url(cx.env()).await?, applied))
    }
}
