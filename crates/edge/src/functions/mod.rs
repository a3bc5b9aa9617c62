//! Functions and services at their own addresses, `/_/fn/{name}`, `/_/svc/{name}` and what is below, and where routes lead.

mod bridge;
mod caller;
mod headers;
mod lasting;
mod models;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::models::Models;
use axum::body::{Body, HttpBody as _};
use axum::extract::ConnectInfo;
use axum::response::Response;
use capabilities::functions::{Access, FunctionName, Kind as Of};
use capabilities::hosting::RequestPath;
use capabilities::mail::Addresses;
use capabilities::routes::{Route, Target};
use capabilities::rows::App;
use functions::{Asking, Called, Functions, Kind, Lease, Outcome, Reply, Sent};
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::OnUpgrade;
use kernel::{Code, Env, Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sandbox::relay;

use self::caller::Caller;
pub(crate) use self::caller::{Inside, SCOPES};
use self::headers::Way;
use self::lasting::{Lasting, Open, Socket};
use crate::Which;
use crate::data::{self, Ask, Road, refused};
use crate::serve::{Edge, OwnDomain, Visit};

/// The largest body that a function is sent, where no route says another size.
const BODY: u64 = 10 << 20;

/// When to ask again where a function cannot be had just now.
const LATER: Duration = Duration::from_secs(1);

/// What stays as it is in a path that was put together.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The functions of all apps, and where those are.
pub struct FunctionDoor {
    /// The functions.
    pub functions: Functions,
    /// The addresses of the apps.
    pub addresses: Arc<dyn Addresses>,
    /// What they ask models by.
    pub models: Models,
}

/// Where a route leads to a function or a service.
pub(crate) struct Led<'a> {
    pub route: &'a Route,
    /// What was asked for.
    pub asked: &'a RequestPath,
    /// What is asked of the function.
    pub path: &'a RequestPath,
    pub road: Road,
}

/// What is asked of a function.
struct Wanted {
    kind: Kind,
    /// The path, with the query.
    path: String,
    /// What stood before it.
    prefix: Option<String>,
    /// The most bytes of the body, where it is not bounded yet.
    most: Option<u64>,
}

/// Whether a path is a function's or a service's.
pub(crate) fn takes(raw: &str) -> bool {
    at(raw).is_some()
}

/// What a path is of, with what comes after what all such addresses begin with.
fn at(raw: &str) -> Option<(Of, &str)> {
    [Of::Function, Of::Service].into_iter().find_map(|of| Some((of, raw.strip_prefix(of.below())?)))
}

/// Answers for `/_/fn/{name}`, `/_/svc/{name}` and what is below.
pub(crate) async fn answer(edge: &Edge, visit: &Visit<'_>, body: Body) -> Response {
    let (app, origin) = match edge.data.opened(visit.env, visit.request, Road::Open).await {
        Ok(opened) => opened,
        Err(refusal) => return refused(&refusal, visit.env, visit.id),
    };
    let answer = match &origin {
        Some(origin) if origin.asks_first(visit.request) => Ok(origin.preflight()),
        _ => at_its_own(edge, visit, &app, body).await,
    };
    data::closed(answer, origin, visit.env, visit.id)
}

/// Answers a request that a route leads to a function, and has let in.
pub(crate) async fn led(edge: &Edge, visit: &Visit<'_>, led: &Led<'_>, body: Body) -> Response {
    let (app, origin) = match edge.data.opened(visit.env, visit.request, led.road).await {
        Ok(opened) => opened,
        Err(refusal) => return refused(&refusal, visit.env, visit.id),
    };
    let answer = match &origin {
        Some(origin) if origin.asks_first(visit.request) => Ok(origin.preflight()),
        _ => through(edge, visit, &app, led, body).await,
    };
    data::closed(answer, origin, visit.env, visit.id)
}

async fn at_its_own(edge: &Edge, visit: &Visit<'_>, app: &Arc<App>, body: Body) -> Result<Response> {
    let (of, raw) = at(visit.request.uri.path()).ok_or_else(data::unknown)?;
    let (name, rest) = raw.split_at(raw.find('/').unwrap_or(raw.len()));
    let called = edge.called(visit, of, name).await?;
    let access = called.function.settings.access;
    let ask = Ask::at(visit.env, app, visit.request, visit.id, Vec::new());
    let access = match Inside::is_own(visit.request) {
        true => Access::Public,
        false => access,
    };
    let caller = Caller::admitted(&edge.data, &ask, access).await?;
    let wanted = Wanted {
        kind: match of {
            Of::Function if rest.is_empty() && is_call(visit.request) => Kind::Invoke,
            _ => Kind::Http,
        },
        path: with_query(if rest.is_empty() { "/" } else { rest }, visit.request),
        prefix: Some(format!("{}{name}", of.below())),
        most: Some(BODY),
    };
    edge.ask_function(visit, &called, caller, wanted, body).await
}

