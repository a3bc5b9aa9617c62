//! The MCP door: the tools over Streamable HTTP, for clients of 2025-06-18, 2025-11-25 and 2026-07-28 alike.

mod calls;
mod handler;
pub(crate) mod messages;
mod plain;
mod sessions;
mod skills;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures::StreamExt as _;
use http::request::Parts;
use http::{HeaderValue, Method};
use http_body_util::{BodyExt, Full};
use kernel::{CallId, Caller, Code, Error, Surface};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tool::{Call, Host, Selection};

use crate::auth::{self, Whence};
use crate::doors::Doors;
use crate::extract::Path;
use handler::Handler;
use plain::Plain;
use sessions::Owners;
use skills::Skills;
use web::problem::{Problem, REQUEST_ID};

/// How many tools one page of `tools/list` shows. Some clients read one page only, so that it is all of them.
const PAGE: usize = 100;

/// How the MCP door is run.
#[derive(Debug, Clone)]
pub struct McpOptions {
    /// Whether clients before 2026-07-28 get sessions.
    pub sessions: Sessions,
    /// How many tools one page of `tools/list` shows.
    pub page: usize,
    /// Fires when the server stops: calls under way get `grace` to end, then every stream is closed.
    pub stop: CancellationToken,
    /// How long calls may go on after `stop`.
    pub grace: Duration,
}

impl Default for McpOptions {
    fn default() -> Self {
        Self {
            sessions: Sessions::default(),
            page: PAGE,
            stop: CancellationToken::new(),
            grace: Duration::from_secs(20),
        }
    }
}

/// What the door keeps between the requests of clients before 2026-07-28. Later ones have no sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sessions {
    /// Nothing: any node answers any request.
    #[default]
    None,
    /// A session each, bound to its credential and environment, so that the server can ask the client. It costs
    /// memory per client and ties it to one node.
    Legacy,
}

/// Who is at the door, and what they asked to see; travels with a request into its handler.
#[derive(Clone)]
struct Visit {
    caller: Arc<Caller>,
    selection: Selection,
    id: CallId,
}

/// The routes of the MCP door: `/mcp` (the environment is the credential's) and `/mcp/{env}`. Beside the registry's
/// tools it serves the skills.
///
/// The listener's owner sets `TCP_NODELAY` on what it accepts: without it, streamed answers wait for the
/// client's delayed acknowledgement, 44 ms each. To be called within a tokio runtime.
pub fn router<P: Host>(doors: Arc<Doors<P>>, options: McpOptions) -> Router {
    router_with(doors, options, Skills::new())
}

/// The routes of the MCP door, with what `beside` serves next to the registry's tools: more tools, prompts,
/// resources. Its requests pass the same guard, gate and transport.
pub fn router_with<P: Host, X: ServerHandler>(
    doors: Arc<Doors<P>>,
    options: McpOptions,
    beside: X,
) -> Router {
    let closed = CancellationToken::new();
    let under_way = TaskTracker::new();
    under_way.close();
    let handler = Handler::new(Arc::clone(&doors), beside, options.page);
    let calls = handler.calls();
    let sessions = Arc::new(LocalSessionManager::default());
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(options.sessions == Sessions::Legacy)
        .with_json_response(true)
        .with_max_request_body_bytes(doors.body_limit)
        // The guard has looked at both by then, for every door alike.
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_cancellation_token(closed.clone());
    let service = StreamableHttpService::new(move || Ok(handler.clone()), Arc::clone(&sessions), config);
    tokio::spawn(drain(options.stop, options.grace, under_way.clone(), closed.clone()));
    let owners = (options.sessions == Sessions::Legacy).then(|| Owners::of(sessions));
    let door = Arc::new(McpDoor { doors, service, calls, owners, under_way, closed });
    Router::new().route("/mcp", any(bare::<P, X>)).route("/mcp/{env}", any(named::<P, X>)).with_state(door)
}

/// Cancelling while calls run would turn them into internal errors; waiting for streams that never end would
/// hold the process.
async fn drain(stop: CancellationToken, grace: Duration, under_way: TaskTracker, closed: CancellationToken) {
    stop.cancelled().await;
    let _ = tokio::time::timeout(grace, under_way.wait()).await;
    closed.cancel();
}

struct McpDoor<P: Host, X: ServerHandler> {
    doors: Arc<Doors<P>>,
    service: StreamableHttpService<Handler<P, X>, LocalSessionManager>,
    calls: calls::Calls,
    owners: Option<Owners>,
    under_way: TaskTracker,
    closed: CancellationToken,
}

async fn bare<P: Host, X: ServerHandler>(
    State(door): State<Arc<McpDoor<P, X>>>,
    request: Request,
) -> Response {
    enter(&door, None, request).await
}

async fn named<P: Host, X: ServerHandler>(
    State(door): State<Arc<McpDoor<P, X>>>,
    Path(env): Path<String>,
    request: Request,
) -> Response {
    enter(&door, Some(env), request).await
}

