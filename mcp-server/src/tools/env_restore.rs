//! `env_restore`: puts an environment back to a snapshot.

use kernel::{Env, Result, Scope, SnapshotId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::confirm::{LOSSES, unconfirmed};
use super::outcome::lines;
use crate::platform::Platform;

pub struct EnvRestore;

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
    /// Whether everything is as it was.
    restored: bool,
    /// The release that is, or would be, live; 0 where there was none.
    release: u64,
    /// What the return takes away and brings back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    effects: Vec<String>,
    /// The snapshot of the moment before: restoring it undoes this.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<SnapshotId>,
    /// What to pass to restore it, after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<String>,
}

impl Tool<Platform> for EnvRestore {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Restore a snapshot",
        about: "Puts rows, users, releases and files back to a snapshot; newer ones go. Needs a dry run first.",
        scopes: &[
            Scope::AppWrite,
            Scope::DbWrite,
            Scope::AuthWrite,
            Scope::StorageWrite,
            Scope::ResourceDelete,
        ],
        effect: Effect::Destroy,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let (platform, env) = (cx.platform(), cx.env());
        let snapshot = platform.snapshots.find(env, &input.snapshot).await?;
        let confirmations = platform.control.confirmations();
        // Not what would be lost: an app that is used loses something else each second, and it can be undone.
        let subject = format!("{} {}", env.id(), snapshot.snapshot);
        let release = snapshot.release;
        let dry_run = input.dry_run.unwrap_or_default();
        if let (false, Some(confirm)) = (dry_run, &input.confirm) {
            confirmations.redeem("env_restore", &subject, b"", confirm).await?;
            let done = platform.snapshots.restore(env, &snapshot.snapshot.to_string()).await?;
            let undo = Some(done.undo);
            return Ok(Output { restored: true, release, effects: Vec::new(), undo, confirm: None });
        }
        let effects = lines(
            platform.snapshots.losses(env, &snapshot, &platform.app_secrets(env).await?).await?,
            LOSSES,
        );
        if !dry_run {
            return Err(unconfirmed(&effects));
        }
        let confirm = Some(confirmations.issue("env_restore", &subject, b"").token);
        Ok(Output { restored: false, release, effects, undo: None, confirm })
    }
}
