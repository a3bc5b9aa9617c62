//! Chooses what keeps workspaces, by trying what works here.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags};

use super::shelf::private;
use super::{Driver, Error, Overlay, Trees, Workspaces, btrfs, pool};

/// File systems that several machines may have (`linux/magic.h`): NFS, SMB, Ceph, Lustre, GFS2, OCFS2, AFS, 9p, FUSE.
const SHARED: [i64; 10] = [
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x0bd0_0bd0,
    0x0116_1970,
    0x7461_636f,
    0x5346_414f,
    0x0102_1997,
    0x6573_5546,
];

/// The workspaces in `directory`: those that are there, with what keeps them; else with the best that works.
///
/// A pool (see [`pool::prepare`]) comes first, then subvolumes where `directory` is on btrfs, then layers; copies only
/// on a file system that machines share, and where nothing else works. What lies there is never left aside for something
/// better.
///
/// # Errors
/// `unavailable` where what keeps the workspaces that are there does not work, with what is to be done about it.
pub fn open(directory: &Path) -> kernel::Result<Box<dyn Workspaces>> {
    private(directory).map_err(Error::io("the directory of the workspaces cannot be made ready"))?;
    let used = used(directory);
    let driver = match (&*used, pool::is_there(directory)) {
        ([], true) => {
            let root = pool::mount(directory)?;
            return Ok(Box::new(Trees::btrfs(&root)?));
        }
        ([], false) => best(directory),
        ([driver], false) => *driver,
        (several, pool) => {
            let several: Vec<&str> = several.iter().map(|driver| driver.as_str()).collect();
            let pool = if pool { "pool, " } else { "" };
            return Err(Error::Unavailable {
                what: format!("workspaces are kept in several ways at once ({pool}{})", several.join(", ")),
                hint: "move all but one of these directories away".to_owned(),
            }
            .into());
        }
    };
    open_as(driver, directory)
}

/// The workspaces in `directory` that `driver` keeps.
///
/// # Errors
/// `unavailable` where it does not work here.
pub fn open_as(driver: Driver, directory: &Path) -> kernel::Result<Box<dyn Workspaces>> {
    let root = directory.join(driver.as_str());
    private(&root).map_err(Error::io("the directory of the workspaces cannot be made ready"))?;
    let unavailable =
        |what: &str, hint: &str| Error::Unavailable { what: what.to_owned(), hint: hint.to_owned() };
    Ok(match driver {
        Driver::Btrfs if btrfs::works(&root) => Box::new(Trees::btrfs(&root)?),
        Driver::Btrfs => {
            let what = "subvolumes of btrfs cannot be made in the directory of the workspaces";
            return Err(unavailable(
                what,
                "start Steading as root, or let `steading doctor --fix` make a pool",
            )
            .into());
        }
        Driver::Overlay if lays(&root) => Box::new(Overlay::open(&root)?),
        Driver::Overlay => {
            let what = "overlayfs cannot be mounted over the directory of the workspaces";
            return Err(unavailable(what, "start Steading as root, or allow user namespaces").into());
        }
        Driver::Directory => Box::new(Trees::directory(&root)?),
        Driver::Copy => Box::new(Trees::copy(&root)?),
    })
}

/// What keeps the workspaces that are in `directory`: more than one where [`open`] fails.
#[must_use]
pub fn used(directory: &Path) -> Vec<Driver> {
    Driver::ALL.into_iter().filter(|driver| is_used(&directory.join(driver.as_str()))).collect()
}

/// What works best for new workspaces in `directory`, which is there.
#[must_use]
pub fn best(directory: &Path) -> Driver {
    let kind = rustix::fs::statfs(directory).map(|about| about.f_type).unwrap_or_default();
    if SHARED.contains(&kind) {
        return Driver::Directory;
    }
    if btrfs::works(directory) {
        return Driver::Btrfs;
    }
    if lays(directory) { Driver::Overlay } else { Driver::Copy }
}

