//! `/v1/plans`: bundles of limits; `/v1/limits`: what holds for a tenant and an environment, and what is left of it.

use axum::extract::{Request, State};
use axum::response::Response;
use control::{Allowed, Bounds};
use http::StatusCode;
use kernel::{Env, EnvId, Proof as _, Result, Scope, Tenant, TenantId, Timestamp};
use mcp_server::auth::Authenticated;
use mcp_server::extract::{Path, Query};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tool::Effect;
use web::problem::Problem;

use super::budgets::environment;
use super::{Action, Api, answer, page, read, unbroken};

pub async fn list(State(api): State<Api>, Authenticated(caller): Authenticated) -> Result<Response, Problem> {
    let work = api.platform().control.plans().list(&caller);
    let plans = api.act(&caller, "plans.list", Effect::Read, work).await?;
    let plans = plans.into_iter().map(|(name, bounds, updated)| shown(&name, bounds, updated)).collect();
    Ok(page("plans", plans, None))
}

pub async fn set(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(plan): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let action = Action::on("plans.set", "plan", &plan);
        let work = api.platform().control.plans().set(&caller, &plan, &input);
        let (bounds, updated) = api.act(&caller, action, Effect::Idempotent, work).await?;
        Ok(answer(StatusCode::OK, &shown(&plan, bounds, updated)))
    })
    .await
}

pub async fn remove(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(plan): Path<String>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let action = Action::on("plans.remove", "plan", &plan);
        let work = api.platform().control.plans().remove(&caller, &plan);
        api.act(&caller, action, Effect::Destroy, work).await?;
        Ok(answer(StatusCode::OK, &json!({ "plan": plan, "removed": true })))
    })
    .await
}

fn shown(name: &str, bounds: Bounds, updated: Timestamp) -> Value {
    let mut shown = bounds.to_json();
    shown["plan"] = name.into();
    // Those that come with the program were set by nobody.
    if updated > Timestamp::from_micros(0) {
        shown["updated_at"] = updated.to_string().into();
    }
    shown
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The environment, by slug or id; the tenant alone where there is none.
    env: Option<String>,
}

pub async fn limits(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let work = async {
        let tenant = Tenant::authorize(&caller, &[Scope::EnvRead])?.id();
        let env = match &asked.env {
            Some(name) => Some(environment(&api, &caller, name).await?),
            None => caller.env,
        };
        let control = &api.platform().control;
        let allowed = control.plans().of(tenant, env);
        let plan = control.store().plans().of_tenant(tenant).await?.map(|planned| planned.plan);
        let mut told =
            json!({ "tenant": tenant, "plan": plan, "limits": of_tenant(&api, tenant, &allowed).await? });
        if let Some(env) = env {
            told["env"] = json!(env);
            told["environment_limits"] = of_environment(&api, tenant, env, &allowed).await?;
        }
        Ok(told)
    };
    let told = api.act(&caller, "limits.show", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &told))
}

/// Each limit with what is used of it, where that can be said.
fn with_used(limits: Value, used: &[(&str, u64)]) -> Map<String, Value> {
    let mut told = Map::new();
    for (name, limit) in limits.as_object().into_iter().flatten() {
        told.insert(name.clone(), json!({ "limit": limit }));
    }
    for (name, used) in used {
        let entry = told.entry(*name).or_insert_with(|| json!({}));
        entry["used"] = (*used).into();
        if let Some(limit) = entry["limit"].as_u64() {
            entry["left"] = limit.saturating_sub(*used).into();
        }
    }
    told
}

async fn of_tenant(api: &Api, tenant: TenantId, allowed: &Allowed) -> Result<Value> {
    let control = &api.platform().control;
    let (underway, _) = control.limiter().underway(tenant, None);
    let environments = control.store().plans().environments(tenant).await?;
    let mut limits = serde_json::to_value(allowed.tenant.tenant).unwrap_or_default();
    for (scope, rate) in control.limiter().rates(tenant, None) {
        if scope == kernel::LimitScope::Tenant {
            limits["calls_per_second"] = rate.per_second.get().into();
            limits["calls_burst"] = rate.burst.get().into();
        }
    }
    Ok(with_used(limits, &[("environments", environments), ("calls_at_once", underway)]).into())
}

async fn of_environment(api: &Api, tenant: TenantId, env: EnvId, allowed: &Allowed) -> Result<Value> {
    let platform = api.platform();
    let proof = Env::for_upkeep(tenant, env);
    let (_, underway) = platform.control.limiter().underway(tenant, Some(env));
    let mut limits = serde_json::to_value(allowed.environment).unwrap_or_default();
    limits["database_bytes"] = platform.databases.most(env).await.into();
    limits["files_bytes"] = platform.storage.most(env).await.into();
    let used = [
        ("calls_at_once", underway),
        ("visits_at_once", platform.control.limiter().visiting(env)),
        ("database_bytes", platform.databases.used(&proof).await?),
        ("files_bytes", platform.storage.used(&proof).await?),
    ];
    Ok(with_used(limits, &used).into())
}
