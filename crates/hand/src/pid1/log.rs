//! Output that is kept: the last of it here, and all of it in a file, once it is more than that.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::owner::{Owner, create};
use crate::wire::Kept;

/// The most bytes of one file; output beyond is counted and dropped.
const FILE_BYTES: u64 = 32 << 20;

/// The file that a log may make.
#[derive(Debug, Clone)]
pub struct Place {
    /// Whose it is; without one, whose this process is.
    pub user: Option<u32>,
    /// Where, in a directory that is made for it.
    pub path: PathBuf,
}

/// Output that is kept.
#[derive(Debug)]
pub struct Log {
    ring: VecDeque<u8>,
    capacity: usize,
    total: u64,
    place: Place,
    file: Spill,
}

#[derive(Debug)]
enum Spill {
    /// All is in the ring.
    Unneeded,
    /// All but the last write is in the file.
    Open { file: File, path: PathBuf, bytes: u64 },
    /// The file ends early, where there is one.
    Closed { path: Option<PathBuf>, bytes: u64 },
}

impl Log {
    pub fn new(capacity: usize, place: Place) -> Self {
        Self { ring: VecDeque::new(), capacity, total: 0, place, file: Spill::Unneeded }
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The offset of the oldest byte that is here.
    pub fn oldest(&self) -> u64 {
        self.total - self.ring.len() as u64
    }

    /// At most `limit` bytes from that offset, which is not before the oldest.
    pub fn read(&self, from: u64, limit: usize) -> Vec<u8> {
        let skip =
            usize::try_from(from.saturating_sub(self.oldest())).unwrap_or(usize::MAX).min(self.ring.len());
        self.ring.range(skip..).take(limit).copied().collect()
    }

    pub fn append(&mut self, bytes: &[u8]) {
        if matches!(self.file, Spill::Unneeded) && self.ring.len() + bytes.len() > self.capacity {
            self.file = match new_file(&self.place) {
                Some(file) => Spill::Open { file, path: self.place.path.clone(), bytes: 0 },
                None => Spill::Closed { path: None, bytes: 0 },
            };
            let (first, second) = self.ring.as_slices();
            let (first, second) = (first.to_vec(), second.to_vec());
            self.spill(&first);
            self.spill(&second);
        }
        self.spill(bytes);
        self.total += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let surplus = (self.ring.len() + kept.len()).saturating_sub(self.capacity);
        self.ring.drain(..surplus);
        self.ring.extend(kept);
    }

    /// Where all of it is.
    pub fn kept(&self) -> Kept {
        let (path, file_bytes) = match &self.file {
            Spill::Unneeded => (None, 0),
            Spill::Open { path, bytes, .. } => (Some(path), *bytes),
            Spill::Closed { path, bytes } => (path.as_ref(), *bytes),
        };
        Kept { bytes: self.total, file: path.map(|path| path.to_string_lossy().into_owned()), file_bytes }
    }

    fn spill(&mut self, bytes: &[u8]) {
        let Spill::Open { file, path, bytes: written } = &mut self.file else { return };
        let room = usize::try_from(FILE_BYTES - *written).unwrap_or(usize::MAX);
        let mut rest = &bytes[..bytes.len().min(room)];
        let mut whole = rest.len() == bytes.len();
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(count @ 1..) => {
                    *written += count as u64;
                    rest = &rest[count..];
                }
                // The disk is full: the file ends here, the command goes on.
                _ => {
                    whole = false;
                    break;
                }
            }
        }
        if !whole {
            self.file = Spill::Closed { path: Some(std::mem::take(path)), bytes: *written };
        }
    }
}

/// A new file, made with the rights of the user whose it becomes: the directory is theirs, and may be anything by now.
fn new_file(place: &Place) -> Option<File> {
    {
        let _owner = Owner::become_user(place.user);
        if let Some(directory) = place.path.parent() {
            // An error here comes again with the file.
            let _ = DirBuilder::new().mode(0o700).create(directory);
        }
        let _ = std::fs::remove_file(&place.path);
    }
    create(&place.path, place.user, 0o600).ok()
}
