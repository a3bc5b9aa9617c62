//! `preview_open`: shows a server of the caller's sandbox at an address of its own.

use hands::Visibility;
use kernel::{Code, Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;
use crate::serving::Said;

pub struct PreviewOpen;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    port: u16,
    /// Show it to everybody; false ends that.
    public: Option<bool>,
    /// Starts the server, also on later visits; "" forgets it.
    command: Option<String>,
    cwd: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Where it is. Unless it is public, the address opens it for a day; a program sends what follows `=` as the header
    /// `Steading-Preview`.
    url: String,
    /// Whether everybody sees it.
    public: bool,
}

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
        // Nor to forget its command.
        let said = cx.platform().note_command(&workspace, input.port, input.command, input.cwd).await?;
        if said != Said::Forgotten {
            tokio::select! {
                listens = cx.platform().listens(&workspace, input.port) => listens?,
                () = cx.cancel().cancelled() => return Err(Error::new(Code::Timeout, "the call was given up")),
            }
        }
        let shown = cx.platform().show(&workspace, input.port, to).await?;
        Ok(Output { url: shown.url, public: shown.public })
    }
}