async fn enter<P: Host, X: ServerHandler>(
    door: &McpDoor<P, X>,
    env: Option<String>,
    request: Request,
) -> Response {
    let id = CallId::new();
    let (parts, body) = request.into_parts();
    let mut response = match door.serve(id, env.as_deref(), parts, body).await {
        Ok(response) => response,
        Err(error) => Problem::new(error, id).into_response(),
    };
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

impl<P: Host, X: ServerHandler> McpDoor<P, X> {
    async fn serve(
        &self,
        id: CallId,
        env: Option<&str>,
        mut parts: Parts,
        body: Body,
    ) -> kernel::Result<Response> {
        self.doors.guard.check(&parts.uri, &parts.headers)?;
        let env = match env {
            Some(env) => Some(env),
            None => auth::text(&parts.headers, auth::ENV)?,
        };
        let whence = Whence::of(&parts, Some(parts.uri.path()));
        let caller = auth::caller(&*self.doors.gate, &parts.headers, env, Surface::Mcp, whence).await?;
        let selection = auth::selection(&parts.uri)?;
        let session = wire::session_of(&parts.headers)?.map(str::to_owned);
        if let (Some(owners), Some(session)) = (&self.owners, &session) {
            owners.check(session, &caller)?;
        }
        let under_way = (parts.method == Method::POST).then(|| self.under_way.token());
        let limit = self.doors.body_limit;
        let (caller, sent) =
            auth::body_of(&*self.doors.gate, caller, &parts.headers, env, body, limit).await?;
        if let Some(request) = wire::cancelled(&sent).filter(|_| session.is_none()) {
            self.calls.cancel(&caller, &request);
        }
        wire::accept_what_is_sent(&mut parts.headers);
        if self.owners.is_none()
            && let Some(plain) = Plain::read(&parts, &sent)
            && self.doors.registry.doc(&plain.name).is_ok()
        {
            return self.call(plain, caller, selection, id).await;
        }
        let opens = self.owners.as_ref().filter(|_| session.is_none());
        if let Some(owners) = opens {
            owners.room_for(&caller, &sent).await?;
        }
        parts.extensions.insert(Visit { caller: Arc::clone(&caller), selection, id });
        let is_listening = parts.method == Method::GET;
        let request = http::Request::from_parts(parts, Full::new(sent.clone()));
        let response = self.service.handle(request).await;
        if let Some(owners) = opens
            && let Some(session) = wire::session_of(response.headers())?
        {
            owners.add(session, &caller);
        }
        if wire::is_plain_refusal(&response) {
            let (refused, said) = response.into_parts();
            if refused.status.is_server_error() && self.closed.is_cancelled() {
                return Err(stopping());
            }
            let said = said.collect().await.map_or_else(|e| match e {}, |all| all.to_bytes());
            return Ok(wire::refusal(&refused, &said, id, &sent));
        }
        if is_listening {
            // What a session is told on the side lasts for as long as the credential that listens.
            let platform = Arc::clone(&self.doors.platform);
            let over = async move { tool::ended(&*platform, &caller).await };
            return Ok(response
                .map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(over))))
                .into_response());
        }
        // The answer's body holds the token, so that a stream counts as under way until its end.
        Ok(response.map(|body| Body::new(body.map_frame(move |frame| (&under_way, frame).1))).into_response())
    }
}

impl<P: Host, X: ServerHandler> McpDoor<P, X> {
    async fn call(
        &self,
        mut plain: Plain,
        caller: Arc<Caller>,
        selection: Selection,
        id: CallId,
    ) -> kernel::Result<Response> {
        let gone = self.closed.child_token();
        // Dropped with this future, and so when the client goes away.
        let _guard = gone.clone().drop_guard();
        let mut call = Call::new(caller, plain.name.clone(), std::mem::take(&mut plain.arguments).into());
        call.id = id;
        call.selection = selection;
        call.idempotency_key = plain.idempotency_key.take();
        call.cancel = gone;
        let _entered = self.calls.enter(&call, &plain.id);
        let outcome = self.doors.call(call).await;
        if self.closed.is_cancelled() && outcome.as_ref().is_err_and(|e| e.code() == Code::Timeout) {
            return Err(stopping());
        }
        // A client whose user can consent to more learns of it by HTTP (MCP 2025-11-25, Authorization, Scope Challenge
        // Handling).
        let outcome = match outcome {
            Err(error) if error.lacks().is_some() => return Err(error),
            outcome => outcome,
        };
        plain.answer(&handler::result(outcome, id))
    }
}

fn stopping() -> Error {
    Error::new(Code::Unavailable, "the platform is stopping")
}

/// An error for a request that names nothing the door knows of.
fn no_session() -> Error {
    Error::new(Code::NotFound, "there is no such session").hint("initialize again")
}

/// The bytes of a JSON value.
fn json_bytes(value: &serde_json::Value) -> Bytes {
    value.to_string().into()
}
