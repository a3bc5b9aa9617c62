//! Which processes a command has begun, however they have tried to leave it, and how to end exactly those.
//!
//! Each command has a supervisor that orphans below it fall to (`PR_SET_CHILD_SUBREAPER`), so that neither a new
//! session nor a double fork leads out of its tree. Where the kernel does not have that, it has groups that nobody leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal};

use super::groups::Group;

/// Rounds in which processes are found and stopped before those that are found are killed. Each stops all that the
/// one before has missed; what is stopped forks no more.
const ROUNDS: usize = 64;

/// A process at one moment of the machine: an id alone may become another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub pid: i32,
    started: u64,
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub parent: i32,
    pub started: u64,
    /// User and system time, in ticks of the clock.
    pub ticks: u64,
    pub resident_pages: u64,
    pub zombie: Zombie,
}

/// Whether only a process's exit status is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zombie {
    Yes,
    No,
}

/// What the line says. The name in it is in brackets and may hold anything, brackets too.
pub fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        zombie: if matches!(*fields.first()?, "Z" | "X") { Zombie::Yes } else { Zombie::No },
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        started: number(19)?,
        resident_pages: number(21)?,
    })
}

/// The process, where there is one.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// How the processes of a command are known.
#[derive(Debug)]
pub enum Tree {
    /// They descend from its supervisor.
    Below(Pid),
    /// They are in its group.
    Group(Group),
}

impl Tree {
    fn members(&self) -> BTreeSet<Member> {
        match self {
            Self::Below(supervisor) => below(*supervisor),
            Self::Group(group) => {
                let alive = |pid: i32| stat(pid).filter(|stat| stat.zombie == Zombie::No);
                let members = group.members().into_iter();
                members.filter_map(|pid| Some(Member { pid, started: alive(pid)?.started })).collect()
            }
        }
    }

    /// Whether none of them was seen.
    pub fn is_empty(&self) -> bool {
        self.members().is_empty()
    }

    /// Sends a signal to all of them, as they are at one moment.
    pub fn signal(&self, signal: Signal) {
        for member in self.members() {
            send(member, signal);
        }
    }

    /// Kills all of them. What the kernel has not ended by then is found by the next call.
    pub fn kill(&self) {
        let mut stopped = BTreeSet::new();
        for _ in 0..ROUNDS {
            let found = self.members();
            let new: Vec<Member> = found.difference(&stopped).copied().collect();
            if new.is_empty() {
                break;
            }
            for member in new {
                send(member, Signal::STOP);
                stopped.insert(member);
            }
        }
        self.signal(Signal::KILL);
    }
}

/// Every process.
pub fn processes() -> BTreeMap<i32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// All that descends from `root` and is alive, without itself.
fn below(root: Pid) -> BTreeSet<Member> {
    let all = processes();
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, stat) in &all {
        children.entry(stat.parent).or_default().push(*pid);
    }
    let mut found = BTreeSet::new();
    let mut left = vec![root.as_raw_nonzero().get()];
    while let Some(parent) = left.pop() {
        for pid in children.remove(&parent).unwrap_or_default() {
            left.push(pid);
            if all[&pid].zombie == Zombie::No {
                found.insert(Member { pid, started: all[&pid].started });
            }
        }
    }
    found
}

/// Sends a signal to that process and not to one that has got its id since.
fn send(member: Member, signal: Signal) {
    let Some(pid) = Pid::from_raw(member.pid) else { return };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => {
            // The id was another's when it was opened, if the process it belongs to is a younger one.
            if stat(member.pid).is_some_and(|stat| stat.started == member.started) {
                let _ = rustix::process::pidfd_send_signal(&fd, signal);
            }
        }
        Err(rustix::io::Errno::SRCH) => {}
        Err(_) => {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_move_the_fields() {
        let line = "77 (a) Z 1 (b) S 12 77 77 0 -1 4194560 96 0 0 0 3 4 0 0 20 0 1 0 9876 2809856 321 18446744073709551615";
        assert_eq!(
            parse_stat(line),
            Some(Stat { parent: 12, started: 9876, ticks: 7, resident_pages: 321, zombie: Zombie::No })
        );
        assert_eq!(parse_stat("77 (x"), None);
        assert_eq!(parse_stat("77 (x) S"), None);
    }
}
