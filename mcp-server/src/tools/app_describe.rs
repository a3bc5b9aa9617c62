//! `app_describe`: everything an environment holds, in few words.

use capabilities::access::AccessSpec;
use capabilities::auth::CALLBACK;
use capabilities::domains::DomainInfo;
use capabilities::releases::{Description, TableInfo};
use capabilities::snapshots::Snapshot;
use kernel::{Env, EnvId, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use super::outcome::shorten;
use crate::platform::Platform;

pub struct AppDescribe;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    cursor: Option<String>,
}

/// What tables may cost on one page, in tokens, what advice may, and what names of secrets and migrations may.
const TABLES: usize = 1_500;
const ADVICE: usize = 450;
const NAMES: usize = 120;

/// How many snapshots are listed, and how many characters of their notes.
const SNAPSHOTS: usize = 5;
const NOTE: usize = 100;

/// How many characters of one rule are shown.
const RULE: usize = 300;

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
    /// The latest snapshots, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<Snapshot>,
    /// Names of the secrets that are set.
    secrets: Vec<String>,
    /// Domains of the app's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domains: Vec<DomainInfo>,
    /// What there is more of than is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    omitted: Vec<String>,
    /// Where the next page of tables begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Tool<Platform> for AppDescribe {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Describe the app",
        about: "Shows what is there: tables and columns, sign-in, site, releases, secrets' names, URL, advice. Call it first.",
        scopes: &[Scope::AppRead],
        effect: Effect::Read,
        examples: &["{}"],
    };

    const ENTRY: bool = true;

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let slug = platform.slug(cx.env()).await?;
        let mut app = platform.releases.describe(cx.env()).await?;
        let cursor = page(&mut app, input.cursor.as_deref());
        let mut omitted = Vec::new();
        let mut fit = |what: &str, names: Vec<String>| {
            let (kept, left) = budget::fit(names, NAMES);
            if left > 0 {
                omitted.push(format!("{left} {what}"));
            }
            kept
        };
        // The latest are the ones that matter.
        let mut migrations = std::mem::take(&mut app.migrations);
        migrations.reverse();
        app.migrations = fit("earlier migrations", migrations);
        app.migrations.reverse();
        let secrets = fit("secrets", platform.secrets(cx.env()).await?);
        let domains = platform.domains.list(cx.env()).await?;
        let unproven = domains.iter().filter(|domain| !domain.proven);
        app.advice.extend(unproven.take(2).map(|domain| {
            format!(
                "{0} is not proven: domain_check with {{\"domain\": \"{0}\"}} says what is missing",
                domain.domain
            )
        }));
        if let Some(site) = &mut app.site {
            site.paths = fit("paths", std::mem::take(&mut site.paths));
        }
        if let Some(auth) = &mut app.auth {
            auth.callback =
                (!auth.providers.is_empty()).then(|| format!("{}{CALLBACK}", platform.urls.app(&slug)));
            auth.publishable_key = Some(platform.auth.publishable_key(cx.env()).await?);
        }
        let mut snapshots = platform.snapshots.list(cx.env()).await?;
        let older = snapshots.split_off(snapshots.len().min(SNAPSHOTS)).len();
        for note in snapshots.iter_mut().filter_map(|it| it.note.as_mut()) {
            shorten(note, NOTE);
        }
        let (advice, left) = budget::fit(std::mem::take(&mut app.advice), ADVICE);
        app.advice = advice;
        if left > 0 {
            omitted.push(format!("{left} pieces of advice"));
        }
        let url = platform.urls.app(&slug);
        if older > 0 {
            omitted.push(format!("{older} older snapshots"));
        }
        Ok(Output {
            env: cx.env_id(),
            url,
            slug: slug.to_string(),
            app,
            snapshots,
            secrets,
            domains,
            omitted,
            cursor,
        })
    }
}

/// Leaves the tables after `cursor` that fit on one page; where the next one begins.
fn page(app: &mut Description, cursor: Option<&str>) -> Option<String> {
    let after = |name: &str| cursor.is_none_or(|cursor| name > cursor);
    let mut tables: Vec<_> =
        std::mem::take(&mut app.tables).into_iter().filter(|(name, _)| after(name)).collect();
    tables.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, table) in &mut tables {
        narrow(table);
    }
    let (kept, left) = budget::fit(tables, TABLES);
    let next = (left > 0).then(|| kept.last().map(|(name, _)| name.clone())).flatten();
    app.tables = kept.into_iter().collect();
    next
}

/// Cuts a table so wide that it would not fit on a page by itself.
fn narrow(table: &mut TableInfo) {
    let columns: Vec<_> = std::mem::take(&mut table.columns).into_iter().collect();
    let (kept, left) = budget::fit(columns, TABLES / 2);
    table.columns = kept.into_iter().collect();
    if left > 0 {
        table.columns.insert("…".to_owned(), format!("and {left} more: SELECT * FROM pragma_table_info(?1)"));
    }
    if let Some(AccessSpec::Rules(rules)) = &mut table.access {
        for rule in rules.texts_mut() {
            shorten(rule, RULE);
        }
    }
    let (kept, left) = budget::fit(std::mem::take(&mut table.indexes), TABLES / 4);
    table.indexes = kept;
    if left > 0 {
        table.indexes.push(format!("… and {left} more"));
    }
}
