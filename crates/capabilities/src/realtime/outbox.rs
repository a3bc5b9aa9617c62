//! What waits to be sent to one client: bounded, and ended with a reason.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::RealtimeLimits;
use crate::access::Subject;

/// A message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// From where the client can go on after this one; none where that has not changed.
    pub at: Option<String>,
    /// The message as JSON; empty where there is only a place to go on from.
    pub json: Arc<str>,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client reads more slowly than messages come.
    SlowConsumer,
    /// The session has ended.
    SessionEnded,
    /// The user has changed, or the session has.
    SessionChanged,
    /// The access token has expired.
    TokenExpired,
    /// The program stops.
    Stopping,
    /// The environment is deleted.
    Gone,
    /// Nothing came for too long.
    Idle,
    /// The client has said something that cannot be understood.
    Protocol,
}

impl End {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            End::SlowConsumer => "slow_consumer",
            End::SessionEnded => "session_ended",
            End::SessionChanged => "session_changed",
            End::TokenExpired => "token_expired",
            End::Stopping => "stopping",
            End::Gone => "gone",
            End::Idle => "idle",
            End::Protocol => "protocol",
        }
    }

    /// What the client does next.
    const fn hint(self) -> &'static str {
        match self {
            End::SlowConsumer => {
                "connect again, and go on after the last message; read faster or subscribe to less"
            }
            End::SessionEnded => "log in again",
            End::SessionChanged => "connect again, with a new access token if this one does not hold",
            End::TokenExpired => "get another token with /_/auth/refresh, and connect again",
            End::Stopping => "connect again, and go on after the last message",
            End::Gone => "the app is not there any more",
            End::Idle => "connect again, and answer pings",
            End::Protocol => "send one JSON object in each message, as the documents describe it",
        }
    }

    /// The last message.
    pub(super) fn frame(self) -> Frame {
        Frame {
            at: None,
            json: json!({ "type": "end", "reason": self.as_str(), "hint": self.hint() }).to_string().into(),
        }
    }
}

pub(super) struct Outbox {
    state: Mutex<State>,
    news: Notify,
    /// Told of each message that was taken.
    room: Notify,
    ended: CancellationToken,
    waiting: usize,
    waiting_bytes: usize,
    /// What waits in all outboxes of the process.
    all: Arc<Waiting>,
    /// Whose it is, as a hash.
    pub who: u64,
}

/// How many bytes wait for all clients, and may.
#[derive(Debug)]
pub(super) struct Waiting {
    most: usize,
    bytes: AtomicUsize,
}

impl Waiting {
    pub fn new(most: usize) -> Self {
        Self { most, bytes: AtomicUsize::new(0) }
    }
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    end: Option<End>,
    is_said: bool,
}

impl Outbox {
    pub fn new(limits: &RealtimeLimits, all: &Arc<Waiting>, whose: &Subject) -> Self {
        let mut who = DefaultHasher::new();
        format!("{whose:?}").hash(&mut who);
        Self {
            state: Mutex::default(),
            news: Notify::new(),
            room: Notify::new(),
            ended: CancellationToken::new(),
            waiting: limits.waiting,
            waiting_bytes: limits.waiting_bytes,
            all: Arc::clone(all),
            who: who.finish(),
        }
    }

