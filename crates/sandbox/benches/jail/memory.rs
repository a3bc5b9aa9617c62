//! The machine's memory, and which part of it is whose.

use std::fs;

use serde_json::{Value, json};

/// Lines of `/proc/meminfo` that say where memory of a sandbox is. Pages of processes are in `AnonPages`, what is kept of
/// files of the sandbox's own in `Shmem`, what the kernel has of it in the others.
const PARTS: [&str; 7] =
    ["AnonPages", "Shmem", "Slab", "KernelStack", "PageTables", "Percpu", "SecPageTables"];

/// Memory at one moment, in KiB.
pub struct Memory {
    available: i64,
    parts: [i64; PARTS.len()],
}

impl Memory {
    /// What it is by now.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
        };
        Self { available: value("MemAvailable"), parts: PARTS.map(value) }
    }

    /// What each of so many has taken since. All that the machine has less of by now is theirs, whatever it is counted as.
    pub fn until_now(&self, many: usize) -> Value {
        let now = Self::now();
        let each = |before: i64, after: i64| (after - before) as f64 / many as f64;
        let taken = each(now.available, self.available);
        let parts: serde_json::Map<String, Value> = (0..PARTS.len())
            .map(|part| (PARTS[part].to_owned(), json!(each(self.parts[part], now.parts[part]).round())))
            .collect();
        json!({
            "idle_kib": taken.round(),
            "idle_per_gib": if taken > 0.0 { (f64::from(1 << 20) / taken).floor() } else { 0.0 },
            "idle_kib_parts": parts,
        })
    }
}
