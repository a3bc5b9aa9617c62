//! `preview_open`: shows a server of the caller's sandbox at an address of its own.

use std::time::Duration;

use hands::Visibility;
use kernel::{Code, Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct PreviewOpen;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    port: u16,
    /// Show it to everybody; false ends that.
    public: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Where it is. Unless it is public, the address opens it for a day; a program sends what follows `=` as the header
    /// `Steading-Preview`.
    url: String,
    /// Whether everybody sees it.
    public: bool,
}

/// How long it is waited for the server.
const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(25);

impl Tool<Platform> for PreviewOpen {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Open a preview",
        about: "Shows the web server on a port of your sandbox by a private link, HMR included.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Idempotent,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        if input.port == 0 {
            return Err(Error::invalid("/port", "0 is no port"));
        }
        let workspace = cx.platform().workspace(cx.env(), cx.caller()).await?;
        let to = input.public.map(Visibility::from);
        // Nobody waits for a server to hide it.
        if to == Some(Visibility::Private) {
            cx.platform().show(&workspace, input.port, to).await?;
        }
        let hand = cx.platform().hands.wake(&workspace).await?;
        let answers = async {
            while hand.dial(input.port).await.is_err() {
                tokio::time::sleep(STEP).await;
            }
        };
        tokio::select! {
            answered = tokio::time::timeout(PATIENCE, answers) => answered.map_err(|_| {
                Error::new(Code::Unavailable, format!("nothing listens on port {} of the sandbox", input.port))
                    .field("/port")
                    .hint("start the server with shell_run and & at its end; its output says on which port it is")
            })?,
            () = cx.cancel().cancelled() => return Err(Error::new(Code::Timeout, "the call was given up")),
        }
        let shown = cx.platform().show(&workspace, input.port, to).await?;
        Ok(Output { url: shown.url, public: shown.public })
    }
}
