//! The loop: who is ready, what was asked, what is due.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Signal;

use super::background::Attached;
use super::dial::{self, Dial, Life};
use super::groups::Groups;
use super::link::{Gone, Link};
use super::owner;
use super::poll;
use super::process::{Process, Stage};
use super::relay::{Part, Relay};
use crate::jail::Confinement;
use crate::wire::{Bad, Cause, Event, Frame, Hello, Kind, Outcome, Reply, Request, State, Tell, VERSION};

/// Streams that may be open at once.
pub const MAX_STREAMS: usize = 512;

/// Everything the first process knows.
pub struct Server {
    pub link: Link,
    pub signals: OwnedFd,
    pub confinement: Confinement,
    /// Variables of every command.
    pub base: BTreeMap<String, String>,
    /// Variables of whoever the sandbox is for.
    pub activated: BTreeMap<String, String>,
    /// This program, for work with files.
    pub own: File,
    /// Commands by their handles.
    pub processes: BTreeMap<u32, Process>,
    /// Streams that wait for a command, and its handle.
    pub waiting: BTreeMap<u32, u32>,
    pub last_handle: u32,
    /// Files of output of commands that are forgotten, the oldest first.
    pub spilled: VecDeque<String>,
    /// Streams that read what commands in the background write.
    pub attached: BTreeMap<u32, Attached>,
    /// Streams that are connections to ports inside.
    pub dials: BTreeMap<u32, Dial>,
    pub relay: Option<Relay>,
    pub places: Places,
    /// Of commands, where the kernel is the sandbox's own.
    pub groups: Option<Groups>,
}

/// Where this process finds and puts what is not a command's.
#[derive(Debug)]
pub struct Places {
    /// The directory of the sockets and the run token.
    pub run: PathBuf,
    /// Where output goes that is more than is kept.
    pub output: PathBuf,
    /// The port from which the way out leads.
    pub proxy: u16,
}

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Link,
    Signals,
    Reports(u32),
    Stdin(u32),
    Stdout(u32),
    Stderr(u32),
    Dial(u32),
    Relay(Part),
}

impl Server {
    pub fn new(
        socket: OwnedFd,
        signals: OwnedFd,
        confinement: Confinement,
        base: Vec<(String, String)>,
        places: Places,
    ) -> io::Result<Self> {
        let relay = Relay::listen(&places.run.join("egress.sock"), places.proxy, confinement.user)?;
        Ok(Self {
            link: Link::new(socket),
            signals,
            base: base.into_iter().collect(),
            activated: BTreeMap::new(),
            own: File::open("/proc/self/exe")?,
            processes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_handle: 0,
            spilled: VecDeque::new(),
            attached: BTreeMap::new(),
            dials: BTreeMap::new(),
            groups: confinement.pids.map(Groups::make).transpose()?,
            confinement,
            relay,
            places,
        })
    }

    /// Serves until the connection closes, then ends all that runs.
    pub fn run(mut self) {
        self.link.say(0, Kind::Hello, &Hello { version: VERSION });
        while self.turn().is_ok() {}
        self.link.close();
        // The end of the first process of a namespace is the end of all.
        if rustix::process::getpid().as_raw_nonzero().get() == 1 {
            return;
        }
        for process in self.processes.values_mut() {
            process.kill();
        }
        while self.processes.values().any(|process| process.reports.is_some()) {
            let until = self.due();
            self.wait(until);
        }
    }

