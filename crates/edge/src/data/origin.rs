//! Which pages may call an app: its own, and those of origins that its manifest names and that show its public key.

use capabilities::auth::CALLBACK;
use capabilities::rows::App;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use kernel::{Code, Env, Error, Result};

use super::Data;
use super::realtime::shows_later;
use crate::ticket::Shown;

const KEY: HeaderName = HeaderName::from_static("steading-key");

/// The headers that pages of other origins may send, and those that they may read.
pub(crate) const SENT: &str = "authorization, content-type, idempotency-key, if-match, if-none-match, if-range, \
    last-event-id, range, steading-key, file-metadata, tus-resumable, upload-checksum, upload-length, \
    upload-metadata, upload-offset";
pub(crate) const EXPOSED: &str = "content-disposition, content-range, etag, last-modified, location, retry-after, \
    ratelimit, ratelimit-policy, next-cursor, tus-resumable, upload-expires, upload-length, upload-offset, \
    x-request-id, x-release";

/// Another origin that may read the answer. None stands for the app's own pages, and for programs.
pub(crate) struct Allowed(HeaderValue);

/// Judges the request's `Origin` (Fetch §3.1). Sessions are bearer tokens, so that no page has any by being
/// visited; this keeps other pages from using an app as their own.
///
/// # Errors
/// `forbidden` for an origin that is not named, or without the key.
pub(super) async fn judge(data: &Data, env: &Env, app: &App, parts: &Parts) -> Result<Option<Allowed>> {
    let mut lines = parts.headers.get_all(ORIGIN).iter();
    let (origin, more) = (lines.next(), lines.next());
    let Some(origin) = origin else { return Ok(None) };
    if is_sent_back(parts) {
        return Ok(None);
    }
    let refuse = |message: &str| Err(Error::new(Code::Forbidden, message));
    let Some(text) = origin.to_str().ok().filter(|_| more.is_none()) else {
        return refuse("the Origin header cannot be read");
    };
    if is_own(text, parts) || is_public(parts) {
        return Ok((!is_own(text, parts)).then(|| Allowed(origin.clone())));
    }
    if !app.auth.origins.contains(text) {
        return Err(Error::new(Code::Forbidden, "pages of this origin may not call the app")
            .hint("name it in auth.origins of the manifest, or with auth_configure"));
    }
    let allowed = Allowed(origin.clone());
    // A browser asks first without the header, and only whether it may send it; for events and sockets it sends none.
    if allowed.asks_first(parts) || shows_later(parts) || parts.extensions.get::<Shown>().is_some() {
        return Ok(Some(allowed));
    }
    let key = parts.headers.get(KEY).and_then(|key| key.to_str().ok());
    if key.is_none_or(|key| key.is_empty()) || key != Some(data.auth.publishable_key(env).await?.as_str()) {
        return Err(no_key());
    }
    Ok(Some(allowed))
}

/// The refusal of another origin without the key.
pub(super) fn no_key() -> Error {
    Error::new(Code::Forbidden, "another origin must send the app's publishable key")
        .hint("pass it to createClient({ url, key }); app_describe shows it")
}

/// Whether the request is of another origin's page.
pub(super) fn is_anothers(parts: &Parts) -> bool {
    let origin = parts.headers.get(ORIGIN);
    origin.is_some_and(|origin| !origin.to_str().is_ok_and(|origin| is_own(origin, parts)))
}

/// Whether the page is the app's own: the same host and port. The scheme is the proxy's matter.
pub(crate) fn is_own(origin: &str, parts: &Parts) -> bool {
    let host = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| parts.headers.get(HOST)?.to_str().ok());
    let of_origin = origin.split_once("://").map(|(_, authority)| authority);
    matches!((host, of_origin), (Some(host), Some(origin)) if host.eq_ignore_ascii_case(origin))
}

/// Whether a browser is sent back by a provider's page, whatever that page's origin is: the cookie that it left with says
/// that it was here. No page reads the answer.
fn is_sent_back(parts: &Parts) -> bool {
    parts.method == Method::POST && parts.uri.path().starts_with(CALLBACK)
}

/// What any page may load: the client itself, and the keys that tokens are verified by.
fn is_public(parts: &Parts) -> bool {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    reads && matches!(parts.uri.path(), "/_/sdk.js" | "/_/sdk.d.ts" | super::JWKS)
}

impl Allowed {
    /// Whether this is the question before the request (Fetch §3.3.2).
    pub(crate) fn asks_first(&self, parts: &Parts) -> bool {
        parts.method == Method::OPTIONS && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// What the origin may send.
    pub(crate) fn preflight(&self) -> axum::response::Response {
        let mut response = axum::response::Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let fields = [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE"),
            (ACCESS_CONTROL_ALLOW_HEADERS, SENT),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        headers.extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }

    /// Lets the origin read the answer. No credentials of the browser's own are ever allowed.
    pub(super) fn allow(self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.0);
        headers.append(VARY, HeaderValue::from_static("origin"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}
