//! The page to sign in on, for apps that have none of their own. It shows the ways that are on, and no others.

use axum::body::Body;
use axum::response::Response;
use capabilities::rows::{AuthSettings, Method, Mfa, SignUp};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use kernel::Result;

use super::theme;
use crate::data::rows::pairs;
use crate::data::{Ask, Data, unknown};

const PAGE: &str = include_str!("ui.html");
const SCRIPT: &str = include_str!("ui.js");
const STYLE: &str = include_str!("ui.css");

/// Nothing but its own files and the app's interface; no frame around it, no form that goes elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers for `/_/auth/ui…`.
pub(super) async fn answer(data: &Data, ask: &Ask<'_>, route: &[&str]) -> Result<Response> {
    match route {
        ["ui"] => page(data, ask).await,
        ["ui", "page.js"] => Ok(text("text/javascript; charset=utf-8", SCRIPT.to_owned())),
        ["ui", "page.css"] => {
            let own = ask.app.auth.theme.accent.as_deref().and_then(theme::style).unwrap_or_default();
            Ok(text("text/css; charset=utf-8", format!("{STYLE}{own}")))
        }
        _ => Err(unknown()),
    }
}

async fn page(data: &Data, ask: &Ask<'_>) -> Result<Response> {
    let auth = &ask.app.auth;
    let query = pairs(ask.parts.uri.query())?;
    let to = match query.iter().find(|(name, _)| name == "to") {
        Some((_, wanted)) => data.auth.own_path(ask.env, ask.domain(), wanted).await?,
        None => None,
    };
    let logo = auth
        .theme
        .logo
        .as_deref()
        .map(|path| format!("<img class=\"logo\" src=\"{}\" alt=\"\">", escaped(path)));
    let filled = PAGE
        .replace("{{logo}}", &logo.unwrap_or_default())
        .replace("{{name}}", &escaped(auth.name.as_deref().unwrap_or("this app")))
        .replace("{{methods}}", &methods(auth))
        .replace("{{providers}}", &providers(auth))
        .replace("{{to}}", &escaped(to.as_deref().unwrap_or("/")));
    let mut response = text("text/html; charset=utf-8", filled);
    let headers = response.headers_mut();
    let fields: [(HeaderName, &str); 5] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// What the page may offer, as words between blanks.
fn methods(auth: &AuthSettings) -> String {
    let mut words: Vec<&str> = auth.methods.iter().map(|method| method.as_str()).collect();
    if auth.signup == SignUp::Open && auth.methods.contains(&Method::Password) {
        words.push("signup");
    }
    if auth.mfa == Mfa::Required {
        words.push("mfa_required");
    }
    words.join(" ")
}

/// Whose word is taken, likewise.
fn providers(auth: &AuthSettings) -> String {
    let named = auth.providers.keys().filter(|_| auth.methods.contains(&Method::OAuth));
    named.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn text(content_type: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A text as a part of HTML, between quotes too.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // A name must not look like one of the places that are filled next.
            '{' => escaped.push_str("&#123;"),
            c => escaped.push(c),
        }
    }
    escaped
}
