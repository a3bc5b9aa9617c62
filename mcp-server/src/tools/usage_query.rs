//! `usage_query`: what an environment has used, and what it may use.

use kernel::{Env, Result, Scope, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tool::{Cx, Effect, Spec, Tool, budget};

use super::app_describe::Left;
use super::logs_query::since;
use crate::platform::Platform;

pub struct UsageQuery;

/// What is looked at where nothing is said.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the calls may cost, in tokens.
const TOKENS: usize = 3_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// As for logs_query; 1d.
    since: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Calls count from the hour in which this is.
    since: Timestamp,
    /// Most first.
    calls: Vec<Called>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Model>,
    /// What is left of budgets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<Left>,
    limits: Vec<Rate>,
    quotas: Vec<Quota>,
}

/// Calls of one tool or route.
#[derive(Serialize, JsonSchema)]
pub struct Called {
    tool: String,
    calls: i64,
    errors: i64,
    /// All of them together.
    ms: i64,
}

/// Requests to the model.
#[derive(Serialize, JsonSchema)]
pub struct Model {
    calls: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    /// Those that are charged.
    tokens: u64,
    /// Charged, in millionths of the operator's currency.
    micro: u64,
}

/// How many calls pass.
#[derive(Serialize, JsonSchema)]
pub struct Rate {
    /// `key`, `token` (a minted credential), `tenant` or `environment`: of each one of them.
    of: &'static str,
    per_second: u32,
    /// At once, after a rest.
    burst: u32,
}

/// What the environment has of what it may have.
#[derive(Serialize, JsonSchema)]
pub struct Quota {
    /// `database_bytes`, `files_bytes`, or `environments` of the tenant.
    of: &'static str,
    most: u64,
    used: u64,
}

impl Tool<Platform> for UsageQuery {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Show usage",
        about: "Shows calls, model cost, what budgets have left, rate limits.",
        scopes: &[Scope::AppRead],
        effect: Effect::Read,
        examples: &[r#"{"since":"7d"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let now = Timestamp::now();
        let since = input.since.as_deref().map_or(Ok(now.minus(DAY)), since)?;
        let (platform, env) = (cx.platform(), cx.env());
        let used = platform.used(env.tenant(), Some(env.id()), since).await?;
        let mut calls: Vec<Called> = used.calls.into_iter().map(Called::of).collect();
        calls.sort_by_key(|it| std::cmp::Reverse(it.calls));
        let (calls, _) = budget::fit(calls, TOKENS);
        let model = Some(used.model).filter(|it| it.calls > 0).map(|it| Model {
            calls: it.calls,
            prompt_tokens: it.prompt,
            completion_tokens: it.completion,
            tokens: it.tokens,
            micro: it.micro,
        });
        let today = platform.models.today(env).await?;
        let rates = platform.control.limiter().rates(env.tenant(), Some(env.id()));
        let limits = rates.into_iter().map(|(of, rate)| Rate {
            of: of.as_str(),
            per_second: rate.per_second.get(),
            burst: rate.burst.get(),
        });
        Ok(Output {
            since,
            calls,
            model,
            budgets: today.map(|it| Left::of(&it.bounds)).unwrap_or_default(),
            limits: limits.collect(),
            quotas: quotas(platform, env).await?,
        })
    }
}

async fn quotas(platform: &Platform, env: &Env) -> Result<Vec<Quota>> {
    let (database, files) = (platform.databases.used(env).await?, platform.storage.used(env).await?);
    let mut quotas = vec![
        Quota { of: "database_bytes", most: platform.databases.most(env.id()).await, used: database },
        Quota { of: "files_bytes", most: platform.storage.most(env.id()).await, used: files },
    ];
    let control = &platform.control;
    if let Some(most) = control.plans().of(env.tenant(), None).tenant.tenant.environments {
        let used = control.store().plans().environments(env.tenant()).await?;
        quotas.push(Quota { of: "environments", most, used });
    }
    Ok(quotas)
}

impl Called {
    fn of(usage: control::Usage) -> Self {
        let control::Usage { tool, calls, errors, took_us } = usage;
        Self { tool, calls, errors, ms: took_us / 1_000 }
    }
}
