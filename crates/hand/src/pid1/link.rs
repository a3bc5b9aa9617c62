//! The one connection: frames in, frames out, neither ever waited for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::Serialize;

use super::room::room;
use crate::wire::{Bad, Cause, Decoder, Failure, Frame, Kind, encode};

/// Above this much unsent, no output of commands is taken.
const CONGESTED: usize = 1 << 20;

/// Above this much unsent, no requests are taken either.
const FLOODED: usize = 8 << 20;

/// Bytes taken in one go.
const CHUNK: usize = 64 << 10;

/// The connection is gone, and with it the reason for all that runs.
#[derive(Debug)]
pub struct Gone;

/// The connection.
pub struct Link {
    /// `None` once it is closed.
    socket: Option<OwnedFd>,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
}

impl Link {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket: Some(socket), decoder: Decoder::default(), out: Vec::new(), sent: 0 }
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    pub fn close(&mut self) {
        self.socket = None;
    }

    /// Whether there is something to send.
    pub fn pending(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Whether output of commands should wait.
    pub fn congested(&self) -> bool {
        self.out.len() - self.sent > CONGESTED
    }

    /// Whether requests should wait.
    pub fn flooded(&self) -> bool {
        self.out.len() - self.sent > FLOODED
    }

    /// Takes what has come.
    pub fn receive(&mut self) -> Result<(), Gone> {
        let mut room = room(CHUNK);
        match rustix::net::recv(self.socket.as_ref().ok_or(Gone)?, &mut *room, RecvFlags::DONTWAIT) {
            Ok((([], _), _)) => Err(Gone),
            Ok(((bytes, _), _)) => {
                self.decoder.feed(bytes);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    /// The next frame of what has come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Bad> {
        self.decoder.next_frame()
    }

    /// Sends as much as goes.
    pub fn flush(&mut self) -> Result<(), Gone> {
        while self.pending() {
            match rustix::net::send(
                self.socket.as_ref().ok_or(Gone)?,
                &self.out[self.sent..],
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Gone),
            }
        }
        if !self.pending() {
            self.out.clear();
            self.sent = 0;
            self.out.shrink_to(CHUNK);
        } else if self.sent > CONGESTED {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    pub fn send(&mut self, stream: u32, kind: Kind, payload: &[u8]) {
        encode(&mut self.out, stream, kind, payload);
    }

    /// Sends a message, or that it would be too long.
    pub fn say(&mut self, stream: u32, kind: Kind, message: &impl Serialize) {
        match serde_json::to_vec(message) {
            Ok(json) if json.len() <= crate::wire::MAX_PAYLOAD => self.send(stream, kind, &json),
            _ => self.fail(stream, Cause::Broken, "the answer is too long for one frame"),
        }
    }

    /// Ends a stream badly. Messages are cut to what a caller can read.
    pub fn fail(&mut self, stream: u32, cause: Cause, message: &str) {
        let failure = Failure { cause, message: message.chars().take(1_000).collect() };
        // Nothing in a failure can fail to become JSON.
        let json = serde_json::to_vec(&failure).unwrap_or_default();
        self.send(stream, Kind::Fail, &json);
    }

    /// Gives credit.
    pub fn grant(&mut self, stream: u32, kind: Kind, bytes: u32) {
        self.send(stream, kind, &bytes.to_le_bytes());
    }
}
