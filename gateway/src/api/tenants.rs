//! `/v1/tenants`: for the operator.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use kernel::{Error, Proof, Result, Scope, Tenant, TenantId};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Query;
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::keys::After;
use super::{Api, answer, page, read, unbroken};

/// Tenants on one page.
const PAGE: u32 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    slug: String,
    name: Option<String>,
}

pub async fn create(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let wanted: Wanted = tool::decode(input.clone())?;
        let work = async {
            let proof = Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
            let slug = wanted.slug.parse().map_err(|e| Error::invalid("/slug", format!("{e}")))?;
            Ok(shown(&api.platform().control.tenants().create(&proof, slug, wanted.name).await?))
        };
        let made = api.act_once(&caller, &headers, "tenants.create", &input, Value::clone, work).await?;
        Ok(answer(StatusCode::CREATED, &made))
    })
    .await
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(after): Query<After>,
) -> Result<Response, Problem> {
    let work = async {
        let proof = Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
        let after: Option<TenantId> = after
            .cursor
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| Error::invalid("/cursor", "this is not a cursor of this list"))?;
        api.platform().control.tenants().list(&proof, after, PAGE).await
    };
    let tenants = api.act(&caller, "tenants.list", Effect::Read, work).await?;
    let cursor = (tenants.len() == PAGE as usize).then(|| tenants.last().map(|t| t.id.to_string())).flatten();
    Ok(page("tenants", tenants.iter().map(shown).collect(), cursor))
}

fn shown(tenant: &control::Tenant) -> Value {
    json!({
        "tenant": tenant.id, "slug": tenant.slug.to_string(), "name": tenant.name,
        "created_at": tenant.created.to_string(),
    })
}
