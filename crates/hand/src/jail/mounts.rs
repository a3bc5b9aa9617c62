//! The file systems of a jail: put together in a scratch directory, then made the root.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};

use super::sys::{self, Attributes};
use super::{At, Error, JailSpec, Kernel, Protection, Step, base, gvisor, proc};

/// What nobody executes or opens as a device.
pub const INERT: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// What is only read, programs included.
pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Builds the root, but for what lies on disks. Called by the first process of the new namespaces.
///
/// # Errors
/// The mount that failed.
pub fn build_root(spec: &JailSpec) -> Result<(), Error> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Step::Mounts, "/")?;
    if let Kernel::Gvisor { program } = &spec.kernel {
        base::begin(&spec.scratch)?;
        gvisor::build_around(spec, program)?;
        base::fill()?;
        gvisor::preload().at(Step::Mounts, "etc")?;
        return sockets(spec);
    }
    match &spec.base {
        Some(base) => rustix::process::chdir(base).at(Step::Mounts, base.display())?,
        None => base::build(&spec.scratch)?,
    }
    terminals(spec)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let inodes = (spec.tmp_bytes / 4096).clamp(1024, 1 << 20);
    let options = format!("mode=1777,size={},nr_inodes={inodes}", spec.tmp_bytes);
    file_system("tmpfs", Path::new("tmp"), flags, &options)?;
    sockets(spec)?;
    processes()?;
    if spec.has(Protection::Proc) { proc::cover(spec.memory_bytes) } else { Ok(()) }
}

/// Moves into the root.
///
/// # Errors
/// The mount that failed.
pub fn enter_root(spec: &JailSpec) -> Result<(), Error> {
    if spec.kernel != Kernel::Host {
        rustix::process::chdir("..").at(Step::Mounts, "the new root")?;
        base::seal()?;
    }
    rustix::process::pivot_root(".", ".").at(Step::Mounts, "pivot_root")?;
    unmount(".", UnmountFlags::DETACH).at(Step::Mounts, "the old root")?;
    rustix::process::chdir("/").at(Step::Mounts, "/")
}

/// A copy of what is mounted at `source`, attached nowhere yet.
pub fn copy(source: &Path, set: u64, users: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let copy = open_tree(CWD, source, flags)?;
    sys::set_mount_attributes(copy.as_fd(), Attributes { set, users })?;
    Ok(copy)
}

/// Attaches it.
pub fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(mount, sys::HERE, CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Shows `source` at `target`, which exists.
pub fn show(source: &Path, target: &Path, set: u64) -> Result<(), Error> {
    copy(source, set, None).and_then(|copy| attach(&copy, target)).at(Step::Mounts, source.display())
}

/// Makes the file or directory `target` like `source`, and shows `source` there.
pub fn show_new(source: &Path, target: &Path, set: u64) -> Result<(), Error> {
    let kind = fs::metadata(source).at(Step::Mounts, source.display())?;
    if kind.is_dir() {
        fs::create_dir_all(target).at(Step::Mounts, target.display())?;
    } else {
        fs::write(target, "").at(Step::Mounts, target.display())?;
    }
    show(source, target, set)
}

/// Mounts a file system of a kind.
pub fn file_system(kind: &str, target: &Path, flags: MountFlags, options: &str) -> Result<(), Error> {
    let options = sys::c_string(options).at(Step::Mounts, kind)?;
    mount(kind, target, kind, flags, Some(options.as_c_str()))
        .at(Step::Mounts, format!("{kind} {}", target.display()))
}

/// Mounts `/proc`.
pub fn processes() -> Result<(), Error> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    file_system("proc", Path::new("proc"), flags, "")
}

/// Mounts the terminals of the jail, and the memory that its processes share.
fn terminals(spec: &JailSpec) -> Result<(), Error> {
    let (owner, shared) = (spec.users.commands(), spec.tmp_bytes / 4);
    let terminals = format!("newinstance,ptmxmode=0666,mode=0600,uid={owner},gid={owner},max=64");
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    file_system("devpts", Path::new("dev/pts"), flags, &terminals)?;
    let memory = format!("mode=1777,size={shared},nr_inodes=4096");
    file_system("tmpfs", Path::new("dev/shm"), flags | MountFlags::NODEV, &memory)
}

/// `/run/steading` belongs to the user, so that the first process can put the run token there as that user.
fn sockets(spec: &JailSpec) -> Result<(), Error> {
    let owner = spec.users.commands();
    let options = format!("mode=0755,size=2m,nr_inodes=64,uid={owner},gid={owner}");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let directory = Path::new("run/steading");
    file_system("tmpfs", directory, flags, &options)?;
    for (source, name) in [(&spec.egress, "egress.sock"), (&spec.bridge, "bridge.sock")] {
        show_new(source, &directory.join(name), READ_ONLY | INERT)?;
    }
    show_new(&spec.runners, &directory.join("runners"), READ_ONLY)?;
    show_new(&spec.runner, &directory.join("runner"), READ_ONLY)?;
    show_new(&spec.hand, &directory.join("hand"), READ_ONLY)
}
