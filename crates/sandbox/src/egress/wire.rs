//! A connection to a place outside: counted, told of when it ends, and cut when it may not go on.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use kernel::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::journal::{Event, Journal, Outcome};
use super::meter::Meter;
use super::policy::{Policy, Target};
use super::refusal::Cut;

/// Connections that are open, so that a change of the policy reaches them.
#[derive(Default)]
pub(super) struct Open {
    next: AtomicU64,
    wires: Mutex<HashMap<u64, (Target, CancellationToken)>>,
}

impl Open {
    /// Cuts those that `policy` does not allow.
    pub(super) fn judge(&self, policy: &Policy) {
        let wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        for (target, cut) in wires.values() {
            if !policy.allows(target) {
                cut.cancel();
            }
        }
    }

    fn enter(&self, target: &Target) -> (u64, CancellationToken) {
        let (id, cut) = (self.next.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        wires.insert(id, (target.clone(), cut.clone()));
        (id, cut)
    }

    fn leave(&self, id: u64) {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// What all connections of a sandbox are held to.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) open: Arc<Open>,
    pub(super) meter: Arc<Meter>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) idle: Duration,
}

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    rules: Rules,
    id: u64,
    target: Target,
    denied: Pin<Box<WaitForCancellationFutureOwned>>,
    idle: Pin<Box<Sleep>>,
    pause: Option<Pin<Box<Sleep>>>,
    cut: Option<Cut>,
    up: u64,
    down: u64,
    at: Timestamp,
    began: Instant,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, target: Target, rules: Rules) -> Self {
        let (id, cut) = rules.open.enter(&target);
        Self {
            stream,
            id,
            target,
            denied: Box::pin(cut.cancelled_owned()),
            idle: Box::pin(sleep(rules.idle)),
            pause: None,
            cut: None,
            up: 0,
            down: 0,
            at: Timestamp::now(),
            began: Instant::now(),
            rules,
        }
    }

    /// Waits until the other side has said something, or gone.
    pub(super) async fn speaks(&self) {
        // An error here is one on the next read, too.
        drop(self.stream.readable().await);
    }

    /// Ready where bytes may move.
    fn may_move(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(cut) = self.cut {
            return Poll::Ready(Err(io::Error::other(cut)));
        }
        if self.denied.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(self.end(Cut::Denied)));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(Ok(()))
    }

    /// What a move of bytes came to, `moved` being how many they were.
    fn came_to<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
        moved: impl FnOnce(&mut Self, &T) -> usize,
    ) -> Poll<io::Result<T>> {
        let Poll::Ready(result) = result else {
            ready!(self.idle.as_mut().poll(cx));
            return Poll::Ready(Err(self.end(Cut::Idle)));
        };
        let value = result?;
        let bytes = moved(self, &value);
        if bytes > 0 {
            self.idle.as_mut().reset(Instant::now() + self.rules.idle);
            match self.rules.meter.take(bytes, Instant::now()) {
                Ok(wait) => self.pause = wait.map(|wait| Box::pin(sleep_until(Instant::now() + wait))),
                Err(cut) => return Poll::Ready(Err(self.end(cut))),
            }
        }
        Poll::Ready(Ok(value))
    }

    fn end(&mut self, cut: Cut) -> io::Error {
        self.cut = Some(cut);
        io::Error::other(cut)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.may_move(cx))?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.came_to(cx, read, |wire, ()| {
            let bytes = buf.filled().len() - before;
            wire.down += bytes as u64;
            bytes
        })
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.may_move(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.came_to(cx, written, |wire, bytes| {
            wire.up += *bytes as u64;
            *bytes
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.rules.open.leave(self.id);
        self.rules.journal.told(Event {
            at: self.at,
            target: Some(self.target.clone()),
            outcome: self.cut.map_or(Outcome::Allowed, Outcome::Cut),
            up: self.up,
            down: self.down,
            took: self.began.elapsed(),
        });
    }
}
