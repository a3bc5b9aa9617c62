//! Bodies that are counted while they are on their way.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use kernel::{Code, Env, Error, Meter, Metering};

use super::Counted;
use super::pace::{Reader, Readers};

/// How much of an answer is handed on at once: what is handed on is no longer seen here.
const PIECE: usize = 32 << 10;

/// What arrives beyond this is taken for something that is written down as it comes.
const KEPT: u64 = 1 << 20;

/// What is counted until it is dropped.
pub(super) struct Held {
    pub counted: Counted,
    pub bytes: u64,
    pub answers: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counted.release(self.bytes, self.answers);
    }
}

/// An answer's body. It is given out in pieces, so that what counts is what waits, and not what was made.
pub(super) struct Answering {
    body: Body,
    /// What the body has given and the reader has not.
    rest: Bytes,
    reader: Reader,
    read: Option<Read>,
    _held: Held,
}

/// Whose answer it is, and how much of it was read.
pub(super) struct Read {
    pub env: Env,
    pub meters: Arc<dyn Metering>,
    pub bytes: u64,
}

impl Drop for Read {
    fn drop(&mut self) {
        self.meters.count(self.env.tenant(), self.env.id(), Meter::Egress, self.bytes);
    }
}

impl Answering {
    pub fn new(body: Body, held: Held, readers: Arc<Readers>, read: Option<Read>) -> Self {
        Self { body, rest: Bytes::new(), reader: Reader::new(readers), read, _held: held }
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.reader.comes();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(piece);
        self.reader.gets(piece.len());
        if let Some(read) = &mut self.read {
            read.bytes += piece.len() as u64;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// Not before somebody comes for more than the last piece: until then that is not read, as far as anybody knows.
    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = HttpBody::size_hint(&self.body);
        let rest = self.rest.len() as u64;
        match hint.exact() {
            Some(exact) => hint = SizeHint::with_exact(exact + rest),
            None => hint.set_lower(hint.lower() + rest),
        }
        hint
    }
}

/// A request's body: what has come of it is counted until the request is answered.
pub(super) struct Arriving {
    body: Body,
    counted: Counted,
    kept: Kept,
    bytes: u64,
    /// How often each byte counts.
    weight: u64,
}

/// What is counted of a request, for as long as somebody has it.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Option<Held>>>);

impl Kept {
    fn is(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arriving {
    pub fn new(body: Body, counted: Counted, weight: u64) -> Self {
        Self { body, counted, kept: Kept::default(), bytes: 0, weight }
    }

    /// What is counted of it; who has this has it count.
    pub fn kept(&self) -> Kept {
        self.kept.clone()
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let came = frame.data_ref().map_or(0, Bytes::len) as u64;
        let new = came.min(KEPT.saturating_sub(self.bytes));
        self.bytes = self.bytes.saturating_add(came);
        if new > 0 {
            let Some(held) = self.counted.hold(new * self.weight, 0) else {
                self.kept.is().take();
                let refusal =
                    Error::new(Code::Unavailable, "too many requests of this address are on their way")
                        .retry_after(Duration::from_secs(5))
                        .hint("send fewer at once");
                return Poll::Ready(Some(Err(axum::Error::new(refusal))));
            };
            let mut kept = self.kept.is();
            match kept.as_mut() {
                Some(kept) => kept.take(held),
                None => *kept = Some(held),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

impl Held {
    /// Counts what `other` does, too.
    fn take(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.answers += std::mem::take(&mut other.answers);
    }
}
