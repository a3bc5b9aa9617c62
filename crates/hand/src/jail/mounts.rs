//! The file systems of a jail: put together in a scratch directory, then made the root.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};

use super::sys::{self, Attributes};
use super::tree::Translation;
use super::{At, Error, JailSpec, Kernel, Protection, Step, etc, gvisor, proc, tree};

/// Files and directories of the host's root that hold programs; links stay links.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// All of `/dev` that is a device.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

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
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    file_system("tmpfs", &spec.scratch, flags, "mode=0755,size=1m,nr_inodes=512")?;
    rustix::process::chdir(&spec.scratch).at(Step::Mounts, "the new root")?;
    if let Kernel::Gvisor { program } = &spec.kernel {
        gvisor::build_around(spec, program)?;
        directories()?;
        system_files()?;
        etc::make().and_then(|()| gvisor::preload()).at(Step::Mounts, "etc")?;
        return sockets(spec);
    }

    directories()?;
    system_files()?;
    etc::make().at(Step::Mounts, "etc")?;
    devices(spec)?;
    processes()?;
    if spec.has(Protection::Proc) {
        proc::cover(spec.memory_bytes)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let inodes = (spec.tmp_bytes / 4096).clamp(1024, 1 << 20);
    let options = format!("mode=1777,size={},nr_inodes={inodes}", spec.tmp_bytes);
    file_system("tmpfs", Path::new("tmp"), flags, &options)?;
    sockets(spec)
}

/// Mounts what lies on disks, and moves into the root.
///
/// # Errors
/// The mount that failed.
pub fn enter_root(spec: &JailSpec, translation: Translation<'_>) -> Result<(), Error> {
    tree::workspace(spec, translation)?;
    tree::layers(spec, translation)?;
    if spec.kernel != Kernel::Host {
        rustix::process::chdir("..").at(Step::Mounts, "the new root")?;
    }

    let root = open_tree(CWD, ".", OpenTreeFlags::OPEN_TREE_CLOEXEC).at(Step::Mounts, "the new root")?;
    sys::set_mount_attributes_of_one(root.as_fd(), READ_ONLY).at(Step::Mounts, "the new root")?;
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

fn directories() -> Result<(), Error> {
    for directory in ["usr", "proc", "dev", "tmp", "workspace", "run/steading", "var", "home", "opt", "etc"] {
        fs::create_dir_all(directory).at(Step::Mounts, directory)?;
    }
    symlink("/tmp", "var/tmp").at(Step::Mounts, "var/tmp")
}

fn system_files() -> Result<(), Error> {
    show(Path::new("/usr"), Path::new("usr"), READ_ONLY)?;
    for name in PROGRAMS {
        let source = Path::new("/").join(name);
        if let Ok(target) = fs::read_link(&source) {
            symlink(target, name).at(Step::Mounts, name)?;
        } else if source.is_dir() {
            show_new(&source, Path::new(name), READ_ONLY)?;
        }
    }
    Ok(())
}

/// Shows the host's device of that name.
pub fn device(name: &str) -> Result<(), Error> {
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    show_new(&Path::new("/dev").join(name), &Path::new("dev").join(name), set)
}

fn devices(spec: &JailSpec) -> Result<(), Error> {
    for name in DEVICES {
        device(name)?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, Path::new("dev").join(link)).at(Step::Mounts, link)?;
    }
    for directory in ["dev/pts", "dev/shm"] {
        fs::create_dir(directory).at(Step::Mounts, directory)?;
    }
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
