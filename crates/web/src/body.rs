//! Request bodies: bounded while they arrive, then read as JSON.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http_body_util::BodyExt;
use kernel::{Code, Error, Result};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a body may pause while it arrives.
const STALLED: Duration = Duration::from_secs(30);

/// How long one that is read whole may take in all.
const WHOLE: Duration = Duration::from_secs(120);

/// How much more than the limit is read and thrown away, so that a client that writes before it reads still
/// gets its answer.
const DISCARDED: u64 = 128 * 1024 * 1024;

/// Reads a body of at most `limit` bytes. What comes after the limit is never kept, and nothing of a body that
/// announces more.
///
/// # Errors
/// `too_large`; `invalid_input` where the client breaks off.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let announced_too_large = announced.is_some_and(|length| length > limit as u64);
    if announced_too_large && headers.contains_key(EXPECT) {
        return Err(too_large(limit));
    }
    let mut body = body;
    let (mut kept, mut arrived) = (BytesMut::new(), 0_u64);
    let end = Instant::now() + WHOLE;
    while let Some(frame) =
        timeout_at(end.min(Instant::now() + STALLED), body.frame()).await.map_err(|_| stalled())?
    {
        let frame = frame.map_err(|e| broken_off(e.into_inner()))?;
        let Ok(data) = frame.into_data() else { continue };
        arrived += data.len() as u64;
        if arrived <= limit as u64 && !announced_too_large {
            kept.extend_from_slice(&data);
        } else {
            kept = BytesMut::new();
            if arrived > limit as u64 + DISCARDED {
                break;
            }
        }
    }
    if arrived > limit as u64 || announced_too_large { Err(too_large(limit)) } else { Ok(kept.freeze()) }
}

/// A body as it arrives, which may pause no longer than any other.
pub fn chunks(body: Body) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold(body, |mut body| async move {
        loop {
            let Some(frame) = timeout(STALLED, body.frame()).await.map_err(|_| stalled())? else {
                return Ok(None);
            };
            let data = frame.map_err(|e| broken_off(e.into_inner()))?.into_data();
            if let Ok(data) = data {
                return Ok(Some((data, body)));
            }
        }
    })
    .boxed()
}

/// Reads on and throws away what is left of a refused body, as far as a client may be expected to send it before it
/// reads the answer.
pub async fn discard(headers: &HeaderMap, chunks: &mut BoxStream<'static, Result<Bytes>>) {
    if headers.contains_key(EXPECT) {
        return;
    }
    let mut left = DISCARDED;
    while let Some(Ok(chunk)) = chunks.next().await {
        left = left.saturating_sub(chunk.len() as u64);
        if left == 0 {
            return;
        }
    }
}

/// The body, of which no more than `most` bytes are taken. What is over is read and thrown away as far as a client may be
/// expected to send it before it reads the answer.
///
/// # Errors
/// `too_large` where it announces more; the same from the body where more comes.
pub async fn bounded(headers: &HeaderMap, body: Body, most: u64) -> Result<Body> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let refusal = move || {
        Error::new(Code::TooLarge, format!("the body is larger than {most} bytes")).hint("send less at once")
    };
    let mut chunks = chunks(body);
    if announced.is_some_and(|length| length > most) {
        discard(headers, &mut chunks).await;
        return Err(refusal());
    }
    let headers = headers.clone();
    let bounded = stream::try_unfold((chunks, most), move |(mut chunks, left)| {
        let headers = headers.clone();
        async move {
            let Some(chunk) = chunks.next().await.transpose()? else { return Ok(None) };
            let Some(left) = left.checked_sub(chunk.len() as u64) else {
                discard(&headers, &mut chunks).await;
                return Err(refusal());
            };
            Ok(Some((chunk, (chunks, left))))
        }
    });
    Ok(Body::from_stream(bounded))
}

fn broken_off(cause: Box<dyn std::error::Error + Send + Sync>) -> Error {
    // A body that was bounded says itself what is wrong with it, through as many wrappings as it has.
    let cause = match cause.downcast::<Error>() {
        Ok(own) => return *own,
        Err(cause) => cause,
    };
    let cause = match cause.downcast::<axum::Error>() {
        Ok(wrapped) => return broken_off(wrapped.into_inner()),
        Err(cause) => cause,
    };
    Error::new(Code::InvalidInput, "the body broke off before its end").source(cause)
}

fn stalled() -> Error {
    Error::new(Code::Timeout, "the body takes too long").hint("send the request again")
}

fn too_large(limit: usize) -> Error {
    Error::new(Code::TooLarge, format!("the body is larger than {limit} bytes"))
        .hint("upload large content with PUT /v1/blobs/{sha256} and name it by its hash")
}

/// How many times its bytes a body of JSON may take in memory when it is read, unless it takes less than [`SMALL`].
const READ_AS: u64 = 16;

/// What is read of any body, in bytes of memory.
const SMALL: u64 = 4 << 20;

/// What reading these bytes as JSON takes in memory, about: an object of one member, seven bytes of text, takes ninety
/// times as much.
fn cost(text: &[u8]) -> u64 {
    let (mut cost, mut quoted, mut escaped) = (text.len() as u64, false, false);
    for byte in text {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => {
                quoted = !quoted;
                cost += 16;
            }
            (false, b'{') => cost += 512,
            (false, b'[') => cost += 128,
            (false, b',') => cost += 72,
            _ => {}
        }
    }
    cost
}

/// The body as JSON; an empty one is `{}`.
///
/// # Errors
/// `too_large` for one of very many very small parts; `invalid_input` with line and column; with another media type than JSON's where the body is not empty.
pub fn json(headers: &HeaderMap, body: &[u8]) -> Result<Value> {
    if body.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    must_be_json(headers)?;
    if cost(body) > SMALL.max(body.len() as u64 * READ_AS) {
        return Err(Error::new(Code::TooLarge, "the body has too many small parts to be read at once")
            .hint("send fewer at once; db_load takes many rows as CSV or NDJSON"));
    }
    serde_json::from_slice(body).map_err(|e| not_json(&e))
}

/// What is wrong with a text that is not JSON, with its place and without its content.
pub fn not_json(error: &serde_json::Error) -> Error {
    Error::new(Code::InvalidInput, format!("the body is not JSON that can be read: {error}"))
}

/// Refuses a body that does not say of itself that it is JSON.
///
/// # Errors
/// `invalid_input`.
pub fn must_be_json(headers: &HeaderMap) -> Result<()> {
    if is_json(headers) {
        return Ok(());
    }
    Err(Error::new(Code::InvalidInput, "the body must be JSON")
        .hint("send the header Content-Type: application/json"))
}

/// Whether the body says of itself that it is JSON (RFC 6839 §3.1).
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_hundred_times_its_bytes_is_refused_before_it_is_read() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
        let many = |part: &str, n: usize| format!("[{}]", vec![part; n].join(","));
        for part in ["{\"\":0}", "[]", "{}"] {
            let refused = json(&headers, many(part, 300_000).as_bytes()).unwrap_err();
            assert_eq!(refused.code(), Code::TooLarge, "{part}");
        }
        let row = "{\"title\":\"a title of forty letters, more or less it is\",\"done\":false,\"n\":12}";
        for text in [many(row, 10_000), many("1", 20_000), format!("\"{}\"", "[{,\\\"".repeat(100_000))] {
            json(&headers, text.as_bytes()).unwrap();
        }
    }
}
