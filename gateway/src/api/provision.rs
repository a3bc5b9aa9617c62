//! `/v1/provision`: a tenant, an environment in it and a credential for that, in one call or many at once, for whoever builds a
//! platform on this one. The same external ids again give the same ones, and a new credential.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use control::{NewEnvironment, NewToken, TenantState};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use kernel::{CallId, Caller, Code, EnvId, Error, Proof as _, Result, Scope, Slug, Tenant};
use mcp_server::auth::Authenticated;
use serde::Deserialize;
use serde_json::{Value, json};
use tool::{Effect, Host as _};
use web::problem::Problem;

use super::{Action, Api, answer, credentials, read, tenants, unbroken};

/// So many at once.
const ITEMS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    tenant: Option<tenants::Wanted>,
    #[serde(default)]
    env: WantedEnv,
    credential: Option<credentials::Wanted>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedEnv {
    slug: Option<String>,
    name: Option<String>,
    template: Option<String>,
    plan: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    external_id: Option<String>,
}

pub async fn provision(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        // Who may make nothing here leaves nothing behind, not even a remembered request.
        api.platform().limiter().admit(&caller)?;
        Tenant::authorize(&caller, &[Scope::EnvWrite])?;
        let work = all(&api, &caller, input.clone());
        let told = api.once(&caller, &headers, "provision", &input, without_tokens, work).await?;
        Ok(([(CACHE_CONTROL, "no-store")], answer(StatusCode::OK, &told)).into_response())
    })
    .await
}

/// A token is shown once, and so not to a repeat of the call that made it.
fn without_tokens(told: &Value) -> Value {
    let mut told = told.clone();
    let take = |one: &mut Value| {
        one.get_mut("credential").and_then(Value::as_object_mut).map(|credential| credential.remove("token"))
    };
    take(&mut told);
    told.get_mut("results")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .for_each(|one| drop(take(one)));
    told
}

async fn all(api: &Api, caller: &Arc<Caller>, mut input: Value) -> Result<Value> {
    let Some(items) = input.get_mut("items").map(Value::take) else { return one(api, caller, input).await };
    if input.as_object().is_some_and(|fields| fields.len() > 1) {
        let error = Error::invalid("/items", "there is something beside it");
        return Err(error.hint("send one, or items alone"));
    }
    let items = items.as_array().filter(|items| (1..=ITEMS).contains(&items.len())).cloned();
    let items = items.ok_or_else(|| Error::invalid("/items", format!("list 1 to {ITEMS} items")))?;
    let request_id = CallId::new().to_string();
    let mut results = Vec::with_capacity(items.len());
    // One after the other: each is whole or not made, whatever becomes of the others.
    for item in items {
        results.push(match one(api, caller, item).await {
            Ok(made) => made,
            Err(error) => json!({ "error": error.problem(&request_id) }),
        });
    }
    Ok(json!({ "results": results }))
}

async fn one(api: &Api, caller: &Arc<Caller>, input: Value) -> Result<Value> {
    let work = async {
        let told = made(api, caller, input).await?;
        if let Some(tenant) = told["tenant"]["tenant"].as_str().and_then(|id| id.parse().ok()) {
            let action = Action::of("provision", &names(&told).unwrap_or_default());
            api.tell(caller, tenant, action, Effect::Write).await?;
        }
        Ok(told)
    };
    api.acted(caller, "provision".into(), Effect::Write, work, names).await
}

/// The ids of what an item has come to.
fn names(told: &Value) -> Option<Value> {
    let (tenant, env, credential) = (&told["tenant"]["tenant"], &told["env"], &told["credential"]["id"]);
    Some(json!({ "tenant": tenant, "env": env, "credential": credential }))
}

async fn made(api: &Api, caller: &Arc<Caller>, input: Value) -> Result<Value> {
    let platform = api.platform();
    let item: Item = tool::decode(input)?;
    if item.credential.as_ref().is_some_and(|wanted| wanted.env.is_some()) {
        return Err(Error::invalid("/credential/env", "it is for the environment that is provisioned")
            .hint("leave it out"));
    }
    let WantedEnv { slug, name, template, plan, tags, external_id } = item.env;
    let slug = slug.map(|slug| slug.parse::<Slug>()).transpose();
    let slug = slug.map_err(|e| Error::invalid("/env/slug", format!("{e}")))?;
    let wanted_env = NewEnvironment { slug, name, template, plan, tags, external_id };
    let mut caller = Caller::clone(caller);
    let mut told = json!({});
    platform.control.environments().check(&wanted_env).map_err(|error| error.under("/env"))?;
    // What is asked for is looked at before anything is made; then it is for the environment that was.
    let asked = item.credential.map(|wanted| {
        let asked = credentials::asked(api, &caller.clone().in_env(Some(EnvId::new())), wanted)?;
        asked.check()?;
        Ok(asked)
    });
    let asked = asked.transpose().map_err(|error: Error| error.under("/credential"))?;
    if let Some(wanted) = item.tenant {
        let proof = Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
        let wanted = wanted.read("/tenant")?;
        if wanted.slug.is_none() && wanted.external_id.is_none() {
            return Err(Error::invalid("/tenant/external_id", "it is missing")
                .hint("say which tenant it is: by its external_id, or by a slug that is not taken"));
        }
        let made = platform.control.tenants().create(&proof, wanted).await;
        let (tenant, is_new) = made.map_err(|error| error.under("/tenant"))?;
        if tenant.state != TenantState::Active {
            return Err(Error::new(Code::Forbidden, format!("the tenant is {}", tenant.state.as_str()))
                .field("/tenant")
                .hint("resume it first"));
        }
        caller.tenant = tenant.id;
        told["tenant"] = tenants::shown(&tenant);
        told["tenant"]["made"] = is_new.into();
    }
    let proof = Tenant::authorize(&caller, &[Scope::EnvWrite])?;
    let made = platform.create_environment(&proof, wanted_env).await.map_err(|error| error.under("/env"))?;
    told["env"] = json!(made.id);
    told["slug"] = made.slug.to_string().into();
    told["url"] = platform.urls.app(&made.slug).into();
    if let Some(asked) = asked {
        let (caller, asked) = (caller.in_env(Some(made.id)), NewToken { env: made.id, ..asked });
        let minted = platform.control.tokens().mint(&caller, asked).await;
        let minted = minted.map_err(|error| error.under("/credential"))?;
        told["credential"] = credentials::shown(&minted.row);
        told["credential"]["token"] = minted.token.expose().into();
    }
    Ok(told)
}
