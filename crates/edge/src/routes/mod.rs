//! Routes of an app: what has to hold before what they lead to is asked, whatever that is.

mod cors;
mod limits;

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use capabilities::access::{Guest, Subject};
use capabilities::auth::network;
use capabilities::hosting::RequestPath;
use capabilities::routes::{By, Route, Routed, Target, Verb, Who};
use http::header::{ALLOW, CACHE_CONTROL, VARY};
use http::{HeaderValue, Method, StatusCode};
use kernel::{Code, EnvId, Error, LimitInfo, Result, Scope};

use self::limits::Limits;
use crate::data::{self, Ask, Road};
use crate::functions;
use crate::serve::{Edge, Visit};
use crate::{Which, page};

/// What may be kept of what not everybody may see: nothing by others, and nothing without asking again.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What routes of all environments have in common.
pub(crate) struct Gate {
    limits: Limits,
}

/// The route that has answered, for the log.
#[derive(Clone)]
pub(crate) struct Taken(pub String);

/// Who is counted: no two environments', routes' or kinds of limit have anybody in common.
#[derive(Hash)]
enum Counted<'a> {
    Ip(EnvId, &'a str, Option<IpAddr>),
    User(EnvId, &'a str, String),
    Route(EnvId, &'a str),
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { limits: Limits::new() }
    }
}

/// Answers where a route is for the path.
pub(crate) async fn answer(
    edge: &Edge,
    visit: &Visit<'_>,
    found: &Routed<'_>,
    asked: &RequestPath,
    body: Body,
) -> Response {
    let route = found.route;
    let mut response = match &route.cors {
        None => {
            let mut response = passed(edge, visit, found, asked, body).await;
            if route.to != Target::Site {
                edge.data.let_read(visit.env, visit.request, response.headers_mut()).await;
            }
            response
        }
        Some(cors) => {
            let mut response = match cors::judge(cors, visit.request) {
                Err(refusal) => data::refused(&refusal, visit.env, visit.id),
                Ok(allowed) => {
                    let mut response = match cors::asks_first(visit.request) {
                        true => allowed.preflight(),
                        false => passed(edge, visit, found, asked, body).await,
                    };
                    allowed.allow(response.headers_mut());
                    response
                }
            };
            cors::varies(cors, response.headers_mut());
            response
        }
    };
    if route.auth != Who::Public {
        guarded(&mut response);
    }
    response.extensions_mut().insert(Taken(route.text.clone()));
    response
}

/// Nobody keeps for others what was shown to one.
pub(crate) fn guarded(response: &mut Response) {
    let headers = response.headers_mut();
    if headers.get(CACHE_CONTROL).is_none_or(|value| value != "no-store") {
        headers.insert(CACHE_CONTROL, PRIVATE);
    }
    headers.append(VARY, HeaderValue::from_static("authorization"));
}

/// Answers what comes from where it may.
async fn passed(
    edge: &Edge,
    visit: &Visit<'_>,
    found: &Routed<'_>,
    asked: &RequestPath,
    body: Body,
) -> Response {
    let (route, request) = (found.route, visit.request);
    if request.method == Method::OPTIONS {
        // Without `cors`, which other pages may ask is for what the route leads to.
        if route.cors.is_none() && route.to != Target::Site && cors::asks_first(request) {
            return target(edge, visit, found, asked, body).await;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().extend(allow(route).map(|allow| (ALLOW, allow)));
        return response;
    }
    if !verb(&request.method).is_some_and(|verb| route.methods.contains(&verb)) {
        return web::problem::app_method_not_allowed(visit.id, allow(route));
    }
    let limit = match admitted(edge, visit, asked, route).await {
        Ok(limit) => limit,
        Err(refusal) => return data::refused(&refusal, visit.env, visit.id),
    };
    let answer = async {
        let body = match route.max_body {
            Some(most) => web::body::bounded(&request.headers, body, most).await?,
            None => body,
        };
        Ok(target(edge, visit, found, asked, body).await)
    };
    let answer = match route.timeout {
        None => answer.await,
        Some(time) => tokio::time::timeout(time, answer).await.unwrap_or_else(|_| {
            let message = format!("the answer did not begin within {} s", time.as_secs());
            Err(Error::new(Code::Timeout, message).hint("try again in a moment"))
        }),
    };
    let mut response = answer.unwrap_or_else(|refusal| data::refused(&refusal, visit.env, visit.id));
    if let Some(limit) = limit {
        web::problem::add_limit(response.headers_mut(), &limit);
    }
    response
}

/// Asks what the route leads to.
async fn target(
    edge: &Edge,
    visit: &Visit<'_>,
    found: &Routed<'_>,
    asked: &RequestPath,
    body: Body,
) -> Response {
    let route = found.route;
    let road = if route.cors.is_some() { Road::Judged } else { Road::Open };
    let Some(path) = found.path(asked).filter(|path| !path.is_reserved()) else {
        return page::no_such_page();
    };
    let below = |first: &str, name: &str| -> Vec<String> {
        let segments = path.as_str().split('/').filter(|segment| !segment.is_empty());
        [first, name].into_iter().chain(segments).map(str::to_owned).collect()
    };
    let path = match &route.to {
        Target::Site => return edge.site(visit, Some(route), &path).await,
        Target::Table(table) => below("db", table),
        // A route leads to files, not to the list of them.
        Target::Bucket(_) if path.as_str() == "/" => return page::problem(&data::unknown(), visit.id),
        Target::Bucket(bucket) => below("files", bucket),
        Target::Function(_) | Target::Service(_) => {
            let led = functions::Led { route, asked, path: &path, road };
            return Box::pin(functions::led(edge, visit, &led, body)).await;
        }
    };
    // On its own, so that what other routes wait for is not as large as a statement's state.
    Box::pin(edge.data.routed(visit.env, visit.request, body, visit.id, path, road)).await
}

/// Who asks, where they may and not too often; what is left of the limit where there is one.
///
/// # Errors
/// `unauthenticated`, `forbidden`, `rate_limited`.
async fn admitted(
    edge: &Edge,
    visit: &Visit<'_>,
    asked: &RequestPath,
    route: &Route,
) -> Result<Option<LimitInfo>> {
    let (env, name) = (visit.env.id(), route.text.as_str());
    let limit = route.limit.as_ref();
    let admit = |who: Counted<'_>| limit.map(|limit| edge.gate.limits.admit(&who, limit)).transpose();
    let by_ip = || Counted::Ip(env, name, network(address(visit)));
    // By address before anything else, so that guesses count; else after, so that nobody uses up what is another's.
    let early = match limit.map(|limit| limit.by) {
        Some(By::Ip) => admit(by_ip())?,
        _ => None,
    };
    let guest = match (&route.auth, limit.map(|limit| limit.by)) {
        (Who::Public, Some(By::User)) => Some(guest(edge, visit, scopes(&route.to)).await?),
        (Who::Public, _) => None,
        (who, _) => Some(admit_as(edge, visit, who, &route.to).await?),
    };
    as_live(edge, visit, asked).await?;
    match (limit.map(|limit| limit.by), guest.as_ref().map(Guest::subject)) {
        (None, _) | (Some(By::Ip), _) => Ok(early),
        (Some(By::Route), _) => admit(Counted::Route(env, name)),
        (Some(By::User), Some(Subject::User(user))) => admit(Counted::User(env, name, user.id.to_string())),
        (Some(By::User), _) => admit(by_ip()),
    }
}

/// Lets a request for an earlier release pass only where today's release lets it pass too.
///
/// # Errors
/// As [`admitted`].
pub(crate) async fn as_live(edge: &Edge, visit: &Visit<'_>, asked: &RequestPath) -> Result<()> {
    if visit.which == Which::Live {
        return Ok(());
    }
    let live = edge.data.rows.app(visit.env).await?;
    match live.routes.find(asked) {
        Some(found) => admit_as(edge, visit, &found.route.auth, &found.route.to).await.map(drop),
        None => Ok(()),
    }
}

/// Whether a file of the site is shown, however it was come to; and whether not to everybody.
///
/// # Errors
/// As [`admitted`].
pub(crate) async fn shows(
    edge: &Edge,
    visit: &Visit<'_>,
    passed: Option<&Route>,
    file: &str,
) -> Result<Shown> {
    let mut shown = Shown::ToAll;
    for route in visit.served.app.routes.guards(file, passed) {
        shown = Shown::ToSome;
        admit_as(edge, visit, &route.auth, &route.to).await?;
    }
    if visit.which != Which::Live {
        let live = edge.data.rows.app(visit.env).await?;
        for route in live.routes.guards(file, None) {
            shown = Shown::ToSome;
            admit_as(edge, visit, &route.auth, &route.to).await?;
        }
    }
    Ok(shown)
}

/// Who gets to see something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    ToAll,
    ToSome,
}

/// Who asks, where `who` lets them pass.
async fn admit_as(edge: &Edge, visit: &Visit<'_>, who: &Who, to: &Target) -> Result<Guest> {
    if *who == Who::Public {
        return Ok(Guest::visitor(visit.env.clone()));
    }
    let guest = guest(edge, visit, scopes(to)).await?;
    let forbidden = |message: String| Err(Error::new(Code::Forbidden, message));
    match (who, guest.subject()) {
        (Who::Public, _) | (_, Subject::Service) | (Who::SignedIn, Subject::User(_)) => Ok(guest),
        (Who::Service, Subject::User(_)) => forbidden("this is for servers with a platform key".to_owned()),
        (Who::Role(role), Subject::User(user)) if user.role == *role => Ok(guest),
        (Who::Role(role), Subject::User(_)) => forbidden(format!("this is for users of the role {role}")),
        (_, Subject::Visitor) => Err(Error::new(Code::Unauthenticated, "this is not for everybody")
            .hint("sign in, and send the header Authorization: Bearer <access token>")),
    }
}

/// Who asks, by what signing in means today, whichever release is asked.
async fn guest(edge: &Edge, visit: &Visit<'_>, scopes: &[Scope]) -> Result<Guest> {
    let live = edge.data.rows.app(visit.env).await?;
    let ask = Ask::at(visit.env, &live, visit.request, visit.id, Vec::new());
    ask.guest_for(&edge.data, scopes).await
}

/// What a platform key must carry.
fn scopes(to: &Target) -> &'static [Scope] {
    match to {
        Target::Site => &[Scope::AppRead],
        Target::Bucket(_) => data::FILE_SCOPES,
        Target::Table(_) => &[Scope::DbRead, Scope::DbWrite],
        Target::Function(_) | Target::Service(_) => functions::SCOPES,
    }
}

fn address(visit: &Visit<'_>) -> Option<IpAddr> {
    visit.request.extensions.get::<ConnectInfo<std::net::SocketAddr>>().map(|peer| peer.0.ip())
}

fn verb(method: &Method) -> Option<Verb> {
    Some(match *method {
        Method::GET => Verb::Get,
        Method::HEAD => Verb::Head,
        Method::POST => Verb::Post,
        Method::PUT => Verb::Put,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ => return None,
    })
}

/// What the route takes, as the `Allow` header says it.
fn allow(route: &Route) -> Option<HeaderValue> {
    let methods: Vec<_> = route.methods.iter().map(|verb| verb.as_str()).chain(["OPTIONS"]).collect();
    HeaderValue::try_from(methods.join(", ")).ok()
}
