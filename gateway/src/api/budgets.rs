//! `/v1/budgets`: how much may be spent on models, by whom, and what is left.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use kernel::{BudgetId, Caller, EnvId, Error, Proof, Result, Scope, Tenant, Timestamp};
use mcp_server::auth::Authenticated;
use mcp_server::extract::{Path, Query};
use models::{BUDGETS, NewBudget};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Limit, Standing};
use tool::Effect;
use web::problem::Problem;

use super::{Action, Api, answer, page, read, unbroken, wanted};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The slug or id of the environment that it bounds; the whole tenant, where there is none.
    env: Option<String>,
    unit: String,
    period: String,
    most: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    most: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    env: Option<String>,
    cursor: Option<String>,
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let work = async {
        let caller = match &asked.env {
            Some(name) => Caller::clone(&caller).in_env(Some(environment(&api, &caller, name).await?)),
            None => Caller::clone(&caller),
        };
        let after = asked.cursor.as_deref().map(str::parse).transpose();
        let after = after.map_err(|_| Error::invalid("/cursor", "this is not a cursor of this list"))?;
        api.platform().models.budgets().list(&caller, after).await
    };
    let found = api.act(&caller, "budgets.list", Effect::Read, work).await?;
    let last = found.last().and_then(|it| match &it.limit {
        Limit::Set(budget) if found.len() == BUDGETS as usize => Some(budget.id.to_string()),
        _ => None,
    });
    Ok(page("budgets", found.iter().map(shown).collect(), last))
}

pub async fn set(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let action = Action::of("budgets.set", &input);
        let work = async {
            let hint = "send {\"env\", \"unit\": \"tokens\", \"period\": \"day\", \"most\": 1000000}";
            let wanted: Wanted = wanted(input, "most", hint)?;
            let unit = wanted.unit.parse().map_err(|_| {
                Error::invalid("/unit", "there is no such unit").hint("there are tokens and micro")
            })?;
            let period = wanted.period.parse().map_err(|_| {
                Error::invalid("/period", "there is no such period").hint("there are day and month")
            })?;
            let env = match &wanted.env {
                Some(name) => Some(environment(&api, &caller, name).await?),
                None => None,
            };
            let new = NewBudget { env, unit, period, most: wanted.most };
            api.platform().models.budgets().set(&caller, new).await
        };
        let set = api.act(&caller, action, Effect::Idempotent, work).await?;
        Ok(answer(StatusCode::OK, &shown(&set)))
    })
    .await
}

pub async fn show(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let work = async { api.platform().models.budgets().show(&caller, budget(&id)?).await };
    let found = api.act(&caller, "budgets.show", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &shown(&found)))
}

pub async fn change(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let work = async {
            let Changed { most } = wanted(input, "most", "send {\"most\": 1000000}")?;
            api.platform().models.budgets().change(&caller, budget(&id)?, most).await
        };
        let set =
            api.act(&caller, Action::on("budgets.set", "budget", &id), Effect::Idempotent, work).await?;
        Ok(answer(StatusCode::OK, &shown(&set)))
    })
    .await
}

pub async fn remove(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async { api.platform().models.budgets().remove(&caller, budget(&id)?).await };
        api.act(&caller, Action::on("budgets.remove", "budget", &id), Effect::Destroy, work).await?;
        Ok(answer(StatusCode::OK, &json!({ "removed": true })))
    })
    .await
}

/// The environment of the caller's tenant with that slug or id.
pub async fn environment(api: &Api, caller: &Arc<Caller>, name: &str) -> Result<EnvId> {
    // Who works in one environment needs to look for no others.
    let place = api.platform().control.environments().find(name).await?;
    if let Some(place) = place.filter(|place| caller.env == Some(place.env)) {
        return Ok(place.env);
    }
    let tenant = Tenant::authorize(caller, &[Scope::EnvRead])?;
    let found = api.platform().control.environments().get(&tenant, name).await;
    Ok(found.map_err(|error| error.field("/env"))?.id)
}

/// What is no id is told apart from a missing budget by nobody.
fn budget(id: &str) -> Result<BudgetId> {
    id.parse().map_err(|_| Error::not_found(format!("budget {:?}", id.chars().take(64).collect::<String>())))
}

fn shown(standing: &Standing) -> Value {
    let limit = &standing.limit;
    let mut body = json!({
        "unit": limit.unit().as_str(), "period": limit.period().as_str(), "most": limit.most(),
        "spent": standing.spent, "reserved": standing.aside, "left": standing.left(),
        "resets_at": limit.period().ends(Timestamp::now()).to_string(),
        "set_by": match limit {
            Limit::Set(budget) => budget.setter.as_str(),
            Limit::Usual { .. } => "platform",
        },
    });
    if let Limit::Set(budget) = limit {
        body["id"] = budget.id.to_string().into();
    }
    if let Some(env) = limit.env() {
        body["env"] = env.to_string().into();
    }
    body
}
