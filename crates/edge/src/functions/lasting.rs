//! What goes on after an answer has begun: bodies that stream, and sockets. Each ends when its sender may not have it any
//! more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use functions::{Answer, Lease};
use futures::future::BoxFuture;
use hyper::body::{Body, Frame, SizeHint};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

/// How long a socket may carry nothing.
const IDLE: Duration = Duration::from_secs(600);

/// How long one side of a socket may go on when the other says no more.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A function's answer on its way. Dropped before its end it is broken off, and the function told so.
pub(super) struct Lasting<B = Answer> {
    pub answer: B,
    /// Comes when its reader may not have the rest.
    pub refused: Option<BoxFuture<'static, ()>>,
    /// Comes when it is to end as if it had come to its end: news that would go on for ever.
    pub over: Option<BoxFuture<'static, ()>>,
}

impl<B> Body for Lasting<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        // First, since a function that writes faster than anybody reads always has more.
        if self.refused.as_mut().is_some_and(|refused| refused.as_mut().poll(cx).is_ready()) {
            self.refused = None;
            return Poll::Ready(Some(Err(io::ErrorKind::PermissionDenied.into())));
        }
        if self.over.as_mut().is_some_and(|over| over.as_mut().poll(cx).is_ready()) {
            self.over = None;
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.answer).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    /// How long it is stands in its header: nothing of it is in memory, where it would count.
    fn size_hint(&self) -> SizeHint {
        if self.answer.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

/// One of the sockets that are counted, until it is dropped.
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    pub fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Both ends of a connection that is no HTTP any more.
pub(super) struct Socket {
    pub asker: OnUpgrade,
    pub function: OnUpgrade,
    /// Its function works on it for as long.
    pub lease: Option<Arc<Lease>>,
    /// Comes when whoever asked may not have it any more.
    pub refused: Option<BoxFuture<'static, ()>>,
    /// It counts for as long.
    pub open: Open,
}

impl Socket {
    /// Carries bytes both ways until one side ends, or nothing moves for too long.
    pub async fn carry(self) {
        let Self { asker, function, lease, refused, open } = self;
        let (Ok(asker), Ok(function)) = futures::join!(asker, function) else { return };
        let refused = async {
            match refused {
                Some(refused) => refused.await,
                None => futures::future::pending().await,
            }
        };
        tokio::select! {
            () = carried(TokioIo::new(asker), TokioIo::new(function)) => {}
            () = refused => {}
        }
        drop((lease, open));
    }
}

/// Carries bytes both ways. Where one side says no more, the other has a moment to say its last; then both are closed.
async fn carried<A, F>(asker: A, function: F)
where
    A: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let silent = Arc::new(Notify::new());
    let mut asker = Watched::new(asker, &silent);
    let mut function = Watched::new(function, &silent);
    let last_words = async {
        silent.notified().await;
        sleep(LAST_WORDS).await;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut asker, &mut function) => {}
        () = last_words => {}
    }
}

/// One end, over which something has to move now and then.
struct Watched<S> {
    stream: S,
    idle: Pin<Box<Sleep>>,
    /// Rung when it says no more.
    silent: Arc<Notify>,
}

impl<S> Watched<S> {
    fn new(stream: S, silent: &Arc<Notify>) -> Self {
        Self { stream, idle: Box::pin(sleep(IDLE)), silent: Arc::clone(silent) }
    }

    fn moved<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE);
            return outcome;
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if matches!(read, Poll::Ready(Ok(()))) && room > 0 && buffer.filled().len() == before {
            self.silent.notify_one();
        }
        self.moved(read, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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

#[cfg(test)]
mod tests {
    use axum::body;
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_says_no_more_hears_the_last_of_the_other_and_keeps_no_place() {
        let ends = async |asker_ends: bool| {
            let (mut asker, theirs) = tokio::io::duplex(64);
            let (mut function, ours) = tokio::io::duplex(64);
            let begun = Instant::now();
            let carrying = tokio::spawn(carried(theirs, ours));
            let (one, other) =
                if asker_ends { (&mut asker, &mut function) } else { (&mut function, &mut asker) };
            one.write_all(b"the last").await.unwrap();
            one.shutdown().await.unwrap();
            let mut heard = [0; 8];
            other.read_exact(&mut heard).await.unwrap();
            assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
            sleep(Duration::from_secs(1)).await;
            other.write_all(b"and mine").await.unwrap();
            one.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"and mine");
            // It does not end by itself.
            carrying.await.unwrap();
            assert!(begun.elapsed() < IDLE / 2, "{:?}", begun.elapsed());
        };
        futures::join!(ends(true), ends(false));
    }

    #[tokio::test]
    async fn what_always_has_more_ends_when_its_reader_may_not_have_it_and_at_the_end() {
        for refuses in [true, false] {
            let endless = futures::stream::repeat_with(|| io::Result::Ok(Bytes::from_static(b"x")));
            let (end, comes) = oneshot::channel::<()>();
            let comes = Some(comes.map(drop).boxed());
            let (refused, over) = if refuses { (comes, None) } else { (None, comes) };
            let mut lasting = Lasting { answer: body::Body::from_stream(endless), refused, over };
            for _ in 0..3 {
                assert!(lasting.frame().await.unwrap().is_ok());
            }
            drop(end);
            let last = lasting.frame().await;
            let refusal = last.map(|frame| frame.unwrap_err().kind());
            assert_eq!(refusal, refuses.then_some(io::ErrorKind::PermissionDenied));
        }
    }
}
