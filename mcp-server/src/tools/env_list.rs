//! `env_list`: the tenant's environments.

use std::collections::BTreeMap;

use control::{Environment, EnvironmentFilter};
use kernel::{EnvId, Error, Result, Scope, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct EnvList;

/// How many environments one page has, and what they may cost in tokens.
const PAGE: u32 = 50;
const TOKENS: usize = 3_600;

/// What the tags of one environment may cost, in tokens.
const TAGS: usize = 1_200;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Only those with these tags.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    external_id: Option<String>,
    cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Oldest first.
    environments: Vec<Item>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Item {
    #[schemars(with = "String")]
    env: EnvId,
    slug: String,
    name: String,
    url: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    /// Tags that are left out here because they are long.
    #[serde(skip_serializing_if = "Option::is_none")]
    more_tags: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    created_at: String,
}

impl Tool<Platform> for EnvList {
    type Proof = Tenant;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "List environments",
        about: "Lists the tenant's environments, a page at a time.",
        scopes: &[Scope::EnvRead],
        effect: Effect::Read,
        examples: &["{}"],
    };

    async fn call(cx: &Cx<'_, Platform, Tenant>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let filter = EnvironmentFilter { tags: input.tags, external_id: input.external_id };
        let after = input.cursor.as_deref().map(str::parse).transpose();
        let after = after.map_err(|_| Error::invalid("/cursor", "this is not a cursor of env_list"))?;
        let found = platform.control.environments().list(cx.tenant(), &filter, after, PAGE).await?;
        let full = found.len() == PAGE as usize;
        let item = |e: Environment| {
            let (tags, left) = budget::fit(e.tags.into_iter().collect(), TAGS);
            Item {
                env: e.id,
                url: platform.urls.app(&e.slug),
                slug: e.slug.to_string(),
                name: e.name,
                tags: tags.into_iter().collect(),
                more_tags: (left > 0).then_some(left),
                external_id: e.external_id,
                created_at: e.created.to_string(),
            }
        };
        let (environments, left) = budget::fit(found.into_iter().map(item).collect(), TOKENS);
        let last = environments.last().map(|item| item.env.to_string());
        let cursor = if full || left > 0 { last } else { None };
        Ok(Output { environments, cursor })
    }
}
