//! Opens what is below a directory and nothing else, however deep it is and whatever links lie there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Result;

/// Longer paths are walked in pieces: the kernel takes at most 4,095 bytes at once.
const PIECE: usize = 4000;

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A directory of the host itself, which is trusted, to look below.
///
/// # Errors
/// Of the file system.
pub fn root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// The directory at `path` below `root`; the empty path is `root` itself.
///
/// # Errors
/// `LOOP` where a link is in the way, `NOTDIR`, `NOENT`, and others of the file system.
pub fn directory(root: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    let mut pieces = pieces(path).peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(piece) = pieces.next() {
        let access = if pieces.peek().is_some() { OFlags::PATH } else { OFlags::RDONLY };
        let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = at.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        at = Some(rustix::fs::openat2(from, piece, flags, Mode::empty(), RESOLVE)?);
    }
    at.ok_or(rustix::io::Errno::INVAL)
}

/// The file `name` of `directory`, to be read. It never waits, whatever the file is.
///
/// # Errors
/// As [`directory`].
pub fn file(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), RESOLVE)
}

/// A new file `name` of `directory`, which only its owner may read until it is given another mode.
///
/// # Errors
/// `EXIST` where there is anything of that name, and others of the file system.
pub fn new_file(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name, flags, Mode::RUSR | Mode::WUSR, RESOLVE)
}

/// A path without its last name, and that name.
#[must_use]
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// `path` in pieces of whole names, each short enough for the kernel.
fn pieces(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let path = rest?;
        if path.is_empty() {
            rest = None;
            return Some(b".".as_slice());
        }
        if path.len() <= PIECE {
            rest = None;
            return Some(path);
        }
        let cut = path[..PIECE].iter().rposition(|byte| *byte == b'/').unwrap_or(PIECE);
        rest = Some(&path[(cut + 1).min(path.len())..]);
        Some(&path[..cut])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_between_names_and_nothing_of_it_is_lost() {
        let long = vec![b"some/name".as_slice(); 1500].join(&b'/');
        for path in [b"".as_slice(), b"a", b"a/b", &long] {
            let parts: Vec<&[u8]> = pieces(path).collect();
            assert!(
                parts
                    .iter()
                    .all(|part| part.len() <= PIECE && !part.starts_with(b"/") && !part.ends_with(b"/"))
            );
            let whole = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
            assert_eq!(parts.join(&b'/'), whole);
        }
    }
}
