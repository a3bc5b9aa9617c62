//! Servers in sandboxes, shown at hosts of their own.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use edge::Secured;
use hands::Visit;
use http::StatusCode;
use kernel::{Code, Result};
use mcp_server::platform::Platform;
use sandbox::preview::{self, Failure, Scheme, Visitor};
use sandbox::session::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a visitor waits for a sandbox to wake before a page says that it does.
const WAKING: Duration = Duration::from_millis(1_500);

/// How long a visitor's connection may carry nothing.
const IDLE: Duration = Duration::from_secs(600);

/// A connection into a sandbox, which is awake for as long.
struct Visited {
    stream: Connection,
    _visit: Visit,
    idle: Pin<Box<Sleep>>,
}

impl Visited {
    /// What has come of reading or writing, unless nothing has moved for too long.
    fn moved<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE);
            return outcome;
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Visited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.moved(read, cx)
    }
}

impl AsyncWrite for Visited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

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
    // It goes on waking when its visitor is told to wait.
    let waking = platform.hands.wake_for_visitor(&workspace);
    let Ok(woken) = tokio::time::timeout(WAKING, waking).await else {
        return Ok(preview::waking(request.method(), request.headers()).map(Body::new));
    };
    let hand = woken?;
    let Some(ConnectInfo(client)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() else {
        return Err(kernel::Error::internal("a request from nowhere"));
    };
    let scheme = if request.extensions().get::<Secured>().is_some() { Scheme::Https } else { Scheme::Http };
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let Some(visit) = hand.visit() else {
        let busy = kernel::Error::new(Code::Unavailable, "too many visitors are at this preview");
        return Err(busy);
    };
    let Ok(stream) = visit.dial(port).await else {
        return Ok(preview::failed(&method, &headers, Failure::Broken).map(Body::new));
    };
    let stream = Visited { stream, _visit: visit, idle: Box::pin(sleep(IDLE)) };
    let visitor = Visitor { address: client.ip(), scheme };
    Ok(match preview::forward(request, stream, visitor).await {
        Ok(response) => response.map(Body::new),
        Err(failure) => preview::failed(&method, &headers, failure).map(Body::new),
    })
}
