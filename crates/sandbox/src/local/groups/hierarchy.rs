//! One hierarchy of control groups, of either version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::runner::{Limits, Usage};

/// The group of the hand alone.
pub const HAND: &str = "hand";

/// The group of everything else.
pub const COMMANDS: &str = "commands";

/// The hand's own limits: what it keeps of output is bounded, beside what it puts into `/tmp`, and it has a process beside
/// each command.
const HAND_BYTES: u64 = 192 << 20;
const HAND_PIDS: u64 = 512;

/// A period short enough that a neighbour who waits for its end does not feel it.
const PERIOD_US: u64 = 10_000;

/// How long processes may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a hierarchy can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Version 2 with controllers of memory, pids and cpu.
    V2,
    /// Version 2 without controllers, beside version 1: it counts time, freezes and kills.
    Unified,
    /// Version 1, memory.
    Memory,
    /// Version 1, pids.
    Pids,
    /// Version 1, cpu.
    Cpu,
    /// Version 1, cpuacct, where nothing else counts time.
    Cpuacct,
    /// Version 1, freezer, where nothing else freezes.
    Freezer,
}

/// One hierarchy, from the group on in which the sandboxes' groups are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hierarchy {
    /// What it can do.
    pub kind: Kind,
    /// The directory of that group.
    pub parent: PathBuf,
}

