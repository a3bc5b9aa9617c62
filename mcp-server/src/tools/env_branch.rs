//! `env_branch`: makes an environment of another one.

use capabilities::snapshots::With;
use control::NewEnvironment;
use kernel::{Env, EnvId, Error, Proof as _, Result, Scope, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct EnvBranch;

/// What the names of secrets may cost, in tokens.
const SECRETS: usize = 1_200;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// First label of its host; made up where left out.
    slug: Option<String>,
    /// Of a snapshot; else of now.
    snapshot: Option<String>,
    /// Default all.
    #[serde(default)]
    data: Data,
}

/// What comes along.
#[derive(Deserialize, JsonSchema, Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Rows, users and files too.
    #[default]
    All,
    /// Tables and releases alone.
    None,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Its id.
    #[schemars(with = "String")]
    env: EnvId,
    /// Its slug.
    slug: String,
    /// Where its app answers.
    url: String,
    /// The release that is live there; 0 where there is none.
    release: u64,
    /// Secrets that are set here and not there: set them with secret_set where they are needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<String>,
    /// How many more secrets there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    more_secrets: Option<usize>,
}

impl Tool<Platform> for EnvBranch {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Branch an environment",
        about: "Makes a copy of this environment to try changes in, with its own address, keys and no sessions.",
        scopes: &[Scope::EnvWrite, Scope::AppRead, Scope::DbRead, Scope::AuthRead, Scope::StorageRead],
        effect: Effect::Write,
        examples: &[r#"{"data":"none"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let (platform, env) = (cx.platform(), cx.env());
        // The credential carries `env:write`, so it is one of the whole tenant.
        let tenant = Tenant::authorize(cx.caller(), Self::SPEC.scopes)?;
        let slug = input.slug.map(|slug| slug.parse().map_err(|e| Error::invalid("/slug", format!("{e}"))));
        let from = platform.slug(env).await?;
        let name = format!("{from} branch");
        let tags = [("branch_of".to_owned(), from.to_string())].into();
        let wanted =
            NewEnvironment { slug: slug.transpose()?, name: Some(name), tags, ..NewEnvironment::default() };
        let with = match input.data {
            Data::All => With::Data,
            Data::None => With::Shape,
        };
        let snapshot = input.snapshot.as_deref();
        let fill = async |id| platform.snapshots.branch(env, id, snapshot, with).await;
        let (made, release) = platform.fill_environment(&tenant, wanted, fill).await?;
        let (secrets, left) = budget::fit(platform.secrets(env).await?, SECRETS);
        Ok(Output {
            env: made.id,
            url: platform.urls.app(&made.slug),
            slug: made.slug.to_string(),
            release,
            secrets,
            more_secrets: (left > 0).then_some(left),
        })
    }
}
