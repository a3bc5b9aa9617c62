//! A stream whose first bytes have to come in time, and whose reader has to read.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::traffic::Pace;

/// Passes everything through; fails where fewer than so many bytes have come after so long, and where the peer reads nothing.
pub struct Prompt<S> {
    stream: S,
    awaited: usize,
    deadline: Pin<Box<Sleep>>,
    pace: Pace,
    /// Comes while something waits to go out, to look how far behind its reader is.
    look: Option<Pin<Box<Sleep>>>,
}

impl<S> Prompt<S> {
    /// `stream`, which is to bring `awaited` bytes within `patience`.
    pub fn new(stream: S, awaited: usize, patience: Duration) -> Self {
        Self {
            stream,
            awaited,
            deadline: Box::pin(tokio::time::sleep(patience)),
            pace: Pace::default(),
            look: None,
        }
    }
}

impl<S> Prompt<S> {
    /// What has come of writing, unless its reader is too far behind; `bytes` says how many it has taken.
    fn read_by<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match &written {
            Poll::Ready(outcome) => {
                if self.look.take().is_some() {
                    self.pace.takes(outcome.as_ref().map_or(0, bytes), Instant::now());
                }
                written
            }
            Poll::Pending => {
                self.pace.waits(Instant::now());
                let left = self.pace.left(Instant::now());
                let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
                ready!(look.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if this.awaited > 0 {
            if read.is_ready() {
                this.awaited = this.awaited.saturating_sub(buffer.filled().len() - before);
            } else {
                ready!(this.deadline.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.read_by(written, |bytes| *bytes, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.stream).poll_flush(cx);
        self.read_by(written, |()| 0, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.read_by(written, |bytes| *bytes, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
