//! What users of a jail see of disks: the workspace, and the layers over `/usr/local`.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, unmount};

use super::mounts::{READ_ONLY, attach, copy, file_system};
use super::{At, Error, JailSpec, Protection, Step, Tree, sys};

/// The namespace of users whose numbers mounts of disks show; without one they show the disk's own.
pub type Translation<'a> = Option<BorrowedFd<'a>>;

/// What lies on disks, taken from the host and attached nowhere yet.
pub struct Taken {
    workspace: Files,
    layers: Vec<OwnedFd>,
}

enum Files {
    Directory(OwnedFd),
    Overlay(Vec<OwnedFd>, Changes),
}

/// Where an overlay's changes go: two directories below one, for the engine wants both in one mount.
struct Changes {
    both: OwnedFd,
    upper: PathBuf,
    work: PathBuf,
}

/// Takes it, where the host's mounts are.
///
/// # Errors
/// Where something is not there, or may not be mounted.
pub fn take(spec: &JailSpec, translation: Translation<'_>) -> Result<Taken, Error> {
    let take = |path: &Path, set| copy(path, set, translation).at(Step::Workspace, path.display());
    let each =
        |paths: &[PathBuf], set| paths.iter().map(|path| take(path, set)).collect::<Result<Vec<_>, _>>();
    let nosuid = if spec.has(Protection::Nosuid) { libc::MOUNT_ATTR_NOSUID } else { 0 };
    let workspace = match &spec.workspace {
        Tree::Directory { path } => Files::Directory(take(path, nosuid | libc::MOUNT_ATTR_NODEV)?),
        Tree::Fixed { path } => Files::Directory(take(path, READ_ONLY)?),
        Tree::Overlay { lowers, upper, work } => {
            let both = common(upper, work).at(Step::Workspace, upper.display())?;
            let below = |path: &Path| path.strip_prefix(both).unwrap_or(path).to_owned();
            let (upper, work) = (below(upper), below(work));
            let both = take(both, libc::MOUNT_ATTR_NODEV)?;
            Files::Overlay(each(lowers, libc::MOUNT_ATTR_NODEV)?, Changes { both, upper, work })
        }
    };
    let one = spec.layers.len() == 1;
    let layers = each(&spec.layers, if one { READ_ONLY } else { libc::MOUNT_ATTR_NODEV })?;
    Ok(Taken { workspace, layers })
}

impl Taken {
    /// Attaches it where this process is, in the jail's mounts: the workspace, and the layers over `/usr/local`, which is
    /// empty without any.
    ///
    /// # Errors
    /// The mount that failed.
    pub fn attach(self, spec: &JailSpec, translation: Translation<'_>) -> Result<(), Error> {
        let (workspace, local) = (Path::new("workspace"), Path::new("usr/local"));
        match self.workspace {
            Files::Directory(copy) => attach(&copy, workspace).at(Step::Workspace, "workspace")?,
            Files::Overlay(lowers, changes) => {
                overlay(spec, translation, &lowers, Some(&changes), workspace)?;
            }
        }
        match self.layers.as_slice() {
            [] => Ok(()),
            [one] => attach(one, local).at(Step::Workspace, "usr/local"),
            several => overlay(spec, translation, several, None, local),
        }
    }
}

/// Whether mounts of all that lies on disks can translate to the numbers of `users`.
///
/// # Errors
/// Where something is not there, or may not be mounted.
pub fn translates(spec: &JailSpec, users: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut disks: Vec<&Path> = spec.layers.iter().map(PathBuf::as_path).collect();
    match &spec.workspace {
        Tree::Directory { path } | Tree::Fixed { path } => disks.push(path),
        Tree::Overlay { lowers, upper, .. } => {
            disks.extend(lowers.iter().map(PathBuf::as_path));
            disks.push(upper);
        }
    }
    for disk in disks {
        match copy(disk, 0, Some(users)) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(error).at(Step::Workspace, disk.display()),
        }
    }
    Ok(true)
}

/// An overlay itself cannot translate, so that its layers do, each mounted for just as long as it takes.
fn overlay(
    spec: &JailSpec,
    translation: Translation<'_>,
    lowers: &[OwnedFd],
    changes: Option<&Changes>,
    target: &Path,
) -> Result<(), Error> {
    let mut mounted = Vec::new();
    let mut mount_layer = |layer: &OwnedFd| {
        let at = PathBuf::from(format!("/tmp/.layer{}", mounted.len()));
        fs::create_dir(&at).and_then(|()| attach(layer, &at)).at(Step::Workspace, at.display())?;
        mounted.push(at.clone());
        Ok::<_, Error>(at)
    };
    let layers = lowers.iter().map(&mut mount_layer).collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<_> = layers.iter().map(|layer| layer.to_string_lossy()).collect();
    let mut options = format!("userxattr,lowerdir={}", layers.join(":"));
    let mut flags = MountFlags::NODEV;
    match changes {
        Some(Changes { both, upper, work }) => {
            let at = mount_layer(both)?;
            let (upper, work) = (at.join(upper), at.join(work));
            options.push_str(&format!(",upperdir={},workdir={}", upper.display(), work.display()));
        }
        None => flags |= MountFlags::RDONLY,
    }
    if spec.has(Protection::Nosuid) {
        flags |= MountFlags::NOSUID;
    }
    // What the engine does by itself, it does as whoever mounts it; that has to be a user whom the layers know.
    let root = translation.map_or(0, |_| spec.users.root());
    sys::touch_files_as(root).at(Step::Workspace, "the users of an overlay")?;
    file_system("overlay", target, flags, &options)?;
    sys::touch_files_as(0).at(Step::Workspace, "the users of an overlay")?;
    for at in mounted {
        unmount(&at, UnmountFlags::DETACH).at(Step::Workspace, at.display())?;
        fs::remove_dir(&at).at(Step::Workspace, at.display())?;
    }
    Ok(())
}

/// The closest directory that has both below it.
fn common<'a>(one: &'a Path, other: &Path) -> io::Result<&'a Path> {
    let shared = one.ancestors().skip(1).find(|ancestor| other.starts_with(ancestor));
    shared.ok_or_else(|| io::Error::other("upper and work have no directory in common"))
}
