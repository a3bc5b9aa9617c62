//! `app_describe`: everything an environment holds, in few words.

use capabilities::releases::Description;
use kernel::{Env, EnvId, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct AppDescribe;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The environment's id.
    #[schemars(with = "String")]
    env: EnvId,
    /// Its slug.
    slug: String,
    /// Where the app answers.
    url: String,
    #[serde(flatten)]
    app: Description,
    /// Names of the secrets that are set.
    secrets: Vec<String>,
}

impl Tool<Platform> for AppDescribe {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Describe the app",
        about: "Shows what is there: tables and columns, site, releases, secrets' names, URL, advice. Call it first.",
        scopes: &[Scope::AppRead],
        effect: Effect::Read,
        examples: &["{}"],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, _: Input) -> Result<Output> {
        let platform = cx.platform();
        let slug = platform.slug(cx.env()).await?;
        Ok(Output {
            env: cx.env_id(),
            url: platform.urls.app(&slug),
            slug: slug.to_string(),
            app: platform.releases.describe(cx.env()).await?,
            secrets: platform.secrets(cx.env()).await?,
        })
    }
}
