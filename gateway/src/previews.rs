//! Servers in sandboxes, shown at hosts of their own.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use edge::Secured;
use http::StatusCode;
use kernel::{Code, Result};
use mcp_server::platform::Platform;
use sandbox::preview::{self, Failure, Scheme, Visitor};

/// How long a visitor waits for a sandbox to wake before a page says that it does.
const WAKING: Duration = Duration::from_millis(1_500);

/// Answers for the server that `label` stands for.
pub async fn show(platform: &Platform, label: &str, request: Request) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    match answer(platform, label, request).await {
        Ok(response) => response,
        Err(error) if error.code() == Code::NotFound => {
            let mut response = Response::new(Body::from("there is no such preview\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
        Err(error) => {
            tracing::warn!(error = error.chain(), "a preview could not be shown");
            preview::failed(&method, &headers, Failure::Broken).map(Body::new)
        }
    }
}

async fn answer(platform: &Platform, label: &str, request: Request) -> Result<Response> {
    let nothing = || kernel::Error::not_found("such preview");
    let (sandbox, port) = platform.previews.read(label).ok_or_else(nothing)?;
    let workspace = platform.hands.of_sandbox(sandbox).await?.ok_or_else(nothing)?;
    // What a credential shows ends with it, and nobody's visit wakes what is nobody's.
    if !platform.has_owner(&workspace).await? {
        return Err(nothing());
    }
    let hands = platform.hands.clone();
    // It goes on waking when its visitor is told to wait.
    let waking = tokio::spawn(async move { hands.wake(&workspace).await });
    let Ok(woken) = tokio::time::timeout(WAKING, waking).await else {
        return Ok(preview::waking(request.method(), request.headers()).map(Body::new));
    };
    let hand = woken.map_err(kernel::Error::internal)??;
    let Some(ConnectInfo(client)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() else {
        return Err(kernel::Error::internal("a request from nowhere"));
    };
    let scheme = if request.extensions().get::<Secured>().is_some() { Scheme::Https } else { Scheme::Http };
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let Ok(stream) = hand.dial(port).await else {
        return Ok(preview::failed(&method, &headers, Failure::Broken).map(Body::new));
    };
    let visitor = Visitor { address: client.ip(), scheme };
    Ok(match preview::forward(request, stream, visitor).await {
        Ok(response) => response.map(Body::new),
        Err(failure) => preview::failed(&method, &headers, failure).map(Body::new),
    })
}
