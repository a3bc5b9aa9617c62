//! The first process of a sandbox: runs commands for whoever holds its one connection, and reaps what they leave.
//!
//! One thread and one loop. Nothing in it waits but `poll`: each descriptor is asked for only as far as somebody
//! takes what comes of it. When the connection closes everything ends.

mod background;
mod commands;
mod dial;
mod ends;
mod groups;
mod inspect;
mod link;
mod log;
mod owner;
mod poll;
mod process;
mod relay;
mod room;
mod serve;
mod spawn;
mod tree;

use std::error::Error;
use std::fs::OpenOptions;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::io::FdFlags;

use serve::Places;

use crate::jail::{Confinement, Gate, become_first};

/// The directory of a jail's sockets and its run token.
const RUN: &str = "/run/steading";

/// Where output goes, in a jail, that is more than is kept.
const OUTPUT: &str = "/tmp/.steading";

/// The port from which requests leave a jail.
const PROXY: u16 = 3128;

/// Runs until the connection closes. Arguments: `--fd N`, the connection, and `--confinement JSON`, what
/// commands give up; then, in a jail, `--gate JSON`, behind which it waits until the jail is whole; elsewhere
/// `--run DIRECTORY` and `--proxy PORT`, in place of the jail's own.
///
/// # Errors
/// Where the arguments are wrong, or the kernel has no room.
pub fn main(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    become_first()?;
    let ["--fd", stream, "--confinement", confinement, rest @ ..] = arguments else {
        return Err("usage: hand pid1 --fd N --confinement JSON [--run DIRECTORY --proxy PORT]".into());
    };
    let gate: Option<Gate> = match rest {
        ["--gate", gate] => Some(serde_json::from_str(gate)?),
        _ => None,
    };
    let places = match rest {
        [] | ["--gate", _] => Places { run: RUN.into(), output: OUTPUT.into(), proxy: PROXY },
        ["--run", run, "--proxy", port] => {
            Places { run: run.into(), output: Path::new(run).join("output"), proxy: port.parse()? }
        }
        _ => return Err("after the confinement come --gate, or --run and --proxy, or nothing".into()),
    };
    let confinement: Confinement = serde_json::from_str(confinement)?;
    let socket = take(stream.parse()?)?;
    // Orphans come here even where this is not the first process of its namespace.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let signals = poll::child_signals()?;
    let server = serve::Server::new(socket, signals, confinement, environment(), places)?;
    gate.map_or(Ok(()), Gate::pass)?;
    server.run();
    Ok(())
}

/// Owns the connection, where no command gets it.
fn take(fd: RawFd) -> Result<OwnedFd, Box<dyn Error>> {
    // SAFETY: whoever started this program has opened it for this and does not use it in this process.
    #[expect(unsafe_code, reason = "the number comes from outside")]
    let given = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_getfd(&given)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(&given, 3)?;
    if fd > 2 {
        drop(given);
    } else {
        std::mem::forget(given);
    }
    // Descriptors below 3 are somebody's streams, never a socket or a pipe of ours.
    let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    if fd == 1 {
        rustix::stdio::dup2_stdout(&nothing)?;
    }
    keep_from_commands()?;
    Ok(socket)
}

/// Has every descriptor but the standard streams close where a program takes over. The kernel is not asked in `/proc`
/// which there are, for what it answers with stays in its memory as long as this process.
fn keep_from_commands() -> Result<(), Box<dyn Error>> {
    // SAFETY: only a flag is set.
    #[expect(unsafe_code, reason = "they have no owner in this process")]
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 };
    if done {
        return Ok(());
    }
    // Not every kernel knows of it.
    for inherited in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let number: RawFd = inherited.file_name().to_string_lossy().parse()?;
        if number > 2 {
            // SAFETY: only a flag is set; the one that lists the directory is gone by then, which is no harm.
            #[expect(unsafe_code, reason = "they have no owner in this process")]
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// What every command sees: what this process was started with, by who made the jail.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}
