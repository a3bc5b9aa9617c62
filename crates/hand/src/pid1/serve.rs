//! The loop: who is ready, what was asked, what is due.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, WaitOptions};

use super::link::{Gone, Link};
use super::poll;
use super::process::{Process, Stage};
use super::spawn::{Report, Step};
use super::tree;
use crate::jail::Confinement;
use crate::wire::{Bad, Cause, Frame, Hello, Kind, Outcome, Reply, Request, State, Tell, VERSION};

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
}

impl Server {
    pub fn new(
        socket: OwnedFd,
        signals: OwnedFd,
        confinement: Confinement,
        base: Vec<(String, String)>,
    ) -> io::Result<Self> {
        Ok(Self {
            link: Link::new(socket),
            signals,
            confinement,
            base: base.into_iter().collect(),
            activated: BTreeMap::new(),
            own: File::open("/proc/self/exe")?,
            processes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_handle: 0,
        })
    }

    /// Serves until the connection closes, then ends all that runs.
    pub fn run(mut self) {
        self.link.say(0, Kind::Hello, &Hello { version: VERSION });
        while self.turn().is_ok() {}
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
        for (source, _) in &ready {
            match *source {
                Source::Link => {}
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
        let mut sources = vec![
            (Source::Link, PollFd::from_borrowed_fd(self.link.fd(), link)),
            (Source::Signals, PollFd::new(&self.signals, PollFlags::IN)),
        ];
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
        sources
    }

    /// The next moment at which something is to be done that no descriptor tells.
    fn due(&self) -> Option<Instant> {
        let moments = |process: &Process| [process.deadline, process.kill_at, process.last_words()];
        self.processes.values().flat_map(moments).flatten().min()
    }

    /// Every child that has ended, whoever's it was.
    fn reap(&mut self) {
        let mut buffer = [0; 1024];
        while matches!(rustix::io::read(&self.signals, &mut buffer), Ok(1..)) {}
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }

    fn reports(&mut self, handle: u32) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        match process.next_report() {
            Some(Report::Running(pid)) => self.started(handle, pid),
            Some(Report::Ended(status)) if matches!(process.stage, Stage::Running(_)) => {
                process.ended(status)
            }
            Some(Report::Failed(step, errno)) => self.failed(handle, step, errno),
            Some(Report::Ended(_)) => {}
            None if process.reports.is_none() => {
                self.reap();
                self.gone(handle);
            }
            None => {}
        }
    }

    /// Nothing of a command is left, or its supervisor was killed.
    fn gone(&mut self, handle: u32) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        match process.stage {
            Stage::Starting => {
                self.failed(handle, Step::Fork, libc::EAGAIN);
            }
            Stage::Running(_) => {
                process.ended(libc::SIGKILL);
                self.end_strays();
            }
            Stage::Ended(..) => {}
            Stage::Left(_) => self.left(handle),
        }
    }

    /// Ends what has fallen to this process because somebody has killed a supervisor: all children but supervisors.
    fn end_strays(&self) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        for (pid, stat) in tree::processes() {
            let known = |process: &Process| process.supervisor.as_raw_nonzero().get() == pid;
            let Some(id) = rustix::process::Pid::from_raw(pid) else { continue };
            if stat.parent == own && !self.processes.values().any(known) {
                tree::kill_below(id);
                let _ = rustix::process::kill_process(id, Signal::KILL);
            }
        }
    }

    /// Answers for every command that has said all it had to say.
    fn finish(&mut self) {
        let over: Vec<u32> = self
            .processes
            .iter()
            .filter(|(_, p)| p.said_all(&self.link))
            .map(|(handle, _)| *handle)
            .collect();
        for handle in over {
            let Some(process) = self.processes.get_mut(&handle) else { continue };
            let Stage::Ended(outcome, _) = process.stage else { continue };
            process.stage = Stage::Left(outcome);
            if let Some(stream) = process.stream.take() {
                process.stdout.finish(stream, &mut self.link);
                process.stderr.finish(stream, &mut self.link);
                self.link.say(stream, Kind::Reply, &Reply::Exited(process.exit(outcome)));
                self.waiting.remove(&stream);
                process.stdout.discard();
                process.stderr.discard();
            }
            if process.reports.is_none() {
                self.left(handle);
            }
        }
    }

    /// Nobody waits for the command, and nothing of it runs.
    fn left(&mut self, handle: u32) {
        let kept = self.processes.get(&handle).is_some_and(|process| process.stdout.log().is_some());
        if !kept {
            self.processes.remove(&handle);
        }
    }

    fn take(&mut self, frame: Frame) {
        let Frame { stream, kind, payload } = frame;
        match kind {
            Kind::Open => match serde_json::from_slice(&payload) {
                _ if stream == 0 || self.waiting.contains_key(&stream) => {
                    self.link.fail(stream, Cause::Invalid, "the stream is in use");
                }
                _ if self.waiting.len() >= MAX_STREAMS => {
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
            Kind::End => {
                if let Some(process) = self.process(stream) {
                    process.stdin.end();
                }
            }
            Kind::Reset => self.abandon(stream, Cause::Reset, "the stream was given up"),
            Kind::Hello | Kind::ErrData | Kind::Event | Kind::Reply | Kind::Fail => {
                self.abandon(stream, Cause::Invalid, "only the hand says that");
            }
        }
    }

    fn open(&mut self, stream: u32, request: Request) {
        match request {
            Request::Exec(exec) => self.exec(stream, &exec),
            _ => self.link.fail(stream, Cause::Invalid, "not yet"),
        }
    }

    /// The command that the stream waits for. Frames for a stream that has ended may still be on their way.
    pub fn process(&mut self, stream: u32) -> Option<&mut Process> {
        self.processes.get_mut(self.waiting.get(&stream)?)
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
        }
    }

    fn data(&mut self, stream: u32, bytes: &[u8]) {
        let Some(process) = self.process(stream) else { return };
        match process.stdin.take(bytes) {
            Some(0) => {}
            Some(more) => self.link.grant(stream, Kind::Credit, more),
            None => self.abandon(stream, Cause::Invalid, "more input than there was credit for"),
        }
    }

    fn write_stdin(&mut self, handle: u32) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        let more = process.stdin.write();
        if let (Some(stream), 1..) = (process.stream, more) {
            self.link.grant(stream, Kind::Credit, more);
        }
    }

    fn grant(&mut self, stream: u32, kind: Kind, bytes: u32) {
        let Some(process) = self.process(stream) else { return };
        if kind == Kind::Credit { process.stdout.grant(bytes) } else { process.stderr.grant(bytes) }
    }

    /// Ends a stream badly, and the command that it was.
    pub fn abandon(&mut self, stream: u32, cause: Cause, message: &str) {
        let Some(handle) = self.waiting.remove(&stream) else { return };
        self.link.fail(stream, cause, message);
        if let Some(process) = self.processes.get_mut(&handle) {
            process.stream = None;
            process.stdin.close();
            process.stdout.discard();
            process.stderr.discard();
            process.deadline = None;
            let outcome = match process.state() {
                State::Ended(outcome) => outcome,
                State::Running => Outcome::Signal(libc::SIGKILL),
            };
            process.stage = Stage::Left(outcome);
            process.kill();
            if process.reports.is_none() {
                self.left(handle);
            }
        }
    }
}
