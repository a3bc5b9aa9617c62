//! `env_create`: makes an environment.

use std::collections::BTreeMap;

use control::NewEnvironment;
use kernel::{EnvId, Error, Result, Scope, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct EnvCreate;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// First label of its host; made up where left out.
    slug: Option<String>,
    name: Option<String>,
    /// Default: empty.
    template: Option<String>,
    plan: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// The same again gives the same environment.
    external_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Its id.
    #[schemars(with = "String")]
    env: EnvId,
    /// Its slug.
    slug: String,
    /// Where its app will answer.
    url: String,
}

impl Tool<Platform> for EnvCreate {
    type Proof = Tenant;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Create an environment",
        about: "Makes an isolated environment with its own database and address.",
        scopes: &[Scope::EnvWrite],
        effect: Effect::Write,
        examples: &[r#"{"name":"My shop"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Tenant>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let wanted = NewEnvironment {
            slug: input
                .slug
                .map(|slug| slug.parse().map_err(|e| Error::invalid("/slug", format!("{e}"))))
                .transpose()?,
            name: input.name,
            template: input.template,
            plan: input.plan,
            tags: input.tags,
            external_id: input.external_id,
        };
        let made = platform.create_environment(cx.tenant(), wanted).await?;
        Ok(Output { env: made.id, url: platform.urls.app(&made.slug), slug: made.slug.to_string() })
    }
}