async fn through(
    edge: &Edge,
    visit: &Visit<'_>,
    app: &Arc<App>,
    led: &Led<'_>,
    body: Body,
) -> Result<Response> {
    let route = led.route;
    let (of, name) = match &route.to {
        Target::Function(name) => (Of::Function, name),
        Target::Service(name) => (Of::Service, name),
        Target::Site | Target::Bucket(_) | Target::Table(_) => return Err(data::unknown()),
    };
    let called = edge.called(visit, of, name).await?;
    // What a route of an earlier release opens is what today's opens too.
    let is_live = visit.which == Which::Live
        || app.routes.find(led.asked).is_some_and(|found| found.route.to == route.to);
    let access = if is_live { Access::Public } else { called.function.settings.access };
    let ask = Ask::at(visit.env, app, visit.request, visit.id, Vec::new());
    let caller = Caller::admitted(&edge.data, &ask, access).await?;
    let path = match led.path.as_str() == led.asked.as_str() {
        true => visit.request.uri.path().to_owned(),
        false => utf8_percent_encode(led.path.as_str(), PLAIN).to_string(),
    };
    let wanted = Wanted {
        kind: Kind::Http,
        path: with_query(&path, visit.request),
        prefix: None,
        most: route.max_body.is_none().then_some(BODY),
    };
    edge.ask_function(visit, &called, caller, wanted, body).await
}

impl Edge {
    /// The function or service of that name. A preview of an earlier release has today's: what was mended in one is not to be
    /// had as it was.
    async fn called(&self, visit: &Visit<'_>, of: Of, name: &str) -> Result<Called> {
        let live = match visit.which {
            Which::Live => None,
            Which::Number(_) => self.apps.release(visit.env, Which::Live).await?,
        };
        let served = live.as_deref().unwrap_or(visit.served);
        let shown: String = name.chars().take(64).collect();
        let nothing = || Error::not_found(format!("{} {shown:?} in this app", of.as_str()));
        let name: FunctionName = name.parse().map_err(|_| nothing())?;
        let function = served.functions.get(&name).filter(|it| it.kind() == of).ok_or_else(nothing)?;
        let function = Arc::clone(function);
        Ok(Called { env: visit.env.clone(), name, function, variables: Arc::clone(&served.variables) })
    }

    /// Asks a function for somebody who may.
    async fn ask_function(
        &self,
        visit: &Visit<'_>,
        called: &Called,
        caller: Caller,
        wanted: Wanted,
        body: Body,
    ) -> Result<Response> {
        let nowhere = || Error::new(Code::Unavailable, "functions do not run here");
        let door = self.functions.as_ref().ok_or_else(nowhere)?;
        let parts = visit.request;
        let domain = parts.extensions.get::<OwnDomain>().map(|domain| domain.0.as_str());
        let base = door.addresses.url(visit.env, domain.into()).await?;
        let mut headers = parts.headers.clone();
        let way = Way {
            base: &base,
            prefix: wanted.prefix,
            address: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip()),
            shows_authorization: caller.shows_authorization,
        };
        let protocol = headers::to_function(&mut headers, &way);
        let asker = parts.extensions.get::<OnUpgrade>().cloned().filter(|_| protocol.is_some());
        if let Some(protocol) = protocol.filter(|_| asker.is_some()) {
            relay::ask_for(&mut headers, protocol);
        }
        let overflow = Overflow::default();
        let body = if body.is_end_stream() {
            headers::without_body(&mut headers);
            Empty::new().map_err(|never| match never {}).boxed_unsync()
        } else {
            // A service may speak with who asks while they send; what it is sent is its own to pace.
            let is_spoken = called.function.kind() == Of::Service && body.size_hint().exact().is_none();
            let body = if is_spoken { body } else { web::body::paced(body) };
            let body = match wanted.most {
                Some(most) => web::body::bounded(&parts.headers, body, most).await?,
                None => body,
            };
            // Who sends slowly has no place of the function's meanwhile.
            let body = if is_spoken { body } else { web::body::gathered(body).await? };
            overflow.watching(body)
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = wanted
            .path
            .parse::<Uri>()
            .map_err(|_| Error::new(Code::InvalidInput, "the address cannot be read"))?;
        *request.headers_mut() = headers;
        let refused = self.until_refused(visit.env, &caller);
        let asking = Asking {
            url: Some(format!("{base}{}", wanted.path)),
            caller: caller.told,
            rights: Some(caller.rights),
            depth: caller.depth,
            ..Asking::new(request, visit.id.to_string(), wanted.kind)
        };
        match door.functions.ask(called, asking).await {
            Ok(reply) => self.replied(visit, reply, asker, refused),
            Err(error) => {
                Err(overflow.taken().unwrap_or_else(|| outsiders(&error, called.function.kind().as_str())))
            }
        }
    }

