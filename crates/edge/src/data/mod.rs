//! The interface that every app has below `/_/`: sign-in and rows, for its own pages and for programs.

mod auth;
mod files;
mod openapi;
mod openapi_files;
mod openapi_functions;
mod openapi_realtime;
mod openapi_routes;
pub(crate) mod origin;
mod realtime;
mod realtime_socket;
mod rows;
mod sdk;
mod uploads;

pub(crate) use self::files::SCOPES as FILE_SCOPES;
pub(crate) use self::origin::Allowed;
pub use self::realtime::Hangup;
pub(crate) use self::realtime::is_upgrade;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use bytes::Bytes;
use capabilities::access::{Guest, Subject};
use capabilities::auth::{Auth, network};
use capabilities::realtime::Realtime;
use capabilities::rows::{App, Mfa, Rows};
use capabilities::storage::Storage;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kernel::{CallId, Code, Env, Error, Result, Scope, Secret};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;
use web::problem::app_problem_response;

use crate::functions::Inside;
use crate::serve::OwnDomain;

/// The routes of the data plane, as documents write them; everything else below `/_/` is not found.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/_/auth/anonymous"),
    ("POST", "/_/auth/signup"),
    ("POST", "/_/auth/login"),
    ("POST", "/_/auth/refresh"),
    ("POST", "/_/auth/logout"),
    ("POST", "/_/auth/otp"),
    ("POST", "/_/auth/otp/verify"),
    ("POST", "/_/auth/password"),
    ("POST", "/_/auth/password/forgot"),
    ("POST", "/_/auth/password/reset"),
    ("POST", "/_/auth/email"),
    ("POST", "/_/auth/email/verify"),
    ("GET", "/_/auth/mfa"),
    ("POST", "/_/auth/mfa/totp"),
    ("POST", "/_/auth/mfa/totp/verify"),
    ("POST", "/_/auth/mfa/recovery"),
    ("POST", "/_/auth/mfa/verify"),
    ("DELETE", "/_/auth/mfa/{id}"),
    ("POST", "/_/auth/phone"),
    ("POST", "/_/auth/phone/verify"),
    ("POST", "/_/auth/passkey/options"),
    ("POST", "/_/auth/passkey"),
    ("POST", "/_/auth/passkeys/options"),
    ("GET", "/_/auth/passkeys"),
    ("POST", "/_/auth/passkeys"),
    ("PATCH", "/_/auth/passkeys/{id}"),
    ("DELETE", "/_/auth/passkeys/{id}"),
    ("GET", "/_/auth/sessions"),
    ("DELETE", "/_/auth/sessions"),
    ("DELETE", "/_/auth/sessions/{id}"),
    ("GET", "/_/auth/me"),
    ("DELETE", "/_/auth/me"),
    ("GET", "/_/auth/me/export"),
    ("GET", "/_/auth/oauth/{provider}/start"),
    ("GET", "/_/auth/oauth/callback/{provider}"),
    ("POST", "/_/auth/oauth/callback/{provider}"),
    ("POST", "/_/auth/oauth/token"),
    ("POST", "/_/auth/custom"),
    ("GET", "/_/auth/identities"),
    ("DELETE", "/_/auth/identities/{provider}"),
    ("GET", "/_/auth/ui"),
    ("GET", "/_/db/{table}"),
    ("POST", "/_/db/{table}"),
    ("PUT", "/_/db/{table}"),
    ("GET", "/_/db/{table}.csv"),
    ("POST", "/_/db/{table}/query"),
    ("GET", "/_/db/{table}/{id}"),
    ("PUT", "/_/db/{table}/{id}"),
    ("PATCH", "/_/db/{table}/{id}"),
    ("DELETE", "/_/db/{table}/{id}"),
    ("POST", "/_/batch"),
    ("GET", "/_/fn/{name}"),
    ("POST", "/_/fn/{name}"),
    ("GET", "/_/fn/{name}/{path}"),
    ("POST", "/_/fn/{name}/{path}"),
    ("GET", "/_/svc/{name}"),
    ("POST", "/_/svc/{name}"),
    ("GET", "/_/svc/{name}/{path}"),
    ("POST", "/_/svc/{name}/{path}"),
    ("GET", "/_/files/{bucket}"),
    ("GET", "/_/files/{bucket}/{path}"),
    ("PUT", "/_/files/{bucket}/{path}"),
    ("DELETE", "/_/files/{bucket}/{path}"),
    ("POST", "/_/files/{bucket}/{path}/move"),
    ("POST", "/_/files/{bucket}/{path}/copy"),
    ("POST", "/_/files/{bucket}/{path}/sign"),
    ("POST", "/_/uploads"),
    ("HEAD", "/_/uploads/{id}"),
    ("PATCH", "/_/uploads/{id}"),
    ("DELETE", "/_/uploads/{id}"),
    ("GET", "/_/realtime"),
    ("POST", "/_/realtime/ticket"),
    ("POST", "/_/realtime/broadcast"),
    ("GET", "/_/sdk.js"),
    ("GET", "/_/sdk.d.ts"),
    ("GET", "/_/client.ts"),
    ("GET", "/_/openapi.json"),
    ("GET", "/.well-known/jwks.json"),
];

