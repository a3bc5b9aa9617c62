//! The platform's routes beside the tools: audit, blobs, budgets, environments, keys, members, prices, tenants, documents.

mod archives;
mod audit;
mod billing;
mod blobs;
mod budgets;
mod credentials;
mod demands;
mod egress;
mod encryption_keys;
mod environments;
mod home;
mod keys;
pub mod members;
mod openapi;
mod plans;
mod prices;
mod provision;
mod runner;
mod sandboxes;
mod signing_keys;
mod tenants;
mod usage;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRef, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use kernel::{BlobHash, CallId, Caller, Code, Error, Result, TenantId};
use mcp_server::gate::Gate;
use mcp_server::platform::Platform;
use mcp_server::{Doors, Guard, auth};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tool::{Attempt, Call, Effect, Host as _, Record, ReplayKey};
use web::problem::{Problem, unknown_method};

pub use openapi::openapi;

/// The longest idempotency key.
const MAX_KEY: usize = 255;

/// What the routes share.
#[derive(Clone)]
pub struct Api(Arc<Doors<Platform>>);

impl Api {
    /// What routes elsewhere share with these.
    pub fn new(doors: Arc<Doors<Platform>>) -> Self {
        Self(doors)
    }

    /// Which hosts and origins pass.
    pub fn guard(&self) -> &Guard {
        &self.0.guard
    }
}

impl FromRef<Api> for Arc<dyn Gate> {
    fn from_ref(api: &Api) -> Self {
        Arc::clone(&api.0.gate)
    }
}

/// The routes.
pub fn router(doors: Arc<Doors<Platform>>) -> Router {
    let api = Api(doors);
    Router::new()
        .route("/", get(home::page))
        .route("/v1/blobs/{sha256}", put(blobs::put).head(blobs::head))
        .route("/v1/envs", get(environments::list).post(environments::create))
        .route("/v1/envs/{env}", get(environments::show).delete(environments::delete))
        .route("/v1/envs/{env}/egress", get(egress::show).put(egress::set))
        .route("/v1/envs/{env}/sandboxes", get(demands::show).put(demands::set))
        .route("/v1/envs/{env}/export", get(archives::export))
        .route("/v1/envs/{env}/import", post(archives::import))
        .route("/v1/envs/{env}/backups", get(archives::backups).post(archives::back_up))
        .route("/v1/envs/{env}/backups/{backup}", get(archives::backup).delete(archives::remove_backup))
        .route("/v1/audit", get(audit::list))
        .route("/v1/audit/export", get(audit::export))
        .route("/v1/audit/key", get(audit::key))
        .route("/v1/budgets", get(budgets::list).put(budgets::set))
        .route("/v1/budgets/{budget}", get(budgets::show).put(budgets::change).delete(budgets::remove))
        .route("/v1/meters", get(billing::meters).put(billing::set_price))
        .route("/v1/statements", get(billing::statement))
        .route("/v1/costs/estimate", get(billing::estimate))
        .route("/v1/usage/export", get(billing::export))
        .route("/v1/limits", get(plans::limits))
        .route("/v1/plans", get(plans::list))
        .route("/v1/plans/{plan}", put(plans::set).delete(plans::remove))
        .route("/v1/prices", get(prices::list).put(prices::set))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/{key}", axum::routing::delete(keys::revoke))
        .route("/v1/keys/{key}/rotate", post(keys::rotate))
        .route("/v1/members", get(members::list).post(members::invite))
        .route("/v1/members/{member}", axum::routing::patch(members::change).delete(members::remove))
        .route("/v1/members/{member}/invitation", post(members::invite_again))
        .route("/v1/credentials", get(credentials::list).post(credentials::mint))
        .route("/v1/credentials/{credential}", axum::routing::delete(credentials::revoke))
        .route("/v1/encryption-keys", get(encryption_keys::show))
        .route("/v1/encryption-keys/rotate", post(encryption_keys::rotate))
        .route("/v1/signing-keys", get(signing_keys::list))
        .route("/v1/signing-keys/rotate", post(signing_keys::rotate))
        .route("/v1/runner", get(runner::show).put(runner::put))
        .route("/v1/provision", post(provision::provision))
        .route("/v1/tenants", get(tenants::list).post(tenants::create))
        .route("/v1/tenants/{tenant}", get(tenants::show).patch(tenants::change).delete(tenants::delete))
        .route("/v1/tenants/{tenant}/suspend", post(tenants::suspend))
        .route("/v1/tenants/{tenant}/resume", post(tenants::resume))
        .route("/v1/tenants/{tenant}/restore", post(tenants::restore))
        .route("/v1/usage", get(usage::show))
        .route("/v1/schemas/manifest", get(openapi::manifest))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/oauth/jwks.json", get(keys::jwks))
        .merge(sandboxes::routes())
        .method_not_allowed_fallback(unknown_method)
        .route_layer(middleware::from_fn_with_state(api.clone(), guard))
        .with_state(api)
}

