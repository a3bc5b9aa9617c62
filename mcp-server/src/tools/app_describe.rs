//! `app_describe`: everything an environment holds, in few words.

use capabilities::releases::{Description, SiteInfo, TableInfo};
use kernel::{Env, EnvId, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::budget::RESULT_TOKENS;
use tool::{Cx, Effect, Spec, Tool};

use super::shorten::{Room, clip, cost, few};
use crate::platform::Platform;

pub struct AppDescribe;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    cursor: Option<String>,
}

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
    /// Where the tables go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Tool<Platform> for AppDescribe {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Describe the app",
        about: "Shows tables, columns, site, releases, secrets' names, advice. Call it first.",
        scopes: &[Scope::AppRead],
        effect: Effect::Read,
        examples: &["{}"],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let slug = platform.slug(cx.env()).await?;
        let mut app = platform.releases.describe(cx.env()).await?;
        let tables = std::mem::take(&mut app.tables);
        let mut output = Output {
            env: cx.env_id(),
            url: platform.urls.app(&slug),
            slug: slug.to_string(),
            app: Description {
                name: app.name.map(|name| clip(name, 200)),
                migrations: few(app.migrations, 300),
                site: app.site.map(|site| SiteInfo { paths: few(site.paths, 300), ..site }),
                advice: few(app.advice, 300),
                ..app
            },
            secrets: few(platform.secrets(cx.env()).await?, 300),
            cursor: None,
        };
        let mut room = Room::new(RESULT_TOKENS.saturating_sub(200 + cost(&output)));
        for (name, table) in tables {
            if input.cursor.as_ref().is_some_and(|cursor| name <= *cursor) {
                continue;
            }
            let table = shortened(table);
            if !room.admits(&(&name, &table)) && !output.app.tables.is_empty() {
                output.cursor = output.app.tables.last().map(|(last, _)| last.clone());
                break;
            }
            output.app.tables.insert(name, table);
        }
        Ok(output)
    }
}

/// A table as far as one fits into a result.
fn shortened(mut table: TableInfo) -> TableInfo {
    let mut columns: Vec<_> = std::mem::take(&mut table.columns).into_iter().collect();
    for (_, words) in &mut columns {
        *words = clip(std::mem::take(words), 200);
    }
    let more = Room::new(1_200).cut(&mut columns);
    if more > 0 {
        columns.push(("…".to_owned(), format!("and {more} more columns: PRAGMA table_info")));
    }
    table.columns = columns.into_iter().collect();
    table.indexes = few(table.indexes, 400);
    table
}
