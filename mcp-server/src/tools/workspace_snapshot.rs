//! `workspace_snapshot`: keeps the files of the caller's sandbox as they are.

use kernel::{Env, Result, Scope, WorkspaceSnapshotId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;
use crate::sandboxes::check_snapshot_name;

pub struct WorkspaceSnapshot;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// To find it by.
    name: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Its id.
    #[schemars(with = "String")]
    snapshot: WorkspaceSnapshotId,
}

impl Tool<Platform> for WorkspaceSnapshot {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Keep the workspace",
        about: "Keeps /workspace as it is now, for workspace_restore.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Write,
        examples: &[r#"{"name":"before the upgrade"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        check_snapshot_name(input.name.as_deref())?;
        let workspace = cx.platform().workspace(cx.env(), cx.caller()).await?;
        let snapshot = cx.platform().hands.snapshot(&workspace, input.name).await?;
        Ok(Output { snapshot: snapshot.id })
    }
}
