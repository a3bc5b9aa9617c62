//! What a visitor sees while there is nothing of the sandbox's own to see.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::Failure;
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
        Failure::Slow => (StatusCode::GATEWAY_TIMEOUT, "The server in the sandbox did not answer in time."),
    };
    page(method, headers, status, "No answer", text, "")
}

fn page(
    method: &Method,
    headers: &HeaderMap,
    status: StatusCode,
    title: &str,
    text: &str,
    head: &str,
) -> Response<Body> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let html = headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.to_ascii_lowercase().contains("text/html")));
    let (content_type, content) = if reads && html {
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
