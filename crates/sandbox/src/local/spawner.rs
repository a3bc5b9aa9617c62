//! Makes processes from one thread that lives as long as this process: the kernel ends the first process of each jail
//! when the thread that made it is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::{EventfdFlags, eventfd};

struct Job {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

/// Asks the thread for processes.
pub struct Spawner {
    jobs: Sender<Job>,
    wake: OwnedFd,
}

/// The thread's end.
pub struct Jobs {
    jobs: Receiver<Job>,
    wake: OwnedFd,
}

/// The two ends.
///
/// # Errors
/// Of the kernel.
pub fn spawner() -> io::Result<(Spawner, Jobs)> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let (sender, receiver) = channel();
    Ok((Spawner { jobs: sender, wake: rustix::io::dup(&wake)? }, Jobs { jobs: receiver, wake }))
}

impl Spawner {
    /// Starts the process.
    ///
    /// # Errors
    /// Of the kernel; `BrokenPipe` where the thread is gone.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (answer, answers) = channel();
        self.jobs.send(Job { command, answer }).map_err(|_| gone())?;
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes())?;
        answers.recv().map_err(|_| gone())?
    }
}

impl Jobs {
    /// Readable while somebody asks.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Does all that is asked for.
    pub fn work(&self) {
        // Nothing to read means that an earlier round has done it.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        while let Ok(mut job) = self.jobs.try_recv() {
            // Who asked may have given up.
            let _ = job.answer.send(job.command.spawn());
        }
    }
}
