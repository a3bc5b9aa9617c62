//! The bounds of realtime.

use std::time::Duration;

use kernel::{LimitInfo, LimitScope};

/// Bounds for one process and for each of its environments, connections and channels.
#[derive(Debug, Clone)]
pub struct RealtimeLimits {
    /// Connections of one environment.
    pub connections: usize,
    /// Connections from one network, over all environments.
    pub connections_of_client: usize,
    /// Subscriptions of one connection.
    pub subscriptions: usize,
    /// Subscriptions from one network, over all environments: each may be asked about by itself when something changes.
    pub subscriptions_of_client: usize,
    /// Channels that one connection is in.
    pub channels: usize,
    /// Connections that are in one channel.
    pub members: usize,
    /// Messages that wait for one reader; a reader that lets more wait is cut.
    pub waiting: usize,
    /// How many bytes they may be.
    pub waiting_bytes: usize,
    /// How many bytes may wait for all readers; beyond that whoever lets a sixteenth of `waiting_bytes` wait is cut.
    pub waiting_bytes_in_all: usize,
    /// The largest message that a client sends, in bytes.
    pub message_bytes: usize,
    /// The largest state of a member of a channel, in bytes of JSON.
    pub presence_bytes: usize,
    /// How many messages a client may send at once, and in each second after that; a large one counts once more for each
    /// 8 KiB.
    pub messages: u32,
    /// How long a client that has connected may take to say who it is.
    pub hello: Duration,
    /// How long one write to a client may take.
    pub write: Duration,
    /// How often something is sent where nothing happens.
    pub beat: Duration,
    /// How long a WebSocket may be silent, answers to pings included.
    pub idle: Duration,
    /// How long a ticket can be used.
    pub ticket: Duration,
    /// Tickets of one environment that are kept in mind.
    pub tickets: usize,
    /// The same of one network; with one more the oldest goes.
    pub tickets_of_client: usize,
    /// How long changes are kept where nobody is connected any more, for those who come back.
    pub rest: Duration,
}

impl RealtimeLimits {
    /// What is said of a bound on how many are open at once: one that is left is known to be gone when it has been silent
    /// for so long.
    pub(super) fn full(&self, name: &'static str, scope: LimitScope, most: usize) -> LimitInfo {
        let unit = if name.ends_with("subscriptions") { "subscriptions" } else { "connections" };
        LimitInfo::new(name, scope, most as u64, unit).reset(self.idle.as_secs())
    }
}

impl Default for RealtimeLimits {
    fn default() -> Self {
        Self {
            connections: 2_000,
            connections_of_client: 500,
            subscriptions: 50,
            subscriptions_of_client: 2_000,
            channels: 50,
            members: 1_000,
            waiting: 1_000,
            waiting_bytes: 4 << 20,
            waiting_bytes_in_all: 256 << 20,
            message_bytes: 64 << 10,
            presence_bytes: 2 << 10,
            messages: 100,
            hello: Duration::from_secs(10),
            write: Duration::from_secs(10),
            beat: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            ticket: Duration::from_secs(30),
            tickets: 10_000,
            tickets_of_client: 500,
            rest: Duration::from_secs(60),
        }
    }
}
