//! A process that starts the ones that make sandboxes, so that the gateway can do so without a privilege of its own.
//!
//! It is started before the gateway gives its privileges up. It can be asked for one thing: a new process in the place of
//! the last, to be started as it was told at its own beginning. When its connection closes it ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::Error;
use super::message::Settings;
use super::{packets, privileges, weak};

/// How long a process may take to end what it has made.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// What is asked, and the answer where it is done. Any other answer says why it is not.
const START: &[u8] = b"start";
const STARTED: &[u8] = b"started";

/// The gateway's connection with it.
#[derive(Debug)]
pub struct Starter {
    socket: OwnedFd,
    child: Child,
}

/// A process that makes sandboxes, and its connection.
#[derive(Debug)]
pub(super) struct Process {
    /// Its connection.
    pub control: OwnedFd,
    /// By which its end is known.
    pub end: End,
}

/// By which the end of a process is known.
#[derive(Debug)]
pub(super) enum End {
    /// A child, which is also waited for.
    Own(Child),
    /// Somebody else's child.
    Others(OwnedFd),
}

impl End {
    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        match self {
            End::Own(child) => !matches!(child.try_wait(), Ok(None)),
            End::Others(pidfd) => ended(pidfd, Duration::ZERO),
        }
    }

    /// Ends it.
    pub fn kill(&mut self) {
        // It may just have ended.
        let _ = match self {
            End::Own(child) => child.kill(),
            End::Others(pidfd) => pidfd_send_signal(pidfd, Signal::KILL).map_err(io::Error::from),
        };
    }
}

/// Starts a process that makes sandboxes: its standard input is its connection, it has nothing in its environment and
/// nowhere to write to, and is in no group that a terminal signals.
pub(super) fn start(mut command: Command, settings: &Settings) -> Result<(OwnedFd, Child), Error> {
    let (ours, theirs) = packets::pair().map_err(Error::Gone)?;
    command.arg(settings.to_argument()?);
    command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).env_clear().process_group(0);
    let child = command.spawn().map_err(Error::Gone)?;
    Ok((ours, child))
}

impl Starter {
    /// Starts the process that `command` describes: one that calls [`starter_main`], and has `settings` as its last
    /// argument.
    ///
    /// # Errors
    /// Of the kernel; [`Error::Settings`].
    pub fn start(command: Command, settings: &Settings) -> kernel::Result<Self> {
        let (socket, child) = start(command, settings)?;
        Ok(Self { socket, child })
    }
}

/// The same, as what has a runtime uses it.
pub(super) struct Asked {
    socket: AsyncFd<OwnedFd>,
    pidfd: AsyncFd<OwnedFd>,
    child: Mutex<Child>,
    /// Whoever asks, and waits for the answer.
    turn: tokio::sync::Mutex<()>,
}

