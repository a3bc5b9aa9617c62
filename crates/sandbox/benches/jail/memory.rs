//! What memory belongs to sandboxes, on a machine where others use memory, too.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Map, Value, json};

/// Lines of `/proc/meminfo` that say what the kernel keeps. All that they grow by is taken for the sandboxes', whether
/// or not it is counted for one of their groups.
const KERNEL: [&str; 5] = ["Shmem", "Slab", "KernelStack", "PageTables", "Percpu"];

/// Memory at one moment, in KiB by what it is.
pub struct Memory(BTreeMap<&'static str, i64>);

impl Memory {
    /// What it is by now: the kernel's, and that of all processes below this one, each page by its share.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap();
        let mut parts: BTreeMap<&str, i64> =
            KERNEL.map(|name| (name, kib(&text, name).unwrap_or(0))).into_iter().collect();
        // Stacks are among it.
        parts.insert("VmallocUsed", kib(&text, "VmallocUsed").unwrap_or(0) - parts["KernelStack"]);
        parts.insert("processes", below(std::process::id()));
        Self(parts)
    }

    /// What each of so many has taken since.
    pub fn until_now(&self, many: usize) -> Value {
        let each = |part: &str, now: i64| (now - self.0[part]) as f64 / many as f64;
        let now = Self::now();
        let parts: BTreeMap<&str, f64> = now.0.iter().map(|(part, now)| (*part, each(part, *now))).collect();
        let taken: f64 = parts.values().sum();
        let parts: Map<String, Value> =
            parts.into_iter().map(|(part, kib)| (part.to_owned(), json!(kib.round()))).collect();
        json!({
            "idle_kib": taken.round(),
            "idle_per_gib": if taken > 0.0 { (f64::from(1 << 20) / taken).floor() } else { 0.0 },
            "idle_kib_parts": parts,
        })
    }
}

/// The number of a line `Name:  12 kB`.
fn kib(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The memory of all that a process has started, and of what those have.
fn below(parent: u32) -> i64 {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in brackets come the state and the parent.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let (mut left, mut sum) = (vec![parent], 0);
    while let Some(pid) = left.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            let rollup = fs::read_to_string(format!("/proc/{child}/smaps_rollup")).unwrap_or_default();
            sum += kib(&rollup, "Pss").unwrap_or(0);
            left.push(child);
        }
    }
    sum
}
