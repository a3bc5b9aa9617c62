//! Brings a tree back from archives, which may come from anywhere.
//!
//! The manifest says what is made and where; an archive only gives contents, each of which must have the hash that the
//! manifest says. Links are made last, so that nothing is ever written through one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kernel::{BlobHash, WorkspaceSnapshotId};
use rustix::fs::{AtFlags, Mode, Timespec, Timestamps};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::manifest::{Entry, Manifest, What, spoilt};
use super::{Caps, Error, beneath, copying};

/// Gives the archive of a snapshot to read.
pub type Open<'a> = dyn FnMut(WorkspaceSnapshotId) -> kernel::Result<Box<dyn Read>> + 'a;

/// Takes one content, which is so long in its archive.
type Take<'a> = dyn FnMut(&Entry, &mut dyn Read, u64) -> Result<(), Error> + 'a;

/// Takes a piece of a content, which begins there.
type TakeBlock<'a> = dyn FnMut(&[u8], u64) -> Result<(), Error> + 'a;

/// What is read at once; blocks of it that are all zeros become holes.
const BLOCK: usize = 64 << 10;

/// Holds that the archives have everything that `manifest` describes, to the last byte.
///
/// # Errors
/// As [`restore`].
pub fn verify(manifest: &Manifest, open: &mut Open<'_>, caps: &Caps) -> kernel::Result<()> {
    let mut block = vec![0; BLOCK];
    for (number, archive) in manifest.archives.iter().enumerate() {
        let input = open(archive.snapshot)?;
        contents(manifest, number, archive.bytes, input, caps, &mut |entry, content, given| {
            checked(entry, content, given, &mut block, &mut |_, _| Ok(()))
        })?;
    }
    Ok(())
}

/// Makes the tree that `manifest` describes in the empty directory `to`.
///
/// # Errors
/// `Spoilt` where an archive is not what was written; of `open`; of the file system. What is in `to` is then of no use.
pub fn restore(manifest: &Manifest, open: &mut Open<'_>, caps: &Caps, to: &Path) -> kernel::Result<()> {
    let mut tree = Tree::over(manifest, to)?;
    tree.directories()?;
    for (number, archive) in manifest.archives.iter().enumerate() {
        let input = open(archive.snapshot)?;
        contents(manifest, number, archive.bytes, input, caps, &mut |entry, content, given| {
            tree.file(entry, content, given)
        })?;
    }
    tree.links()?;
    Ok(tree.attributes()?)
}

/// Gives `take` what the manifest says is in one archive, each with how long it is there.
fn contents(
    manifest: &Manifest,
    number: usize,
    bytes: u64,
    input: Box<dyn Read>,
    caps: &Caps,
    take: &mut Take<'_>,
) -> Result<(), Error> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => spoilt(b"the archive", "it is longer than was written"),
        _ => spoilt(b"the archive", "it cannot be read"),
    };
    let mut wanted: HashMap<&[u8], &Entry> = HashMap::new();
    for entry in &manifest.entries {
        if let What::File { archive, same_as: None, .. } = &entry.what
            && *archive == number
        {
            wanted.insert(&entry.path, entry);
        }
    }
    let mut input = zstd::Decoder::new(input).map_err(unreadable)?;
    input.window_log_max(23).map_err(unreadable)?;
    let mut archive = tar::Archive::new(Bounded { inner: input, left: bytes });
    let mut long_name = None;
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        let kind = entry.header().entry_type();
        let size = entry.size();
        if matches!(kind, EntryType::GNULongName | EntryType::GNULongLink) {
            if size > caps.path_bytes + 1 {
                return Err(spoilt(b"the archive", "a path in it is too long"));
            }
            let mut name = Vec::new();
            entry.read_to_end(&mut name).map_err(unreadable)?;
            if kind == EntryType::GNULongName {
                name.pop_if(|byte| *byte == 0);
                long_name = Some(name);
            }
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        match kind {
            EntryType::Regular => {}
            // They are made as the manifest says.
            EntryType::Directory | EntryType::Symlink => continue,
            _ => return Err(spoilt(&name, "it is neither a file nor a directory nor a link")),
        }
        // What was replaced or removed since is still in an archive that something else is needed from.
        let Some(wanted) = wanted.remove(name.as_slice()) else { continue };
        take(wanted, &mut entry, size)?;
    }
    match wanted.into_values().next() {
        Some(missing) => Err(spoilt(&missing.path, "its content is missing")),
        None => Ok(()),
    }
}