impl Hierarchy {
    /// The directory of the sandbox's group.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.parent.join(name)
    }

    /// Makes the group and sets its limits.
    ///
    /// # Errors
    /// Of the file system, with the path.
    pub fn create(&self, name: &str, limits: &Limits) -> io::Result<()> {
        let directory = self.directory(name);
        let (hand, commands) = (directory.join(HAND), directory.join(COMMANDS));
        make(&directory)?;
        if self.kind == Kind::V2 {
            put(&directory, "cgroup.subtree_control", "+memory +pids +cpu")?;
        }
        make(&hand)?;
        make(&commands)?;
        let quota = (u64::from(limits.cpu_millis) * PERIOD_US / 1000).max(1000);
        let parts = [
            (&hand, HAND_BYTES + limits.tmp_bytes, HAND_PIDS),
            (&commands, limits.memory_bytes, limits.pids.into()),
        ];
        match self.kind {
            Kind::V2 => {
                put(&directory, "cpu.max", format!("{quota} {PERIOD_US}"))?;
                put(&hand, "cpu.weight", 1000)?;
                for (group, bytes, pids) in parts {
                    put(group, "memory.max", bytes)?;
                    put_if_there(group, "memory.swap.max", 0)?;
                    put(group, "pids.max", pids)?;
                }
            }
            Kind::Cpu => {
                put(&directory, "cpu.cfs_period_us", PERIOD_US)?;
                put(&directory, "cpu.cfs_quota_us", quota)?;
                put(&hand, "cpu.shares", 10_240)?;
            }
            Kind::Memory => {
                for (group, bytes, _) in parts {
                    put(group, "memory.limit_in_bytes", bytes)?;
                    // With swap of its own a sandbox would hold more than it may, and slow everybody.
                    put_if_there(group, "memory.memsw.limit_in_bytes", bytes)?;
                    put_if_there(group, "memory.swappiness", 0)?;
                }
            }
            Kind::Pids => {
                for (group, _, pids) in parts {
                    put(group, "pids.max", pids)?;
                }
            }
            Kind::Unified | Kind::Cpuacct | Kind::Freezer => {}
        }
        Ok(())
    }

    /// Whether processes of a group can be stopped where they are.
    #[must_use]
    pub fn freezes(&self) -> bool {
        matches!(self.kind, Kind::V2 | Kind::Unified | Kind::Freezer)
    }

    /// Stops them, and waits until each has stopped.
    ///
    /// # Errors
    /// `TimedOut`, after which they run; of the file system.
    pub fn freeze(&self, name: &str) -> io::Result<()> {
        let directory = self.directory(name);
        if self.kind != Kind::Freezer {
            put(&directory, "cgroup.freeze", 1)?;
        }
        let frozen = || -> io::Result<bool> {
            if self.kind != Kind::Freezer {
                return Ok(get(&directory, "cgroup.events")?.lines().any(|line| line == "frozen 1"));
            }
            put(&directory, "freezer.state", "FROZEN")?;
            Ok(get(&directory, "freezer.state")?.trim() == "FROZEN")
        };
        let deadline = Instant::now() + PATIENCE;
        while !frozen()? {
            if Instant::now() >= deadline {
                self.thaw(name)?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// Of the file system.
    pub fn thaw(&self, name: &str) -> io::Result<()> {
        let directory = self.directory(name);
        match self.kind {
            Kind::Freezer => put(&directory, "freezer.state", "THAWED"),
            _ => put(&directory, "cgroup.freeze", 0),
        }
    }

    /// Sends every process of the group its end, in one step where the kernel has one.
    ///
    /// # Errors
    /// Of the file system; a group that is not there is none.
    pub fn kill(&self, name: &str) -> io::Result<()> {
        let directory = self.directory(name);
        if !directory.is_dir() {
            return Ok(());
        }
        if matches!(self.kind, Kind::V2 | Kind::Unified) && put(&directory, "cgroup.kill", 1).is_ok() {
            return Ok(());
        }
        if self.kind == Kind::Freezer {
            // What is frozen ends only when it is thawed.
            self.thaw(name)?;
        }
        for group in [directory.join(HAND), directory.join(COMMANDS), directory] {
            for pid in get(&group, "cgroup.procs").unwrap_or_default().lines() {
                // It may have ended meanwhile.
                let _ = pid.parse().ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, Signal::KILL));
            }
        }
        Ok(())
    }

    /// Adds what this hierarchy counts.
    pub fn add_usage(&self, name: &str, usage: &mut Usage) {
        let directory = self.directory(name);
        let commands = directory.join(COMMANDS);
        let of_both =
            |file: &str| [HAND, COMMANDS].iter().map(|part| number(&directory.join(part), file)).sum::<u64>();
        match self.kind {
            Kind::V2 => {
                usage.memory_bytes += number(&directory, "memory.current");
                usage.pids += u32::try_from(number(&directory, "pids.current")).unwrap_or(u32::MAX);
                usage.oom_kills += field(&commands, "memory.events", "oom_kill");
                usage.cpu += Duration::from_micros(field(&directory, "cpu.stat", "usage_usec"));
            }
            Kind::Unified => usage.cpu += Duration::from_micros(field(&directory, "cpu.stat", "usage_usec")),
            Kind::Memory => {
                usage.memory_bytes += of_both("memory.usage_in_bytes");
                usage.oom_kills += field(&commands, "memory.oom_control", "oom_kill");
            }
            Kind::Pids => usage.pids += u32::try_from(of_both("pids.current")).unwrap_or(u32::MAX),
            Kind::Cpuacct => usage.cpu += Duration::from_nanos(number(&directory, "cpuacct.usage")),
            Kind::Cpu | Kind::Freezer => {}
        }
    }
}

/// The number in a file, 0 where there is none.
fn number(directory: &Path, file: &str) -> u64 {
    get(directory, file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The number after a name in a file of lines, 0 where there is none.
fn field(directory: &Path, file: &str, name: &str) -> u64 {
    let text = get(directory, file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn make(directory: &Path) -> io::Result<()> {
    fs::create_dir(directory).map_err(|error| at(directory, &error))
}

fn put(directory: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    let path = directory.join(file);
    fs::write(&path, value.to_string()).map_err(|error| at(&path, &error))
}

fn put_if_there(directory: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    if directory.join(file).exists() { put(directory, file, value) } else { Ok(()) }
}

fn get(directory: &Path, file: &str) -> io::Result<String> {
    let path = directory.join(file);
    fs::read_to_string(&path).map_err(|error| at(&path, &error))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