const JWKS: &str = "/.well-known/jwks.json";

/// The largest body that is read.
const BODY: usize = 1 << 20;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The services behind the data plane.
#[derive(Clone)]
pub struct Data {
    /// Who asks.
    pub auth: Auth,
    /// What they ask for.
    pub rows: Rows,
    /// Their files.
    pub files: Storage,
    /// What happens to it.
    pub realtime: Realtime,
}

/// How a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// From anywhere: pages of other origins have to be allowed.
    Open,
    /// By a route that says itself which pages may.
    Judged,
}

/// One request below `/_/`.
pub(crate) struct Ask<'a> {
    pub env: &'a Env,
    /// The live release's app, also where a preview is asked: no earlier rules open what is closed.
    pub app: &'a Arc<App>,
    pub parts: &'a Parts,
    pub id: CallId,
    /// What comes after `/_/`, decoded: `["db", "todos", "<id>"]`.
    path: Vec<String>,
}

impl Data {
    /// Whether the data plane answers for this path.
    pub(crate) fn takes(raw: &str) -> bool {
        raw == "/_" || raw.starts_with("/_/") || raw == JWKS
    }

    /// Answers a request; a refusal is a problem object.
    pub(crate) async fn answer(&self, env: &Env, parts: &Parts, body: Body, id: CallId) -> Response {
        let (app, origin) = match self.opened(env, parts, Road::Open).await {
            Ok(opened) => opened,
            Err(refusal) => return refused(&refusal, env, id),
        };
        let answer = match &origin {
            Some(origin) if origin.asks_first(parts) => Ok(origin.preflight()),
            _ => self.route(env, &app, parts, body, id).await,
        };
        closed(answer, origin, env, id)
    }

    /// Answers as for `/_/{path}` a request that a route leads there: for rows and for files.
    pub(crate) async fn routed(
        &self,
        env: &Env,
        parts: &Parts,
        body: Body,
        id: CallId,
        path: Vec<String>,
        road: Road,
    ) -> Response {
        let (app, origin) = match self.opened(env, parts, road).await {
            Ok(opened) => opened,
            Err(refusal) => return refused(&refusal, env, id),
        };
        let ask = Ask::at(env, &app, parts, id, path);
        let answer = match (&origin, ask.path().first()) {
            (Some(origin), _) if origin.asks_first(parts) => Ok(origin.preflight()),
            (_, Some(&"db")) => rows::answer(self, &ask, body).await,
            (_, Some(&"files")) => Box::pin(files::answer(self, &ask, body)).await,
            _ => Err(unknown()),
        };
        closed(answer, origin, env, id)
    }

    /// Lets the page of another origin that may use the app read an answer that was given before the app was asked.
    pub(crate) async fn let_read(&self, env: &Env, parts: &Parts, headers: &mut HeaderMap) {
        if !origin::is_anothers(parts) || headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        if let Ok((_, Some(origin))) = self.opened(env, parts, Road::Open).await {
            origin.allow(headers);
        }
    }

    /// The live app, and the origin of another's page that may use it.
    pub(crate) async fn opened(
        &self,
        env: &Env,
        parts: &Parts,
        road: Road,
    ) -> Result<(Arc<App>, Option<Allowed>)> {
        let app = self.rows.app(env).await?;
        let origin = match road {
            Road::Open => origin::judge(self, env, &app, parts).await?,
            Road::Judged => None,
        };
        Ok((app, origin))
    }

