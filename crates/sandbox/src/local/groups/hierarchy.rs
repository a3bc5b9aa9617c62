//! One hierarchy of control groups, of either version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hand::jail::{Groups, Kernel};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::runner::{Limits, Usage};

/// The group of the hand alone, of version 2, whose groups have either processes or groups below them. Of version 1 the
/// hand is in the sandbox's own group: each group costs the machine memory, the more the more sandboxes there are.
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

    /// Whether it bounds what processes use. One that does not knows the sandbox only as a whole.
    #[must_use]
    pub fn bounds(&self) -> bool {
        matches!(self.kind, Kind::V2 | Kind::Memory | Kind::Pids | Kind::Cpu)
    }

    /// Adds how a jail joins the sandbox's group. Another kernel is one with what runs on it, the hand too: all of it is in
    /// the group that bounds commands.
    pub fn add_to_join(&self, name: &str, kernel: &Kernel, groups: &mut Groups) {
        let directory = self.directory(name);
        match self.kind {
            Kind::V2 if *kernel != Kernel::Host => groups.first = Some(directory.join(COMMANDS)),
            Kind::V2 => {
                groups.first = Some(directory.join(HAND));
                groups.commands.push(directory.join(COMMANDS).join("cgroup.procs"));
            }
            Kind::Unified => groups.first = Some(directory),
            Kind::Memory | Kind::Pids | Kind::Cpu => {
                groups.hand.push(directory.join("tasks"));
                groups.commands.push(directory.join(COMMANDS).join("tasks"));
            }
            Kind::Cpuacct | Kind::Freezer => groups.hand.push(directory.join("tasks")),
        }
    }

    /// Makes the group and sets its limits.
    ///
    /// # Errors
    /// Of the file system, with the path.
    pub fn create(&self, name: &str, limits: &Limits) -> io::Result<()> {
        let directory = self.directory(name);
        let (hand, commands) = (directory.join(HAND), directory.join(COMMANDS));
        make(&directory)?;
        if !self.bounds() {
            return Ok(());
        }
        let quota = (u64::from(limits.cpu_millis) * PERIOD_US / 1000).max(1000);
        let hand_bytes = HAND_BYTES + limits.tmp_bytes;
        let pids = u64::from(limits.pids);
        // Of version 1 the first of them holds the second.
        let bytes = [(&directory, hand_bytes + limits.memory_bytes), (&commands, limits.memory_bytes)];
        match self.kind {
            Kind::V2 => {
                put(&directory, "cgroup.subtree_control", "+memory +pids +cpu")?;
                make(&hand)?;
                make(&commands)?;
                put(&commands, "cpu.max", format!("{quota} {PERIOD_US}"))?;
                put(&hand, "cpu.weight", 1000)?;
                for (group, bytes, pids) in
                    [(&hand, hand_bytes, HAND_PIDS), (&commands, limits.memory_bytes, pids)]
                {
                    put(group, "memory.max", bytes)?;
                    put_if_there(group, "memory.swap.max", 0)?;
                    put(group, "pids.max", pids)?;
                }
            }
            Kind::Cpu => {
                make(&commands)?;
                put(&commands, "cpu.cfs_period_us", PERIOD_US)?;
                put(&commands, "cpu.cfs_quota_us", quota)?;
                // The hand beside them weighs 1024, as every process does.
                put(&commands, "cpu.shares", 102)?;
            }
            Kind::Memory => {
                make(&commands)?;
                for (group, bytes) in bytes {
                    put(group, "memory.limit_in_bytes", bytes)?;
                    // With swap of its own a sandbox would hold more than it may, and slow everybody.
                    put_if_there(group, "memory.memsw.limit_in_bytes", bytes)?;
                    put_if_there(group, "memory.swappiness", 0)?;
                }
            }
            Kind::Pids => {
                make(&commands)?;
                put(&directory, "pids.max", HAND_PIDS + pids)?;
                put(&commands, "pids.max", pids)?;
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
        match self.kind {
            Kind::V2 => {
                // What it has read and written of files is the kernel's to drop.
                let files = ["inactive_file", "active_file"].map(|it| field(&directory, "memory.stat", it));
                let used = number(&directory, "memory.current");
                usage.memory_bytes += used.saturating_sub(files.iter().sum());
                usage.pids += u32::try_from(number(&directory, "pids.current")).unwrap_or(u32::MAX);
                usage.oom_kills += field(&commands, "memory.events", "oom_kill");
                usage.cpu += Duration::from_micros(field(&directory, "cpu.stat", "usage_usec"));
            }
            Kind::Unified => usage.cpu += Duration::from_micros(field(&directory, "cpu.stat", "usage_usec")),
            Kind::Memory => {
                let files = ["total_inactive_file", "total_active_file"];
                let files = files.map(|it| field(&directory, "memory.stat", it));
                let used = number(&directory, "memory.usage_in_bytes");
                usage.memory_bytes += used.saturating_sub(files.iter().sum());
                usage.oom_kills += field(&commands, "memory.oom_control", "oom_kill");
            }
            Kind::Pids => usage.pids += u32::try_from(number(&directory, "pids.current")).unwrap_or(u32::MAX),
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 64 << 20, cpu_millis: 1_500, pids: 32, tmp_bytes: 8 << 20 };

    /// What the kernel would be told: a plain directory keeps it.
    fn told(kind: Kind) -> Vec<(String, String)> {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy { kind, parent: root.path().to_owned() };
        hierarchy.create("name", &LIMITS).unwrap();
        let mut told = Vec::new();
        for part in ["", HAND, COMMANDS] {
            for entry in fs::read_dir(root.path().join("name").join(part)).into_iter().flatten().flatten() {
                if entry.path().is_file() {
                    let name = Path::new(part).join(entry.file_name()).display().to_string();
                    told.push((name, fs::read_to_string(entry.path()).unwrap()));
                }
            }
        }
        told.sort();
        told
    }

    #[test]
    fn version_2_is_told_all_limits_in_the_groups_that_hold_processes() {
        let hand_bytes = (HAND_BYTES + LIMITS.tmp_bytes).to_string();
        let expected = [
            ("cgroup.subtree_control", "+memory +pids +cpu"),
            ("commands/cpu.max", "15000 10000"),
            ("commands/memory.max", "67108864"),
            ("commands/pids.max", "32"),
            ("hand/cpu.weight", "1000"),
            ("hand/memory.max", &hand_bytes),
            ("hand/pids.max", "512"),
        ];
        assert_eq!(told(Kind::V2), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn version_1_is_told_limits_of_the_whole_and_of_the_commands_in_it() {
        let pairs = |pairs: &[(&str, u64)]| {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_string())).collect::<Vec<_>>()
        };
        let whole = HAND_BYTES + LIMITS.tmp_bytes + LIMITS.memory_bytes;
        let memory =
            [("commands/memory.limit_in_bytes", LIMITS.memory_bytes), ("memory.limit_in_bytes", whole)];
        assert_eq!(told(Kind::Memory), pairs(&memory));
        assert_eq!(told(Kind::Pids), pairs(&[("commands/pids.max", 32), ("pids.max", 32 + HAND_PIDS)]));
        let cpu = [
            ("commands/cpu.cfs_period_us", 10_000),
            ("commands/cpu.cfs_quota_us", 15_000),
            ("commands/cpu.shares", 102),
        ];
        assert_eq!(told(Kind::Cpu), pairs(&cpu));
    }

    #[test]
    fn hierarchies_without_controllers_are_told_nothing() {
        for kind in [Kind::Unified, Kind::Cpuacct, Kind::Freezer] {
            assert_eq!(told(kind), []);
        }
    }

    #[test]
    fn commands_join_only_what_bounds_them_and_of_version_1_a_thread_at_a_time() {
        let joined = |kernel: &Kernel, kinds: &[Kind]| {
            let mut groups = Groups::default();
            for kind in kinds {
                let parent = PathBuf::from(format!("/{kind:?}"));
                Hierarchy { kind: *kind, parent }.add_to_join("name", kernel, &mut groups);
            }
            let text =
                |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
            (groups.first.map(|path| path.display().to_string()), text(groups.hand), text(groups.commands))
        };
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let first = |path: &str| Some(path.to_owned());
        assert_eq!(
            joined(&Kernel::Host, &[Kind::V2]),
            (first("/V2/name/hand"), words(&[]), words(&["/V2/name/commands/cgroup.procs"])),
        );
        let gvisor = Kernel::Gvisor { program: PathBuf::from("/runsc") };
        assert_eq!(joined(&gvisor, &[Kind::V2]), (first("/V2/name/commands"), words(&[]), words(&[])));
        let of_version_1 = joined(&gvisor, &[Kind::Unified, Kind::Pids]);
        assert_eq!(of_version_1, joined(&Kernel::Host, &[Kind::Unified, Kind::Pids]));
        assert_eq!(
            joined(&Kernel::Host, &[Kind::Unified, Kind::Pids]),
            (first("/Unified/name"), words(&["/Pids/name/tasks"]), words(&["/Pids/name/commands/tasks"])),
        );
        assert_eq!(
            joined(&Kernel::Host, &[Kind::Freezer, Kind::Cpuacct]),
            (None, words(&["/Freezer/name/tasks", "/Cpuacct/name/tasks"]), words(&[])),
        );
    }

    #[test]
    fn usage_is_read_where_version_2_has_it() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy { kind: Kind::V2, parent: root.path().to_owned() };
        hierarchy.create("name", &LIMITS).unwrap();
        let group = root.path().join("name");
        for (file, text) in [
            ("memory.current", "4096\n"),
            ("pids.current", "7\n"),
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("commands/memory.events", "low 0\noom 3\noom_kill 2\n"),
        ] {
            fs::write(group.join(file), text).unwrap();
        }
        let mut usage = Usage::default();
        hierarchy.add_usage("name", &mut usage);
        let cpu = Duration::from_micros(1500);
        assert_eq!(usage, Usage { memory_bytes: 4096, cpu, pids: 7, oom_kills: 2 });
    }
}
