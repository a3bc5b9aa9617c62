//! What a visitor sees while there is nothing of the sandbox's own to see.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::Failure;
use super::passes::reads_pages;
use crate::relay::{self, Body};

/// How a page looks, light or dark as the visitor likes it.
const STYLE: &str = ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;\
                     margin:20vh auto 0;padding:0 1.5rem}h1{font-size:1.5rem}";

/// While the sandbox wakes: a page that asks again by itself, or for programs the same in a line.
#[must_use]
pub fn waking(method: &Method, headers: &HeaderMap) -> Response<Body> {
    let again = "<meta http-equiv=\"refresh\" content=\"1\">\n";
    let text = "The sandbox is starting. This page opens by itself in a moment.";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut response = page(method, headers, status, "Starting", text, again);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Where the server in the sandbox gave no answer.
#[must_use]
pub fn failed(method: &Method, headers: &HeaderMap, failure: Failure) -> Response<Body> {
    let (status, text) = match failure {
        Failure::Host => (StatusCode::BAD_REQUEST, "The request names no host, or more than one."),
        Failure::Broken => (
            StatusCode::BAD_GATEWAY,
            "Nothing at this port of the sandbox answered with HTTP. Is the server running?",
        ),
        Failure::Silent => (
            StatusCode::BAD_GATEWAY,
            "The command of this preview does not listen on its port. Whoever runs it sees why with preview_open.",
        ),
        Failure::Slow => (StatusCode::GATEWAY_TIMEOUT, "The server in the sandbox did not answer in time."),
    };
    page(method, headers, status, "No answer", text, "")
}

/// Where a visitor shows nothing that lets them in.
#[must_use]
pub fn private(method: &Method, headers: &HeaderMap) -> Response<Body> {
    let text = "This preview is private, or its link has expired. Whoever runs it gets a fresh one from preview_open or \
                POST /v1/sandboxes/{sandbox}/previews. Programs send what its address ends with as the header \
                Steading-Preview.";
    let mut response = page(method, headers, StatusCode::UNAUTHORIZED, "Private", text, "");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Steading-Preview"));
    response
}

/// Where another origin's page makes a visitor's browser ask.
#[must_use]
pub fn anothers(method: &Method, headers: &HeaderMap) -> Response<Body> {
    let text = "This preview is private: pages of other origins do not get it. Make its port public, or let one server \
                inside pass requests on to the other.";
    page(method, headers, StatusCode::FORBIDDEN, "Private", text, "")
}

/// Sends a browser on that has opened a link, with the cookies that it gets.
#[must_use]
pub fn moved(to: &str, cookies: Vec<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(relay::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    if let Ok(to) = HeaderValue::from_bytes(to.as_bytes()) {
        headers.insert(LOCATION, to);
    }
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn page(
    method: &Method,
    headers: &HeaderMap,
    status: StatusCode,
    title: &str,
    text: &str,
    head: &str,
) -> Response<Body> {
    let (content_type, content) = if reads_pages(method, headers) {
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n{head}<title>{title}</title>\n\
             <style>{STYLE}</style>\n<main>\n<h1>{title}</h1>\n<p role=\"status\">{text}</p>\n</main>\n</html>\n"
        );
        ("text/html; charset=utf-8", page)
    } else {
        ("text/plain; charset=utf-8", format!("{text}\n"))
    };
    let mut response = Response::new(relay::full(Bytes::from(content)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;
    use http_body_util::BodyExt as _;

    use super::*;

    async fn shown(accept: &'static str, method: Method) -> (u16, String, String) {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let response = waking(&method, &headers);
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers[RETRY_AFTER], "1");
        let body = body.collect().await.unwrap().to_bytes();
        let kind = parts.headers[CONTENT_TYPE].to_str().unwrap().to_owned();
        (parts.status.as_u16(), kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_browser_gets_a_page_that_asks_again_and_a_program_a_line() {
        let (status, kind, page) = shown("text/html,*/*;q=0.8", Method::GET).await;
        assert_eq!((status, kind.as_str()), (503, "text/html; charset=utf-8"));
        for part in ["lang=\"en\"", "http-equiv=\"refresh\"", "<title>Starting</title>", "role=\"status\""] {
            assert!(page.contains(part), "{page}");
        }
        for (accept, method) in [("*/*", Method::GET), ("text/html", Method::POST)] {
            let (status, kind, line) = shown(accept, method).await;
            assert_eq!((status, kind.as_str()), (503, "text/plain; charset=utf-8"));
            assert_eq!(line, "The sandbox is starting. This page opens by itself in a moment.\n");
        }
    }
}