async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.0.guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => Problem::from(error).into_response(),
    }
}

impl Api {
    fn platform(&self) -> &Arc<Platform> {
        &self.0.platform
    }

    /// Calls a tool, by the one road to it.
    async fn call(
        &self,
        caller: Arc<Caller>,
        headers: &HeaderMap,
        tool: &str,
        input: Value,
    ) -> Result<Value> {
        let mut call = Call::new(caller, tool.to_owned(), input);
        call.idempotency_key = idempotency_key(headers)?;
        self.0.registry.call(&self.0.platform, call).await
    }

    /// As [`Api::act`], once for each idempotency key. What `lasting` leaves of the answer is remembered, and
    /// given again to a repeat.
    async fn act_once(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        action: &'static str,
        input: &Value,
        lasting: fn(&Value) -> Value,
        work: impl Future<Output = Result<Value>>,
    ) -> Result<Value> {
        let once = self.once(caller, headers, action, input, lasting, work);
        self.acted(caller, Action::of(action, input), Effect::Write, once, made).await
    }

    /// Does `work` once for each idempotency key, as [`Api::act_once`] does, without a record.
    async fn once(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        action: &'static str,
        input: &Value,
        lasting: fn(&Value) -> Value,
        work: impl Future<Output = Result<Value>>,
    ) -> Result<Value> {
        let Some(key) = idempotency_key(headers)? else { return work.await };
        let (tenant, credential) = (caller.tenant, caller.owner);
        let env = caller.env.map(|env| env.to_string()).unwrap_or_default();
        let (secret, input) = (self.platform().digest_key(), input.to_string());
        let keyed = [secret, action.as_bytes(), b"\0", env.as_bytes(), b"\0", input.as_bytes()].concat();
        let digest = BlobHash::of(&keyed).to_bytes();
        let key = ReplayKey { tenant, credential, key, digest };
        let replays = self.platform().replays();
        match replays.begin(&key).await? {
            Attempt::Done(answer) => return Ok(answer),
            Attempt::Unknown => {
                return Err(Error::new(
                    Code::Conflict,
                    "the outcome of the first call with this idempotency key is not known",
                )
                .hint("look at what is there, then repeat with another key if it is needed"));
            }
            Attempt::First => {}
        }
        let outcome = work.await;
        // After a failure of ours nobody knows what was done: the key stays claimed, and nothing is done twice.
        if !outcome.as_ref().is_err_and(|error| error.code() == Code::Internal) {
            let remembered = outcome.as_ref().ok().map(lasting);
            replays.finish(&key, remembered.as_ref()).await?;
        }
        outcome
    }

    /// Does what is no tool the way tools are done: counted against the limits before, recorded after.
    pub async fn act<T>(
        &self,
        caller: &Caller,
        action: impl Into<Action>,
        effect: Effect,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.acted(caller, action.into(), effect, work, |_| None).await
    }

