//! `site_deploy`: replaces the site's files.

use std::collections::BTreeMap;
use std::time::Duration;

use capabilities::hosting::{FileSpec, Limits};
use kernel::{Code, Env, Error, Proof as _, Result, Scope};
use sandbox::session::TreeCaps;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::files::FilesInput;
use crate::platform::Platform;

pub struct SiteDeploy;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Path → text, {"base64"} or {"sha256"} of an uploaded blob. All files: others are removed.
    files: Option<FilesInput>,
    /// Instead of files: a directory of your sandbox, such as dist.
    workspace_path: Option<String>,
    /// Whether unknown paths get index.html.
    spa: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The current release.
    release: u64,
    /// Where the site answers.
    url: String,
    /// Whether anything was done.
    changed: bool,
}

impl Tool<Platform> for SiteDeploy {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Deploy the site",
        about: "Replaces the static site as a new release; header rules and redirects stay.",
        scopes: &[Scope::SiteWrite],
        effect: Effect::Write,
        examples: &[r#"{"files":{"index.html":"<h1>Hi</h1>"}}"#],
    };

    const PATIENCE: Duration = Duration::from_secs(300);

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let deploy = async |files| platform.releases.deploy(cx.env(), files, input.spa, cx.cancel()).await;
        let applied = match (input.files, input.workspace_path) {
            (Some(files), None) => deploy(files.parse()?).await?,
            (None, Some(path)) => {
                let files = tokio::select! {
                    files = stored(cx, &path) => files.map_err(at_path)?,
                    () = cx.cancel().cancelled() => {
                        return Err(Error::new(Code::Timeout, "the call was given up, and nothing was deployed"));
                    }
                };
                deploy(files).await.map_err(at_path)?
            }
            _ => return Err(Error::invalid("/files", "give either files or workspace_path")),
        };
        let url = platform.url(cx.env()).await?;
        Ok(Output { release: applied.release, url, changed: applied.changed })
    }
}

/// The files below a directory of the caller's workspace, stored as blobs.
async fn stored(cx: &Cx<'_, Platform, Env>, path: &str) -> Result<BTreeMap<String, FileSpec>> {
    let env = Env::authorize(cx.caller(), &[Scope::SandboxUse])?;
    let hand = cx.platform().hand(&env, cx.caller()).await?;
    let Limits { files, file_bytes, bytes } = Limits::default();
    let caps = TreeCaps { files: files as u64, file_bytes, bytes };
    let _turn = hand.turn().await?;
    let mut tree = hand.files().tree(path, caps).await?;
    let mut stored = BTreeMap::new();
    while let Some((path, content)) = tree.file().await? {
        let sha256 = cx.platform().blobs.put(&env, content).await?;
        stored.insert(path, FileSpec::Blob { sha256: sha256.to_string() });
    }
    if stored.is_empty() {
        return Err(Error::invalid("/workspace_path", "there is no file in it").hint("build the site first"));
    }
    Ok(stored)
}

/// What is wrong with a directory of the workspace, said of the field that names it.
fn at_path(error: Error) -> Error {
    match error.code() {
        Code::InvalidInput | Code::NotFound | Code::TooLarge => error.field("/workspace_path"),
        _ => error,
    }
}
