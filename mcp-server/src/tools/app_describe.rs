//! `app_describe`: everything an environment holds, in few words; and each part of it whole.

use std::collections::BTreeMap;
use std::time::Duration;

use capabilities::auth::CALLBACK;
use capabilities::domains::DomainInfo;
use capabilities::releases::Description;
use capabilities::snapshots::Snapshot;
use kernel::{Env, EnvId, Error, Result, Scope, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{Limit, Standing};
use tool::{Cx, Effect, Spec, Tool};

use super::parts::{Parts, Section};
use crate::platform::Platform;

pub struct AppDescribe;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// This one whole.
    table: Option<String>,
    /// A part that `omitted` names.
    #[schemars(with = "Option<String>")]
    section: Option<Section>,
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
    /// Where one part was asked for: only that is shown, and all others are empty here whatever they hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    section: Option<Section>,
    #[serde(flatten)]
    app: Description,
    /// Tables in few words, where there are too many to show them whole: `table` and `section` do.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    outline: BTreeMap<String, String>,
    /// The latest snapshots, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<Snapshot>,
    /// Names of the secrets that are set.
    secrets: Vec<String>,
    /// Those of them that are bound to hosts: for sandboxes, the app cannot use them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bound_secrets: Vec<String>,
    /// Domains of the app's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domains: Vec<DomainInfo>,
    /// The model that functions ask by `env.ai`, where the platform has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Model>,
    /// What there is more of than is shown, each with the `section` that shows it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    omitted: Vec<String>,
    /// Where the next page of this section begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// What functions have asked of the model.
#[derive(Serialize, JsonSchema)]
pub struct Model {
    /// What it is called.
    name: String,
    /// Calls of this day, in UTC.
    calls: u64,
    /// Tokens of those.
    tokens: u64,
    /// The most of a day.
    most: u64,
    /// What is left of budgets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<Left>,
}

/// What is left of a budget.
#[derive(Serialize, JsonSchema)]
pub struct Left {
    /// `environment`, or `tenant` with all its environments.
    of: &'static str,
    /// `tokens`, or `micro`: millionths of the operator's currency.
    unit: &'static str,
    /// `day` or `month`, in UTC.
    period: &'static str,
    most: u64,
    left: u64,
}

impl Left {
    /// Of all that bounds an environment, what has been set for it.
    pub fn of(bounds: &[Standing]) -> Vec<Self> {
        let set = bounds.iter().filter(|it| matches!(it.limit, Limit::Set(_)));
        let left = |it: &Standing| Self {
            of: if it.limit.env().is_some() { "environment" } else { "tenant" },
            unit: it.limit.unit().as_str(),
            period: it.limit.period().as_str(),
            most: it.limit.most(),
            left: it.left(),
        };
        set.map(left).collect()
    }
}

/// How long the store of backups is waited for.
const STORE: Duration = Duration::from_secs(2);

impl Tool<Platform> for AppDescribe {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Describe the app",
        about: "Shows what is there: tables and columns, sign-in, site, routes, releases, secrets' names, URL, advice. Call it first.",
        scopes: &[Scope::AppRead],
        effect: Effect::Read,
        examples: &["{}", r#"{"section":"routes"}"#],
    };

    const ENTRY: bool = true;

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let platform = cx.platform();
        let slug = platform.slug(cx.env()).await?;
        let parts = parts(cx).await?;
        let model = platform.models.today(cx.env()).await?.map(|today| Model {
            name: today.model,
            calls: today.calls,
            tokens: today.tokens,
            most: today.most,
            budgets: Left::of(&today.bounds),
        });
        let model = model.filter(|_| input.table.is_none() && input.section.is_none());
        let mut shown = match (input.table, input.section, input.cursor) {
            (Some(name), None, None) => parts.table(&name)?,
            (None, Some(section), cursor) => parts.section(section, cursor.as_deref())?,
            (None, None, None) => parts.overview(),
            (Some(_), _, _) => {
                return Err(Error::invalid("/table", "a table is shown whole, without section and cursor"));
            }
            (None, None, Some(_)) => {
                return Err(Error::invalid("/cursor", "pages are those of a section")
                    .hint("pass the section with its cursor"));
            }
        };
        if let Some(auth) = &mut shown.parts.app.auth {
            auth.callback = (!auth.providers.is_empty())
                .then(|| format!("{}{CALLBACK}{{provider}}", platform.urls.app(&slug)));
            auth.publishable_key = Some(platform.auth.publishable_key(cx.env()).await?);
        }
        let Parts { app, snapshots, secrets, bound_secrets, domains } = shown.parts;
        Ok(Output {
            env: cx.env_id(),
            url: platform.urls.app(&slug),
            slug: slug.to_string(),
            section: shown.section,
            app,
            outline: shown.outline,
            snapshots,
            secrets,
            bound_secrets,
            domains,
            model,
            omitted: shown.omitted,
            cursor: shown.cursor,
        })
    }
}

/// Everything there is.
async fn parts(cx: &Cx<'_, Platform, Env>) -> Result<Parts> {
    let platform = cx.platform();
    let mut app = platform.releases.describe(cx.env()).await?;
    if !app.schedules.is_empty() {
        let known = platform.control.store().schedules().list(cx.env_id()).await?;
        for row in known {
            let Some(schedule) = app.schedules.get_mut(&row.name).filter(|it| it.cron == row.cron) else {
                continue;
            };
            schedule.next = row.due.map(|at| at.to_string()).filter(|_| !schedule.off);
            schedule.last = row.last.map(|(at, outcome)| format!("{at} {outcome}"));
        }
    }
    let domains = platform.domains.list(cx.env()).await?;
    let unproven = domains.iter().filter(|domain| !domain.proven);
    app.advice.extend(unproven.map(|domain| {
        let input = serde_json::json!({ "domain": domain.domain });
        format!("{} is not proven, this says what is missing: domain_check {input}", domain.domain)
    }));
    if let Some(backups) = &mut app.backups {
        // Whoever asks is not kept waiting for a store that does not answer, nor refused.
        let found = tokio::time::timeout(STORE, platform.backups.newest(cx.env_id())).await;
        let found = found.ok().and_then(Result::ok);
        let latest = found.as_ref().and_then(|(_, newest)| newest.as_ref()).map(|backup| backup.created_at);
        backups.there = found.as_ref().map(|(there, _)| *there);
        backups.latest = latest.map(|at| at.to_string());
        let due = backups.every.map(|every| Timestamp::now().minus(2 * every.duration()));
        let lacking = match (due, latest, found) {
            (Some(due), Some(latest), _) if latest < due => {
                Some(format!("the newest backup is of {latest}, and more are asked for"))
            }
            (Some(due), None, Some(_)) => {
                let asked = platform.releases.backed_up_since(cx.env()).await?;
                asked
                    .is_some_and(|asked| asked < due)
                    .then(|| "there is no backup, and more are asked for".to_owned())
            }
            (Some(_), _, None) => Some("the store of backups does not answer".to_owned()),
            _ => None,
        };
        if let Some(lacking) = lacking {
            let input = serde_json::json!({ "text": "backup" });
            app.advice.push(format!("{lacking}, this says why: logs_query {input}"));
        }
    }
    let secrets = platform.secrets(cx.env()).await?;
    let usable = platform.app_secrets(cx.env()).await?;
    let bound_secrets = secrets.iter().filter(|name| !usable.contains(name)).cloned().collect();
    let snapshots = platform.snapshots.list(cx.env()).await?;
    Ok(Parts { app, snapshots, secrets, bound_secrets, domains })
}
