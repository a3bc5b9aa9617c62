//! What of `/proc` tells of the host is covered: everything but what is listed here.

use std::fs;
use std::path::Path;

use rustix::mount::mount_bind;

use super::base::NOTHING;
use super::mounts::{INERT, READ_ONLY, show};
use super::{At, Error, Step};

/// Entries that programs need and that say nothing of other sandboxes. Processes are the jail's own.
const OPEN: [&str; 12] = [
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "mounts",
    "net",
    "self",
    "stat",
    "sys",
    "thread-self",
    "uptime",
    "version",
];

/// Covers the rest, so that an entry that a newer kernel brings is closed until somebody lists it.
///
/// # Errors
/// The mount that failed.
pub fn cover(memory_bytes: u64) -> Result<(), Error> {
    let [directory, file] = NOTHING;
    for entry in fs::read_dir("proc").at(Step::Mounts, "proc")? {
        let entry = entry.at(Step::Mounts, "proc")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if OPEN.contains(&name.as_str()) || name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let kind = entry.file_type().at(Step::Mounts, &name)?;
        // The mount is like the one of nothing, which can only be read.
        mount_bind(if kind.is_dir() { directory } else { file }, entry.path())
            .at(Step::Mounts, format!("proc/{name}"))?;
    }

    // It is gone before anybody sees it; the mount keeps it.
    let told = Path::new("run/steading/.meminfo");
    fs::write(told, meminfo(memory_bytes)).at(Step::Mounts, "run")?;
    show(told, Path::new("proc/meminfo"), READ_ONLY | INERT)?;
    fs::remove_file(told).at(Step::Mounts, "run")?;

    let settings = Path::new("proc/sys");
    show(settings, settings, READ_ONLY | INERT)
}

/// What the sandbox may use, in the words of proc(5).
fn meminfo(bytes: u64) -> String {
    let kibibytes = bytes / 1024;
    let mut text = String::new();
    for (name, value) in [
        ("MemTotal", kibibytes),
        ("MemFree", kibibytes),
        ("MemAvailable", kibibytes),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
    ] {
        text.push_str(&format!("{:<15} {value:>8} kB\n", format!("{name}:")));
    }
    text
}
