//! How commands end: what their supervisors report, what is reaped, what is answered, what is forgotten.

use rustix::process::{Signal, WaitOptions};

use super::owner::Owner;
use super::process::{Process, Stage};
use super::serve::Server;
use super::spawn::{Report, Step};
use super::tree::{self, Tree};
use crate::wire::{Kind, Reply};

/// Files of output that outlive their commands.
const MAX_SPILLED: usize = 32;

impl Server {
    /// Every child that has ended, whoever's it was.
    pub fn reap(&mut self) {
        let mut buffer = [0; 1024];
        while matches!(rustix::io::read(&self.signals, &mut buffer), Ok(1..)) {}
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }

    pub fn reports(&mut self, handle: u32) {
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
                match &process.tree {
                    Tree::Below(_) => self.end_strays(),
                    Tree::Group(_) => process.tree.kill(),
                }
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
                Tree::Below(id).kill();
                let _ = rustix::process::kill_process(id, Signal::KILL);
            }
        }
    }

    /// Answers for every command that has said all it had to say.
    pub fn finish(&mut self) {
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
            }
            process.stdout.go_on();
            process.stderr.go_on();
            if process.reports.is_none() {
                self.left(handle);
            }
        }
        self.pump();
    }

    /// Nobody waits for the command, and nothing of it runs.
    pub fn left(&mut self, handle: u32) {
        let kept = self.processes.get(&handle).is_some_and(|process| process.stdout.log().is_some());
        if !kept {
            self.remove(handle);
        }
    }

    /// Forgets a command. The files of its output outlive it for a while.
    pub fn remove(&mut self, handle: u32) {
        let Some(process) = self.processes.remove(&handle) else { return };
        self.spilled
            .extend([process.stdout.kept(), process.stderr.kept()].into_iter().filter_map(|kept| kept.file));
        let _owner = Owner::become_user(self.confinement.user);
        while self.spilled.len() > MAX_SPILLED {
            if let Some(oldest) = self.spilled.pop_front() {
                // The user may have removed it.
                let _ = std::fs::remove_file(oldest);
            }
        }
    }
}
