//! Servers in sandboxes, shown at hosts of their own to whoever may see them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use edge::Secured;
use futures::future::BoxFuture;
use hands::{Reached, Visit, Who};
use http::header::{CACHE_CONTROL, HeaderName, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use kernel::{Code, Result, SandboxId, Timestamp};
use mcp_server::platform::Platform;
use sandbox::preview::{self, Entry, Failure, Scheme, Visitor};
use sandbox::session::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a visitor waits for a sandbox to wake, and for its server to listen, before a page says that it starts.
const WAKING: Duration = Duration::from_millis(1_500);

/// How long a visitor's connection may carry nothing.
const IDLE: Duration = Duration::from_secs(600);

/// How often it is looked whether a visitor whose connection lasts may still see what they see, and how soon after any
/// credential has ended.
const LOOKED: Duration = Duration::from_secs(10);
const LOOKED_AFTER: Duration = Duration::from_millis(250);

/// Which pages get what is private besides those of its own host, where a browser does not tell whose asks (Fetch §3.7).
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// A port of a sandbox.
#[derive(Clone, Copy)]
struct Port {
    sandbox: SandboxId,
    number: u16,
}

/// A connection into a sandbox, which is awake for as long.
struct Visited {
    stream: Connection,
    _visit: Visit,
    idle: Pin<Box<Sleep>>,
    /// Comes when its visitor may not see it any more; none when it has.
    over: Option<BoxFuture<'static, ()>>,
}

impl Visited {
    /// What has come of reading or writing, unless it is over or nothing has moved for too long.
    fn moved<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.over.as_mut().is_none_or(|over| over.as_mut().poll(cx).is_ready()) {
            self.over = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
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
pub async fn show(platform: &Arc<Platform>, label: &str, request: Request) -> Response {
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

async fn answer(platform: &Arc<Platform>, label: &str, request: Request) -> Result<Response> {
    let nothing = || kernel::Error::not_found("such preview");
    let (sandbox, number) = platform.previews.read(label).ok_or_else(nothing)?;
    let port = Port { sandbox, number };
    let workspace = platform.hands.of_sandbox(sandbox).await?.ok_or_else(nothing)?;
    // What a credential shows ends with it, and nobody's visit wakes what is nobody's.
    if !platform.may_run(&workspace).await? {
        return Err(nothing());
    }
    let Some(ConnectInfo(client)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() else {
        return Err(kernel::Error::internal("a request from nowhere"));
    };
    let scheme = if request.extensions().get::<Secured>().is_some() { Scheme::Https } else { Scheme::Http };
    let (parts, body) = request.into_parts();
    let (method, headers) = (parts.method.clone(), parts.headers.clone());
    let now = Timestamp::now();
    let entry = platform.previews.entry(sandbox, number, &parts, now);
    let seen_until = match entry {
        Entry::Pass(until) | Entry::Cookie(until) => Some(until),
        _ if platform.hands.public_ports(&workspace).await?.contains(&number) => None,
        Entry::Anothers => return Ok(preview::anothers(&method, &headers).map(Body::new)),
        Entry::Stranger => return Ok(preview::private(&method, &headers).map(Body::new)),
    };
    if let Some(to) = preview::onwards(&parts) {
        let visited_by = if platform.urls.scheme == "https" { Scheme::Https } else { scheme };
        let cookies = match entry {
            Entry::Pass(_) => platform.previews.cookies(sandbox, number, visited_by, now),
            Entry::Cookie(_) | Entry::Anothers | Entry::Stranger => Vec::new(),
        };
        return Ok(preview::moved(&to, cookies).map(Body::new));
    }
    // It goes on waking when its visitor is told to wait.
    let until = Instant::now() + WAKING;
    let waking = platform.hands.wake_for_visitor(&workspace);
    let Ok(woken) = tokio::time::timeout_at(until, waking).await else {
        return Ok(preview::waking(&method, &headers).map(Body::new));
    };
    let Some(visit) = woken?.visit() else {
        let busy = kernel::Error::new(Code::Unavailable, "too many visitors are at this preview");
        return Err(busy);
    };
    let failed = |failure| Ok(preview::failed(&method, &headers, failure).map(Body::new));
    let reaching = platform.hands.reach(&workspace, &visit, number, Who::Visitor, until);
    let stream = match tokio::time::timeout_at(until, reaching).await {
        Ok(Ok(Reached::Listens(stream))) => stream,
        Ok(Ok(Reached::Comes)) | Err(_) => {
            return Ok(preview::waking(&method, &headers).map(Body::new));
        }
        // What it has said is nobody's who only looks.
        Ok(Ok(Reached::Silent(_))) => return failed(Failure::Silent),
        Ok(Ok(Reached::Nothing)) => return failed(Failure::Broken),
        Ok(Err(error)) => {
            tracing::warn!(error = error.chain(), "the command of a preview could not be begun");
            return failed(Failure::Silent);
        }
    };
    let over = Box::pin(ended(Arc::clone(platform), port, seen_until));
    let stream = Visited { stream: *stream, _visit: visit, idle: Box::pin(sleep(IDLE)), over: Some(over) };
    let visitor = Visitor { address: client.ip(), scheme };
    let mut response = match preview::forward(Request::from_parts(parts, body), stream, visitor).await {
        Ok(response) => response.map(Body::new),
        Err(failure) => preview::failed(&method, &headers, failure).map(Body::new),
    };
    if seen_until.is_some() {
        keep_private(response.headers_mut());
    }
    Ok(response)
}

/// Keeps what one visitor may see from pages of other origins, and out of memories that others share (RFC 9111 §5.2.2).
fn keep_private(headers: &mut HeaderMap) {
    let own = HeaderValue::from_static("same-origin");
    headers.entry(CROSS_ORIGIN_RESOURCE_POLICY).or_insert(own);
    let said: Vec<_> = headers.get_all(CACHE_CONTROL).iter().filter_map(|it| it.to_str().ok()).collect();
    let stays = |part: &&str| {
        let name = part.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        !matches!(&*name, "" | "public" | "private" | "s-maxage")
    };
    let parts = said.iter().flat_map(|line| line.split(',')).map(str::trim).filter(stays);
    let kept = std::iter::once("private").chain(parts).collect::<Vec<_>>().join(", ");
    headers
        .insert(CACHE_CONTROL, HeaderValue::try_from(kept).unwrap_or(HeaderValue::from_static("no-store")));
    headers.append(VARY, HeaderValue::from_static("cookie, steading-preview"));
}

/// Waits until a visitor may not see a port any more who was let in `until` then, or because it is public.
async fn ended(platform: Arc<Platform>, port: Port, until: Option<Timestamp>) {
    let mut revocations = platform.control.revocations();
    loop {
        // Once for many that end at once.
        if tokio::time::timeout(LOOKED, revocations.next()).await.is_ok() {
            sleep(LOOKED_AFTER).await;
        }
        match may_stay(&platform, port, until).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(error = error.chain(), "it is not known who may see a preview"),
        }
    }
}

async fn may_stay(platform: &Platform, port: Port, until: Option<Timestamp>) -> Result<bool> {
    let Some(workspace) = platform.hands.of_sandbox(port.sandbox).await? else { return Ok(false) };
    if !platform.may_run(&workspace).await? {
        return Ok(false);
    }
    if until.is_some_and(|until| until > Timestamp::now()) {
        return Ok(true);
    }
    Ok(platform.hands.public_ports(&workspace).await?.contains(&port.number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_in_no_shared_memory() {
        for (said, kept) in [
            (&[][..], "private"),
            (&["no-store"], "private, no-store"),
            (&["Public, max-age=31536000, immutable"], "private, max-age=31536000, immutable"),
            (&["max-age=5", "s-maxage=9,private=\"x\""], "private, max-age=5"),
        ] {
            let mut headers = HeaderMap::new();
            for said in said {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(said));
            }
            keep_private(&mut headers);
            assert_eq!(headers[CACHE_CONTROL], kept);
            assert_eq!(headers.get_all(CACHE_CONTROL).iter().count(), 1);
            assert_eq!(headers[VARY], "cookie, steading-preview");
        }
    }
}
