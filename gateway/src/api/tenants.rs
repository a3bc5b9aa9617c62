//! `/v1/tenants`: for the operator.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use control::{NewTenant, TenantChange, TenantFilter, TenantState};
use http::StatusCode;
use kernel::{Code, Error, Proof, Result, Scope, Slug, Tenant, TenantId};
use mcp_server::auth::Authenticated;
use mcp_server::extract::{Path, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::{Action, Api, answer, page, read, unbroken};

/// Tenants on one page.
const PAGE: u32 = 100;

/// What a tenant is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    slug: Option<String>,
    name: Option<String>,
    external_id: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    plan: Option<String>,
    limits: Option<Value>,
}

impl Wanted {
    /// The same, read; `at` is where it stands.
    pub fn read(self, at: &str) -> Result<NewTenant> {
        let slug = self.slug.map(|slug| slug.parse::<Slug>()).transpose();
        let slug = slug.map_err(|e| Error::invalid(format!("{at}/slug"), format!("{e}")))?;
        let Self { name, external_id, tags, plan, limits, .. } = self;
        Ok(NewTenant { slug, name, external_id, tags, plan, limits })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    name: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    plan: Option<String>,
    limits: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    external_id: Option<String>,
    /// `name=value`, as many as there are, with commas between.
    tags: Option<String>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// The slug of the tenant, which says that it is meant.
    confirm: Option<String>,
    #[serde(default)]
    purge: bool,
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
            let new = wanted.read("")?;
            if new.slug.is_none() && new.external_id.is_none() {
                return Err(Error::invalid("/slug", "it is missing").hint("give a slug, or an external_id"));
            }
            let (made, _) = api.platform().control.tenants().create(&proof, new).await?;
            api.tell(&caller, made.id, "tenants.create".into(), Effect::Write).await?;
            Ok(shown(&made))
        };
        let made = api.act_once(&caller, &headers, "tenants.create", &input, Value::clone, work).await?;
        Ok(answer(StatusCode::CREATED, &made))
    })
    .await
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let work = async {
        let proof = Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
        let after: Option<TenantId> = asked
            .cursor
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| Error::invalid("/cursor", "this is not a cursor of this list"))?;
        let filter = TenantFilter { tags: tags(asked.tags.as_deref())?, external_id: asked.external_id };
        api.platform().control.tenants().list(&proof, &filter, after, PAGE).await
    };
    let tenants = api.act(&caller, "tenants.list", Effect::Read, work).await?;
    let cursor = (tenants.len() == PAGE as usize).then(|| tenants.last().map(|t| t.id.to_string())).flatten();
    Ok(page("tenants", tenants.iter().map(shown).collect(), cursor))
}

pub async fn show(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(tenant): Path<String>,
) -> Result<Response, Problem> {
    let work = async {
        let proof = Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
        api.platform().control.tenants().get(&proof, &tenant).await
    };
    let found = api.act(&caller, "tenants.show", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &shown(&found)))
}

pub async fn change(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(tenant): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let Changed { name, tags, plan, limits } = tool::decode(input)?;
        let work = async {
            let proof = Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
            if name.is_none() && tags.is_none() && plan.is_none() && limits.is_none() {
                let hint = "send name, tags, plan or limits";
                return Err(Error::invalid("", "nothing is to be changed").hint(hint));
            }
            let change = TenantChange { name, tags, plan, limits };
            api.platform().control.tenants().change(&proof, &tenant, change).await
        };
        let found = api
            .act(&caller, Action::on("tenants.change", "tenant", &tenant), Effect::Idempotent, work)
            .await?;
        api.tell(&caller, found.id, "tenants.change".into(), Effect::Idempotent).await?;
        Ok(answer(StatusCode::OK, &shown(&found)))
    })
    .await
}

/// What is done with a tenant, and undone.
#[derive(Clone, Copy)]
enum Turn {
    Suspend,
    Resume,
    Restore,
}

pub async fn suspend(
    api: State<Api>,
    caller: Authenticated,
    tenant: Path<String>,
) -> Result<Response, Problem> {
    turned(api, caller, tenant, Turn::Suspend).await
}

