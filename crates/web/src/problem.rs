//! Errors as HTTP answers: problem details (RFC 9457), written in one place.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use kernel::{CallId, Code, Error, LimitInfo, Scopes};
use serde_json::Value;

/// The media type of problem details (RFC 9457 §3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The header that carries the request id, on good and on bad answers.
pub const REQUEST_ID: &str = "x-request-id";

/// The limit a call ran into (draft-ietf-httpapi-ratelimit-headers §3).
const RATE_LIMIT_POLICY: &str = "ratelimit-policy";

/// What is left of it (the same, §4).
const RATE_LIMIT: &str = "ratelimit";

/// Logs our own failures where no tool was called: the registry logs those of calls.
pub fn log_internal(error: &Error, request_id: CallId) {
    if error.code() == Code::Internal {
        tracing::error!(call.id = %request_id, error = error.chain(), "request failed");
    }
}

/// The answer for `error`: its problem object, and the headers that its code asks for.
#[must_use]
pub fn problem_response(error: &Error, request_id: &str) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    write(status, error, error.problem(request_id), request_id)
}

/// The same on an app's own host, where nothing names the platform.
#[must_use]
pub fn app_problem_response(error: &Error, request_id: &str) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    app_problem_response_as(status, error, request_id)
}

fn app_problem_response_as(status: StatusCode, error: &Error, request_id: &str) -> Response {
    let mut problem = error.problem(request_id);
    problem["status"] = status.as_u16().into();
    // Says no more than `status` and `code` do (RFC 9457 §4.2.1).
    problem["type"] = "about:blank".into();
    let mut response = write(status, error, problem, request_id);
    response.extensions_mut().insert(Told { code: error.code(), field: error.pointer().map(str::to_owned) });
    if let Some(challenge) = response.headers_mut().get_mut(WWW_AUTHENTICATE) {
        *challenge = HeaderValue::from_static("Bearer");
    }
    response
}

/// Beside an answer that refuses: the scopes that its caller can ask its user for.
#[derive(Debug, Clone, Copy)]
pub struct Lacking(pub Scopes);

/// What a problem of an app has told, for the log: the code, and where in what was sent.
#[derive(Debug, Clone)]
pub struct Told {
    /// The code.
    pub code: Code,
    /// The pointer.
    pub field: Option<String>,
}

/// A refusal of HTTP itself (405, 406, 415), whose status is finer than the code's.
#[must_use]
pub fn refusal(status: StatusCode, request_id: CallId, error: &Error) -> Response {
    let request_id = request_id.to_string();
    let mut problem = error.problem(&request_id);
    problem["status"] = status.as_u16().into();
    write(status, error, problem, &request_id)
}

/// The answer where no route matches; for a router's fallback.
pub async fn unknown_route() -> Problem {
    Problem::from(Error::new(Code::NotFound, "there is no such path").hint("GET /v1/tools lists the tools"))
}

/// The answer where the route does not take the method; for `Router::method_not_allowed_fallback`, which adds
/// `Allow`.
pub async fn unknown_method() -> Response {
    method_not_allowed(CallId::new(), None)
}

pub fn method_not_allowed(request_id: CallId, allow: Option<HeaderValue>) -> Response {
    let error = Error::new(Code::InvalidInput, "this path does not take that method")
        .hint("the Allow header lists the methods it takes");
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, request_id, &error);
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// The same on an app's own host.
#[must_use]
pub fn app_method_not_allowed(request_id: CallId, allow: Option<HeaderValue>) -> Response {
    let error = Error::new(Code::InvalidInput, "this path does not take that method")
        .hint("the Allow header lists the methods it takes");
    let mut response =
        app_problem_response_as(StatusCode::METHOD_NOT_ALLOWED, &error, &request_id.to_string());
    response.headers_mut().extend(allow.map(|allow| (ALLOW, allow)));
    response
}

fn write(status: StatusCode, error: &Error, problem: Value, request_id: &str) -> Response {
    let mut response = Response::new(Body::from(problem.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if error.code() == Code::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"steading\""));
    }
    if let Some(scopes) = error.lacks() {
        response.extensions_mut().insert(Lacking(scopes));
    }
    let headers = response.headers_mut();
    if let Some(seconds) = error.retry_after_secs() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Some(limit) = error.limit_info() {
        add_limit(headers, limit);
        let scope = limit.scope;
        response.extensions_mut().insert(scope);
    }
    response
}

/// Says how many calls are allowed, and how many are left.
pub fn add_limit(headers: &mut HeaderMap, limit: &LimitInfo) {
    let LimitInfo { name, value, left, .. } = limit;
    let with = |parameter, seconds: Option<u64>| {
        seconds.map(|seconds| format!(";{parameter}={seconds}")).unwrap_or_default()
    };
    let fields = [
        (RATE_LIMIT_POLICY, format!("\"{name}\";q={value}{}", with('w', limit.window_s))),
        (RATE_LIMIT, format!("\"{name}\";r={left}{}", with('t', limit.reset_s))),
    ];
    for (field, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(field, value);
        }
    }
}

/// An error on its way out of an HTTP handler, with the id of the request it ends.
#[derive(Debug)]
pub struct Problem {
    error: Error,
    request_id: CallId,
}

impl Problem {
    /// `error`, as the end of the request `request_id`.
    #[must_use]
    pub const fn new(error: Error, request_id: CallId) -> Self {
        Self { error, request_id }
    }

    /// The error.
    #[must_use]
    pub const fn error(&self) -> &Error {
        &self.error
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::new(error, CallId::new())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        log_internal(&self.error, self.request_id);
        problem_response(&self.error, &self.request_id.to_string())
    }
}
