//! One command: its streams, its time, and how it ends.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::link::Link;
use super::log::Log;
use super::room::room;
use super::spawn::{Report, next_report};
use super::tree::Tree;
use crate::wire::{Exit, Kept, Kind, MAX_LAST, Outcome, Size, State, WINDOW};

/// Bytes taken from a command in one go.
const CHUNK: usize = 64 << 10;

/// How often what is left of an ended command is looked for, until the kernel is through with it.
const KILL_EVERY: Duration = Duration::from_millis(5);

/// How long the rest of a terminal's output is waited for, after its command has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a supervisor below which nothing is left is given to end, where somebody asks for it.
const SUPERVISOR_ENDS: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// One command.
pub struct Process {
    pub supervisor: Pid,
    /// What belongs to it.
    pub tree: Tree,
    /// `None` when nothing of the command is left.
    pub reports: Option<OwnedFd>,
    pub stage: Stage,
    /// Its process id, once it has one.
    pub id: i32,
    /// The stream that waits for it.
    pub stream: Option<u32>,
    /// The stream whose bytes are in `stdin`.
    pub writer: Option<u32>,
    /// What was run, shortened.
    pub command: String,
    pub began: Instant,
    pub deadline: Option<Instant>,
    pub terminal: Option<OwnedFd>,
    pub stdin: Input,
    pub stdout: Outlet,
    pub stderr: Outlet,
    /// When to look again for what is to be killed.
    pub kill_at: Option<Instant>,
    /// Whether it is being ended because its time is over.
    pub timed_out: bool,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is not known yet whether there is such a program.
    Starting,
    /// It runs, under this id.
    Running(i32),
    /// It has ended so; what it wrote may not all be sent.
    Ended(Outcome, Instant),
    /// Nobody waits for it any more; what it has begun may live on.
    Left(Outcome),
}

impl Process {
    /// Its process id, where it has one.
    pub fn pid(&self) -> Option<Pid> {
        match self.stage {
            Stage::Running(pid) => Pid::from_raw(pid),
            _ => None,
        }
    }

    pub fn state(&self) -> State {
        match self.stage {
            Stage::Starting | Stage::Running(_) => State::Running,
            Stage::Ended(outcome, _) | Stage::Left(outcome) => State::Ended(outcome),
        }
    }

    /// The next report, where one has come; at the pipe's end nothing of the command is left.
    pub fn next_report(&mut self) -> Option<Report> {
        match next_report(self.reports.as_ref()?) {
            Some(report) => report,
            None => {
                self.reports = None;
                self.kill_at = None;
                None
            }
        }
    }

    /// Whether the command has ended and nothing that it has begun is left. Its end is told before that of its
    /// supervisor, so who asks right afterwards waits for the second where only that is missing.
    pub fn over(&mut self) -> bool {
        if self.state() == State::Running {
            return false;
        }
        if let Some(reports) = self.reports.as_ref()
            && self.tree.is_empty()
        {
            let ended = poll(&mut [PollFd::new(reports, PollFlags::IN)], Some(&SUPERVISOR_ENDS));
            while ended.is_ok() && self.next_report().is_some() {}
        }
        self.reports.is_none()
    }

    /// The command itself has ended with that status of `wait`.
    pub fn ended(&mut self, status: i32) {
        let outcome = if self.timed_out {
            Outcome::TimedOut
        } else if libc::WIFSIGNALED(status) {
            Outcome::Signal(libc::WTERMSIG(status))
        } else {
            Outcome::Code(libc::WEXITSTATUS(status))
        };
        self.stage = Stage::Ended(outcome, Instant::now());
        self.deadline = None;
        self.stdin.close();
        if self.terminal.is_none() {
            self.stdout.end_with_what_is_there();
            self.stderr.end_with_what_is_there();
        }
    }

    /// Ends it with all it has begun.
    pub fn kill(&mut self) {
        if self.reports.is_none() {
            return;
        }
        self.tree.kill();
        self.kill_at = Some(Instant::now() + KILL_EVERY);
    }

