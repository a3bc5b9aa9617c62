//! The JSON door: tools over plain HTTP, for CI, scripts and `curl`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Uri};
use kernel::{CallId, Caller, Code, Error, Proof, Result};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tool::{Call, Doc, Host};

use crate::auth::{self, Authenticated};
use crate::doors::Doors;
use crate::extract::Path;
use crate::gate::Gate;
use web::body;
use web::problem::{Problem, REQUEST_ID, problem_response, unknown_method};

/// How long a call may run, in seconds.
const TIMEOUT: &str = "steading-timeout";

/// Marks a call so that its repeats change nothing more.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

struct JsonDoor<P>(Arc<Doors<P>>);

impl<P> Clone for JsonDoor<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P> FromRef<JsonDoor<P>> for Arc<dyn Gate> {
    fn from_ref(door: &JsonDoor<P>) -> Self {
        Arc::clone(&door.0.gate)
    }
}

/// The routes of the JSON door: `GET /v1/tools`, `GET /v1/tools/{tool}`, `POST /v1/tools/{tool}`.
///
/// The listener's owner sets `TCP_NODELAY`, and merges this with its other routes.
pub fn router<P: Host>(doors: Arc<Doors<P>>) -> Router {
    let door = JsonDoor(doors);
    Router::new()
        .route("/v1/tools", get(list::<P>))
        .route("/v1/tools/{tool}", get(show::<P>).post(call::<P>))
        .method_not_allowed_fallback(unknown_method)
        .route_layer(middleware::from_fn_with_state(door.clone(), guarded::<P>))
        .with_state(door)
}

async fn guarded<P: Host>(State(door): State<JsonDoor<P>>, request: Request, next: Next) -> Response {
    match door.0.guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => Problem::from(error).into_response(),
    }
}

async fn list<P: Host>(
    State(door): State<JsonDoor<P>>,
    Authenticated(caller): Authenticated,
    uri: Uri,
) -> Result<Response, Problem> {
    let selection = auth::selection(&uri)?;
    let tools: Vec<Value> = door.0.registry.visible(&caller, selection).map(Doc::to_json).collect();
    Ok(answer(&json!({ "tools": tools }), CallId::new()))
}

async fn show<P: Host>(
    State(door): State<JsonDoor<P>>,
    Authenticated(caller): Authenticated,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let doc = door.0.registry.doc(&name)?;
    permitted(doc, &caller)?;
    Ok(answer(&doc.to_json(), CallId::new()))
}

/// That the caller may see the tool; the error names the scope it lacks.
fn permitted(doc: &Doc, caller: &Caller) -> Result<()> {
    if doc.allowed(caller) {
        return Ok(());
    }
    kernel::Tenant::authorize_for(caller, doc.spec.scopes, Some(doc.name)).map(drop)
}

async fn call<P: Host>(
    State(door): State<JsonDoor<P>>,
    Path(name): Path<String>,
    Authenticated(caller): Authenticated,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let id = CallId::new();
    match run(&door.0, id, caller, name, &uri, &headers, body).await {
        Ok(output) => answer(&output, id),
        Err(error) => problem_response(&error, &id.to_string()),
    }
}

async fn run<P: Host>(
    doors: &Doors<P>,
    id: CallId,
    caller: Arc<Caller>,
    name: String,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Value> {
    doors.registry.doc(&name)?;
    let env = auth::text(headers, auth::ENV)?;
    let (caller, bytes) = auth::body_of(&*doors.gate, caller, headers, env, body, doors.body_limit).await?;
    let gone = CancellationToken::new();
    // Dropped with this future, and so when the client goes away.
    let _guard = gone.clone().drop_guard();
    let mut call = Call::new(caller, name, body::json(headers, &bytes)?);
    call.id = id;
    call.selection = auth::selection(uri)?;
    call.deadline = deadline(headers)?;
    call.idempotency_key = auth::text(headers, IDEMPOTENCY_KEY)?.map(str::to_owned);
    call.cancel = gone;
    doors.call(call).await
}

fn deadline(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(text) = auth::text(headers, TIMEOUT)? else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(deadline) => Ok(Some(deadline)),
        None => Err(Error::new(Code::InvalidInput, "the header steading-timeout must be seconds above zero")
            .hint("write Steading-Timeout: 30")),
    }
}

fn answer(body: &Value, id: CallId) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