    async fn route(
        &self,
        env: &Env,
        app: &Arc<App>,
        parts: &Parts,
        body: Body,
        id: CallId,
    ) -> Result<Response> {
        let raw = parts.uri.path();
        if raw == JWKS {
            let ask = Ask { env, app, parts, id, path: Vec::new() };
            return self.jwks(&ask).await;
        }
        let path = segments(raw).ok_or_else(unknown)?;
        let ask = Ask { env, app, parts, id, path };
        match ask.path().as_slice() {
            ["sdk.js"] => Ok(sdk::script(&ask)),
            ["sdk.d.ts"] => Ok(sdk::types(&ask)),
            ["openapi.json"] => openapi::answer(&ask),
            ["client.ts"] => Ok(sdk::typed(&ask)),
            ["db", ..] => rows::answer(self, &ask, body).await,
            // What is waited for here is part of every request's future, which is moved about: what is large has a place of
            // its own, so that rows do not pay for it.
            ["auth", ..] => Box::pin(auth::answer(self, &ask, body)).await,
            ["files", ..] => Box::pin(files::answer(self, &ask, body)).await,
            ["uploads", ..] => Box::pin(uploads::answer(self, &ask, body)).await,
            ["batch"] => Box::pin(rows::batch(self, &ask, body)).await,
            ["realtime", ..] => Box::pin(realtime::answer(self, &ask, body)).await,
            _ => Err(unknown()),
        }
    }

    async fn jwks(&self, ask: &Ask<'_>) -> Result<Response> {
        match ask.parts.method {
            Method::GET | Method::HEAD => Ok(json(StatusCode::OK, &self.auth.jwks(ask.env).await?)),
            _ => Ok(ask.only("GET, HEAD")),
        }
    }
}

/// An answer on its way out.
pub(crate) fn closed(answer: Result<Response>, origin: Option<Allowed>, env: &Env, id: CallId) -> Response {
    let mut response = answer.unwrap_or_else(|error| refused(&error, env, id));
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(NO_STORE);
    if let Some(origin) = origin {
        origin.allow(headers);
    }
    response
}

impl<'a> Ask<'a> {
    /// A request as one for `/_/{path}`.
    pub fn at(env: &'a Env, app: &'a Arc<App>, parts: &'a Parts, id: CallId, path: Vec<String>) -> Self {
        Self { env, app, parts, id, path }
    }
}

impl Ask<'_> {
    /// What comes after `/_/`.
    pub fn path(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// Who asks: by a bearer token that holds, or without one. A token that does not hold is refused, so that a
    /// session that has ended shows.
    pub async fn guest(&self, data: &Data) -> Result<Guest> {
        self.guest_for(data, &[Scope::DbRead, Scope::DbWrite]).await
    }

    /// As [`Ask::guest`], where a platform key must carry the scopes `wanted`.
    pub async fn guest_for(&self, data: &Data, wanted: &[Scope]) -> Result<Guest> {
        self.guest_where(data, self.app.auth.mfa, wanted).await
    }

    /// As [`Ask::guest`], also where the session has not shown the second factor that the app requires: for what is its
    /// user's own account.
    pub async fn user(&self, data: &Data) -> Result<Guest> {
        self.guest_where(data, Mfa::Off, &[Scope::DbRead, Scope::DbWrite]).await
    }

    async fn guest_where(&self, data: &Data, mfa: Mfa, wanted: &[Scope]) -> Result<Guest> {
        let inside = Inside::of(self.parts);
        let depth = inside.map_or(0, |inside| inside.depth);
        if Inside::is_own(self.parts) {
            return Ok(Guest::maker(self.env.clone()).at_depth(depth));
        }
        match self.token()? {
            Some(token) => {
                // What a function asks in somebody's place is asked for as long as their request goes on, which may be a socket.
                let guest = match inside {
                    Some(_) => data.auth.recognize_lasting(self.env, mfa, &token, wanted).await?,
                    None => data.auth.recognize_for(self.env, mfa, &token, wanted).await?,
                };
                not_of_a_page(self.parts, &guest)?;
                Ok(guest.at(network(self.peer())).at_depth(depth))
            }
            None => Ok(Guest::visitor(self.env.clone()).at(network(self.peer())).at_depth(depth)),
        }
    }

    /// The token that the request carries.
    pub fn token(&self) -> Result<Option<Secret>> {
        bearer(&self.parts.headers)
    }

    /// The domain of the app's own that the request is for, where it is one.
    pub fn domain(&self) -> Option<&str> {
        self.parts.extensions.get::<OwnDomain>().map(|domain| domain.0.as_str())
    }

    /// The address the request comes from: the peer's, or what a proxy that is trusted says.
    pub fn peer(&self) -> Option<std::net::IpAddr> {
        self.parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
    }

    /// The body as JSON of this form; an empty one is `{}`.
    ///
    /// # Errors
    /// `invalid_input` with a pointer to what is wrong; `too_large`.
    pub async fn json<T: DeserializeOwned>(&self, body: Body) -> Result<T> {
        let bytes = self.bytes(body).await?;
        let value = web::body::json(&self.parts.headers, &bytes)?;
        // A list would pass for an object whose fields come in order.
        if !value.is_object() {
            return Err(Error::invalid("", "the body must be a JSON object"));
        }
        serde_path_to_error::deserialize(value).map_err(|e| {
            let pointer: String = e.path().iter().fold(String::new(), |mut at, segment| {
                use serde_path_to_error::Segment;
                match segment {
                    Segment::Seq { index } => at.push_str(&format!("/{index}")),
                    Segment::Map { key } => {
                        at.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1")))
                    }
                    Segment::Enum { .. } | Segment::Unknown => {}
                }
                at
            });
            Error::invalid(short(&pointer), short(&e.into_inner().to_string()))
        })
    }

    /// The answer where the path takes other methods.
    pub fn only(&self, allow: &'static str) -> Response {
        web::problem::app_method_not_allowed(self.id, Some(HeaderValue::from_static(allow)))
    }

    /// The body's bytes.
    pub async fn bytes(&self, body: Body) -> Result<Bytes> {
        let read = web::body::read(&self.parts.headers, body, BODY).await;
        read.map_err(|e| if e.code() == Code::TooLarge { e.hint("send less at once") } else { e })
    }
}

