//! `/console`: pages of the platform for its operator and for owners of tenants. They call the public routes alone; what is
//! here beside the files is how somebody signs in and out.

mod session;

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kernel::{BlobHash, Error};
use web::problem::{Problem, unknown_method};

use crate::oauth::{self, Door};

use session::Console;
pub use session::let_in;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// Scripts of these files alone, which make no markup of text; nothing from elsewhere, and in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the pages.
struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

macro_rules! assets {
    ($($kind:ident $name:literal,)+) => {
        &[$(Asset { name: $name, kind: $kind, content: include_str!(concat!("../console/", $name)) },)+]
    };
}

/// The page that all addresses below `/console` have.
const INDEX: Asset = Asset { name: "index.html", kind: HTML, content: include_str!("../console/index.html") };

/// What it loads. A further section is a file here, and a line in `sections.js`.
const ASSETS: &[Asset] = assets![
    PICTURE "logo.svg",
    STYLE "style.css",
    STYLE "parts.css",
    SCRIPT "theme.js",
    SCRIPT "main.js",
    SCRIPT "sections.js",
    SCRIPT "api.js",
    SCRIPT "dom.js",
    SCRIPT "format.js",
    SCRIPT "parts.js",
    SCRIPT "dialogs.js",
    SCRIPT "sign-in.js",
    SCRIPT "overview.js",
    SCRIPT "tenants.js",
    SCRIPT "members.js",
    SCRIPT "join.js",
    SCRIPT "environments.js",
    SCRIPT "environment.js",
    SCRIPT "logs.js",
    SCRIPT "keys.js",
    SCRIPT "credentials.js",
    SCRIPT "budgets.js",
    SCRIPT "usage.js",
    SCRIPT "audit.js",
    SCRIPT "connect.js",
];

/// What all files are, as caches are told: pages of one build never load a module of another.
static BUILD: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut all = String::new();
    for Asset { name, content, .. } in ASSETS.iter().chain([&INDEX]) {
        // Writing into a text cannot fail.
        let _ = write!(all, "{name}\0{}\0{content}", content.len());
    }
    let hash = BlobHash::of(all.as_bytes()).to_string();
    HeaderValue::try_from(format!("\"{}\"", hash.get(..32).unwrap_or_default()))
        .unwrap_or(HeaderValue::from_static("\"0\""))
});

/// The routes, and what lets visits in at the platform's own routes.
pub fn console(door: &Arc<Door>) -> (Router, Arc<Console>) {
    let console = Arc::new(Console::new(Arc::clone(door)));
    let router = Router::new()
        .route("/console/session", get(session::show).post(session::begin).delete(session::end))
        .route("/console/ways", get(session::ways))
        .route("/console/invitation", post(session::invitation))
        .route("/console/join", get(page).post(session::join))
        .with_state(Arc::clone(&console))
        .route("/console", get(page))
        .route("/console/", get(page))
        .route("/console/{*path}", get(page))
        .route("/console/assets/{name}", get(asset))
        .method_not_allowed_fallback(unknown_method)
        .route_layer(middleware::from_fn_with_state(Arc::clone(door), oauth::guard));
    (router, console)
}

/// Which page it is, its own script says.
async fn page(headers: HeaderMap) -> Response {
    served(&INDEX, &headers)
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => served(asset, &headers),
        None => Problem::from(Error::not_found("file of the console")).into_response(),
    }
}

fn served(asset: &Asset, asked: &HeaderMap) -> Response {
    let is_known = asked.get_all(IF_NONE_MATCH).iter().any(|known| known == *BUILD);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("permissions-policy"), HeaderValue::from_static(PERMISSIONS)),
        (ETAG, BUILD.clone()),
        // Asked for again each time, and answered with nothing where it is the same.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, asset.content).into_response()
}

/// What pages need of the machine that shows them: to copy.
const PERMISSIONS: &str = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";
