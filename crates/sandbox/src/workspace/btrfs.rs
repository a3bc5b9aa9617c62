//! Trees on btrfs: subvolumes, which are doubled and removed in a moment however much is in them.

use std::ffi::c_char;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{NoArg, Setter, Updater, ioctl, opcode};

use super::shelf::{Clear, Sharing, step};
use super::trees::Medium;
use super::{Driver, Error, Trees, beneath, copying, removal};

/// btrfs's own group of calls (`linux/btrfs.h`).
const GROUP: u8 = 0x94;
/// The inode of every subvolume's top.
const TOP: u64 = 256;
const READ_ONLY: u64 = 1 << 1;
const LIMIT_REFERENCED: u64 = 1;
const QUOTA_ENABLE: u64 = 1;

/// `struct btrfs_ioctl_vol_args`
#[repr(C)]
struct Volume {
    fd: i64,
    name: [c_char; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`
#[repr(C)]
struct VolumeWith {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [c_char; 4040],
}

/// `struct btrfs_ioctl_quota_ctl_args`
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`
#[repr(C)]
struct QuotaLimit {
    group: u64,
    flags: u64,
    max_referenced: u64,
    others: [u64; 3],
}

/// `struct btrfs_ioctl_ino_lookup_args`
#[repr(C)]
struct Lookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_fs_info_args`
#[repr(C)]
struct Info {
    max_id: u64,
    devices: u64,
    id: [u8; 16],
    others: [u64; 124],
}

const CREATE: u32 = opcode::write::<Volume>(GROUP, 14);
const DESTROY: u32 = opcode::write::<Volume>(GROUP, 15);
const LOOKUP: u32 = opcode::read_write::<Lookup>(GROUP, 18);
const SNAPSHOT: u32 = opcode::write::<VolumeWith>(GROUP, 23);
const SET_FLAGS: u32 = opcode::write::<u64>(GROUP, 26);
const INFO: u32 = opcode::read::<Info>(GROUP, 31);
const QUOTA: u32 = opcode::read_write::<QuotaControl>(GROUP, 40);
const LIMIT: u32 = opcode::read::<QuotaLimit>(GROUP, 43);
const RESCAN_WAIT: u32 = opcode::none(GROUP, 46);

/// Subvolumes of one file system.
#[derive(Debug)]
pub(super) struct Subvolumes;

impl Trees {
    /// Workspaces in `root`, which is on btrfs. Quotas are enforced where the file system has them switched on.
    ///
    /// # Errors
    /// `unavailable` where subvolumes cannot be made there, or another process has them; of the file system.
    pub fn btrfs(root: &Path) -> kernel::Result<Self> {
        Ok(Self::over(root, Box::new(Subvolumes))?)
    }
}

impl Clear for Subvolumes {
    fn clear(&self, directory: &Path) -> Result<(), Error> {
        // A staged tree is one level down, one that was taken from its place two, below what was left over three.
        clear(directory, 3)
    }
}

fn clear(directory: &Path, levels: usize) -> Result<(), Error> {
    let failed = || Error::io("what is not needed any more cannot be removed");
    for entry in std::fs::read_dir(directory).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let about = entry.metadata().map_err(failed())?;
        if !about.is_dir() {
            continue;
        }
        if about.ino() == TOP {
            remove(&entry.path())?;
        } else if levels > 0 {
            clear(&entry.path(), levels - 1)?;
        }
    }
    removal::empty(directory)
}

impl Medium for Subvolumes {
    fn driver(&self) -> Driver {
        Driver::Btrfs
    }

    fn sharing(&self) -> Sharing {
        Sharing::Alone
    }

    fn make(&self, at: &Path) -> Result<(), Error> {
        let (above, name) = place(at)?;
        create(&above, Volume { fd: 0, name }).map_err(Error::os("a subvolume cannot be made"))?;
        let made = beneath::root(at).map_err(Error::os("a subvolume cannot be opened"))?;
        rustix::fs::fchmod(&made, 0o755.into()).map_err(Error::os("a subvolume cannot be given its mode"))?;
        copying::own_open(made.as_fd())
    }

    fn double(&self, from: &Path, to: &Path, quota: u64) -> Result<(), Error> {
        let failed = || Error::os("a subvolume cannot be doubled");
        let source = beneath::root(from).map_err(failed())?;
        if quota != u64::MAX && referenced(&source)?.is_some_and(|bytes| bytes > quota) {
            return Err(Error::OverQuota { quota_bytes: quota });
        }
        let (above, name) = place(to)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&source).into();
        snapshot(&above, VolumeWith { fd, transaction: 0, flags: 0, unused: [0; 4], name })
            .map_err(failed())?;
        step();
        Ok(())
    }

    fn seal(&self, at: &Path) -> Result<(), Error> {
        let tree = beneath::root(at).map_err(Error::os("a subvolume cannot be opened"))?;
        set_flags(&tree, READ_ONLY).map_err(Error::os("a subvolume cannot be closed to writers"))
    }

    fn bound(&self, at: &Path, quota: u64) -> Result<bool, Error> {
        let tree = beneath::root(at).map_err(Error::os("a subvolume cannot be opened"))?;
        // Group 0 stands for that of the subvolume itself.
        let wanted = QuotaLimit { group: 0, flags: LIMIT_REFERENCED, max_referenced: quota, others: [0; 3] };
        match limit(&tree, wanted) {
            Ok(()) => Ok(true),
            // Quotas are switched off here.
            Err(Errno::NOTCONN | Errno::INVAL | Errno::NOENT) => Ok(false),
            Err(other) => Err(Error::Io("a subvolume cannot be given its quota", other.into())),
        }
    }
}

/// Whether subvolumes can be made in `directory` and removed.
pub(super) fn works(directory: &Path) -> bool {
    let probe = directory.join(format!(".probe-{}", std::process::id()));
    Subvolumes.make(&probe).is_ok() && remove(&probe).is_ok()
}

/// Switches quotas on for the file system of `directory`, which is then counted through.
///
/// # Errors
/// Of the file system.
pub(super) fn with_quotas(directory: &Path) -> Result<(), Error> {
    let failed = || Error::os("the pool cannot be given quotas");
    let tree = beneath::root(directory).map_err(failed())?;
    match quota(&tree, &mut QuotaControl { command: QUOTA_ENABLE, status: 0 }) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(other) => return Err(failed()(other)),
    }
    rescan_wait(&tree).map_err(failed())
}

/// Removes a subvolume. Whoever has worked in it may have made others in it, which go first.
fn remove(at: &Path) -> Result<(), Error> {
    let failed = || Error::os("a subvolume cannot be removed");
    let destroyed = |()| {
        let (above, name) = place(at)?;
        destroy(&above, Volume { fd: 0, name }).map_err(failed())
    };
    match destroyed(()) {
        Err(Error::Io(_, error)) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            removal::empty(at)?;
            destroyed(())
        }
        other => other,
    }
}

/// The bytes that a subvolume refers to, as last counted, where they are counted.
fn referenced(tree: &OwnedFd) -> Result<Option<u64>, Error> {
    let failed = || Error::os("a subvolume cannot be looked up");
    let mut found = Lookup { tree: 0, object: TOP, name: [0; 4080] };
    lookup(tree, &mut found).map_err(failed())?;
    let mut about = Info { max_id: 0, devices: 0, id: [0; 16], others: [0; 124] };
    info(tree, &mut about).map_err(failed())?;
    let id = uuid(about.id);
    let told = format!("/sys/fs/btrfs/{id}/qgroups/0_{}/referenced", found.tree);
    Ok(std::fs::read_to_string(told).ok().and_then(|bytes| bytes.trim().parse().ok()))
}

fn uuid(id: [u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The directory that `at` is in, and its name as the kernel takes it.
fn place<const N: usize>(at: &Path) -> Result<(File, [c_char; N]), Error> {
    let failed = || Error::io("a directory cannot be opened");
    let (Some(above), Some(name)) = (at.parent(), at.file_name()) else {
        return Err(failed()(io::ErrorKind::InvalidInput.into()));
    };
    let mut text = [0; N];
    // Names are ids and numbers, which always fit.
    for (to, byte) in text[..N - 1].iter_mut().zip(name.as_bytes()) {
        *to = byte.cast_signed() as c_char;
    }
    Ok((File::open(above).map_err(failed())?, text))
}

#[expect(unsafe_code, reason = "the call reads one `Volume`, whose layout is the kernel's")]
fn create(above: &File, volume: Volume) -> rustix::io::Result<()> {
    unsafe { ioctl(above, Setter::<CREATE, Volume>::new(volume)) }
}

#[expect(unsafe_code, reason = "the call reads one `Volume`, whose layout is the kernel's")]
fn destroy(above: &File, volume: Volume) -> rustix::io::Result<()> {
    unsafe { ioctl(above, Setter::<DESTROY, Volume>::new(volume)) }
}

#[expect(unsafe_code, reason = "the call reads one `VolumeWith`, whose layout is the kernel's")]
fn snapshot(above: &File, volume: VolumeWith) -> rustix::io::Result<()> {
    unsafe { ioctl(above, Setter::<SNAPSHOT, VolumeWith>::new(volume)) }
}

#[expect(unsafe_code, reason = "the call reads one integer of 64 bits")]
fn set_flags(tree: &OwnedFd, flags: u64) -> rustix::io::Result<()> {
    unsafe { ioctl(tree, Setter::<SET_FLAGS, u64>::new(flags)) }
}

#[expect(unsafe_code, reason = "the call reads one `QuotaLimit`, whose layout is the kernel's")]
fn limit(tree: &OwnedFd, limit: QuotaLimit) -> rustix::io::Result<()> {
    unsafe { ioctl(tree, Setter::<LIMIT, QuotaLimit>::new(limit)) }
}

#[expect(unsafe_code, reason = "the call reads and writes one `QuotaControl`, whose layout is the kernel's")]
fn quota(tree: &OwnedFd, control: &mut QuotaControl) -> rustix::io::Result<()> {
    unsafe { ioctl(tree, Updater::<QUOTA, QuotaControl>::new(control)) }
}

#[expect(unsafe_code, reason = "the call reads and writes one `Lookup`, whose layout is the kernel's")]
fn lookup(tree: &OwnedFd, lookup: &mut Lookup) -> rustix::io::Result<()> {
    unsafe { ioctl(tree, Updater::<LOOKUP, Lookup>::new(lookup)) }
}

#[expect(unsafe_code, reason = "the call writes one `Info`, whose layout is the kernel's")]
fn info(tree: &OwnedFd, info: &mut Info) -> rustix::io::Result<()> {
    unsafe { ioctl(tree, Updater::<INFO, Info>::new(info)) }
}

#[expect(unsafe_code, reason = "the call takes nothing")]
fn rescan_wait(tree: &OwnedFd) -> rustix::io::Result<()> {
    unsafe { ioctl(tree, NoArg::<RESCAN_WAIT>::new()) }
}