impl Asked {
    pub fn new(starter: Starter) -> Result<Self, Error> {
        let Starter { socket, child } = starter;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|error| Error::Gone(error.into()))?;
        let pidfd = pidfd_of(&child).map_err(Error::Gone)?;
        // SAFETY: each descriptor is owned by what is registered, and is the same until both are dropped.
        #[expect(
            unsafe_code,
            reason = "tokio has neither sockets of packets nor processes that it has not started"
        )]
        let (socket, pidfd) = unsafe { (AsyncFd::register(socket), AsyncFd::register(pidfd)) };
        let gone = |error: io::Error| Error::Gone(error);
        let (socket, pidfd) = (socket.map_err(|e| gone(e.into()))?, pidfd.map_err(|e| gone(e.into()))?);
        Ok(Self { socket, pidfd, child: Mutex::new(child), turn: tokio::sync::Mutex::default() })
    }

    /// Has a process started. The last one, if there is one, has ended by then. Each answer is waited for by who has asked:
    /// where nobody wants the process any more, its connection is closed here.
    pub async fn start(self: &Arc<Self>) -> Result<Process, Error> {
        let asked = Arc::clone(self);
        let asking = tokio::spawn(async move {
            let _turn = asked.turn.lock().await;
            asked.ask().await
        });
        asking.await.map_err(|_| Error::Starter)?
    }

    async fn ask(&self) -> Result<Process, Error> {
        let send = |socket: &OwnedFd| packets::send(socket.as_fd(), START, &[]);
        self.socket.async_io(Interest::WRITABLE, send).await.map_err(|_| Error::Starter)?;
        let receive = |socket: &OwnedFd| packets::receive(socket.as_fd());
        let packet = self.socket.async_io(Interest::READABLE, receive).await;
        let Ok(Some(packet)) = packet else { return Err(Error::Starter) };
        match <[OwnedFd; 2]>::try_from(packet.files) {
            Ok([control, pidfd]) if packet.text == STARTED => {
                Ok(Process { control, end: End::Others(pidfd) })
            }
            _ => Err(Error::Gone(io::Error::other(String::from_utf8_lossy(&packet.text).into_owned()))),
        }
    }

    /// Returns when it has ended.
    pub async fn gone(&self) {
        // What cannot be waited for is not there.
        let _ = self.pidfd.readable().await;
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
    }

    /// Whether it has not ended.
    pub fn is_there(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(child.try_wait(), Ok(None))
    }

    /// Ends it.
    pub async fn close(&self) {
        let _ = shutdown(self.socket.get_ref().as_fd(), Shutdown::Both);
        self.gone().await;
    }
}

/// Starts the process that `host` describes whenever it is asked to, until the connection closes. Called by a process that
/// does nothing else.
///
/// # Errors
/// Where it could not begin, or the connection breaks.
pub fn starter_main(control: &OwnedFd, settings: &Settings, host: impl Fn() -> Command) -> Result<(), Error> {
    if !weak::roots_are_the_hosts(&settings.run_dir) {
        privileges::limit().map_err(|error| Error::Files("giving up privileges", error))?;
    }
    let mut last: Option<(Child, OwnedFd)> = None;
    loop {
        let over = wait(control, last.as_ref().map(|(_, pidfd)| pidfd)).map_err(Error::Gone)?;
        if over && let Some((mut child, _)) = last.take() {
            let _ = child.wait();
            continue;
        }
        let packet = packets::receive(control.as_fd()).map_err(Error::Gone)?;
        // It has lost its gateway's connection, or soon will.
        if let Some((child, pidfd)) = last.take() {
            outlive(child, &pidfd);
        }
        match packet {
            None => return Ok(()),
            Some(packet) if packet.text == START && packet.files.is_empty() => {}
            Some(_) => return Err(Error::Order),
        }
        match begin(settings, &host) {
            Ok((ours, child, pidfd)) => {
                let files = [ours.as_fd(), pidfd.as_fd()];
                packets::send(control.as_fd(), STARTED, &files).map_err(Error::Gone)?;
                last = Some((child, pidfd));
            }
            Err(error) => {
                let why = kernel::Error::from(error).chain();
                packets::send(control.as_fd(), why.as_bytes(), &[]).map_err(Error::Gone)?;
            }
        }
    }
}

fn begin(settings: &Settings, host: impl Fn() -> Command) -> Result<(OwnedFd, Child, OwnedFd), Error> {
    let (ours, mut child) = start(host(), settings)?;
    match pidfd_of(&child) {
        Ok(pidfd) => Ok((ours, child, pidfd)),
        Err(error) => {
            let _ = child.kill().and_then(|()| child.wait());
            Err(Error::Gone(error))
        }
    }
}

