//! `workspace_restore`: puts the files of the caller's sandbox back.

use kernel::{Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::confirm::Confirm;
use crate::platform::Platform;

pub struct WorkspaceRestore;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its id or name.
    snapshot: String,
    dry_run: Option<bool>,
    /// From the dry run.
    confirm: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Whether the files are as they were.
    restored: bool,
    /// What is, or would be, lost.
    effects: Vec<String>,
    /// What to pass to restore it, after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<String>,
}

impl Tool<Platform> for WorkspaceRestore {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Restore the workspace",
        about: "Puts /workspace back to a snapshot and ends what runs. Needs a dry run first.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Destroy,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let workspace = platform.workspace(cx.env(), cx.caller()).await?;
        let there = platform.hands.snapshots(&workspace).await?;
        let Some(snapshot) = there.iter().find(|it| it.is(&input.snapshot)) else {
            let shown: Vec<_> =
                there.iter().take(20).map(|it| it.name.clone().unwrap_or(it.id.to_string())).collect();
            let wanted: String = input.snapshot.chars().take(64).collect();
            return Err(Error::not_found(format!("snapshot {wanted:?} of your workspace"))
                .field("/snapshot")
                .hint(format!(
                    "there is {}",
                    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
                )));
        };
        let effects = vec![
            format!("files in /workspace go back to {}; what is newer is lost", snapshot.created),
            "whatever runs in the sandbox ends".to_owned(),
        ];
        let subject = format!("{} {}", workspace.id, snapshot.id);
        let confirm = Confirm { action: "workspace_restore", subject: &subject, losses: &effects };
        if input.dry_run.unwrap_or_default() {
            return Ok(Output { restored: false, confirm: Some(confirm.issue(platform)), effects });
        }
        confirm.redeem(platform, input.confirm.as_deref()).await?;
        platform.hands.restore(&workspace, snapshot.id).await?;
        Ok(Output { restored: true, effects: Vec::new(), confirm: None })
    }
}
