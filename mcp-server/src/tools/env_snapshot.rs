//! `env_snapshot`: keeps the environment as it is at this moment.

use capabilities::snapshots::{NewSnapshot, Snapshot};
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct EnvSnapshot;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    name: Option<String>,
    note: Option<String>,
}

impl Tool<Platform> for EnvSnapshot {
    type Proof = Env;
    type Input = Input;
    type Output = Snapshot;

    const SPEC: Spec = Spec {
        title: "Take a snapshot",
        about: "Keeps rows, users, releases and files as they are now, for env_restore or env_branch.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Write,
        examples: &["{}"],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Snapshot> {
        let new = NewSnapshot { name: input.name, note: input.note };
        cx.platform().snapshots.take(cx.env(), new).await
    }
}
