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

/// How much of a body is in memory before anybody is asked to read it.
const GATHERED: usize = 64 << 10;

/// How long one is waited for in any case, and how many bytes have to come for each second more.
const GRACE: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 1 << 10;

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

/// What is wrong with a body that has not come to its end.
pub fn broken_off(cause: Box<dyn std::error::Error + Send + Sync>) -> Error {
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

/// The body, which has to come at a lowest rate from its first byte to its last. It is to be bounded after this: what is thrown
/// away comes at that rate, too.
///
/// # Errors
/// `timeout` from the body where it does not.
pub fn paced(body: Body) -> Body {
    let paced = Paced { body, pace: Pace::default() };
    Body::from_stream(stream::try_unfold(paced, |mut paced| async move {
        Ok::<_, Error>(paced.next().await?.map(|data| (data, paced)))
    }))
}

/// The body with its first part, or all of a small one, in memory, so that nobody is kept waiting who reads it.
///
/// # Errors
/// Of the body.
pub async fn gathered(mut body: Body) -> Result<Body> {
    let mut first = BytesMut::new();
    while first.len() < GATHERED {
        let Some(frame) = body.frame().await else { return Ok(Body::from(first.freeze())) };
        if let Ok(data) = frame.map_err(|error| broken_off(error.into_inner()))?.into_data() {
            first.extend_from_slice(&data);
        }
    }
    let first = stream::iter([Ok(first.freeze())]);
    Ok(Body::from_stream(first.chain(body.into_data_stream())))
}

/// A body, and how fast it has come.
struct Paced {
    body: Body,
    pace: Pace,
}

#[derive(Default)]
struct Pace {
    arrived: u64,
    /// Without the time in which nobody wanted more.
    waited: Duration,
}

impl Pace {
    /// How long its next part may take.
    fn left(&self) -> Duration {
        let may = GRACE + Duration::from_secs(self.arrived / SLOWEST);
        may.saturating_sub(self.waited).min(STALLED)
    }
}

impl Paced {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let began = Instant::now();
            let frame = timeout(self.pace.left(), self.body.frame()).await.map_err(|_| stalled())?;
            let Some(frame) = frame else { return Ok(None) };
            self.pace.waited += began.elapsed();
            if let Ok(data) = frame.map_err(|e| broken_off(e.into_inner()))?.into_data() {
                self.pace.arrived += data.len() as u64;
                return Ok(Some(data));
            }
        }
    }
}

fn stalled() -> Error {
    Error::slow_sender("the body takes too long").hint("send the request again")
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
    fn a_body_has_to_come_at_a_lowest_rate() {
        let left = |arrived, waited| Pace { arrived, waited: Duration::from_secs(waited) }.left().as_secs();
        for (arrived, waited, expected) in [
            (0, 0, 10),
            (0, 9, 1),
            (1_023, 10, 0),
            (10 << 10, 19, 1),
            (64 << 10, 73, 1),
            (64 << 10, 80, 0),
            // However much has come, a pause has its bound.
            (10 << 20, 0, 30),
        ] {
            assert_eq!(left(arrived, waited), expected, "{arrived} bytes in {waited} s");
        }
    }

    #[tokio::test]
    async fn the_first_of_a_body_is_there_before_it_is_handed_on_and_nothing_is_lost() {
        for sizes in [vec![], vec![1, 2, 3], vec![GATHERED], vec![GATHERED - 1, 7, 100_000], vec![1 << 20]] {
            let sent: Vec<u8> = (0..sizes.iter().sum()).map(|at: usize| (at % 251) as u8).collect();
            let mut rest = sent.clone();
            let parts: Vec<_> = sizes.iter().map(|size| rest.drain(..*size).collect::<Vec<u8>>()).collect();
            let parts = stream::iter(parts.into_iter().map(Ok::<_, Error>));
            let mut body = gathered(Body::from_stream(parts)).await.unwrap();
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(!got.is_empty() || data.len() >= sent.len().min(GATHERED));
                got.extend_from_slice(&data);
            }
            assert!(got == sent, "{sizes:?}");
        }
        let broken = Body::from_stream(stream::iter([Ok("a"), Err(Error::slow_sender("gone"))]));
        assert_eq!(gathered(broken).await.unwrap_err().status(), 408);
    }

    #[tokio::test]
    async fn what_is_too_large_says_so_through_everything_around_it() {
        let parts = stream::iter((0..100).map(|_| Ok::<_, Error>(Bytes::from(vec![0; 2 << 10]))));
        let body = bounded(&HeaderMap::new(), paced(Body::from_stream(parts)), 4 << 10).await.unwrap();
        assert_eq!(gathered(body).await.unwrap_err().status(), 413);
    }

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