    /// As [`Api::act`]; what was made is named in the record.
    pub async fn acted<T>(
        &self,
        caller: &Caller,
        Action { name, about }: Action,
        effect: Effect,
        work: impl Future<Output = Result<T>>,
        made: fn(&T) -> Option<Value>,
    ) -> Result<T> {
        self.platform().limiter().admit(caller)?;
        let _underway = self.platform().limiter().enter(caller).await?;
        let began = Instant::now();
        let mut record = Record { about, ..Record::of(CallId::new(), caller, name, effect) };
        let outcome = work.await;
        if let Some(made) = outcome.as_ref().ok().and_then(made) {
            record.about.insert("made".to_owned(), made);
        }
        record.error = outcome.as_ref().err().map(Error::code);
        record.took = began.elapsed();
        let kept = self.platform().ledger().record(record).await;
        outcome.and_then(|done| kept.map(|()| done))
    }

    /// Records in a tenant's own log, too, what was done with it by somebody of another.
    pub async fn tell(
        &self,
        caller: &Caller,
        tenant: TenantId,
        action: Action,
        effect: Effect,
    ) -> Result<()> {
        if tenant == caller.tenant {
            return Ok(());
        }
        let Action { name, about } = action;
        let record = Record::of(CallId::new(), caller, name, effect);
        self.platform().ledger().record(Record { tenant, about, ..record }).await
    }

    /// Records what was done for a client that no limit holds up.
    pub async fn record(&self, caller: &Caller, action: &'static str, effect: Effect) -> Result<()> {
        self.platform().ledger().record(Record::of(CallId::new(), caller, action, effect)).await
    }
}

/// The id of what was made, where the answer names one.
fn made(answer: &Value) -> Option<Value> {
    answer.get("id").filter(|id| id.is_string()).cloned()
}

/// What a route does, and about what, as the record of it says.
pub struct Action {
    name: &'static str,
    about: Map<String, Value>,
}

impl From<&'static str> for Action {
    fn from(name: &'static str) -> Self {
        Self { name, about: Map::new() }
    }
}

impl Action {
    /// The same, about what `input` names.
    fn of(name: &'static str, input: &Value) -> Self {
        Self { name, about: tool::about(input) }
    }

    /// The same, about this one, which is an id or a slug.
    fn on(name: &'static str, kind: &str, one: &str) -> Self {
        Self::of(name, &json!({ kind: one }))
    }
}

/// Runs a change to its end, also when the client goes away.
async fn unbroken(
    change: impl Future<Output = Result<Response, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|e| Err(Error::internal(format!("a route panicked: {e}")).into()))
}

/// The headers of a request of `caller`, its body as JSON, and who has sent it when all of it is here.
async fn read(api: &Api, caller: Arc<Caller>, request: Request) -> Result<(Arc<Caller>, HeaderMap, Value)> {
    let (caller, headers, bytes) = read_text(api, caller, request, api.0.body_limit).await?;
    let input = web::body::json(&headers, &bytes)?;
    Ok((caller, headers, input))
}

/// The same with the body as it came, of at most so many bytes.
async fn read_text(
    api: &Api,
    caller: Arc<Caller>,
    request: Request,
    most: usize,
) -> Result<(Arc<Caller>, HeaderMap, Bytes)> {
    let (parts, body) = request.into_parts();
    let env = auth::text(&parts.headers, auth::ENV)?;
    let (caller, bytes) = auth::body_of(&*api.0.gate, caller, &parts.headers, env, body, most).await?;
    Ok((caller, parts.headers, bytes))
}

/// What a request sets, which it has to say: what is left out lifts no bound.
fn wanted<T: DeserializeOwned>(input: Value, name: &str, hint: &str) -> Result<T> {
    if input.get(name).is_none() {
        return Err(Error::invalid(format!("/{name}"), "it is missing").hint(hint));
    }
    tool::decode(input).map_err(|error| error.hint(hint))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            let message = format!("the idempotency key must have 1 to {MAX_KEY} ASCII characters");
            Err(Error::new(Code::InvalidInput, message))
        }
    }
}

/// JSON.
pub fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn page(name: &str, items: Vec<Value>, cursor: Option<String>) -> Response {
    let mut body = json!({ name: items });
    if let Some(cursor) = cursor {
        body["cursor"] = cursor.into();
    }
    answer(StatusCode::OK, &body)
}
