//! The way out: what connects to the proxy's port on the loopback talks to the one socket that leads outside.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    shutdown, socket_with, sockopt,
};

use super::owner::Owner;
use super::room::room;

/// Connections that may go through at once.
const MAX_PAIRS: usize = 256;

/// Bytes of one direction that are on their way.
const CHUNK: usize = 32 << 10;

/// The port, and what goes through it.
#[derive(Debug)]
pub struct Relay {
    listener: OwnedFd,
    socket: PathBuf,
    /// Whose the socket is; without one, whose this process is.
    user: Option<u32>,
    pairs: Vec<Pair>,
}

/// What a descriptor of the relay's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Listener,
    Pair(usize),
}

#[derive(Debug)]
struct Pair {
    inside: OwnedFd,
    outside: OwnedFd,
    outward: Flow,
    inward: Flow,
}

#[derive(Debug)]
struct Flow {
    bytes: Vec<u8>,
    sent: usize,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// No more comes; what is here is still to be sent.
    Ending,
    Over,
}

/// One end is gone.
struct Broken;

impl Relay {
    /// Listens, where there is a socket that leads outside.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn listen(socket: &Path, port: u16, user: Option<u32>) -> io::Result<Option<Self>> {
        if !socket.exists() {
            return Ok(None);
        }
        let listener = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        listen(&listener, 128)?;
        Ok(Some(Self { listener, socket: socket.to_owned(), user, pairs: Vec::new() }))
    }

    pub fn interests(&self) -> Vec<(Part, BorrowedFd<'_>, PollFlags)> {
        let mut all = Vec::new();
        if self.pairs.len() < MAX_PAIRS {
            all.push((Part::Listener, self.listener.as_fd(), PollFlags::IN));
        }
        for (at, pair) in self.pairs.iter().enumerate() {
            let sides =
                [(&pair.inside, &pair.outward, &pair.inward), (&pair.outside, &pair.inward, &pair.outward)];
            for (fd, from, to) in sides {
                let mut flags = PollFlags::empty();
                if from.stage == Stage::Open && from.bytes.is_empty() {
                    flags |= PollFlags::IN;
                }
                if !to.bytes.is_empty() {
                    flags |= PollFlags::OUT;
                }
                if !flags.is_empty() {
                    all.push((Part::Pair(at), fd.as_fd(), flags));
                }
            }
        }
        all
    }

    /// Does what can be done for those parts.
    pub fn turn(&mut self, parts: &[Part]) {
        let mut over = Vec::new();
        for part in parts {
            match part {
                Part::Listener => {}
                Part::Pair(at) => {
                    let Some(pair) = self.pairs.get_mut(*at) else { continue };
                    let gone = pair.turn().is_err();
                    if (gone || pair.outward.stage == Stage::Over && pair.inward.stage == Stage::Over)
                        && !over.contains(at)
                    {
                        over.push(*at);
                    }
                }
            }
        }
        over.sort_unstable();
        for at in over.into_iter().rev() {
            self.pairs.swap_remove(at);
        }
        if parts.contains(&Part::Listener) {
            self.accept();
        }
    }

    /// Connections whose other end cannot be had are closed.
    fn accept(&mut self) {
        while self.pairs.len() < MAX_PAIRS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(inside) = accept_with(&self.listener, flags) else { return };
            let outside = SocketAddrUnix::new(&self.socket).and_then(|address| {
                let outside = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                let _owner = Owner::become_user(self.user);
                connect(&outside, &address)?;
                Ok(outside)
            });
            if let Ok(outside) = outside {
                self.pairs.push(Pair { inside, outside, outward: Flow::new(), inward: Flow::new() });
            }
        }
    }
}

impl Pair {
    fn turn(&mut self) -> Result<(), Broken> {
        self.outward.turn(&self.inside, &self.outside)?;
        self.inward.turn(&self.outside, &self.inside)
    }
}

impl Flow {
    fn new() -> Self {
        Self { bytes: Vec::new(), sent: 0, stage: Stage::Open }
    }

    fn turn(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Broken> {
        if self.bytes.is_empty() && self.stage == Stage::Open {
            let mut room = room(CHUNK);
            match rustix::io::read(from, &mut *room) {
                Ok(([], _)) => self.stage = Stage::Ending,
                Ok((bytes, _)) => self.bytes.extend_from_slice(bytes),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Err(Broken),
            }
        }
        while self.sent < self.bytes.len() {
            match rustix::io::write(to, &self.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Broken),
            }
        }
        // What waits for nothing keeps no memory.
        self.bytes = Vec::new();
        self.sent = 0;
        if self.stage == Stage::Ending {
            self.stage = Stage::Over;
            shutdown(to, Shutdown::Write).map_err(|_| Broken)?;
        }
        Ok(())
    }
}