/// Reads a content that is `given` bytes long and has to be what the manifest says, a block at a time.
fn checked(
    entry: &Entry,
    content: &mut dyn Read,
    given: u64,
    block: &mut [u8],
    take: &mut TakeBlock<'_>,
) -> Result<(), Error> {
    let What::File { size, hash, .. } = &entry.what else { return Ok(()) };
    if *size != given {
        return Err(spoilt(&entry.path, "its content has another length"));
    }
    let (mut sum, mut at) = (Sha256::new(), 0u64);
    while at < given {
        let most = usize::try_from(given - at).unwrap_or(block.len()).min(block.len());
        let read = content.read(&mut block[..most]).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => spoilt(b"the archive", "it is longer than was written"),
            _ => spoilt(&entry.path, "its content cannot be read"),
        })?;
        if read == 0 {
            return Err(spoilt(&entry.path, "its content ends early"));
        }
        sum.update(&block[..read]);
        take(&block[..read], at)?;
        at += read as u64;
    }
    if BlobHash::from_bytes(sum.finalize().into()) != *hash {
        return Err(spoilt(&entry.path, "its content is not what was written"));
    }
    Ok(())
}

struct Tree<'a> {
    manifest: &'a Manifest,
    top: OwnedFd,
    /// The directory that was written into last, and its path.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Tree<'a> {
    fn over(manifest: &'a Manifest, to: &Path) -> Result<Self, Error> {
        let top = beneath::root(to).map_err(Error::os("the directory to restore into cannot be opened"))?;
        Ok(Self { manifest, top, parent: None })
    }

    /// The directory that `path` is in.
    fn parent(&mut self, path: &[u8]) -> Result<&OwnedFd, Error> {
        let (above, _) = beneath::split(path);
        if self.parent.as_ref().is_none_or(|(at, _)| at != above) {
            let fd = beneath::directory(&self.top, above).map_err(failed())?;
            self.parent = Some((above.to_vec(), fd));
        }
        self.parent.as_ref().map(|(_, fd)| fd).ok_or_else(|| spoilt(path, "it is in no directory"))
    }

    fn directories(&mut self) -> Result<(), Error> {
        let manifest = self.manifest;
        for entry in manifest.entries.iter().filter(|entry| entry.what == What::Directory) {
            let (_, name) = beneath::split(&entry.path);
            rustix::fs::mkdirat(self.parent(&entry.path)?, name, Mode::RWXU).map_err(failed())?;
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry, content: &mut dyn Read, given: u64) -> Result<(), Error> {
        let (_, name) = beneath::split(&entry.path);
        let parent = self.parent(&entry.path)?;
        let file = File::from(beneath::new_file(parent, name).map_err(failed())?);
        checked(entry, content, given, &mut vec![0; BLOCK], &mut |block, at| {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, at).map_err(Error::io(RESTORED))?;
            }
            Ok(())
        })?;
        file.set_len(given).map_err(Error::io(RESTORED))?;
        copying::own_open(file.as_fd())?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode & 0o777)).map_err(failed())?;
        rustix::fs::futimens(&file, &times(entry)).map_err(failed())
    }

    fn links(&mut self) -> Result<(), Error> {
        let manifest = self.manifest;
        for entry in &manifest.entries {
            let (_, name) = beneath::split(&entry.path);
            match &entry.what {
                What::Link { target } => {
                    let parent = self.parent(&entry.path)?;
                    rustix::fs::symlinkat(target.as_slice(), parent, name).map_err(failed())?;
                    copying::own(parent.as_fd(), name)?;
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::utimensat(parent, name, &times(entry), flags).map_err(failed())?;
                }
                What::File { same_as: Some(first), .. } => {
                    let (above, first) = beneath::split(first);
                    let above = beneath::directory(&self.top, above).map_err(failed())?;
                    let parent = self.parent(&entry.path)?;
                    rustix::fs::linkat(&above, first, parent, name, AtFlags::empty()).map_err(failed())?;
                }
                What::Directory | What::File { .. } => {}
            }
        }
        Ok(())
    }

    /// Directories get their attributes when nothing is written into them any more.
    fn attributes(&mut self) -> Result<(), Error> {
        for entry in self.manifest.entries.iter().rev().filter(|entry| entry.what == What::Directory) {
            let directory = beneath::directory(&self.top, &entry.path).map_err(failed())?;
            copying::own_open(directory.as_fd())?;
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(entry.mode & 0o777)).map_err(failed())?;
            rustix::fs::futimens(&directory, &times(entry)).map_err(failed())?;
        }
        rustix::fs::syncfs(&self.top).map_err(failed())
    }
}

const RESTORED: &str = "what is restored cannot be written";

fn failed() -> impl Fn(rustix::io::Errno) -> Error {
    Error::os(RESTORED)
}

fn times(entry: &Entry) -> Timestamps {
    let (tv_sec, nanoseconds) = entry.modified;
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Reads no more than was written.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            // One byte says whether this is the end.
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::ErrorKind::FileTooLarge.into()),
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}
