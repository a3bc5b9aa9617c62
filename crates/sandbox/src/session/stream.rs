//! One stream: bytes out of it, bytes into it, and its end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hand::wire::{Event, Kind, Reply, Tell};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use super::mux::Mux;
use super::{Error, Result};

/// A stream that is open. Dropped before its end it is given up, with what it began.
#[derive(Debug)]
pub struct Stream {
    mux: Mux,
    id: u32,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    pub events: mpsc::Receiver<Event>,
    done: Done,
}

/// How it has ended, or that it has not.
#[derive(Debug)]
enum Done {
    Not(oneshot::Receiver<Result<Reply>>),
    So(Result<Reply>),
}

impl Stream {
    pub fn new(
        mux: Mux,
        id: u32,
        stdout: Reader,
        stderr: Reader,
        events: mpsc::Receiver<Event>,
        done: oneshot::Receiver<Result<Reply>>,
    ) -> Self {
        Self { mux, id, stdout: Some(stdout), stderr: Some(stderr), events, done: Done::Not(done) }
    }

    /// Its end. May be asked again.
    pub async fn done(&mut self) -> Result<Reply> {
        if let Done::Not(done) = &mut self.done {
            let end = done.await.unwrap_or(Err(Error::Closed));
            self.done = Done::So(end);
        }
        match &self.done {
            Done::So(end) => end.clone(),
            Done::Not(_) => Err(Error::Closed),
        }
    }

    /// The next event, or its end.
    pub async fn event(&mut self) -> Result<Event, Result<Reply>> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => Err(self.done().await),
        }
    }

    /// Wants no more events: however many come, none is kept.
    pub fn deaf(&mut self) {
        self.events.close();
    }

    /// What goes into it.
    pub fn writer(&self) -> Writer {
        Writer { mux: self.mux.clone(), id: self.id }
    }

    pub fn tell(&self, tell: Tell) -> Result<()> {
        let json = serde_json::to_vec(&tell).map_err(|_| Error::Protocol("the message is no JSON"))?;
        if !self.mux.is_open(self.id) {
            return Err(Error::Closed);
        }
        self.mux.send(self.id, Kind::Tell, &json);
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.mux.is_open(self.id) {
            self.mux.send(self.id, Kind::Reset, &[]);
        }
    }
}

/// Bytes out of a stream. What is not read is waited for inside; what comes after this is dropped is thrown away.
#[derive(Debug)]
pub struct Reader {
    mux: Mux,
    id: u32,
    kind: Kind,
    from: mpsc::UnboundedReceiver<Bytes>,
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(mux: Mux, id: u32, kind: Kind, from: mpsc::UnboundedReceiver<Bytes>) -> Self {
        Self { mux, id, kind, from, rest: Bytes::new() }
    }

    /// The next bytes, as they came; `None` at the end.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut self.rest)));
        }
        self.from.poll_recv(cx).map(|chunk| {
            let chunk = chunk?;
            self.mux.grant(self.id, self.kind, chunk.len() as u32);
            Some(chunk)
        })
    }

    /// All that comes, of which at most `most` bytes are kept.
    pub async fn all(mut self, most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await {
            let room = most.saturating_sub(all.len());
            all.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        all
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.from.close();
        let mut unread = 0;
        while let Ok(chunk) = self.from.try_recv() {
            unread += chunk.len() as u32;
        }
        if unread > 0 {
            self.mux.grant(self.id, self.kind, unread);
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_chunk(cx).map(|chunk| {
            if let Some(mut chunk) = chunk {
                let now = chunk.len().min(buffer.remaining());
                buffer.put_slice(&chunk[..now]);
                chunk.advance(now);
                self.rest = chunk;
            }
            Ok(())
        })
    }
}

/// Bytes into a stream, under credit. Shutting it down says that no more come.
#[derive(Debug)]
pub struct Writer {
    mux: Mux,
    id: u32,
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match self.mux.take_credit(self.id, bytes.len(), cx.waker()) {
            Ok(0) => Poll::Pending,
            Ok(count) => {
                self.mux.send(self.id, Kind::Data, &bytes[..count]);
                Poll::Ready(Ok(count))
            }
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mux.send(self.id, Kind::End, &[]);
        Poll::Ready(Ok(()))
    }
}

/// Waits for an end that is of one sort.
pub async fn reply<T>(stream: &mut Stream, wanted: impl FnOnce(Reply) -> Option<T>) -> Result<T> {
    wanted(stream.done().await?).ok_or(Error::Protocol("it answers another question"))
}
