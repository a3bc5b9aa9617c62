//! `file_write`: writes a text file of the caller's sandbox.

use kernel::{Env, Result, Scope};
use sandbox::session::Write;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct FileWrite;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    path: String,
    text: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Bytes written.
    bytes: u64,
}

impl Tool<Platform> for FileWrite {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Write a file",
        about: "Writes a text file of your sandbox whole, with the directories above it.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Idempotent,
        examples: &[r#"{"path":"src/main.ts","text":"console.log(1)\n"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let hand = cx.platform().hand(cx.env(), cx.caller()).await?;
        let bytes = input.text.len() as u64;
        hand.files().write(&input.path, input.text.as_bytes(), bytes, Write::default()).await?;
        Ok(Output { bytes })
    }
}