    /// Comes when whom the function was told of may not have what lasts any more: also where everybody is let in, since it is
    /// answered for them.
    fn until_refused(&self, env: &Env, caller: &Caller) -> Option<BoxFuture<'static, ()>> {
        let token = caller.rights.sender()?.token.clone()?;
        let (data, env) = (self.data.clone(), env.clone());
        Some(Box::pin(async move { data.auth.ended(&env, data.rows.live(), &token, SCOPES).await }))
    }

    /// Hands a function's answer on.
    fn replied(
        &self,
        visit: &Visit<'_>,
        reply: Reply,
        asker: Option<OnUpgrade>,
        refused: Option<BoxFuture<'static, ()>>,
    ) -> Result<Response> {
        match reply.outcome {
            // What it has thrown is in its log, for those whose function it is.
            Some(Outcome::Threw) => {
                let error = Error::new(Code::Internal, "internal error");
                return Ok(web::problem::app_problem_response(&error, &visit.id.to_string()));
            }
            Some(Outcome::Refused) => {
                return Err(Error::not_found("handler in this function for such a request"));
            }
            None => {}
        }
        let mut response = reply.response;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let function = switches.then(|| hyper::upgrade::on(&mut response));
        let lease = response.extensions_mut().remove::<Arc<Lease>>();
        let (mut parts, answer) = response.into_parts();
        let protocol = headers::to_asker(&mut parts.headers);
        let mut shown = Response::new(Body::empty());
        *shown.status_mut() = parts.status;
        *shown.headers_mut() = parts.headers;
        if let Some(function) = function {
            let unasked = || broken("the function changed the protocol, which nobody asked it to");
            let (asker, protocol) = asker.zip(protocol).ok_or_else(unasked)?;
            relay::ask_for(shown.headers_mut(), protocol);
            let open = Open::new(&self.sockets);
            tokio::spawn(Socket { asker, function, lease, refused, open }.carry());
            return Ok(shown);
        }
        let kind = shown.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let is_news = kind.starts_with(b"text/event-stream");
        if is_news {
            shown.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        }
        let stopping = self.data.realtime.stopping();
        let over = is_news.then(|| Box::pin(stopping.cancelled_owned()) as BoxFuture<'static, ()>);
        *shown.body_mut() = Body::new(Lasting { answer, refused, over });
        Ok(shown)
    }
}

/// Whether a request is a call with JSON: one to the function itself and nothing below it.
fn is_call(parts: &Parts) -> bool {
    parts.method == Method::POST && parts.uri.query().is_none() && web::body::is_json(&parts.headers)
}

fn with_query(path: &str, parts: &Parts) -> String {
    match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// What is wrong with a function or a service, `what` of the two, to whoever is none of its makers: nothing of what it says
/// itself.
fn outsiders(error: &functions::Error, what: &str) -> Error {
    use functions::Error as E;
    let unavailable =
        |why: &str| Error::new(Code::Unavailable, format!("the {what} {why}")).retry_after(LATER);
    match error {
        E::Shared(error) => outsiders(error, what),
        E::Busy(_) | E::FullEnv { .. } | E::FullMachine(_) => {
            unavailable("is busy").hint("ask again in a moment")
        }
        E::Starting => unavailable("is still being started").hint("ask again in a moment"),
        E::Crashes { left, .. } => unavailable("cannot run just now").retry_after(*left + LATER),
        E::Failed(_) | E::Ended(_) | E::Silent | E::Full => unavailable("does not start"),
        E::Late(_) | E::Blocked(_) => {
            Error::new(Code::Timeout, format!("the {what} has not answered in time"))
        }
        E::Gone => broken(&format!("the {what} has ended before it answered")),
        E::Broken(_) => broken(&format!("the {what} has not answered as it should")),
        E::Sandbox(error) if error.code() == Code::Internal => {
            tracing::error!(error = error.chain(), "a {what} could not be run");
            unavailable("does not start")
        }
        E::Sandbox(_) => {
            Error::new(Code::Unavailable, format!("{what}s do not run here just now")).retry_after(LATER)
        }
    }
}

fn broken(message: &str) -> Error {
    Error::broken_upstream(message)
}

/// Why a body has not come to its end.
#[derive(Clone, Default)]
struct Overflow(Arc<Mutex<Option<Error>>>);

impl Overflow {
    /// The body, which tells here what is wrong with it.
    fn watching(&self, body: Body) -> Sent {
        let told = self.clone();
        let body = body.map_err(move |error| {
            let error = web::body::broken_off(error.into_inner());
            *told.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            "the body has not come to its end".into()
        });
        body.boxed_unsync()
    }

    fn taken(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
