//! `/v1/envs`: environments as resources, by the same tools that agents call.

use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use kernel::{Proof, Result, Scope, Tenant};
use mcp_server::auth::Authenticated;
use mcp_server::extract::{Path, Query};
use serde::Deserialize;
use serde_json::{Map, json};
use tool::Effect;
use web::problem::Problem;

use super::{Api, answer, read, tenants};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    external_id: Option<String>,
    /// `name=value`, as many as there are, with commas between.
    tags: Option<String>,
    cursor: Option<String>,
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(filter): Query<Filter>,
) -> Result<Response, Problem> {
    let mut input = Map::new();
    for (name, value) in [("external_id", filter.external_id), ("cursor", filter.cursor)] {
        if let Some(value) = value {
            input.insert(name.to_owned(), value.into());
        }
    }
    let tags = tenants::tags(filter.tags.as_deref())?;
    if !tags.is_empty() {
        input.insert("tags".to_owned(), json!(tags));
    }
    Ok(answer(StatusCode::OK, &api.call(caller, &HeaderMap::new(), "env_list", input.into()).await?))
}

pub async fn create(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, headers, input) = read(&api, caller, request).await?;
    Ok(answer(StatusCode::CREATED, &api.call(caller, &headers, "env_create", input).await?))
}

pub async fn show(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
) -> Result<Response, Problem> {
    let work = async {
        let tenant = Tenant::authorize(&caller, &[Scope::EnvRead])?;
        api.platform().control.environments().get(&tenant, &env).await
    };
    let found = api.act(&caller, "envs.show", Effect::Read, work).await?;
    let url = api.platform().urls.app(&found.slug);
    let mut body = json!({
        "env": found.id, "slug": found.slug.to_string(), "name": found.name, "url": url,
        "state": found.state.as_str(), "template": found.template, "plan": found.plan, "tags": found.tags,
        "created_at": found.created.to_string(),
    });
    if let Some(external_id) = found.external_id {
        body["external_id"] = external_id.into();
    }
    Ok(answer(StatusCode::OK, &body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    #[serde(default)]
    dry_run: bool,
    confirm: Option<String>,
}

pub async fn delete(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
    Query(deletion): Query<Deletion>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut input = json!({ "env": env, "dry_run": deletion.dry_run });
    if let Some(confirm) = deletion.confirm {
        input["confirm"] = confirm.into();
    }
    Ok(answer(StatusCode::OK, &api.call(caller, &headers, "env_delete", input).await?))
}
