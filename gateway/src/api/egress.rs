//! `/v1/envs/{env}/egress`: where an environment's sandboxes may go, of what the operator allows.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use kernel::{Env, Error, Proof, Result, Scope, Tenant};
use mcp_server::auth::Authenticated;
use mcp_server::bridge::patterns;
use mcp_server::extract::Path;
use serde::Deserialize;
use serde_json::json;
use tool::Effect;
use web::problem::Problem;

use super::{Action, Api, answer, read, unbroken, wanted};

/// How many hosts a list has at most.
const MOST: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Hosts; all that the operator allows where it is null.
    allow: Option<Vec<String>>,
}

pub async fn show(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
) -> Result<Response, Problem> {
    let work = async {
        let tenant = Tenant::authorize(&caller, &[Scope::EnvRead])?;
        let found = api.platform().control.environments().get(&tenant, &env).await?;
        Ok(api.platform().control.store().egress().get(found.id).await?)
    };
    let allow = api.act(&caller, "egress.show", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &json!({ "allow": allow })))
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
            let hint = "send {\"allow\": [\"host\"]}, or null for all that the operator allows";
            let wanted: Wanted = wanted(input, "allow", hint)?;
            let allow = wanted.allow.as_deref();
            if let Some(hosts) = allow {
                patterns(hosts).map_err(|error| error.field("/allow"))?;
                if hosts.len() > MOST {
                    return Err(Error::invalid("/allow", format!("at most {MOST} hosts are listed")));
                }
            }
            if !platform.control.store().egress().set(found.id, allow).await? {
                return Err(Error::not_found(format!("environment {env:?}")));
            }
            platform.reach_changed(&Env::for_upkeep(found.tenant, found.id)).await;
            Ok(wanted.allow)
        };
        let allow = api.act(&caller, Action::on("egress.set", "env", &env), Effect::Idempotent, work).await?;
        Ok(answer(StatusCode::OK, &json!({ "allow": allow })))
    })
    .await
}
