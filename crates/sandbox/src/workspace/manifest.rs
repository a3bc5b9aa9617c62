//! What a tree consists of, name by name, with the hash of every file: what archives are checked against.

use std::io::{BufRead, BufReader, Read, Write};

use kernel::{BlobHash, WorkspaceSnapshotId};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::files::{held, text};
use super::{Caps, Error, beneath};

/// So many archives together make a tree at most; one more holds everything again.
pub const MOST_ARCHIVES: usize = 16;

/// The longest target that a link can have on Linux.
const LONGEST_TARGET: usize = 4095;

const FORMAT: u32 = 1;
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// A tree and where its contents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The archives that contents are in, the oldest first.
    pub archives: Vec<Archive>,
    /// Everything in the tree, in the order of the paths' bytes.
    pub entries: Vec<Entry>,
}

/// One archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The snapshot that it was made of.
    pub snapshot: WorkspaceSnapshotId,
    /// How long it is before it is compressed.
    pub bytes: u64,
}

/// One file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where, from the top of the tree, with `/` between names.
    pub path: Vec<u8>,
    /// Permissions of user, group and others; those of a link say nothing and are 0.
    pub mode: u32,
    /// When it was last changed: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// What it is.
    pub what: What,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: Vec<u8>,
    },
    /// A regular file.
    File {
        /// Its length.
        size: u64,
        /// The hash of its content.
        hash: BlobHash,
        /// Which of the archives has its content.
        archive: usize,
        /// The path that comes first of those that are all this one file.
        same_as: Option<Vec<u8>>,
        /// How it was recognised on the disk, where that is certain.
        stamp: Option<Stamp>,
    },
}

/// Says that a file is the same and unchanged: nobody without privileges can set the time of the last change to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Its number on the disk.
    pub inode: u64,
    /// When anything of it was last changed: seconds since 1970, and nanoseconds.
    pub changed: (i64, u32),
}

impl Manifest {
    /// One hash for the whole tree, over paths, kinds, permissions, contents and targets: the same wherever it lies, and
    /// whenever it was written.
    #[must_use]
    pub fn digest(&self) -> BlobHash {
        let mut all = Sha256::new();
        all.update(b"steading tree 1\n");
        let mut add = |bytes: &[u8]| {
            all.update((bytes.len() as u64).to_le_bytes());
            all.update(bytes);
        };
        for entry in &self.entries {
            add(&entry.path);
            add(&entry.mode.to_le_bytes());
            match &entry.what {
                What::Directory => add(b"directory"),
                What::Link { target } => {
                    add(b"link");
                    add(target);
                }
                What::File { size, hash, .. } => {
                    add(b"file");
                    add(&size.to_le_bytes());
                    add(&hash.to_bytes());
                }
            }
        }
        BlobHash::from_bytes(all.finalize().into())
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match &entry.what {
            What::File { size, same_as: None, .. } => *size,
            _ => 0,
        });
        sizes.sum()
    }

    /// The entry with that path.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path)).ok()?;
        self.entries.get(at)
    }

    /// Writes it, compressed.
    ///
    /// # Errors
    /// Of `out`.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), Error> {
        let write = || {
            let mut out = zstd::Encoder::new(out, 1)?;
            out.include_checksum(true)?;
            let top = Top {
                format: FORMAT,
                digest: self.digest(),
                entries: self.entries.len() as u64,
                archives: self.archives.clone(),
            };
            serde_json::to_writer(&mut out, &top)?;
            for entry in &self.entries {
                out.write_all(b"\n")?;
                serde_json::to_writer(&mut out, &Line::of(entry))?;
            }
            out.write_all(b"\n")?;
            out.finish().map(|_| ())
        };
        write().map_err(Error::io("the manifest cannot be written"))
    }

    /// Reads one, which may come from anywhere. What it returns is a tree: every path is below the top, has directories
    /// above it and is there once.
    ///
    /// # Errors
    /// `Spoilt`, `OverCap`.
    pub fn read(input: &mut dyn Read, caps: &Caps) -> Result<Self, Error> {
        let spoilt = |_| spoilt(b"the manifest", "it cannot be read");
        let mut input = zstd::Decoder::new(input).map_err(spoilt)?;
        input.window_log_max(23).map_err(spoilt)?;
        let mut lines = Lines { input: BufReader::new(input), longest: 8 * caps.path_bytes + (32 << 10) };
        let top: Top = lines.next()?.ok_or_else(|| self::spoilt(b"the manifest", "it is empty"))?;
        if top.format != FORMAT {
            return Err(self::spoilt(b"the manifest", "this version of Steading does not know its format"));
        }
        held(b"", "there are too many files", top.entries, caps.entries)?;
        held(b"", "there are too many archives", top.archives.len() as u64, MOST_ARCHIVES as u64)?;
        let mut manifest = Self { archives: top.archives, entries: Vec::new() };
        let mut all = 0;
        while let Some(line) = lines.next::<Line>()? {
            held(b"", "there are too many files", manifest.entries.len() as u64 + 1, top.entries)?;
            let entry = line.entry()?;
            all += entry.path.len() as u64;
            held(&entry.path, "the paths are too long together", all, caps.paths_bytes)?;
            manifest.entries.push(entry);
        }
        manifest.check(caps)?;
        if manifest.entries.len() as u64 != top.entries || manifest.digest() != top.digest {
            return Err(self::spoilt(b"the manifest", "it is not whole"));
        }
        Ok(manifest)
    }

    fn check(&self, caps: &Caps) -> Result<(), Error> {
        let (mut last, mut bytes) = (None::<&[u8]>, 0u64);
        for archive in &self.archives {
            held(b"", "an archive is too long", archive.bytes, longest(caps))?;
        }
        for Entry { path, what, mode, modified } in &self.entries {
            let wrong = |what| Err(spoilt(path, what));
            held(path, "a path is too long", path.len() as u64, caps.path_bytes)?;
            let plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= 255;
            if !path.split(|byte| *byte == b'/').all(plain) || path.contains(&0) {
                return wrong("it is no plain path");
            }
            if last.is_some_and(|last| last >= path.as_slice()) {
                return wrong("it is not in its place");
            }
            last = Some(path);
            let (above, _) = beneath::split(path);
            let directory = |entry: &Entry| entry.what == What::Directory;
            if !above.is_empty() && !self.get(above).is_some_and(directory) {
                return wrong("what it is in is no directory");
            }
            if *mode > 0o777 || modified.1 >= 1_000_000_000 {
                return wrong("its mode or its time is none");
            }
            match what {
                What::Directory => {}
                What::Link { target } => {
                    if target.is_empty() || target.len() > LONGEST_TARGET || target.contains(&0) {
                        return wrong("it is a link to what no link can lead to");
                    }
                }
                What::File { size, hash, archive, same_as, .. } => {
                    held(path, "the file is too long", *size, caps.file_bytes)?;
                    bytes = bytes.saturating_add(*size);
                    held(path, "the files are too long together", bytes, caps.bytes)?;
                    if *archive >= self.archives.len() {
                        return wrong("no archive has its content");
                    }
                    let same = same_as.as_ref().map(|first| self.get(first).map(|first| &first.what));
                    let as_said = match same {
                        None => true,
                        Some(Some(What::File { size: other, hash: content, same_as: None, .. })) => {
                            (size, hash) == (other, content)
                        }
                        Some(_) => false,
                    };
                    if !as_said {
                        return wrong("it is not the file that it is said to be");
                    }
                }
            }
        }
        Ok(())
    }
}

