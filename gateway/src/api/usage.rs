//! `/v1/usage`: what a tenant, or one of its environments, has used.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use kernel::{Error, Proof as _, Result, Scope, Tenant, Timestamp};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Query;
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::budgets::environment;
use super::{Api, answer};

/// What is looked at where nothing is said.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The environment, by slug or id; all of the tenant where there is none.
    env: Option<String>,
    /// A time, or an age such as `7d`.
    since: Option<String>,
}

pub async fn show(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let work = async {
        let tenant = Tenant::authorize(&caller, &[Scope::EnvRead])?;
        let since = match &asked.since {
            None => Timestamp::now().minus(DAY),
            Some(text) => Timestamp::parse_or_ago(text).ok_or_else(|| {
                Error::invalid("/since", "expected a time such as 2026-01-31T12:00:00Z, or an age such as 7d")
            })?,
        };
        let env = match &asked.env {
            Some(name) => Some(environment(&api, &caller, name).await?),
            None => None,
        };
        let used = api.platform().used(tenant.id(), env, since).await?;
        let calls: Vec<Value> = used
            .calls
            .iter()
            .map(|it| {
                json!({ "tool": it.tool, "calls": it.calls, "errors": it.errors, "ms": it.took_us / 1_000 })
            })
            .collect();
        let model = &used.model;
        Ok(json!({
            "tenant": tenant.id(), "env": env, "since": since, "calls": calls,
            "model": {
                "calls": model.calls, "prompt_tokens": model.prompt, "completion_tokens": model.completion,
                "tokens": model.tokens, "micro": model.micro, "estimated": model.estimated,
            },
        }))
    };
    let found = api.act(&caller, "usage.show", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &found))
}