pub async fn resume(
    api: State<Api>,
    caller: Authenticated,
    tenant: Path<String>,
) -> Result<Response, Problem> {
    turned(api, caller, tenant, Turn::Resume).await
}

pub async fn restore(
    api: State<Api>,
    caller: Authenticated,
    tenant: Path<String>,
) -> Result<Response, Problem> {
    turned(api, caller, tenant, Turn::Restore).await
}

async fn turned(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(tenant): Path<String>,
    turn: Turn,
) -> Result<Response, Problem> {
    unbroken(async move {
        let action = match turn {
            Turn::Suspend => "tenants.suspend",
            Turn::Resume => "tenants.resume",
            Turn::Restore => "tenants.restore",
        };
        let work = async {
            let proof = Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
            let tenants = api.platform().control.tenants();
            let found = match turn {
                Turn::Suspend => tenants.suspend(&proof, &tenant).await?,
                Turn::Resume => tenants.resume(&proof, &tenant).await?,
                Turn::Restore => tenants.restore(&proof, &tenant).await?,
            };
            api.platform().close_what_is_not_ready().await;
            Ok(found)
        };
        let found = api.act(&caller, Action::on(action, "tenant", &tenant), Effect::Idempotent, work).await?;
        api.tell(&caller, found.id, action.into(), Effect::Idempotent).await?;
        Ok(answer(StatusCode::OK, &shown(&found)))
    })
    .await
}

pub async fn delete(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(tenant): Path<String>,
    Query(deletion): Query<Deletion>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async {
            let proof = Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
            let tenants = api.platform().control.tenants();
            let found = tenants.get(&proof, &tenant).await?;
            if deletion.confirm.as_deref() != Some(found.slug.as_str()) {
                let hint = format!("repeat with ?confirm={}, where it is meant", found.slug);
                return Err(Error::invalid("/confirm", "the slug of the tenant confirms it").hint(hint));
            }
            let found = tenants.delete(&proof, &found.id.to_string(), deletion.purge).await?;
            api.tell(&caller, found.id, "tenants.delete".into(), Effect::Destroy).await?;
            api.platform().close_what_is_not_ready().await;
            if deletion.purge {
                let left = |cause: Error| {
                    Error::new(
                        Code::Unavailable,
                        "the tenant is deleted, and not all of it could be removed yet",
                    )
                    .hint("it is tried again each minute")
                    .source(cause)
                };
                if !api.platform().purge_tenant(&found).await.map_err(left)? {
                    let message = "the tenant is deleted, and not removed yet: it was changed meanwhile, or another gateway has files of it";
                    return Err(Error::new(Code::Unavailable, message)
                        .hint("each gateway removes what it has within a minute; look again then"));
                }
            }
            Ok(found)
        };
        let found =
            api.act(&caller, Action::on("tenants.delete", "tenant", &tenant), Effect::Destroy, work).await?;
        Ok(answer(StatusCode::OK, &shown(&found)))
    })
    .await
}

/// `name=value,…`.
pub fn tags(text: Option<&str>) -> Result<BTreeMap<String, String>> {
    let pairs = text.into_iter().flat_map(|text| text.split(',')).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Error::invalid("/tags", "a tag is asked for as name=value")),
        })
        .collect()
}

/// As everybody is told of one.
pub fn shown(tenant: &control::Tenant) -> Value {
    let mut shown = json!({
        "tenant": tenant.id, "slug": tenant.slug.to_string(), "name": tenant.name,
        "state": tenant.state.as_str(), "plan": tenant.plan, "tags": tenant.tags,
        "created_at": tenant.created.to_string(),
    });
    if let Some(own) = serde_json::from_str(&tenant.limits).ok().filter(|own| *own != json!({})) {
        shown["limits"] = own;
    }
    if let Some(external_id) = &tenant.external_id {
        shown["external_id"] = external_id.as_str().into();
    }
    if let Some(purge) = tenant.purge.filter(|_| tenant.state == TenantState::Deleted) {
        shown["purge_after"] = purge.to_string().into();
    }
    shown
}
