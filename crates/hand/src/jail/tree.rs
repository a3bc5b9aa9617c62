//! What users of a jail see of disks: the workspace, and the layers over `/usr/local`.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, unmount};

use super::mounts::{READ_ONLY, attach, copy, file_system};
use super::{At, Error, JailSpec, Protection, Step, Tree, sys};

/// The namespace of users whose numbers mounts of disks show; without one they show the disk's own.
pub type Translation<'a> = Option<BorrowedFd<'a>>;

/// Mounts the workspace.
pub fn workspace(spec: &JailSpec, translation: Translation<'_>) -> Result<(), Error> {
    let nosuid = if spec.has(Protection::Nosuid) { libc::MOUNT_ATTR_NOSUID } else { 0 };
    let target = Path::new("workspace");
    match &spec.workspace {
        Tree::Directory { path } => {
            let copy = copy(path, nosuid | libc::MOUNT_ATTR_NODEV, translation);
            copy.and_then(|copy| attach(&copy, target)).at(Step::Workspace, path.display())
        }
        Tree::Overlay { lowers, upper, work } => {
            overlay(spec, translation, lowers, Some((upper, work)), target)
        }
    }
}

/// Lays the directories over `/usr/local`, which is empty without any.
pub fn layers(spec: &JailSpec, translation: Translation<'_>) -> Result<(), Error> {
    let target = Path::new("usr/local");
    match spec.layers.as_slice() {
        [] => Ok(()),
        [one] => {
            let copy = copy(one, READ_ONLY, translation);
            copy.and_then(|copy| attach(&copy, target)).at(Step::Workspace, one.display())
        }
        several => overlay(spec, translation, several, None, target),
    }
}

/// Whether mounts of all that lies on disks can translate to the numbers of `users`.
///
/// # Errors
/// Where something is not there, or may not be mounted.
pub fn translates(spec: &JailSpec, users: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut disks: Vec<&Path> = spec.layers.iter().map(PathBuf::as_path).collect();
    match &spec.workspace {
        Tree::Directory { path } => disks.push(path),
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
    lowers: &[PathBuf],
    changes: Option<(&PathBuf, &PathBuf)>,
    target: &Path,
) -> Result<(), Error> {
    let mut mounted = Vec::new();
    let mut mount_layer = |source: &Path| {
        let at = PathBuf::from(format!("tmp/.layer{}", mounted.len()));
        fs::create_dir(&at)
            .and_then(|()| copy(source, libc::MOUNT_ATTR_NODEV, translation))
            .and_then(|copy| attach(&copy, &at))
            .at(Step::Workspace, source.display())?;
        mounted.push(at.clone());
        Ok::<_, Error>(at)
    };
    let layers = lowers.iter().map(|lower| mount_layer(lower)).collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<_> = layers.iter().map(|layer| layer.to_string_lossy()).collect();
    let mut options = format!("userxattr,lowerdir={}", layers.join(":"));
    let mut flags = MountFlags::NODEV;
    match changes {
        // The engine wants both directories in one mount.
        Some((upper, work)) => {
            let both = common(upper, work).at(Step::Workspace, upper.display())?;
            let at = mount_layer(both)?;
            let below = |path: &Path| at.join(path.strip_prefix(both).unwrap_or(path)).display().to_string();
            options.push_str(&format!(",upperdir={},workdir={}", below(upper), below(work)));
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
