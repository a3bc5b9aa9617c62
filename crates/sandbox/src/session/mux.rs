//! Many streams over one connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use hand::wire::{
    Decoder, Event, Failure, Frame, Hello, Kind, MAX_PAYLOAD, Reply, Request, VERSION, WINDOW, encode,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};

use super::stream::{Reader, Stream};
use super::{Error, Result};

/// Events of a stream that nobody has taken; a hand that has more to say of one is broken.
const EVENTS: usize = 256;

/// Streams that may be open at once; the hand allows more.
const MAX_STREAMS: usize = 384;

/// The connection's near side.
#[derive(Debug, Clone)]
pub struct Mux(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    out: mpsc::UnboundedSender<Vec<u8>>,
    state: Mutex<State>,
    closed: watch::Receiver<bool>,
    /// Dropped with the last clone, which ends the task that reads.
    _alive: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    last: u32,
    streams: BTreeMap<u32, Entry>,
}

/// One stream, as the connection knows it.
#[derive(Debug)]
struct Entry {
    stdout: Channel,
    stderr: Channel,
    events: mpsc::Sender<Event>,
    done: Option<oneshot::Sender<Result<Reply>>>,
    /// Bytes that may be sent.
    credit: u32,
    writer: Option<Waker>,
}

/// Bytes in one direction.
#[derive(Debug)]
struct Channel {
    /// `None` after the hand has said that no more comes.
    to: Option<mpsc::UnboundedSender<Bytes>>,
    /// Bytes that the hand may still send.
    allowed: u32,
}

