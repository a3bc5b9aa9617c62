//! Copies trees of files, as they are or with their layers made one.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Gid, Mode, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::files::{self, Marks, OPAQUE, text};
use super::{Caps, Error, Files, Kind, OWNER, Seen, beneath};

/// How the contents of files come across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// By sharing their blocks where the file system can, else byte by byte.
    Shared,
    /// Byte by byte.
    Bytes,
    /// By linking the files, which nobody writes any more.
    Linked,
}

/// Copies what `from` shows into the directory `to`, which is empty, and returns how many bytes that takes.
///
/// # Errors
/// `OverQuota` past `quota`; those of [`Files::walk`]; of the file system.
pub(super) fn merged(
    from: &Files,
    to: BorrowedFd<'_>,
    how: How,
    caps: &Caps,
    quota: u64,
) -> Result<u64, Error> {
    copy(from, to, how, caps, Marks::Obeyed, quota)
}

/// Copies one layer with its marks.
///
/// # Errors
/// As [`merged`].
pub(super) fn layer(from: &Files, to: BorrowedFd<'_>, caps: &Caps) -> Result<u64, Error> {
    copy(from, to, How::Shared, caps, Marks::Shown, u64::MAX)
}

fn copy(
    from: &Files,
    to: BorrowedFd<'_>,
    how: How,
    caps: &Caps,
    marks: Marks,
    quota: u64,
) -> Result<u64, Error> {
    let mut copy =
        Copy { to, how, marks, parent: None, links: HashMap::new(), directories: Vec::new(), bytes: 0 };
    from.walk_marked(b"", caps, marks, &|_| false, &mut |seen| {
        copy.take(seen)?;
        if copy.bytes > quota {
            return Err(Error::OverQuota { quota_bytes: quota });
        }
        Ok(())
    })?;
    let bytes = copy.bytes;
    copy.finish()?;
    Ok(bytes)
}

struct Copy<'a> {
    to: BorrowedFd<'a>,
    how: How,
    marks: Marks,
    /// The directory that was written into last, and its path.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Files with several names, and the first of them.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Directories get their attributes when nothing is written into them any more.
    directories: Vec<(Vec<u8>, Stat)>,
    bytes: u64,
}