/// Whether there is any workspace or snapshot.
fn is_used(root: &Path) -> bool {
    ["workspaces", "snapshots"]
        .iter()
        .any(|kind| std::fs::read_dir(root.join(kind)).is_ok_and(|mut entries| entries.next().is_some()))
}

/// Whether overlayfs can be mounted over `directory`: here, or in a user namespace where this process may not.
fn lays(directory: &Path) -> bool {
    let probe = directory.join(format!(".probe-{}", std::process::id()));
    let laid = laid(&probe);
    let removed = std::fs::remove_dir_all(&probe);
    laid.unwrap_or(false) && removed.is_ok()
}

fn laid(probe: &Path) -> std::io::Result<bool> {
    for part in ["lower", "upper", "work", "at"] {
        private(&probe.join(part))?;
    }
    let mut data = b"userxattr".to_vec();
    for (option, part) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        data.extend_from_slice(format!(",{option}=").as_bytes());
        data.extend_from_slice(probe.join(part).as_os_str().as_bytes());
    }
    let data = CString::new(data)?;
    let at = probe.join("at");
    match rustix::mount::mount("overlay", &at, "overlay", MountFlags::empty(), Some(&*data)) {
        Ok(()) => {
            rustix::mount::unmount(&at, UnmountFlags::DETACH)?;
            Ok(true)
        }
        Err(rustix::io::Errno::PERM) => {
            let arguments =
                ["--user", "--map-root-user", "--mount", "mount", "-t", "overlay", "overlay", "-o"];
            let mut command = Command::new("unshare");
            command.args(arguments).arg(std::ffi::OsStr::from_bytes(data.as_bytes())).arg(&at);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            Ok(command.status().is_ok_and(|status| status.success()))
        }
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use kernel::{Code, WorkspaceId};

    use super::super::suite::Ground;
    use super::super::{DEFAULT_QUOTA, Origin};
    use super::*;

    #[test]
    fn the_best_that_works_is_taken_and_what_is_used_stays() {
        let ground = Ground::new(Driver::Copy);
        let (here, id) = (&ground.root, WorkspaceId::new());
        let workspaces = open(here).unwrap();
        assert_eq!(workspaces.driver(), Driver::Overlay);
        drop(workspaces);
        let copies = open_as(Driver::Copy, here).unwrap();
        copies.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
        drop(copies);
        let workspaces = open(here).unwrap();
        assert_eq!((workspaces.driver(), workspaces.ids().unwrap().0), (Driver::Copy, vec![id]));
        drop(workspaces);
        assert_eq!(open_as(Driver::Btrfs, here).err().unwrap().code(), Code::Unavailable);
        // In two ways at once: nobody can know which of them is meant.
        open_as(Driver::Overlay, here).unwrap().create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
        assert_eq!(open(here).err().unwrap().code(), Code::Unavailable);
    }

    #[test]
    fn a_pool_is_made_once_and_mounted_when_it_is_needed() {
        let ground = Ground::new(Driver::Btrfs);
        let (directory, id) = (ground.root.parent().unwrap(), WorkspaceId::new());
        assert_eq!(pool::prepare(directory, 4 << 30).unwrap(), ground.root);
        let workspaces = open(directory).unwrap();
        workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
        assert_eq!((workspaces.driver(), workspaces.fullness(id).unwrap().enforced), (Driver::Btrfs, true));
        drop(workspaces);
        rustix::mount::unmount(&ground.root, UnmountFlags::empty()).unwrap();
        assert_eq!(open(directory).unwrap().ids().unwrap().0, [id]);
        // What there is of it cannot be used: nothing else is taken in its place.
        rustix::mount::unmount(&ground.root, UnmountFlags::empty()).unwrap();
        std::fs::write(directory.join("pool.img"), vec![0; 1 << 20]).unwrap();
        assert_eq!(open(directory).err().unwrap().code(), Code::Unavailable);
        let small = pool::prepare(&ground.beside("other"), 1 << 20).unwrap_err();
        assert_eq!(small.code(), Code::InvalidInput);
    }
}