/// How long an archive can be within `caps`, with all that is not content.
pub(super) fn longest(caps: &Caps) -> u64 {
    caps.bytes.saturating_add(caps.entries.saturating_mul(4096)).saturating_add(2 * caps.paths_bytes)
}

pub(super) fn spoilt(path: &[u8], what: &'static str) -> Error {
    Error::Spoilt { path: text(path), what }
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    format: u32,
    digest: BlobHash,
    entries: u64,
    archives: Vec<Archive>,
}

/// One entry as it is written. Paths need not be text: what is none is escaped as in URLs.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    kind: LineKind,
    #[serde(default, skip_serializing_if = "is_zero")]
    mode: u32,
    modified: (i64, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<BlobHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_as: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<Stamp>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LineKind {
    Directory,
    File,
    Link,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(mode: &u32) -> bool {
    *mode == 0
}

fn escaped(path: &[u8]) -> String {
    percent_encode(path, ESCAPED).to_string()
}

fn plain(path: &str) -> Vec<u8> {
    percent_decode_str(path).collect()
}

impl Line {
    fn of(entry: &Entry) -> Self {
        let mut line = Self {
            path: escaped(&entry.path),
            kind: LineKind::Directory,
            mode: entry.mode,
            modified: entry.modified,
            size: None,
            hash: None,
            archive: None,
            same_as: None,
            target: None,
            stamp: None,
        };
        match &entry.what {
            What::Directory => {}
            What::Link { target } => {
                line.kind = LineKind::Link;
                line.target = Some(escaped(target));
            }
            What::File { size, hash, archive, same_as, stamp } => {
                line.kind = LineKind::File;
                (line.size, line.hash, line.archive) = (Some(*size), Some(*hash), Some(*archive));
                line.same_as = same_as.as_deref().map(escaped);
                line.stamp = *stamp;
            }
        }
        line
    }

    fn entry(self) -> Result<Entry, Error> {
        let path = plain(&self.path);
        let what = match (self.kind, self.size, self.hash, self.archive, self.target) {
            (LineKind::Directory, None, None, None, None) => What::Directory,
            (LineKind::Link, None, None, None, Some(target)) => What::Link { target: plain(&target) },
            (LineKind::File, Some(size), Some(hash), Some(archive), None) => {
                let same_as = self.same_as.as_deref().map(plain);
                What::File { size, hash, archive, same_as, stamp: self.stamp }
            }
            _ => return Err(spoilt(&path, "what is said of it does not belong together")),
        };
        Ok(Entry { path, mode: self.mode, modified: self.modified, what })
    }
}

/// Lines of JSON, none of which may be endless.
struct Lines<R> {
    input: BufReader<R>,
    longest: u64,
}

impl<R: Read> Lines<R> {
    fn next<T: for<'a> Deserialize<'a>>(&mut self) -> Result<Option<T>, Error> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(self.longest).read_until(b'\n', &mut line);
        read.map_err(|_| spoilt(b"the manifest", "it cannot be read"))?;
        if line.is_empty() {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(&line);
        parsed.map(Some).map_err(|_| spoilt(b"the manifest", "a line of it is none"))
    }
}
