//! A btrfs file system for workspaces in a file of its own, on any machine whose root can mount it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::MountFlags;

use super::shelf::private;
use super::{Error, btrfs};

/// The least that a pool can be.
pub const LEAST: u64 = 1 << 30;

const IMAGE: &str = "pool.img";
const MOUNTED: &str = "pool";
/// What a program says is of interest when it fails, and not all of it.
const SAID: usize = 400;

/// The magic number of btrfs (`linux/magic.h`).
const BTRFS: i64 = 0x9123_683e;

/// Where the pool of `directory` is mounted, or would be.
#[must_use]
pub fn mounted_at(directory: &Path) -> PathBuf {
    directory.join(MOUNTED)
}

/// Whether `directory` has a pool, in a file or on a partition that is mounted there.
#[must_use]
pub fn is_there(directory: &Path) -> bool {
    directory.join(IMAGE).exists() || is_mounted(&mounted_at(directory))
}

/// Makes a pool of `bytes` in a file of `directory`, which takes room on the disk only as it fills, and mounts it. A pool
/// that is there is only mounted.
///
/// # Errors
/// `unavailable` with what is to be done where this machine cannot; nothing half-made is left.
pub fn prepare(directory: &Path, bytes: u64) -> kernel::Result<PathBuf> {
    Ok(prepared(directory, bytes)?)
}

fn prepared(directory: &Path, bytes: u64) -> Result<PathBuf, Error> {
    let failed = || Error::io("the file of the pool cannot be made");
    let image = directory.join(IMAGE);
    if !is_there(directory) {
        if bytes < LEAST {
            return Err(Error::QuotaTooSmall { given: bytes, least: LEAST });
        }
        private(directory).map_err(failed())?;
        let half = directory.join(format!("{IMAGE}.half"));
        let file = File::create(&half).map_err(failed())?;
        file.set_len(bytes).map_err(failed())?;
        run("mkfs.btrfs", "btrfs-progs", &["--quiet".as_ref(), "--force".as_ref(), half.as_os_str()])?;
        file.sync_all().map_err(failed())?;
        std::fs::rename(&half, &image).map_err(failed())?;
    }
    mount(directory)
}

/// Mounts the pool of `directory` unless it is mounted, and returns where.
///
/// # Errors
/// As [`prepare`].
pub(super) fn mount(directory: &Path) -> Result<PathBuf, Error> {
    let at = mounted_at(directory);
    if is_mounted(&at) {
        return Ok(at);
    }
    private(&at).map_err(Error::io("the place of the pool cannot be made"))?;
    let image = directory.join(IMAGE);
    // A device that has the file already is used again; without direct access everything would be cached twice.
    let attach = |direct: &str| {
        let arguments = ["--find", "--show", "--nooverlap", direct];
        let arguments = arguments.iter().map(AsRef::as_ref).chain([image.as_os_str()]);
        run("losetup", "mount", &arguments.collect::<Vec<_>>())
    };
    let device = attach("--direct-io=on").or_else(|_| attach("--direct-io=off"))?;
    let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
    let mounted = rustix::mount::mount(&*device, &at, "btrfs", flags, Some(c"compress=zstd:1"));
    // A device that is in use goes when it is not any more.
    let detached = run("losetup", "mount", &["--detach".as_ref(), device.as_ref()]);
    mounted.map_err(|error| Error::Unavailable {
        what: format!("the pool of the workspaces cannot be mounted: {error}"),
        hint: "start Steading as root, on a kernel with btrfs and loop devices".to_owned(),
    })?;
    detached?;
    btrfs::with_quotas(&at)?;
    Ok(at)
}

/// Whether a btrfs file system of its own is mounted at `at`.
fn is_mounted(at: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|about| about.dev()).ok();
    let kind = rustix::fs::statfs(at).map(|about| about.f_type).ok();
    kind == Some(BTRFS) && at.parent().is_some_and(|above| device(at) != device(above))
}

/// Runs a program of the system and returns what it says, without the line's end.
fn run(program: &str, package: &str, arguments: &[&std::ffi::OsStr]) -> Result<String, Error> {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let found = places.iter().map(|place| Path::new(place).join(program)).find(|path| path.is_file());
    let Some(found) = found else {
        return Err(Error::Unavailable {
            what: format!("this machine has no {program}"),
            hint: format!("install the package {package}"),
        });
    };
    let output = Command::new(found).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(Error::io("a program of the system cannot be started"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Unavailable {
            what: format!("{program} fails: {}", said.trim().chars().take(SAID).collect::<String>()),
            hint: "start Steading as root, on a machine with loop devices and room on the disk".to_owned(),
        });
    }
    let said = String::from_utf8(output.stdout).map_err(io::Error::other);
    Ok(said.map_err(Error::io("a program of the system says what is no text"))?.trim_end().to_owned())
}
