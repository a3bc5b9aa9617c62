//! What the process itself takes of the machine, as Linux says.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What the process takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// Processor time, in seconds.
    pub cpu: f64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Files that are open.
    pub files: u64,
    /// As many as may be.
    pub files_most: u64,
}

impl Process {
    /// Looks; none where Linux does not say.
    pub fn look() -> Option<Self> {
        let (stat, memory) =
            (fs::read_to_string("/proc/self/stat").ok()?, fs::read_to_string("/proc/self/statm").ok()?);
        // One of them is the directory that is being read.
        let files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64;
        Some(Self {
            cpu: ticks(&stat)? as f64 / clock_ticks_per_second() as f64,
            memory: memory.split(' ').nth(1)?.parse::<u64>().ok()? * page_size() as u64,
            files,
            files_most: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        })
    }
}

/// The ticks of user and system time: fields 14 and 15, of which the second is a name in brackets (proc(5)).
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 20 22 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::look().unwrap();
        assert!(process.memory > 1 << 20 && process.files > 2 && process.files_most >= process.files);
    }
}
