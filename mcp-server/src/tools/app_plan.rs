//! `app_plan`: what applying a manifest would do.

use std::time::Duration;

use capabilities::releases::Manifest;
use kernel::{Caller, Code, Env, Error, PlanId, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::manifest::ManifestInput;
use super::outcome::Outcome;
use crate::platform::Platform;

pub struct AppPlan;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// As in app_apply.
    manifest: ManifestInput,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// What to give app_apply.
    #[schemars(with = "String")]
    plan_id: PlanId,
    /// The current release; 0 before the first.
    release: u64,
    #[serde(flatten)]
    outcome: Outcome,
    /// What to give app_apply along with the plan, where data would be lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<String>,
}

impl Tool<Platform> for AppPlan {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Plan a change",
        about: "Tries a manifest out without applying it: changes, and effects on data, privileges and cost.",
        scopes: &[Scope::AppRead, Scope::DbRead],
        effect: Effect::Read,
        examples: &[r#"{"manifest":{"database":{"tables":{"todos":{"columns":{"title":"text!"}}}}}}"#],
    };

    /// What it brings is built, with packages that have to be fetched.
    const PATIENCE: Duration = Duration::from_secs(420);

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let manifest: Manifest = input.manifest.parse()?;
        may_run(cx.caller(), &manifest)?;
        let secrets = platform.app_secrets(cx.env()).await?;
        let plan = platform.releases.plan(cx.env(), manifest, &secrets).await.map_err(in_manifest)?;
        Ok(Output {
            plan_id: plan.id,
            release: plan.release,
            outcome: Outcome::new(plan.changes, plan.effects),
            confirm: plan.confirm,
        })
    }
}

/// That the caller may run the manifest's own SQL: it reads and writes whatever it likes, also where it is only tried.
///
/// # Errors
/// `forbidden` at the migrations.
pub(super) fn may_run(caller: &Caller, manifest: &Manifest) -> Result<()> {
    let migrates = manifest.database.as_ref().is_some_and(|database| !database.migrations.is_empty());
    match caller.scopes.missing(&[Scope::DbRead, Scope::DbWrite]).filter(|_| migrates) {
        None => Ok(()),
        Some(scope) => {
            let message = format!("migrations read and write rows: the credential lacks the scope {scope}");
            Err(Error::new(Code::Forbidden, message)
                .field("/manifest/database/migrations")
                .hint("leave them out, or use a credential with db:read and db:write"))
        }
    }
}

/// Pointers into the manifest become pointers into the input.
pub(super) fn in_manifest(error: kernel::Error) -> kernel::Error {
    if error.pointer().is_some() { error.under("/manifest") } else { error }
}
