//! The client for browsers: a module and its types, the same for every app.

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use capabilities::rows::typescript;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kernel::BlobHash;

use super::Ask;
use crate::cache_control::ASK_FIRST;
use crate::coding::Coding;
use crate::conditional;

static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "text/javascript; charset=utf-8",
        concat!(
            include_str!("sdk.js"),
            include_str!("sdk_auth.js"),
            include_str!("sdk_oauth.js"),
            include_str!("sdk_files.js"),
            include_str!("sdk_live.js")
        ),
    )
});
static TYPES: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "text/plain; charset=utf-8",
        concat!(
            include_str!("sdk.d.ts"),
            include_str!("sdk_auth.d.ts"),
            include_str!("sdk_oauth.d.ts"),
            include_str!("sdk_files.d.ts"),
            include_str!("sdk_live.d.ts")
        ),
    )
});

pub(super) fn script(ask: &Ask<'_>) -> Response {
    SCRIPT.answer(ask)
}

pub(super) fn types(ask: &Ask<'_>) -> Response {
    TYPES.answer(ask)
}

/// The tables of this app, typed.
pub(super) fn typed(ask: &Ask<'_>) -> Response {
    if !matches!(ask.parts.method, Method::GET | Method::HEAD) {
        return ask.only("GET, HEAD");
    }
    let mut response = Response::new(Body::from(typescript(ask.app)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A text of ours, in every coding.
struct Asset {
    content_type: &'static str,
    hash: BlobHash,
    forms: Vec<(Coding, Bytes)>,
}

impl Asset {
    fn new(content_type: &'static str, text: &'static str) -> Self {
        let plain = Bytes::from_static(text.as_bytes());
        let coded = [Coding::Gzip, Coding::Brotli].into_iter();
        let coded = coded.filter_map(|coding| Some((coding, coding.encode(text.as_bytes()).ok()?)));
        let forms = std::iter::once((Coding::Identity, plain)).chain(coded).collect();
        Self { content_type, hash: BlobHash::of(text.as_bytes()), forms }
    }

    fn answer(&self, ask: &Ask<'_>) -> Response {
        match ask.parts.method {
            Method::GET | Method::HEAD => self.give(&ask.parts.headers),
            _ => ask.only("GET, HEAD"),
        }
    }

    fn give(&self, asked: &HeaderMap) -> Response {
        let wanted = Coding::negotiate(asked);
        let form = self.forms.iter().find(|(coding, _)| *coding == wanted);
        let Some((coding, bytes)) = form.or(self.forms.first()).cloned() else { return Response::default() };
        let etag = conditional::etag(self.hash, coding);
        let mut response = Response::default();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(ASK_FIRST));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if let Ok(etag) = HeaderValue::try_from(&etag) {
            headers.insert(ETAG, etag);
        }
        if conditional::client_has(asked, &etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        if let Some(name) = coding.name() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        *response.body_mut() = Body::from(bytes);
        response
    }
}
