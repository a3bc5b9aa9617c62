//! One suite for whatever keeps workspaces, with races in it and kills.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use hand::jail::Tree;
use kernel::{Code, WorkspaceId, WorkspaceSnapshotId};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use testkit::{Engine, Unavailable, require};

use super::*;

/// How many steps are left before this process kills itself.
static STEPS: AtomicI64 = AtomicI64::new(i64::MAX);

/// A step of a driver has come.
pub(in crate::workspace) fn step() {
    if STEPS.fetch_sub(1, Ordering::SeqCst) == 1 {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Where a driver is tried.
pub(in crate::workspace) struct Ground {
    pub driver: Driver,
    pub root: PathBuf,
    directory: tempfile::TempDir,
}

impl Ground {
    /// A place for the driver, in a mount namespace of the test's own, so that nothing stays mounted.
    pub fn new(driver: Driver) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts file systems: run it as root");
        apart();
        let directory = tempfile::tempdir().unwrap();
        let root = match driver {
            Driver::Btrfs => {
                require(Engine::Btrfs.is_present().then_some(()).ok_or(Unavailable::Missing(Engine::Btrfs)));
                pool::prepare(directory.path(), 4 << 30).unwrap()
            }
            _ => directory.path().join("store"),
        };
        std::fs::create_dir_all(&root).unwrap();
        Self { driver, root, directory }
    }

    pub fn open(&self) -> Box<dyn Workspaces> {
        open(self.driver, &self.root)
    }

    /// Has the store in memory, where its driver does not care.
    pub fn in_memory(&self) {
        if self.driver != Driver::Btrfs {
            let flags = MountFlags::empty();
            rustix::mount::mount("tmpfs", &self.root, "tmpfs", flags, Some(c"mode=0700")).unwrap();
        }
    }

    /// A directory beside the store.
    pub fn beside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The workspace as a sandbox sees it.
    pub fn mount(&self, workspaces: &dyn Workspaces, id: WorkspaceId) -> Mount {
        Mount::of(&workspaces.tree(id).unwrap(), &self.beside(&format!("mount-{}", WorkspaceId::new())))
    }
}

pub(in crate::workspace) fn open(driver: Driver, root: &Path) -> Box<dyn Workspaces> {
    match driver {
        Driver::Overlay => Box::new(Overlay::open(root).unwrap()),
        Driver::Copy => Box::new(Trees::copy(root).unwrap()),
        Driver::Btrfs => Box::new(Trees::btrfs(root).unwrap()),
        Driver::Directory => Box::new(Trees::directory(root).unwrap()),
    }
}

/// Gives this thread, and those that it starts, mounts of their own.
#[expect(
    unsafe_code,
    reason = "the call takes no memory; it moves this thread alone into a new mount namespace"
)]
fn apart() {
    let done = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
}

pub(in crate::workspace) struct Mount {
    pub path: PathBuf,
    mounted: bool,
}

impl Mount {
    pub fn of(tree: &Tree, at: &Path) -> Self {
        match tree {
            Tree::Directory { path } | Tree::Fixed { path } => Self { path: path.clone(), mounted: false },
            Tree::Overlay { lowers, upper, work } => {
                let lowers: Vec<&str> = lowers.iter().map(|lower| lower.to_str().unwrap()).collect();
                let (upper, work) = (upper.display(), work.display());
                let data = format!("userxattr,lowerdir={},upperdir={upper},workdir={work}", lowers.join(":"));
                let data = std::ffi::CString::new(data).unwrap();
                rustix::mount::mount("overlay", at, "overlay", MountFlags::empty(), Some(&*data)).unwrap();
                Self { path: at.to_owned(), mounted: true }
            }
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // The directory could not be removed with something mounted there.
        let _ = rustix::mount::unmount(&self.root, UnmountFlags::DETACH);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            rustix::mount::unmount(&self.path, UnmountFlags::DETACH).unwrap();
        }
    }
}

/// All that files show, by path: what each is, with its mode and what it says.
pub(in crate::workspace) fn listing(files: &Files) -> BTreeMap<String, String> {
    let mut listing = BTreeMap::new();
    let mut add = |seen: &Seen<'_>| {
        let path = seen.path.escape_ascii().to_string();
        let said = match seen.kind {
            Kind::Directory => format!("directory {:o}", seen.mode()),
            Kind::File => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut seen.open()?, &mut bytes).unwrap();
                let hash = || kernel::BlobHash::of(&bytes).to_string();
                let text =
                    if bytes.len() > 1000 { hash() } else { String::from_utf8(bytes.clone()).unwrap() };
                format!("file {:o} {text}", seen.mode())
            }
            Kind::Link => format!("link to {}", seen.target()?.escape_ascii()),
            Kind::Special | Kind::Whiteout => return Ok(()),
        };
        assert_eq!(listing.insert(path, said), None);
        Ok(())
    };
    files.walk(b"", &Caps::default(), &mut add).unwrap();
    listing
}

pub(in crate::workspace) fn listing_of(directory: &Path) -> BTreeMap<String, String> {
    listing(&Files::of(directory.to_owned()))
}

/// A tree with everything in it that people keep.
pub(in crate::workspace) fn fill(root: &Path) {
    for directory in ["src/deep/er", "empty", "shared"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    for number in 0..40 {
        std::fs::write(root.join(format!("src/deep/{number}.txt")), format!("number {number}")).unwrap();
    }
    std::fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(root.join("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(root.join("secret"), "mine").unwrap();
    std::fs::set_permissions(root.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::hard_link(root.join("run.sh"), root.join("shared/run.sh")).unwrap();
    symlink("../run.sh", root.join("src/run")).unwrap();
    symlink("/etc/passwd", root.join("src/out")).unwrap();
    symlink("nowhere", root.join("src/dangling")).unwrap();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"odd \xff\n%name");
    std::fs::write(root.join(odd), "odd").unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), fifo, 0o644.into(), 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    given_away(root);
}

/// Gives all of a tree to the user of sandboxes, as if that user had written it.
pub(in crate::workspace) fn given_away(root: &Path) {
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::lchown(&path, Some(OWNER), Some(OWNER)).unwrap();
        if path.is_dir() && !path.is_symlink() {
            given_away(&path);
        }
    }
}

pub(in crate::workspace) fn code<T: std::fmt::Debug>(result: kernel::Result<T>) -> Code {
    result.unwrap_err().code()
}

/// The tests of each driver, from the functions that are the same for all.
macro_rules! for_each_driver {
    ($($test:ident),* $(,)?) => {
        for_each_driver! { btrfs Btrfs: $($test)* }
        for_each_driver! { overlay Overlay: $($test)* }
        for_each_driver! { directory Directory: $($test)* }
        for_each_driver! { copy Copy: $($test)* }
    };
    ($name:ident $driver:ident: $($test:ident)*) => {
        mod $name {
            use super::super::Ground;
            use crate::workspace::Driver;

            $(#[test] fn $test() { super::$test(&Ground::new(Driver::$driver)); })*
        }
    };
}

mod archives;
mod hostile;
mod kills;
mod races;
mod rules;
