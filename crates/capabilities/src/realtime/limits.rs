//! The bounds of realtime.

use std::time::Duration;

use kernel::LimitInfo;

/// Bounds for one process and for each of its environments, connections and channels.
#[derive(Debug, Clone)]
pub struct RealtimeLimits {
    /// Connections of one environment.
    pub connections: usize,
    /// Connections from one network address, over all environments.
    pub connections_of_client: usize,
    /// Subscriptions of one connection.
    pub subscriptions: usize,
    /// Channels that one connection is in.
    pub channels: usize,
    /// Connections that are in one channel.
    pub members: usize,
    /// Messages that wait for one reader; a reader that lets more wait is cut.
    pub waiting: usize,
    /// How many bytes they may be.
    pub waiting_bytes: usize,
    /// The largest message that a client sends, in bytes.
    pub message_bytes: usize,
    /// The largest state of a member of a channel, in bytes of JSON.
    pub presence_bytes: usize,
    /// How many messages a client may send at once, and in each second after that.
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
    /// Tickets that are kept in mind.
    pub tickets: usize,
    /// How long changes are kept where nobody is connected any more, for those who come back.
    pub rest: Duration,
}

impl RealtimeLimits {
    /// What is said of a bound on how many are open at once: one that is left is known to be gone when it has been silent
    /// for so long.
    pub(super) fn full(&self, name: &'static str, quota: usize) -> LimitInfo {
        let seconds = self.idle.as_secs();
        LimitInfo { name, quota: quota as u64, window_s: seconds, remaining: 0, reset_s: seconds }
    }
}

impl Default for RealtimeLimits {
    fn default() -> Self {
        Self {
            connections: 2_000,
            connections_of_client: 500,
            subscriptions: 50,
            channels: 50,
            members: 1_000,
            waiting: 1_000,
            waiting_bytes: 1 << 20,
            message_bytes: 64 << 10,
            presence_bytes: 2 << 10,
            messages: 100,
            hello: Duration::from_secs(10),
            write: Duration::from_secs(10),
            beat: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            ticket: Duration::from_secs(30),
            tickets: 10_000,
            rest: Duration::from_secs(60),
        }
    }
}