/// Waits until something is asked, or the process has ended; whether it is that.
fn wait(control: &OwnedFd, process: Option<&OwnedFd>) -> io::Result<bool> {
    let mut polled = vec![PollFd::new(control, PollFlags::IN)];
    polled.extend(process.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
    loop {
        match poll(&mut polled, None) {
            Ok(_) => return Ok(polled.get(1).is_some_and(|process| !process.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the process has ended what it has made, or has had its time.
fn outlive(mut child: Child, pidfd: &OwnedFd) {
    let deadline = Instant::now() + GRACE;
    while !ended(pidfd, deadline.saturating_duration_since(Instant::now())) {
        if Instant::now() >= deadline {
            let _ = child.kill();
        }
    }
    let _ = child.wait();
}

/// Whether the process ends within that time.
fn ended(pidfd: &OwnedFd, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: within.subsec_nanos().into() };
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&timeout)), Ok(1..))
}

fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    Ok(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::thread::{self, JoinHandle};

    use super::super::message::Spares;
    use super::*;

    /// A starter of processes that end when their connection does, in a thread of this one.
    fn starter() -> (OwnedFd, JoinHandle<Result<(), Error>>) {
        let (ours, theirs) = packets::pair().unwrap();
        let spares = vec![Spares::default()];
        let settings = Settings { run_dir: "/nowhere".into(), trees: Vec::new(), spares, runsc: None };
        let host = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "exec cat"]);
            command
        };
        (ours, thread::spawn(move || starter_main(&theirs, &settings, host)))
    }

    fn ask(control: &OwnedFd, text: &[u8], files: &[std::os::fd::BorrowedFd<'_>]) -> Option<packets::Packet> {
        packets::send(control.as_fd(), text, files).unwrap();
        packets::receive(control.as_fd()).unwrap()
    }

    fn started(control: &OwnedFd) -> [OwnedFd; 2] {
        let packet = ask(control, START, &[]).unwrap();
        assert_eq!(packet.text, STARTED);
        packet.files.try_into().unwrap()
    }

    #[test]
    fn there_is_one_process_at_a_time_and_it_ends_with_the_connection() {
        let (control, starter) = starter();
        let [connection, first] = started(&control);
        assert!(!ended(&first, Duration::ZERO));
        drop(connection);
        let [_connection, second] = started(&control);
        assert!(ended(&first, Duration::ZERO) && !ended(&second, Duration::ZERO));
        // One that dies is waited for at once, also when nobody asks.
        pidfd_send_signal(&second, Signal::KILL).unwrap();
        assert!(ended(&second, GRACE));
        let [connection, third] = started(&control);
        drop((control, connection));
        starter.join().unwrap().unwrap();
        assert!(ended(&third, Duration::ZERO));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_waits_for_is_nobody_elses() {
        let (control, starter) = starter();
        let child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
        let asked = Arc::new(Asked::new(Starter { socket: control, child }).unwrap());
        for _ in 0..20 {
            // Given up after it has asked.
            let mut given_up = Box::pin(asked.start());
            assert!(futures::poll!(&mut given_up).is_pending());
            tokio::task::yield_now().await;
            drop(given_up);
        }
        let process = asked.start().await.unwrap();
        let End::Others(pidfd) = &process.end else { panic!("{process:?}") };
        // The starter has not begun another one since, and so does not wait for the end of this one.
        assert!(!ended(pidfd, Duration::from_millis(100)));
        drop(process.control);
        let next = asked.start().await.unwrap();
        let End::Others(next_pidfd) = &next.end else { panic!("{next:?}") };
        assert!(ended(pidfd, Duration::ZERO) && !ended(next_pidfd, Duration::ZERO));
        asked.child.lock().unwrap().kill().unwrap();
        drop((next.control, asked));
        starter.join().unwrap().unwrap();
    }

    #[test]
    fn nothing_else_can_be_asked_of_it() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let settings = br#"start {"run_dir":"/","trees":["/"]}"#;
        let attempts: [(&[u8], bool); 4] =
            [(settings, false), (b"", false), (START, true), (&[0xff; 9_000], false)];
        for (text, with_file) in attempts {
            let (control, starter) = starter();
            let [connection, process] = started(&control);
            drop(connection);
            let files = if with_file { vec![file.as_fd()] } else { Vec::new() };
            assert!(ask(&control, text, &files).is_none());
            assert!(matches!(starter.join().unwrap(), Err(Error::Order)));
            assert!(ended(&process, Duration::ZERO));
        }
    }
}