    /// Waits once, and does what is to be done.
    fn turn(&mut self) -> Result<(), Gone> {
        self.link.flush()?;
        let until = self.due();
        for source in self.wait(until) {
            if source == Source::Link {
                self.link.receive()?;
            }
        }
        loop {
            match self.link.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => self.take(frame),
                Err(bad) => {
                    let (Bad::TooLong { stream, .. } | Bad::UnknownKind { stream, .. }) = bad;
                    self.link.fail(stream, Cause::Invalid, &bad.to_string());
                }
            }
        }
        self.finish();
        Ok(())
    }

    /// Waits, serves commands, and says what else is ready.
    fn wait(&mut self, until: Option<Instant>) -> Vec<Source> {
        let ready = poll::wait(self.sources(), until);
        let mut relayed = Vec::new();
        for (source, events) in &ready {
            match *source {
                Source::Link => {}
                Source::Relay(part) => relayed.push(part),
                Source::Dial(stream) => {
                    if let Some(dial) = self.dials.get_mut(&stream)
                        && dial.turn(stream, *events, &mut self.link) == Life::Over
                    {
                        self.dials.remove(&stream);
                    }
                }
                Source::Signals => self.reap(),
                Source::Reports(handle) => self.reports(handle),
                Source::Stdin(handle) => self.write_stdin(handle),
                Source::Stdout(handle) => {
                    if let Some(process) = self.processes.get_mut(&handle) {
                        process.stdout.read(process.stream, &mut self.link);
                    }
                }
                Source::Stderr(handle) => {
                    if let Some(process) = self.processes.get_mut(&handle) {
                        process.stderr.read(process.stream, &mut self.link);
                    }
                }
            }
        }
        if let (Some(relay), false) = (&mut self.relay, relayed.is_empty()) {
            relay.turn(&relayed);
        }
        let now = Instant::now();
        for process in self.processes.values_mut() {
            if process.deadline.is_some_and(|deadline| deadline <= now) {
                process.deadline = None;
                process.timed_out = true;
                process.kill();
            }
            if process.kill_at.is_some_and(|at| at <= now) {
                process.kill();
            }
        }
        ready.into_iter().map(|(source, _)| source).collect()
    }

    fn sources(&self) -> Vec<(Source, PollFd<'_>)> {
        let mut link = PollFlags::empty();
        if !self.link.flooded() {
            link |= PollFlags::IN;
        }
        if self.link.pending() {
            link |= PollFlags::OUT;
        }
        let mut sources = vec![(Source::Signals, PollFd::new(&self.signals, PollFlags::IN))];
        if let Some(fd) = self.link.fd() {
            sources.push((Source::Link, PollFd::from_borrowed_fd(fd, link)));
        }
        for (handle, process) in &self.processes {
            let wanted = [
                (Source::Reports(*handle), process.reports.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN))),
                (Source::Stdin(*handle), process.stdin.interest()),
                (Source::Stdout(*handle), process.stdout.interest(&self.link)),
                (Source::Stderr(*handle), process.stderr.interest(&self.link)),
            ];
            for (source, interest) in wanted {
                if let Some((fd, flags)) = interest {
                    sources.push((source, PollFd::from_borrowed_fd(fd, flags)));
                }
            }
        }
        for (stream, dial) in &self.dials {
            if let Some((fd, flags)) = dial.interest(&self.link) {
                sources.push((Source::Dial(*stream), PollFd::from_borrowed_fd(fd, flags)));
            }
        }
        for (part, fd, flags) in self.relay.iter().flat_map(Relay::interests) {
            sources.push((Source::Relay(part), PollFd::from_borrowed_fd(fd, flags)));
        }
        sources
    }

    /// The next moment at which something is to be done that no descriptor tells.
    fn due(&self) -> Option<Instant> {
        let moments = |process: &Process| [process.deadline, process.kill_at, process.last_words()];
        self.processes.values().flat_map(moments).flatten().min()
    }

    fn take(&mut self, frame: Frame) {
        let Frame { stream, kind, payload } = frame;
        match kind {
            Kind::Open => match serde_json::from_slice(&payload) {
                _ if stream == 0 || self.is_open(stream) => {
                    self.link.fail(stream, Cause::Invalid, "the stream is in use");
                }
                _ if self.streams() >= MAX_STREAMS => {
                    self.link.fail(stream, Cause::Busy, "too many streams are open");
                }
                Ok(request) => self.open(stream, request),
                Err(error) => self.link.fail(stream, Cause::Invalid, &format!("not a request: {error}")),
            },
            Kind::Tell => match serde_json::from_slice(&payload) {
                Ok(tell) => self.tell(stream, tell),
                Err(error) => self.abandon(stream, Cause::Invalid, &format!("not an instruction: {error}")),
            },
            Kind::Data => self.data(stream, &payload),
            Kind::Credit | Kind::ErrCredit => match payload.as_slice().try_into().map(u32::from_le_bytes) {
                Ok(bytes) => self.grant(stream, kind, bytes),
                Err(_) => self.abandon(stream, Cause::Invalid, "credit is four bytes"),
            },
            Kind::End => self.end(stream),
            Kind::Reset => self.abandon(stream, Cause::Reset, "the stream was given up"),
            Kind::Hello | Kind::ErrData | Kind::Event | Kind::Reply | Kind::Fail => {
                self.abandon(stream, Cause::Invalid, "only the hand says that");
            }
        }
    }

    fn open(&mut self, stream: u32, request: Request) {
        match request {
            Request::Exec(exec) => self.exec(stream, &exec),
            Request::Attach { handle, from } => self.attach(stream, handle, from),
            Request::Processes => self.list(stream),
            Request::Kill { handle, signal } => self.kill(stream, handle, signal),
            Request::Forget { handle } => self.forget(stream, handle),
            Request::Dial { port } => match Dial::begin(port) {
                Ok(dial) => {
                    self.dials.insert(stream, dial);
                }
                Err(error) => {
                    dial::refuse(
                        stream,
                        port,
                        Errno::from_io_error(&error).unwrap_or(Errno::IO),
                        &mut self.link,
                    );
                }
            },
            Request::Ports => self.ports(stream),
            Request::Stats => self.stats(stream),
            Request::Activate { env, token } => self.activate(stream, env, token.as_deref()),
        }
    }

    /// Makes the sandbox somebody's.
    fn activate(&mut self, stream: u32, env: BTreeMap<String, String>, token: Option<&str>) {
        if let Some(token) = token {
            let path = self.places.run.join("token");
            if let Err(error) = owner::replace(&path, self.confinement.user, 0o400, token.as_bytes()) {
                self.link.fail(stream, Cause::Broken, &format!("the run token cannot be written: {error}"));
                return;
            }
        }
        self.activated = env;
        self.link.say(stream, Kind::Reply, &Reply::Done);
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.waiting.len() + self.attached.len() + self.dials.len()
    }

    fn is_open(&self, stream: u32) -> bool {
        self.waiting.contains_key(&stream)
            || self.attached.contains_key(&stream)
            || self.dials.contains_key(&stream)
    }

    /// The port of the way out, where there is one.
    pub fn proxy_port(&self) -> Option<u16> {
        self.relay.as_ref().map(|_| self.places.proxy)
    }

    /// The command that the stream is about. Frames for a stream that has ended may still be on their way.
    fn process(&mut self, stream: u32) -> Option<&mut Process> {
        let attached = self.attached.get(&stream).map(|reader| &reader.handle);
        self.processes.get_mut(self.waiting.get(&stream).or(attached)?)
    }

    fn tell(&mut self, stream: u32, tell: Tell) {
        let Some(process) = self.process(stream) else { return };
        match tell {
            Tell::Signal(number) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    process.signal(signal);
                }
            }
            Tell::Resize(size) => process.resize(size),
            Tell::Last => {
                let (stdout, stderr) = (process.stdout.last(), process.stderr.last());
                self.link.say(stream, Kind::Event, &Event::Last { stdout, stderr });
            }
        }
    }

    fn data(&mut self, stream: u32, bytes: &[u8]) {
        let taken = if let Some(dial) = self.dials.get_mut(&stream) {
            dial.take(bytes)
        } else if let Some(process) = self.process(stream) {
            if process.writer != Some(stream) && !process.stdin.is_empty() {
                self.abandon(stream, Cause::Busy, "somebody else writes to this command");
                return;
            }
            process.writer = Some(stream);
            process.stdin.take(bytes)
        } else {
            return;
        };
        match taken {
            Some(0) => {}
            Some(more) => self.link.grant(stream, Kind::Credit, more),
            None => self.abandon(stream, Cause::Invalid, "more input than there was credit for"),
        }
    }

    fn end(&mut self, stream: u32) {
        if let Some(dial) = self.dials.get_mut(&stream) {
            dial.end();
            if dial.life(stream, &mut self.link) == Life::Over {
                self.dials.remove(&stream);
            }
        } else if let Some(process) = self.process(stream) {
            process.stdin.end();
        }
    }

    fn write_stdin(&mut self, handle: u32) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        let more = process.stdin.write();
        if let (Some(stream), 1..) = (process.writer, more)
            && self.is_open(stream)
        {
            self.link.grant(stream, Kind::Credit, more);
        }
    }

    fn grant(&mut self, stream: u32, kind: Kind, bytes: u32) {
        if let Some(dial) = self.dials.get_mut(&stream) {
            dial.grant(bytes);
        } else if let Some(reader) = self.attached.get_mut(&stream) {
            reader.grant(bytes);
        } else if let Some(process) = self.process(stream) {
            if kind == Kind::Credit { process.stdout.grant(bytes) } else { process.stderr.grant(bytes) }
        }
    }

    /// Ends a stream badly, and the command in the foreground that it was.
    pub fn abandon(&mut self, stream: u32, cause: Cause, message: &str) {
        if self.attached.remove(&stream).is_some() || self.dials.remove(&stream).is_some() {
            self.link.fail(stream, cause, message);
            return;
        }
        let Some(handle) = self.waiting.remove(&stream) else { return };
        self.link.fail(stream, cause, message);
        if let Some(process) = self.processes.get_mut(&handle) {
            process.stream = None;
            process.stdout.go_on();
            process.stderr.go_on();
            process.deadline = None;
            let outcome = match process.state() {
                State::Ended(outcome) => outcome,
                State::Running => Outcome::Signal(libc::SIGKILL),
            };
            process.stage = Stage::Left(outcome);
            // Dead before its input ends: it must not take an end for the end of what it was to be given.
            process.kill();
            process.stdin.close();
            if process.reports.is_none() {
                self.left(handle);
            }
        }
    }
}
