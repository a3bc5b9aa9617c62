//! The bridge: where what runs in a sandbox calls the platform's tools, and nothing else of the platform.
//!
//! It is served on a socket that only one sandbox reaches, which says who calls; the run token that comes along says for
//! which run. Both have to match.

mod tokens;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
use tokio::time::{sleep, timeout};

pub use tokens::{Grant, LONGEST, Pass, Refused, Tokens};

/// The most bytes of one message.
pub const MESSAGE: usize = 1 << 20;

/// How many values a message has at most: each takes many times its bytes once it is read.
const VALUES: usize = 50_000;

/// How many calls a sandbox makes at once; one more waits.
const CALLS: usize = 8;
/// How often it connects or asks without waiting, and how much later each one more is.
const AT_ONCE: u32 = 600;
const EACH: Duration = Duration::from_millis(10);
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

/// Spreads what a sandbox asks for over time, whatever comes of it: work that is done for it out here is not counted as
/// its own by the kernel.
struct Pace(Mutex<Instant>);

impl Pace {
    fn wait(&self, now: Instant) -> Duration {
        let mut paid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = now.max(*paid) + EACH;
        paid.duration_since(now).saturating_sub(EACH * AT_ONCE)
    }

    async fn turn(&self) {
        let wait = self.wait(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// Serves the bridge of `sandbox` until the future is dropped, and with it every call.
pub async fn serve(listener: UnixListener, sandbox: SandboxId, tools: Arc<dyn Tools>) {
    let places = Arc::new(Semaphore::new(CALLS));
    let pace = Arc::new(Pace(Mutex::new(Instant::now())));
    let mut calls = JoinSet::new();
    loop {
        while calls.try_join_next().is_some() {}
        pace.turn().await;
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (tools, pace) = (Arc::clone(&tools), Arc::clone(&pace));
                calls.spawn(async move {
                    connection(stream, sandbox, tools, pace).await;
                    drop(place);
                });
            }
            // No descriptors are left: one that ends gives its own back.
            Err(error) => {
                tracing::warn!(%error, %sandbox, "a call of a sandbox was not accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, sandbox: SandboxId, tools: Arc<dyn Tools>, pace: Arc<Pace>) {
    let answers = service_fn(move |request| {
        let (tools, pace) = (Arc::clone(&tools), Arc::clone(&pace));
        async move {
            pace.turn().await;
            Ok::<_, Infallible>(respond(request, sandbox, tools.as_ref()).await)
        }
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
    if values(&bytes) > VALUES {
        let message = format!("the message has more than {VALUES} values");
        return Err(
            Error::new(Code::TooLarge, message).hint("send fewer at once; db_load takes many as one text")
        );
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(Code::InvalidInput, format!("the body is no JSON-RPC message: {error}"))
            .hint("send one JSON object; batches are not part of MCP any more")
    })
}

/// How many values a JSON text has, more or less: what stands between them, outside of strings.
fn values(text: &[u8]) -> usize {
    let (mut count, mut inside, mut escaped) = (0, false, false);
    for byte in text {
        match (inside, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => inside = !inside,
            (false, b',' | b':' | b'[' | b'{') => count += 1,
            _ => {}
        }
    }
    count
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