/// Refuses a platform key that a page shows.
fn not_of_a_page(parts: &Parts, guest: &Guest) -> Result<()> {
    // Only browsers send the second one (Fetch Metadata), also where they send no origin.
    let is_a_page = parts.headers.contains_key(ORIGIN) || parts.headers.contains_key("sec-fetch-site");
    if *guest.subject() == Subject::Service && is_a_page {
        return Err(Error::new(
            Code::Forbidden,
            "a platform key is for servers, and this is a page's request",
        )
        .hint("revoke the key, which others can see now, and let people sign in"));
    }
    Ok(())
}

/// The token of an `Authorization: Bearer` header (RFC 6750 §2.1); none where there is no such header.
fn bearer(headers: &HeaderMap) -> Result<Option<Secret>> {
    let refuse = |message: &str| Error::new(Code::Unauthenticated, message);
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        (Some(line), None) => line,
        (Some(_), Some(_)) => return Err(refuse("there is more than one Authorization header")),
    };
    let malformed = || refuse("the Authorization header must be `Bearer <access token>`");
    let (scheme, token) = line.to_str().ok().and_then(|line| line.split_once(' ')).ok_or_else(malformed)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(malformed());
    }
    Ok(Some(Secret::new(token.to_owned())))
}

/// The decoded segments after `/_/`; none where one is empty, a dot segment, or not text.
fn segments(raw: &str) -> Option<Vec<String>> {
    let segments = raw.strip_prefix("/_/")?.split('/').map(|segment| {
        let decoded = percent_decode_str(segment).decode_utf8().ok()?;
        let plain = !matches!(decoded.as_ref(), "" | "." | "..") && !decoded.contains(['/', '\\', '\0']);
        plain.then(|| decoded.into_owned())
    });
    segments.collect()
}

/// Nothing below `/_/` has this path.
pub(crate) fn unknown() -> Error {
    Error::not_found("such interface of this app").hint("/_/openapi.json lists what there is")
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A refusal as a problem object. What is our own fault is logged here.
pub(crate) fn refused(error: &Error, env: &Env, id: CallId) -> Response {
    if error.code() == Code::Internal {
        tracing::error!(call.id = %id, env.id = %env.id(), error = %error.chain(), "a request of an app failed");
    }
    let mut response = app_problem_response(error, &id.to_string());
    // What was refused to one origin or session may be open to the next.
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// The first of a text that may be as long as its sender likes.
fn short(text: &str) -> String {
    const MOST: usize = 200;
    text.chars().take(MOST).collect()
}
