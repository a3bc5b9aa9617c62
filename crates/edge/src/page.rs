//! The few answers that are the platform's own words, the same for every app.

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use kernel::CallId;

use crate::cache_control::ASK_FIRST;

/// There is nothing at this address: no such app, no release, no site. One answer for all of these, so that it
/// tells nobody which names are taken.
pub(crate) fn nothing_here() -> Response {
    html(StatusCode::NOT_FOUND, "Nothing here", "There is no site at this address.")
}

/// The site has no such page, and no 404.html.
pub(crate) fn no_such_page() -> Response {
    html(StatusCode::NOT_FOUND, "Not found", "This site has no such page.")
}

/// Something of ours failed.
pub(crate) fn failed(status: StatusCode) -> Response {
    html(status, "Not available", "Something went wrong on our side. Please try again in a moment.")
}

/// The connection is another host's: the client is to make one of its own (RFC 9110 §15.5.20).
pub(crate) fn misdirected() -> Response {
    html(StatusCode::MISDIRECTED_REQUEST, "Not here", "This connection is for another address.")
}

/// A site is only read.
pub(crate) fn only_reading() -> Response {
    let mut response = html(StatusCode::METHOD_NOT_ALLOWED, "Not allowed", "This address can only be read.");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// A problem object (RFC 9457), for programs.
pub(crate) fn problem(error: &kernel::Error, request: CallId) -> Response {
    let mut response = web::problem::app_problem_response(error, &request.to_string());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn html(status: StatusCode, title: &str, text: &str) -> Response {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;\
         margin:20vh auto 0;padding:0 1.5rem}}h1{{font-size:1.5rem}}</style>\n\
         <h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
    );
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(ASK_FIRST));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