impl Copy<'_> {
    fn take(&mut self, seen: &Seen<'_>) -> Result<(), Error> {
        let failed = || Error::os("a file cannot be copied");
        let (above, name) = beneath::split(seen.path);
        if self.parent.as_ref().is_none_or(|(path, _)| path != above) {
            let fd = beneath::directory(self.to, above).map_err(failed())?;
            self.parent = Some((above.to_vec(), fd));
        }
        if seen.kind == Kind::File && self.link(seen)? {
            return Ok(());
        }
        let Some((_, parent)) = &self.parent else { return Ok(()) };
        match seen.kind {
            Kind::Directory => {
                rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(failed())?;
                if self.marks == Marks::Shown && opaque(seen)? {
                    let fd = beneath::directory(parent, name).map_err(failed())?;
                    rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::CREATE).map_err(failed())?;
                }
                self.directories.push((seen.path.to_vec(), *seen.stat));
                self.bytes += taken(seen.stat);
                return Ok(());
            }
            Kind::Link => {
                let target = seen.target()?;
                rustix::fs::symlinkat(target, parent, name).map_err(failed())?;
            }
            Kind::Whiteout => {
                rustix::fs::mknodat(parent, name, rustix::fs::FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(failed())?;
                return Ok(());
            }
            Kind::Special => return Ok(()),
            Kind::File => {
                let file = File::from(beneath::new_file(parent, name).map_err(failed())?);
                let source = seen.open()?;
                data(&source, &file, size(seen.stat), self.how)
                    .map_err(Error::io("a file cannot be copied"))?;
                self.bytes += taken(seen.stat);
                own(parent.as_fd(), name)?;
                rustix::fs::fchmod(&file, mode(seen.stat)).map_err(failed())?;
                return rustix::fs::futimens(&file, &times(seen.stat)).map_err(failed());
            }
        }
        own(parent.as_fd(), name)?;
        rustix::fs::utimensat(parent, name, &times(seen.stat), AtFlags::SYMLINK_NOFOLLOW).map_err(failed())
    }

    /// Whether the file is there now under this name too, because it was there under another.
    fn link(&mut self, seen: &Seen<'_>) -> Result<bool, Error> {
        let (_, name) = beneath::split(seen.path);
        let Some((_, parent)) = &self.parent else { return Ok(false) };
        if self.how == How::Linked {
            return match rustix::fs::linkat(seen.parent, seen.name, parent, name, AtFlags::empty()) {
                Ok(()) => {
                    self.bytes += taken(seen.stat);
                    Ok(true)
                }
                Err(Errno::MLINK | Errno::PERM) => Ok(false),
                Err(other) => Err(Error::Io("a file cannot be linked", other.into())),
            };
        }
        if seen.stat.st_nlink < 2 {
            return Ok(false);
        }
        let Some(first) = self.links.get(&(seen.stat.st_dev, seen.stat.st_ino)) else {
            self.links.insert((seen.stat.st_dev, seen.stat.st_ino), seen.path.to_vec());
            return Ok(false);
        };
        let (above, first) = beneath::split(first);
        let above = beneath::directory(self.to, above).map_err(Error::os("a file cannot be linked"))?;
        match rustix::fs::linkat(&above, first, parent, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::MLINK) => Ok(false),
            Err(other) => Err(Error::Io("a file cannot be linked", other.into())),
        }
    }

    fn finish(self) -> Result<(), Error> {
        for (path, stat) in self.directories.iter().rev() {
            let failed = || Error::os("the attributes of a directory cannot be set");
            let fd = beneath::directory(self.to, path).map_err(failed())?;
            own_open(fd.as_fd())?;
            rustix::fs::fchmod(&fd, mode(stat)).map_err(failed())?;
            rustix::fs::futimens(&fd, &times(stat)).map_err(failed())?;
        }
        Ok(())
    }
}

fn opaque(seen: &Seen<'_>) -> Result<bool, Error> {
    let fd = beneath::directory(seen.parent, seen.name)
        .map_err(|_| Error::Refused { path: text(seen.path), what: "it changed while it was read" })?;
    files::is_opaque(fd.as_fd())
}

/// Gives `name` to the user of sandboxes, where that can be done; without privileges everything is ours anyway.
pub(super) fn own(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (Some(Uid::from_raw(OWNER)), Some(Gid::from_raw(OWNER)));
    rustix::fs::chownat(parent, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::os("a file cannot be given to the user of sandboxes"))
}

/// The same for what is open.
pub(super) fn own_open(fd: BorrowedFd<'_>) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (Some(Uid::from_raw(OWNER)), Some(Gid::from_raw(OWNER)));
    rustix::fs::fchown(fd, user, group).map_err(Error::os("a file cannot be given to the user of sandboxes"))
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o777)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The length of what is there, holes included.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// The bytes that it takes on the disk.
pub(super) fn taken(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or_default() * 512
}

/// Brings the content across; holes stay holes.
fn data(from: &File, to: &File, size: u64, how: How) -> io::Result<()> {
    if how == How::Shared && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(other) => return Err(other.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size).clamp(start, size);
        if end == start {
            break;
        }
        stretch(from, to, start, end)?;
        at = end;
    }
    to.set_len(size)
}

fn stretch(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let length = usize::try_from(end - source).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), length) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => break,
            Err(other) => return Err(other.into()),
        }
    }
    let mut buffer = vec![0; 256 << 10];
    while source < end {
        let length = usize::try_from(end - source).unwrap_or(usize::MAX).min(buffer.len());
        let read = from.read_at(&mut buffer[..length], source)?;
        if read == 0 {
            break;
        }
        to.write_all_at(&buffer[..read], source)?;
        source += read as u64;
    }
    Ok(())
}
