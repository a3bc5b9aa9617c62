//! `site_deploy`: replaces the site's files.

use std::collections::BTreeMap;

use capabilities::hosting::FileSpec;
use kernel::{Env, Result, Scope};
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
    files: FilesInput,
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

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let files: BTreeMap<String, FileSpec> = input.files.parse()?;
        let applied = platform.releases.deploy(cx.env(), files, input.spa, cx.cancel()).await?;
        let url = platform.url(cx.env()).await?;
        Ok(Output { release: applied.release, url, changed: applied.changed })
    }
}
