//! What of `/proc` tells of the host is covered: everything but what is listed here.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::mount::{OpenTreeFlags, open_tree};

use super::mounts::{INERT, READ_ONLY, attach, copy};
use super::sys::{self, Attributes};
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
    // Both are gone from the root before anybody sees it; the mounts keep them.
    let (file, directory) = (Path::new("run/.file"), Path::new("run/.directory"));
    fs::write(file, "").at(Step::Mounts, "run")?;
    fs::create_dir(directory).at(Step::Mounts, "run")?;
    let nothing = copy(file, READ_ONLY | INERT, None).at(Step::Mounts, "run")?;
    let empty = copy(directory, READ_ONLY | INERT, None).at(Step::Mounts, "run")?;
    for entry in fs::read_dir("proc").at(Step::Mounts, "proc")? {
        let entry = entry.at(Step::Mounts, "proc")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if OPEN.contains(&name.as_str()) || name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let kind = entry.file_type().at(Step::Mounts, &name)?;
        let cover = if kind.is_dir() { &empty } else { &nothing };
        again(cover)
            .and_then(|cover| attach(&cover, &entry.path()))
            .at(Step::Mounts, format!("proc/{name}"))?;
    }
    fs::remove_dir(directory).at(Step::Mounts, "run")?;
    fs::remove_file(file).at(Step::Mounts, "run")?;

    fs::write(file, meminfo(memory_bytes)).at(Step::Mounts, "run")?;
    let memory =
        copy(file, READ_ONLY | INERT, None).and_then(|made| attach(&made, Path::new("proc/meminfo")));
    memory.at(Step::Mounts, "proc/meminfo")?;
    fs::remove_file(file).at(Step::Mounts, "run")?;

    let settings = Path::new("proc/sys");
    copy(settings, READ_ONLY | INERT, None)
        .and_then(|copy| attach(&copy, settings))
        .at(Step::Mounts, "proc/sys")
}

/// One more copy of a mount that is attached nowhere.
fn again(mount: &OwnedFd) -> std::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(mount, sys::HERE, flags)?;
    sys::set_mount_attributes(copy.as_fd(), Attributes { set: READ_ONLY | INERT, users: None })?;
    Ok(copy)
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
