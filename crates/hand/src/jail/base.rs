//! The part of a root that is the same in every jail: put together once for all of them, or by a jail for itself.
//!
//! All of it is only read, by the mounts and by the file system that holds them, so that no jail leaves anything in it
//! for another. What a jail has for itself lies over its empty directories.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, mount_change, mount_remount, open_tree,
};

use super::mounts::{INERT, READ_ONLY, file_system, show, show_new};
use super::{At, Error, Step, etc, sys};

/// Files and directories of the host's root that hold programs; links stay links.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// All of `/dev` that is a device.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// An empty directory and an empty file of it. Nothing that is mounted from them can be changed, entered or run.
pub(super) const NOTHING: [&str; 2] = ["opt", "etc/resolv.conf"];

/// A file or directory of the host that a base shows, as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(Option<(u64, u64)>);

/// What of the host a base would show. Where one shows something else by now, it is to be put together anew: a file that
/// is replaced stays in it as it was.
#[must_use]
pub fn shown() -> Vec<Shown> {
    let programs = PROGRAMS.map(|name| Path::new("/").join(name));
    let all = programs.into_iter().chain(["/usr", "/usr/local"].map(PathBuf::from)).chain(etc::of_the_host());
    let identity = |path| fs::metadata(path).ok().map(|known| (known.dev(), known.ino()));
    all.map(|path| Shown(identity(path))).collect()
}

/// Puts it together at `path` as one that jails copy, in the mounts of whoever calls this.
///
/// # Errors
/// The mount that failed.
pub(super) fn make(path: &Path) -> Result<(), Error> {
    build(path)?;
    // What the host mounts from here on would come without what copies are given.
    mount_change(".", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Step::Mounts, "base")
}

/// Puts it together at `path`, which is where this process then is.
pub(super) fn build(path: &Path) -> Result<(), Error> {
    begin(path)?;
    fill()?;
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
    for nothing in NOTHING {
        show(Path::new(nothing), Path::new(nothing), READ_ONLY | INERT)?;
    }
    seal()?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(".", flags, "").at(Step::Mounts, "base")
}

/// Mounts what holds it, and goes there.
pub(super) fn begin(path: &Path) -> Result<(), Error> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    file_system("tmpfs", path, flags, "mode=0755,size=1m,nr_inodes=512")?;
    rustix::process::chdir(path).at(Step::Mounts, "the new root")
}

/// Its directories, programs and settings.
pub(super) fn fill() -> Result<(), Error> {
    for directory in ["usr", "proc", "dev", "tmp", "workspace", "run/steading", "var", "home", "opt", "etc"] {
        fs::create_dir_all(directory).at(Step::Mounts, directory)?;
    }
    symlink("/tmp", "var/tmp").at(Step::Mounts, "var/tmp")?;
    show(Path::new("/usr"), Path::new("usr"), READ_ONLY)?;
    if Path::new("usr/local").is_dir() {
        show(Path::new("opt"), Path::new("usr/local"), READ_ONLY)?;
    }
    for name in PROGRAMS {
        let source = Path::new("/").join(name);
        if let Ok(target) = fs::read_link(&source) {
            symlink(target, name).at(Step::Mounts, name)?;
        } else if source.is_dir() {
            show_new(&source, Path::new(name), READ_ONLY)?;
        }
    }
    etc::make().at(Step::Mounts, "etc")
}

/// Has nobody write where this process is.
pub(super) fn seal() -> Result<(), Error> {
    let root = open_tree(CWD, ".", OpenTreeFlags::OPEN_TREE_CLOEXEC).at(Step::Mounts, "the new root")?;
    sys::set_mount_attributes_of_one(root.as_fd(), READ_ONLY).at(Step::Mounts, "the new root")
}

/// Shows the host's device of that name.
pub(super) fn device(name: &str) -> Result<(), Error> {
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    show_new(&Path::new("/dev").join(name), &Path::new("dev").join(name), set)
}