    /// Sends a signal to the group that the command leads, or to the one in the foreground of its terminal.
    pub fn signal(&self, signal: Signal) {
        let foreground =
            self.terminal.as_ref().and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
        if let Some(group) = foreground.or_else(|| self.pid()) {
            // It may be gone by now.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    pub fn resize(&self, size: Size) {
        if let Some(terminal) = &self.terminal {
            let _ = rustix::termios::tcsetwinsize(terminal, winsize(size));
        }
    }

    /// Whether all that the command has written is on its way.
    pub fn said_all(&self, link: &Link) -> bool {
        let Stage::Ended(_, at) = self.stage else { return false };
        let over = self.terminal.is_some() && at.elapsed() > LAST_WORDS && !link.congested();
        self.stderr.over() && (self.stdout.over() || over && self.stdout.idle())
    }

    /// When to look again, for a terminal whose last words are waited for.
    pub fn last_words(&self) -> Option<Instant> {
        match self.stage {
            Stage::Ended(_, at) if self.terminal.is_some() && !self.stdout.over() => Some(at + LAST_WORDS),
            _ => None,
        }
    }

    pub fn exit(&self, outcome: Outcome) -> Exit {
        Exit { outcome, stdout: self.stdout.kept(), stderr: self.stderr.kept() }
    }
}

/// A size as the kernel has it.
pub fn winsize(size: Size) -> rustix::termios::Winsize {
    rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Bytes on their way into something that takes them when it wants to.
#[derive(Debug, Default)]
pub struct Input {
    to: Option<OwnedFd>,
    queue: VecDeque<u8>,
    end: End,
}

/// What is done with an input when no more comes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    /// More may come.
    #[default]
    Open,
    /// It is closed when the queue is empty.
    Wanted,
}

impl Input {
    pub fn new(to: Option<OwnedFd>) -> Self {
        Self { to, queue: VecDeque::new(), end: End::Open }
    }

    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let to = self.to.as_ref()?;
        (!self.queue.is_empty()).then(|| (to.as_fd(), PollFlags::OUT))
    }

    /// Takes bytes, and says how many more may come for those that nobody takes. `None` where they are more than were
    /// allowed.
    pub fn take(&mut self, bytes: &[u8]) -> Option<u32> {
        if self.to.is_none() || self.end == End::Wanted {
            return Some(bytes.len() as u32);
        }
        if self.queue.len() + bytes.len() > WINDOW as usize {
            return None;
        }
        self.queue.extend(bytes);
        Some(self.write())
    }

    /// Writes what goes, and says how many bytes more may come.
    pub fn write(&mut self) -> u32 {
        let mut taken = 0;
        while let Some(to) = &self.to {
            let (next, _) = self.queue.as_slices();
            if next.is_empty() {
                if self.end == End::Wanted {
                    self.to = None;
                }
                break;
            }
            match rustix::io::write(to, next) {
                Ok(count) => {
                    self.queue.drain(..count);
                    taken += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    taken += self.queue.len();
                    self.close();
                }
            }
        }
        taken as u32
    }

    /// Takes bytes that are not written yet; otherwise as [`Input::take`].
    pub fn hold(&mut self, bytes: &[u8]) -> Option<u32> {
        if self.queue.len() + bytes.len() > WINDOW as usize {
            return None;
        }
        self.queue.extend(bytes);
        Some(0)
    }

    /// No more comes; what is held is still to be written.
    pub fn end_later(&mut self) {
        self.end = End::Wanted;
    }

    /// What was held goes elsewhere.
    pub fn redirect(&mut self, to: OwnedFd) {
        if self.to.is_some() {
            self.to = Some(to);
        }
    }

    /// Whether all that was taken is written, and no more comes.
    pub fn is_closed(&self) -> bool {
        self.to.is_none()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// No more comes.
    pub fn end(&mut self) {
        self.end = End::Wanted;
        self.write();
    }

    /// Nobody takes any more.
    pub fn close(&mut self) {
        self.to = None;
        self.queue.clear();
    }
}

/// Where a command's output comes out.
#[derive(Debug)]
pub struct Outlet {
    from: Option<OwnedFd>,
    sink: Sink,
    kind: Kind,
    /// Bytes that are still to be taken, once the command has ended.
    left: Option<u64>,
}

/// What becomes of output.
#[derive(Debug)]
pub enum Sink {
    /// It is sent, as far as credit goes.
    Stream { credit: u32, sent: u64 },
    /// The beginning is sent at once, the end at the end.
    Capped { head: u64, tail: u64, log: Log },
    /// It is kept for whoever asks.
    Log(Log),
    /// It is taken, so that who writes can go on, and thrown away.
    Nowhere(Kept),
}

impl Outlet {
    pub fn new(from: Option<OwnedFd>, kind: Kind, sink: Sink) -> Self {
        Self { from, sink, kind, left: None }
    }

