//! The listener for plain HTTP beside HTTPS: it sends visitors on, answers a public authority, and does no more.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use capabilities::domains::{Challenges, HTTP_CHALLENGE};
use control::Control;
use edge::{HostKind, Hosts};
use http::header::{CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::serve::Answering;

/// What it has to know.
pub struct Redirect {
    /// Whose hosts are whose.
    pub hosts: Arc<Hosts>,
    /// Who has proven a domain.
    pub control: Arc<Control>,
    /// What a public authority asks for.
    pub challenges: Arc<Challenges>,
    /// The port of HTTPS as visitors see it; none where it is the usual one.
    pub port: Option<u16>,
}

impl Redirect {
    /// Answers everything.
    pub fn answering(self) -> Answering {
        let this = Arc::new(self);
        Arc::new(move |request| {
            let (this, (asked, _)) = (Arc::clone(&this), request.into_parts());
            Box::pin(async move { this.answer(&asked).await })
        })
    }

    async fn answer(&self, asked: &Parts) -> Response {
        let nobody = || StatusCode::NOT_FOUND.into_response();
        if let Some(answer) = challenge(&self.challenges, &asked.method, &asked.uri, &asked.headers) {
            return answer;
        }
        let Some(host) = Hosts::name(&asked.uri, &asked.headers) else { return nobody() };
        let known = match self.hosts.named(&host) {
            HostKind::Platform | HostKind::App(_) | HostKind::Preview { .. } | HostKind::Sandbox(_) => true,
            HostKind::Domain(name) => {
                self.control.environments().at_domain(&name).await.is_ok_and(|found| found.is_some())
            }
            HostKind::Unknown => false,
        };
        if !known {
            return nobody();
        }
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = asked.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let Ok(location) = HeaderValue::try_from(format!("https://{host}{port}{path}")) else {
            return nobody();
        };
        // The method and the body come again (RFC 9110 §15.4.9).
        (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response()
    }
}

/// What a public authority is answered at its own path, which no app gets to answer; none for other paths.
pub fn challenge(
    challenges: &Challenges,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<Response> {
    let token = uri.path().strip_prefix(HTTP_CHALLENGE)?;
    let host = Hosts::name(uri, headers);
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let found = host.filter(|_| reads).and_then(|host| challenges.http(&host, token));
    Some(match found {
        Some(text) => {
            let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
            (StatusCode::OK, kind, Body::from(text)).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    })
}