impl Mux {
    pub async fn open(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<Self> {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut decoder = Decoder::default();
        let hello = next(&mut read, &mut decoder).await?;
        if hello.kind != Kind::Hello || parse::<Hello>(&hello.payload)? != (Hello { version: VERSION }) {
            return Err(Error::Protocol("it does not say the version that was expected"));
        }
        let (out, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
        let (alive, mut dead) = oneshot::channel();
        let (closing, closed) = watch::channel(false);
        let mux = Self(Arc::new(Shared { out, state: Mutex::default(), closed, _alive: alive }));
        let weak = Arc::downgrade(&mux.0);
        tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                if write.write_all(&frame).await.is_err() || write.flush().await.is_err() {
                    break;
                }
            }
            // The hand ends when nothing more can come.
            let _ = write.shutdown().await;
        });
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    frame = next(&mut read, &mut decoder) => frame,
                    _ = &mut dead => break,
                };
                let Some(shared) = weak.upgrade() else { break };
                if let Err(error) = frame.and_then(|frame| Mux(Arc::clone(&shared)).take(frame)) {
                    if error != Error::Closed {
                        tracing::warn!(%error, "a sandbox's session is closed");
                    }
                    Mux(shared).close();
                    break;
                }
            }
            let _ = closing.send(true);
        });
        Ok(mux)
    }

    pub async fn closed(&self) {
        // The sender is gone only after it has said so.
        let _ = self.0.closed.clone().wait_for(|closed| *closed).await;
    }

    /// Begins a stream.
    pub fn open_stream(&self, request: &Request) -> Result<Stream> {
        let json = serde_json::to_vec(request).map_err(|_| Error::Protocol("the request is no JSON"))?;
        if json.len() > MAX_PAYLOAD {
            return Err(Error::TooLong { bytes: json.len() });
        }
        let (stdout_to, stdout) = mpsc::unbounded_channel();
        let (stderr_to, stderr) = mpsc::unbounded_channel();
        let (events_to, events) = mpsc::channel(EVENTS);
        let (done_to, done) = oneshot::channel();
        let mut state = self.state();
        if state.closed {
            return Err(Error::Closed);
        }
        if state.streams.len() >= MAX_STREAMS {
            let message = format!("{MAX_STREAMS} things are done in this sandbox at once");
            return Err(Error::Refused(Failure { cause: hand::wire::Cause::Busy, message }));
        }
        let id = (1..=u32::MAX)
            .map(|step| state.last.wrapping_add(step))
            .find(|id| *id != 0 && !state.streams.contains_key(id))
            .ok_or(Error::Closed)?;
        state.last = id;
        let channel = |to| Channel { to: Some(to), allowed: WINDOW };
        state.streams.insert(
            id,
            Entry {
                stdout: channel(stdout_to),
                stderr: channel(stderr_to),
                events: events_to,
                done: Some(done_to),
                credit: WINDOW,
                writer: None,
            },
        );
        drop(state);
        self.send(id, Kind::Open, &json);
        Ok(Stream::new(
            self.clone(),
            id,
            Reader::new(self.clone(), id, Kind::Data, stdout),
            Reader::new(self.clone(), id, Kind::ErrData, stderr),
            events,
            done,
        ))
    }

    pub fn send(&self, stream: u32, kind: Kind, payload: &[u8]) {
        let mut frame = Vec::new();
        encode(&mut frame, stream, kind, payload);
        // Where the task that writes is gone the one that reads ends every stream.
        let _ = self.0.out.send(frame);
    }

    /// Lets the hand send that many bytes more.
    pub fn grant(&self, stream: u32, kind: Kind, bytes: u32) {
        let mut state = self.state();
        let Some(entry) = state.streams.get_mut(&stream) else { return };
        let credit = if kind == Kind::Data {
            entry.stdout.allowed += bytes;
            Kind::Credit
        } else {
            entry.stderr.allowed += bytes;
            Kind::ErrCredit
        };
        drop(state);
        self.send(stream, credit, &bytes.to_le_bytes());
    }

    /// Takes credit for at most `wanted` bytes: none, and `waker` is woken when there is some, or an error where the
    /// stream has ended.
    pub fn take_credit(&self, stream: u32, wanted: usize, waker: &Waker) -> Result<usize> {
        let mut state = self.state();
        let entry = state.streams.get_mut(&stream).ok_or(Error::Closed)?;
        let taken = wanted.min(entry.credit as usize).min(MAX_PAYLOAD);
        entry.credit -= taken as u32;
        if taken == 0 {
            entry.writer = Some(waker.clone());
        }
        Ok(taken)
    }

    /// Whether the stream has not ended.
    pub fn is_open(&self, stream: u32) -> bool {
        self.state().streams.contains_key(&stream)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every stream.
    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for (_, entry) in std::mem::take(&mut state.streams) {
            entry.end(Err(Error::Closed));
        }
    }

    /// One frame from the hand.
    fn take(&self, frame: Frame) -> Result<()> {
        let Frame { stream, kind, payload } = frame;
        let mut state = self.state();
        let Some(entry) = state.streams.get_mut(&stream) else {
            return Err(Error::Protocol("it speaks of a stream that nobody has opened"));
        };
        match kind {
            Kind::Data | Kind::ErrData => {
                let channel = if kind == Kind::Data { &mut entry.stdout } else { &mut entry.stderr };
                let bytes = payload.len() as u32;
                channel.allowed =
                    channel.allowed.checked_sub(bytes).ok_or(Error::Protocol("it sends more than it may"))?;
                let to = channel.to.as_ref().ok_or(Error::Protocol("it sends more after the end"))?;
                if bytes > 0 && to.send(payload.into()).is_err() {
                    // Nobody reads it, so nobody else says that more may come.
                    drop(state);
                    self.grant(stream, kind, bytes);
                }
            }
            Kind::Credit => {
                let bytes =
                    payload.as_slice().try_into().map_err(|_| Error::Protocol("its credit is no number"))?;
                entry.credit = entry.credit.saturating_add(u32::from_le_bytes(bytes)).min(WINDOW);
                if let Some(writer) = entry.writer.take() {
                    writer.wake();
                }
            }
            Kind::Event => match entry.events.try_send(parse(&payload)?) {
                // Who does not wait for events does not want them.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(_)) => return Err(Error::Protocol("it says too much")),
            },
            Kind::Reply | Kind::Fail => {
                let done = match kind {
                    Kind::Reply => Ok(parse::<Reply>(&payload)?),
                    _ => Err(Error::Refused(parse::<Failure>(&payload)?)),
                };
                if let Some(entry) = state.streams.remove(&stream) {
                    entry.end(done);
                }
            }
            Kind::End => entry.stdout.to = None,
            Kind::Hello | Kind::Open | Kind::ErrCredit | Kind::Tell | Kind::Reset => {
                return Err(Error::Protocol("it says what it has no business to"));
            }
        }
        Ok(())
    }
}

impl Entry {
    fn end(mut self, done: Result<Reply>) {
        if let Some(to) = self.done.take() {
            // Whoever asked may have gone.
            let _ = to.send(done);
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// The next frame.
async fn next(read: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> Result<Frame> {
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(_) => return Err(Error::Protocol("it sends what is no frame")),
        }
        let mut buffer = [0; 16 << 10];
        match read.read(&mut buffer).await {
            Ok(0) | Err(_) => return Err(Error::Closed),
            Ok(count) => decoder.feed(&buffer[..count]),
        }
    }
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T> {
    serde_json::from_slice(payload).map_err(|_| Error::Protocol("it sends a message that is none"))
}
