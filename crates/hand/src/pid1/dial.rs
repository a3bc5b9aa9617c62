//! Connections from outside to ports on the loopback inside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, connect, shutdown, socket_with, sockopt,
};

use super::link::Link;
use super::process::Input;
use super::room::room;
use crate::wire::{Cause, Event, Kind, Reply, WINDOW};

/// Bytes taken in one go.
const CHUNK: usize = 64 << 10;

/// One connection.
#[derive(Debug)]
pub struct Dial {
    socket: OwnedFd,
    state: State,
    to: Input,
    /// Bytes that may be sent outside.
    credit: u32,
    reading: Way,
    writing: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not there yet; these addresses are left to try.
    Connecting {
        port: u16,
        last: Last,
    },
    Connected,
}

/// Whether there is another address to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

/// Whether bytes still go that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Over,
}

/// Whether the connection lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    On,
    /// The stream was told how it ended.
    Over,
}

impl Dial {
    /// Begins to connect: to 127.0.0.1, then to ::1, for servers listen on either.
    ///
    /// # Errors
    /// Where there is no room for a socket.
    pub fn begin(port: u16) -> io::Result<Self> {
        let first = start(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let (socket, last) = match first {
            Ok(socket) => (socket, Last::No),
            Err(_) => (start(IpAddr::V6(Ipv6Addr::LOCALHOST), port)?, Last::Yes),
        };
        let to = Input::new(Some(socket.try_clone()?));
        let state = State::Connecting { port, last };
        Ok(Self { socket, state, to, credit: WINDOW, reading: Way::Open, writing: Way::Open })
    }

    pub fn interest(&self, link: &Link) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        if matches!(self.state, State::Connecting { .. }) || self.to.interest().is_some() {
            flags |= PollFlags::OUT;
        }
        if self.state == State::Connected && self.reading == Way::Open && self.credit > 0 && !link.congested()
        {
            flags |= PollFlags::IN;
        }
        (!flags.is_empty()).then(|| (self.socket.as_fd(), flags))
    }

    pub fn grant(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes).min(WINDOW);
    }

    /// Takes bytes from outside; as [`Input::take`].
    pub fn take(&mut self, bytes: &[u8]) -> Option<u32> {
        if self.state == State::Connected { self.to.take(bytes) } else { self.to.hold(bytes) }
    }

    /// No more comes from outside.
    pub fn end(&mut self) {
        if self.state == State::Connected {
            self.to.end();
            self.finish_writing();
        } else {
            self.to.end_later();
        }
    }

    /// Does what can be done.
    pub fn turn(&mut self, stream: u32, ready: PollFlags, link: &mut Link) -> Life {
        if let State::Connecting { port, last } = self.state {
            let refused = match sockopt::socket_error(&self.socket) {
                Ok(Ok(())) => None,
                Ok(Err(errno)) | Err(errno) => Some(errno),
            };
            match (refused, last) {
                (None, _) => {
                    self.state = State::Connected;
                    link.say(stream, Kind::Event, &Event::Connected);
                    let more = self.to.write();
                    if more > 0 {
                        link.grant(stream, Kind::Credit, more);
                    }
                    self.finish_writing();
                }
                (Some(_), Last::No) => return self.try_other(stream, port, link),
                (Some(errno), Last::Yes) => return refuse(stream, port, errno, link),
            }
        }
        if ready.intersects(PollFlags::OUT) {
            let more = self.to.write();
            if more > 0 {
                link.grant(stream, Kind::Credit, more);
            }
            self.finish_writing();
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.reading == Way::Open {
            self.read(stream, link);
        }
        self.life(stream, link)
    }

    /// Whether anything is left to be done; says the end where not.
    pub fn life(&self, stream: u32, link: &mut Link) -> Life {
        if self.reading == Way::Over && self.writing == Way::Over {
            link.say(stream, Kind::Reply, &Reply::Done);
            return Life::Over;
        }
        Life::On
    }

    fn read(&mut self, stream: u32, link: &mut Link) {
        let mut room = room(CHUNK);
        let limit = CHUNK.min(self.credit as usize);
        if limit == 0 {
            return;
        }
        match rustix::io::read(&self.socket, &mut room[..limit]) {
            Ok(([], _)) => {
                self.reading = Way::Over;
                link.send(stream, Kind::End, &[]);
            }
            Ok((bytes, _)) => {
                self.credit -= bytes.len() as u32;
                link.send(stream, Kind::Data, bytes);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Reset: nobody takes anything any more either.
            Err(_) => {
                self.to.close();
                (self.reading, self.writing) = (Way::Over, Way::Over);
            }
        }
    }

    fn finish_writing(&mut self) {
        if self.to.is_closed() && self.writing == Way::Open {
            self.writing = Way::Over;
            // It may be gone altogether.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
    }

    fn try_other(&mut self, stream: u32, port: u16, link: &mut Link) -> Life {
        let other =
            start(IpAddr::V6(Ipv6Addr::LOCALHOST), port).and_then(|socket| Ok((socket.try_clone()?, socket)));
        match other {
            Ok((copy, socket)) => {
                self.socket = socket;
                self.to.redirect(copy);
                self.state = State::Connecting { port, last: Last::Yes };
                Life::On
            }
            Err(error) => refuse(stream, port, Errno::from_io_error(&error).unwrap_or(Errno::IO), link),
        }
    }
}

/// Says that a connection does not come about.
pub fn refuse(stream: u32, port: u16, errno: Errno, link: &mut Link) -> Life {
    let cause = match errno {
        Errno::CONNREFUSED | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL => Cause::NotFound,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Cause::Busy,
        Errno::ACCESS | Errno::PERM => Cause::Denied,
        _ => Cause::Broken,
    };
    link.fail(stream, cause, &format!("nothing listens on port {port}: {}", io::Error::from(errno)));
    Life::Over
}

fn start(address: IpAddr, port: u16) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match connect(&socket, &SocketAddr::new(address, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}
