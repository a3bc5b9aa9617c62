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
use tokio::time::{Instant, Sleep, sleep};

/// How long a socket may carry nothing.
const IDLE: Duration = Duration::from_secs(600);

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
        let mut asker = TokioIo::new(asker);
        let mut function = Watched { stream: TokioIo::new(function), idle: Box::pin(sleep(IDLE)) };
        let carried = tokio::io::copy_bidirectional(&mut asker, &mut function);
        let refused = async {
            match refused {
                Some(refused) => refused.await,
                None => futures::future::pending().await,
            }
        };
        // Whichever side breaks off, both are closed.
        tokio::select! {
            _ = carried => {}
            () = refused => {}
        }
        drop((lease, open));
    }
}

/// One end, over which something has to move now and then.
struct Watched<S> {
    stream: S,
    idle: Pin<Box<Sleep>>,
}

impl<S> Watched<S> {
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
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
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
    use tokio::sync::oneshot;

    use super::*;

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
