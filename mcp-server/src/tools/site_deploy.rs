//! `site_deploy`: replaces the site's files.

use std::time::Duration;

use kernel::{Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::files::{FilesInput, at_path, given};
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
        let of_workspace = input.workspace_path.is_some();
        let files = given(cx, input.files, input.workspace_path.as_deref()).await?;
        let files = files.ok_or_else(|| Error::invalid("/files", "give either files or workspace_path"))?;
        let applied = deploy(files).await;
        let applied = if of_workspace { applied.map_err(at_path)? } else { applied? };
        let url = platform.url(cx.env()).await?;
        Ok(Output { release: applied.release, url, changed: applied.changed })
    }
}