    pub fn log(&self) -> Option<&Log> {
        match &self.sink {
            Sink::Log(log) => Some(log),
            _ => None,
        }
    }

    pub fn interest(&self, link: &Link) -> Option<(BorrowedFd<'_>, PollFlags)> {
        // What is not taken is not asked for: an end that nobody takes note of is told for ever.
        let from = self.from.as_ref().filter(|_| self.left != Some(0))?;
        let wanted = match &self.sink {
            Sink::Stream { credit, .. } => *credit > 0 && !link.congested(),
            Sink::Capped { head, log, .. } => log.total() >= *head || !link.congested(),
            Sink::Log(_) | Sink::Nowhere(_) => true,
        };
        wanted.then(|| (from.as_fd(), PollFlags::IN))
    }

    pub fn grant(&mut self, bytes: u32) {
        if let Sink::Stream { credit, .. } = &mut self.sink {
            *credit = credit.saturating_add(bytes).min(WINDOW);
        }
    }

    /// Takes what is there, once, and passes it on.
    pub fn read(&mut self, stream: Option<u32>, link: &mut Link) {
        let Some(from) = &self.from else { return };
        let mut room = room(CHUNK);
        let mut limit = CHUNK;
        if let Sink::Stream { credit, .. } = &self.sink {
            limit = limit.min(*credit as usize);
        }
        if let Some(left) = self.left {
            limit = limit.min(usize::try_from(left).unwrap_or(CHUNK));
        }
        if limit == 0 {
            return;
        }
        match rustix::io::read(from, &mut room[..limit]) {
            Ok((bytes, _)) if !bytes.is_empty() => {
                let (bytes, count) = (&*bytes, bytes.len());
                match &mut self.sink {
                    Sink::Stream { credit, sent } => {
                        *credit -= count as u32;
                        *sent += count as u64;
                        if let Some(stream) = stream {
                            link.send(stream, self.kind, bytes);
                        }
                    }
                    Sink::Capped { head, log, .. } => {
                        let now =
                            usize::try_from(head.saturating_sub(log.total())).unwrap_or(count).min(count);
                        if let (Some(stream), 1..) = (stream, now) {
                            link.send(stream, self.kind, &bytes[..now]);
                        }
                        log.append(bytes);
                    }
                    Sink::Log(log) => log.append(bytes),
                    Sink::Nowhere(_) => {}
                }
                if let Some(left) = &mut self.left {
                    *left -= count as u64;
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The end of a terminal whose other side is closed is an error.
            Ok(_) | Err(_) => self.from = None,
        }
    }

    /// Nothing after what is in the pipe is of the command itself.
    fn end_with_what_is_there(&mut self) {
        if let Some(from) = &self.from {
            self.left = Some(rustix::io::ioctl_fionread(from).unwrap_or(0));
        }
    }

    /// Whether nothing more comes.
    fn over(&self) -> bool {
        self.from.is_none() || self.left == Some(0)
    }

    /// Whether nothing waits for credit.
    fn idle(&self) -> bool {
        !matches!(self.sink, Sink::Stream { credit: 0, .. })
    }

    /// Sends the end of output of which only the beginning was sent.
    pub fn finish(&mut self, stream: u32, link: &mut Link) {
        if let Sink::Capped { head, tail, log } = &self.sink {
            let from = (*head).max(log.total().saturating_sub(*tail));
            let rest = log.read(from, usize::MAX);
            if !rest.is_empty() {
                link.send(stream, self.kind, &rest);
            }
        }
    }

    /// The last of what is kept, as text.
    pub fn last(&self) -> String {
        match &self.sink {
            Sink::Capped { log, .. } | Sink::Log(log) => {
                let from = log.total().saturating_sub(MAX_LAST as u64);
                String::from_utf8_lossy(&log.read(from, MAX_LAST)).into_owned()
            }
            Sink::Stream { .. } | Sink::Nowhere(_) => String::new(),
        }
    }

    /// Takes what those write that the command has left behind: where somebody may ask for it that is kept, elsewhere not.
    pub fn go_on(&mut self) {
        self.left = None;
        if self.log().is_none() {
            self.sink = Sink::Nowhere(self.kept());
        }
    }

    pub fn kept(&self) -> Kept {
        match &self.sink {
            Sink::Stream { sent, .. } => Kept { bytes: *sent, ..Kept::default() },
            Sink::Capped { log, .. } | Sink::Log(log) => log.kept(),
            Sink::Nowhere(kept) => kept.clone(),
        }
    }
}