    /// Adds a message; a client for whom too many wait is cut, and what waits is dropped: it can be had again.
    pub fn push(&self, frame: Frame) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        state.bytes += frame.json.len();
        let all = self.all.bytes.fetch_add(frame.json.len(), Ordering::Relaxed) + frame.json.len();
        state.frames.push_back(frame);
        // One message alone may be as large as a row. Where too much waits in all, whoever reads has little of it.
        let most = if all > self.all.most { self.waiting_bytes / 16 } else { self.waiting_bytes };
        let too_much = state.bytes > most && state.frames.len() > 1;
        if state.frames.len() > self.waiting || too_much {
            self.finish(state, End::SlowConsumer);
        } else {
            drop(state);
            self.news.notify_one();
        }
    }

    /// Ends it. The first reason counts.
    pub fn end(&self, end: End) {
        let state = self.state();
        if state.end.is_none() {
            self.finish(state, end);
        }
    }

    fn finish(&self, mut state: MutexGuard<'_, State>, end: End) {
        state.end = Some(end);
        state.frames = VecDeque::new();
        self.all.bytes.fetch_sub(std::mem::take(&mut state.bytes), Ordering::Relaxed);
        drop(state);
        self.ended.cancel();
        self.news.notify_one();
        self.room.notify_one();
    }

    /// Cancelled when it is over.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Waits until there is room for what can be told as slowly as the client reads; whether there is, or it is over.
    pub async fn has_room(&self) -> bool {
        loop {
            {
                let state = self.state();
                if state.end.is_some() {
                    return false;
                }
                if state.frames.len() <= self.waiting / 4 && state.bytes <= self.waiting_bytes / 4 {
                    return true;
                }
            }
            self.room.notified().await;
        }
    }

    /// The next message, the reason at last, then none.
    pub async fn next(&self) -> Option<Frame> {
        loop {
            {
                let mut state = self.state();
                if let Some(frame) = state.frames.pop_front() {
                    state.bytes -= frame.json.len();
                    self.all.bytes.fetch_sub(frame.json.len(), Ordering::Relaxed);
                    self.room.notify_one();
                    return Some(frame);
                }
                if let Some(end) = state.end {
                    return (!std::mem::replace(&mut state.is_said, true)).then(|| end.frame());
                }
            }
            self.news.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.state().bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(json: &str) -> Frame {
        Frame { at: None, json: json.into() }
    }

    fn outbox(limits: &RealtimeLimits) -> Outbox {
        Outbox::new(limits, &Arc::new(Waiting::new(limits.waiting_bytes_in_all)), &Subject::Visitor)
    }

    #[tokio::test]
    async fn where_too_much_waits_in_all_those_are_cut_who_read_nothing() {
        let limits = RealtimeLimits { waiting_bytes: 160, ..RealtimeLimits::default() };
        let all = Arc::new(Waiting::new(100));
        let [idle, busy] = [0; 2].map(|_| Outbox::new(&limits, &all, &Subject::Visitor));
        for _ in 0..30 {
            idle.push(frame("12345"));
            busy.push(frame("12345"));
            assert!(busy.next().await.is_some());
        }
        assert!(idle.ended().is_cancelled() && !busy.ended().is_cancelled());
        drop((idle, busy));
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_joins_the_fullest_channel_is_told_who_is_there() {
        let limits = RealtimeLimits::default();
        assert!(limits.members * (limits.presence_bytes + 100) <= limits.waiting_bytes);
    }

    #[tokio::test]
    async fn messages_come_in_order_and_the_reason_last() {
        let outbox = outbox(&RealtimeLimits::default());
        outbox.push(frame("1"));
        outbox.push(frame("2"));
        assert_eq!(outbox.next().await, Some(frame("1")));
        outbox.end(End::Stopping);
        outbox.end(End::Gone);
        outbox.push(frame("3"));
        assert_eq!(outbox.next().await, Some(End::Stopping.frame()));
        assert_eq!(outbox.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_who_lets_too_much_wait_is_cut() {
        for (limits, frames) in [
            (RealtimeLimits { waiting: 2, ..RealtimeLimits::default() }, ["a", "b", "c"]),
            (RealtimeLimits { waiting_bytes: 3, ..RealtimeLimits::default() }, ["a", "b", "cd"]),
            (RealtimeLimits { waiting_bytes: 3, ..RealtimeLimits::default() }, ["", "large", "b"]),
        ] {
            let outbox = outbox(&limits);
            frames.into_iter().for_each(|json| outbox.push(frame(json)));
            assert!(outbox.ended().is_cancelled());
            assert_eq!(outbox.next().await, Some(End::SlowConsumer.frame()));
            assert_eq!(outbox.next().await, None);
        }
    }
}
