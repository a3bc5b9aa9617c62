//! Which pages of other origins may use a route (Fetch §3.3).

use axum::body::Body;
use axum::response::Response;
use capabilities::routes::{Cors, Verb};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kernel::{Code, Error, Result};

use crate::data::origin::{EXPOSED, SENT, is_own};

/// What a route says to the origin of a request.
pub(super) struct Allowed<'a> {
    cors: &'a Cors,
    /// The origin that may read the answer; none for the app's own pages, and for programs.
    origin: Option<HeaderValue>,
}

/// Whether this is a browser's question before a request.
pub(super) fn asks_first(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Judges the request's `Origin`.
///
/// # Errors
/// `forbidden` for an origin that is not named, which then cannot read the answer either.
pub(super) fn judge<'a>(cors: &'a Cors, parts: &Parts) -> Result<Allowed<'a>> {
    let mut lines = parts.headers.get_all(ORIGIN).iter();
    let origin = match (lines.next(), lines.next()) {
        (None, _) => return Ok(Allowed { cors, origin: None }),
        (Some(origin), None) => origin,
        (Some(_), Some(_)) => {
            return Err(Error::new(Code::Forbidden, "there is more than one Origin header"));
        }
    };
    let text =
        origin.to_str().map_err(|_| Error::new(Code::Forbidden, "the Origin header cannot be read"))?;
    if is_own(text, parts) {
        return Ok(Allowed { cors, origin: None });
    }
    match &cors.origins {
        None => {}
        Some(origins) if origins.contains(text) => {}
        Some(_) => {
            return Err(Error::new(Code::Forbidden, "pages of this origin may not use this route")
                .hint("name it in cors.origins of the route"));
        }
    }
    Ok(Allowed { cors, origin: Some(origin.clone()) })
}

/// What the answer depends on, whatever it is.
pub(super) fn varies(cors: &Cors, headers: &mut HeaderMap) {
    if cors.origins.is_some() {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}

impl Allowed<'_> {
    /// The answer to a browser's question.
    pub(super) fn preflight(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let methods: Vec<_> = self.cors.methods.iter().map(|verb: &Verb| verb.as_str()).collect();
        let sent = self.cors.headers.as_ref().map_or_else(|| SENT.to_owned(), |names| names.join(", "));
        let fields = [
            (ACCESS_CONTROL_ALLOW_METHODS, methods.join(", ")),
            (ACCESS_CONTROL_ALLOW_HEADERS, sent),
            (ACCESS_CONTROL_MAX_AGE, self.cors.max_age.to_string()),
        ];
        let headers = response.headers_mut();
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        let asked = "access-control-request-method, access-control-request-headers";
        headers.append(VARY, HeaderValue::from_static(asked));
        response
    }

    /// Lets the origin read the answer.
    pub(super) fn allow(self, headers: &mut HeaderMap) {
        let origin = match &self.cors.origins {
            // The same for everybody, so that it can be kept for everybody.
            None => Some(HeaderValue::from_static("*")),
            Some(_) => self.origin,
        };
        let Some(origin) = origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        if self.cors.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}
