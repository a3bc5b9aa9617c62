//! `env_list`: the tenant's environments.

use std::collections::BTreeMap;

use control::{Environment, EnvironmentFilter};
use kernel::{EnvId, Error, Result, Scope, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::shorten::Room;
use crate::platform::Platform;

pub struct EnvList;

/// Environments on one page at most; fewer where their tags are long.
const PAGE: u32 = 25;

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
        let item = |e: Environment| Item {
            env: e.id,
            url: platform.urls.app(&e.slug),
            slug: e.slug.to_string(),
            name: e.name,
            tags: shortened(e.tags),
            external_id: e.external_id,
            created_at: e.created.to_string(),
        };
        let mut environments: Vec<Item> = found.into_iter().map(item).collect();
        let left = Room::of_result().cut(&mut environments);
        let cursor = environments.last().filter(|_| full || left > 0).map(|last| last.env.to_string());
        Ok(Output { environments, cursor })
    }
}

/// Tags as far as one environment fits into a result with them; the last says how many more there are.
fn shortened(tags: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut tags: Vec<_> = tags.into_iter().collect();
    let more = Room::new(2_500).cut(&mut tags);
    if more > 0 {
        tags.push(("…".to_owned(), format!("{more} more")));
    }
    tags.into_iter().collect()
}
