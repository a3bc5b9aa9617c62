//! `/v1/envs/{env}/sandboxes`: how strongly an environment's sandboxes must be kept apart, beyond what the operator demands.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use kernel::{Env, Proof, Result, Scope, Tenant};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Path;
use serde::Deserialize;
use serde_json::json;
use tool::Effect;
use web::problem::Problem;

use super::{Action, Api, answer, read, sandboxes, unbroken, wanted};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// A level; what the operator demands where it is null.
    isolation: Option<String>,
}

pub async fn show(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
) -> Result<Response, Problem> {
    let work = async {
        let tenant = Tenant::authorize(&caller, &[Scope::EnvRead])?;
        let found = api.platform().control.environments().get(&tenant, &env).await?;
        Ok(api.platform().control.store().demands().get(found.id).await?)
    };
    let isolation = api.act(&caller, "demands.show", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &json!({ "isolation": isolation })))
}

pub async fn set(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let work = async {
            let tenant = Tenant::authorize(&caller, &[Scope::EnvWrite])?;
            let platform = api.platform();
            let found = platform.control.environments().get(&tenant, &env).await?;
            let hint = "send {\"isolation\": \"gvisor\"}, or null for what the operator demands";
            let wanted: Wanted = wanted(input, "isolation", hint)?;
            let least = wanted.isolation.as_deref().map(sandboxes::isolation).transpose()?;
            let env = Env::for_upkeep(found.tenant, found.id);
            // Functions end also where a sandbox does not: what is demanded holds by then. They run again where that is
            // enough for it.
            let (demanded, ended) =
                (platform.hands.demand(&env, least).await, platform.functions.end(found.id).await);
            demanded?;
            ended?;
            Ok(wanted.isolation)
        };
        let isolation =
            api.act(&caller, Action::on("demands.set", "env", &env), Effect::Idempotent, work).await?;
        Ok(answer(StatusCode::OK, &json!({ "isolation": isolation })))
    })
    .await
}
