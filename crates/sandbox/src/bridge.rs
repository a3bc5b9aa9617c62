//! The bridge: where what runs in a sandbox calls the platform's tools, and nothing else of the platform.
//!
//! It is served on a socket that only one sandbox reaches, which says who calls; the run token that comes along says for
//! which run. Both have to match.

mod tokens;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kernel::{CallId, Code, Error, Result, SandboxId};
use serde_json::{Map, Value};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use tokens::{Grant, LONGEST, Pass, Refused, Tokens};

/// The most bytes of one message.
pub const MESSAGE: usize = 4 << 20;

/// How many calls a sandbox makes at once; one more waits.
const CALLS: usize = 16;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long its body may take.
const BODY: Duration = Duration::from_secs(60);

/// What answers the calls of sandboxes. The gateway has it.
pub trait Tools: Send + Sync {
    /// Answers a JSON-RPC message that came from `sandbox` with `token`; a notification has no answer.
    ///
    /// # Errors
    /// `unauthenticated` where the token is not one of a run of this sandbox.
    fn answer<'a>(
        &'a self,
        sandbox: SandboxId,
        token: &'a str,
        message: Map<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>>>;
}

/// Serves the bridge of `sandbox` until the future is dropped, and with it every call.
pub async fn serve(listener: UnixListener, sandbox: SandboxId, tools: Arc<dyn Tools>) {
    let places = Arc::new(Semaphore::new(CALLS));
    let mut calls = JoinSet::new();
    loop {
        while calls.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let tools = Arc::clone(&tools);
                calls.spawn(async move {
                    connection(stream, sandbox, tools).await;
                    drop(place);
                });
            }
            // No descriptors are left: one that ends gives its own back.
            Err(error) => {
                tracing::warn!(%error, %sandbox, "a call of a sandbox was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, sandbox: SandboxId, tools: Arc<dyn Tools>) {
    let answers = service_fn(move |request| {
        let tools = Arc::clone(&tools);
        async move { Ok::<_, Infallible>(respond(request, sandbox, tools.as_ref()).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), answers);
    // Whoever breaks off is gone.
    drop(served.await);
}

async fn respond(request: Request<Incoming>, sandbox: SandboxId, tools: &dyn Tools) -> Response<Full<Bytes>> {
    match answer(request, sandbox, tools).await {
        Ok(Some(answer)) => json(StatusCode::OK, "application/json", &answer),
        Ok(None) => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
        Err(Failed::Method) => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            response
        }
        Err(Failed::With(error)) => {
            let id = CallId::new();
            if error.code() == Code::Internal {
                tracing::error!(call.id = %id, %sandbox, error = %error.chain(), "a call of a sandbox failed");
            }
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = json(status, "application/problem+json", &error.problem(&id.to_string()));
            if status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

enum Failed {
    Method,
    With(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::With(error)
    }
}

async fn answer(
    request: Request<Incoming>,
    sandbox: SandboxId,
    tools: &dyn Tools,
) -> Result<Option<Value>, Failed> {
    if request.uri().path() != "/mcp" {
        let error =
            Error::not_found("such path").hint("send JSON-RPC messages to POST /mcp, or run `hand mcp`");
        return Err(error.into());
    }
    if request.method() != Method::POST {
        return Err(Failed::Method);
    }
    let (parts, body) = request.into_parts();
    // Without a token nothing of the body is read.
    let token = bearer(&parts.headers).ok_or_else(|| Error::from(Refused::Missing))?;
    let message = message(&parts.headers, body).await?;
    Ok(tools.answer(sandbox, token, message).await?)
}

/// The token, where there is exactly one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let one = all.next().filter(|_| all.next().is_none())?.to_str().ok()?;
    let (scheme, token) = one.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

async fn message(headers: &HeaderMap, body: Incoming) -> Result<Map<String, Value>> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Error::new(Code::InvalidInput, "the body must be JSON")
            .hint("send the header content-type: application/json"));
    }
    let read = timeout(BODY, Limited::new(body, MESSAGE).collect()).await;
    let read = read.map_err(|_| Error::new(Code::Timeout, "the body takes too long"))?;
    let bytes = match read {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the message is larger than {MESSAGE} bytes");
            return Err(Error::new(Code::TooLarge, message).hint("put large content into files"));
        }
        Err(_) => return Err(Error::new(Code::InvalidInput, "the body broke off before its end")),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(Code::InvalidInput, format!("the body is no JSON-RPC message: {error}"))
            .hint("send one JSON object; batches are not part of MCP any more")
    })
}

fn json(status: StatusCode, kind: &'static str, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
