//! A jail whose processes make their system calls to gVisor: `runsc` is in a jail of namespaces, and what else would be in
//! that jail is in it.
//!
//! Whoever breaks out of gVisor is a user that the host does not know, without a network, in a root that has nothing but
//! `runsc` and what the sandbox sees anyway.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::MountFlags;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::base::device;
use super::make::ENVIRONMENT;
use super::mounts::{READ_ONLY, file_system, processes, show_new};
use super::privileges::{Confinement, FILES, of_commands};
use super::{At, Error, JailSpec, Step, hand_path, sys};

/// The directory that is the root inside. The one around it nobody sees from there.
pub const INSIDE: &str = "inside";

/// A call of the C library's that this kernel may refuse, as this kernel takes it.
const STATX: &[u8] = include_bytes!(env!("HAND_STATX"));

/// What `runsc` opens of the host's devices.
const DEVICES: [&str; 4] = ["null", "zero", "random", "urandom"];

/// What the first process has, in the words of the description; the last it gives up when it has made its groups.
const KEPT: [&str; 4] = ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_ADMIN"];

/// Builds what is around the root inside, and goes there.
///
/// # Errors
/// What failed.
pub fn build_around(spec: &JailSpec, program: &Path) -> Result<(), Error> {
    for directory in ["proc", "dev", "tmp", "state", "bundle", INSIDE] {
        fs::create_dir(directory).at(Step::Mounts, directory)?;
    }
    // Whole: only who sees all of it may mount another one.
    processes()?;
    DEVICES.into_iter().try_for_each(device)?;
    let root = spec.users.root();
    for directory in ["tmp", "state"] {
        let options = format!("mode=0700,size=4m,nr_inodes=256,uid={root},gid={root}");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        file_system("tmpfs", Path::new(directory), flags, &options)?;
    }
    show_new(program, Path::new("runsc"), READ_ONLY)?;
    let text = description(spec).and_then(|description| Ok(serde_json::to_vec(&description)?));
    text.and_then(|text| fs::write("bundle/config.json", text)).at(Step::Mounts, "bundle")?;
    rustix::process::chdir(INSIDE).at(Step::Mounts, INSIDE)
}

/// Has every program that the loader starts take [`STATX`]. Called where the root inside is put together.
///
/// # Errors
/// Of the file system.
pub fn preload() -> io::Result<()> {
    fs::write("etc/statx.so", STATX)?;
    fs::write("etc/ld.so.preload", "/etc/statx.so\n")
}

/// Becomes `runsc`, which runs the hand as its first process. It has the connection as its standard input, and complains
/// where the jail's maker reports. Returns only where that fails.
pub fn become_kernel(stream: &OwnedFd, report: &fs::File) -> io::Error {
    let prepared = (|| {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        rustix::stdio::dup2_stdin(stream)?;
        rustix::io::fcntl_setfd(report, rustix::io::FdFlags::empty())?;
        let log = report.as_raw_fd().to_string();
        let arguments = [
            "runsc",
            "--root",
            "/state",
            "--log-fd",
            &log,
            "--network",
            "none",
            "--ignore-cgroups",
            "--host-uds",
            "open",
            "--overlay2",
            "none",
            "run",
            "--bundle",
            "/bundle",
            "sandbox",
        ];
        let arguments = arguments.into_iter().map(sys::c_string).collect::<io::Result<Vec<CString>>>()?;
        Ok::<_, io::Error>((
            rustix::fs::open("/runsc", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?,
            arguments,
        ))
    })();
    match prepared {
        Ok((program, arguments)) => {
            sys::execute(std::os::fd::AsFd::as_fd(&program), &arguments, &[c"PATH=/".into()])
        }
        Err(error) => error,
    }
}

/// What `runsc` is to run, in the words of the Open Container Initiative.
fn description(spec: &JailSpec) -> io::Result<Value> {
    let confinement =
        serde_json::to_string(&Confinement { pids: Some(spec.pids), ..of_commands(Vec::new()) })?;
    let limit = |name: &str, most: u64| json!({ "type": name, "soft": most, "hard": most });
    let memory = |at: &str, bytes: u64| json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", format!("size={bytes}")] });
    // What the host changes while the sandbox lives, or looks at, is not kept in gVisor's memory.
    let shared = |at: &str| json!({ "destination": at, "type": "bind", "source": format!("/{INSIDE}{at}"), "options": ["rbind"] });
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": { "path": format!("/{INSIDE}") },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": [hand_path(), "pid1", "--fd", "0", "--confinement", confinement],
            "env": ENVIRONMENT.map(|variable| variable.to_string_lossy().into_owned()),
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": { "bounding": KEPT, "effective": KEPT, "permitted": KEPT, "inheritable": KEPT },
            "rlimits": [
                limit("RLIMIT_NOFILE", FILES),
                limit("RLIMIT_CORE", 0),
            ],
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            memory("/dev/shm", spec.tmp_bytes / 4),
            memory("/tmp", spec.tmp_bytes),
            shared("/run/steading"),
            shared("/workspace"),
        ],
        "linux": { "namespaces": namespaces },
    }))
}
