//! Writes trees as archives: compressed tar, with what has changed since an earlier one or with everything.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kernel::{BlobHash, WorkspaceSnapshotId};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::files::{Marks, held};
use super::manifest::{Archive, Entry, MOST_ARCHIVES, Manifest, Stamp, What};
use super::{Caps, Error, Files, Kind, OWNER, Seen, copying};

/// What is left out of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Nothing: the same bytes come back.
    Nothing,
    /// What tools fetch or make again: caches below the home directory, and those in `node_modules`.
    Caches,
}

/// Caches of tools, from the top of the workspace, which is the home directory.
const CACHES: [&[u8]; 6] = [
    b".npm",
    b".cache",
    b".bun/install/cache",
    b".cargo/registry",
    b".local/share/pnpm/store",
    b".yarn/berry/cache",
];

/// Two changes so close to each other may have the same time.
const SAME_TIME_S: i64 = 2;

impl LeftOut {
    fn has(self, path: &[u8]) -> bool {
        self == Self::Caches && (CACHES.contains(&path) || path.ends_with(b"node_modules/.cache"))
    }
}

/// The manifest of a tree whose contents are nowhere else: what a digest is made of.
///
/// # Errors
/// Those of [`Files::walk`]; `OverCap` for files that are too long.
pub fn scan(files: &Files, caps: &Caps) -> Result<Manifest, Error> {
    let mut scan = Scan::new(None, caps);
    let mut sink = io::sink();
    let mut out = Builder::new(&mut sink);
    scan.run(files, LeftOut::Nothing, &mut out)?;
    Ok(Manifest { archives: Vec::new(), entries: scan.done() })
}

/// Writes the archive of a snapshot to `out`: what is not in the archives of `base` as it is, or everything where there
/// is no base or too many archives already. It is to be kept with the manifest, which names all archives that it needs.
///
/// # Errors
/// Those of [`Files::walk`]; `OverCap` for files that are too long; of `out`.
pub fn write(
    files: &Files,
    snapshot: WorkspaceSnapshotId,
    base: Option<&Manifest>,
    left_out: LeftOut,
    caps: &Caps,
    out: &mut dyn Write,
) -> Result<Manifest, Error> {
    let failed = || Error::io("the archive cannot be written");
    let base = base.filter(|base| base.archives.len() < MOST_ARCHIVES);
    let mut archives = base.map(|base| base.archives.clone()).unwrap_or_default();
    let mut scan = Scan::new(base, caps);
    let mut compressed = zstd::Encoder::new(out, 1).map_err(failed())?;
    compressed.include_checksum(true).map_err(failed())?;
    let mut counted = Counted { inner: compressed, bytes: 0 };
    let mut tar = Builder::new(&mut counted);
    scan.run(files, left_out, &mut tar)?;
    tar.finish().map_err(failed())?;
    drop(tar);
    counted.inner.finish().and_then(Write::flush).map_err(failed())?;
    archives.push(Archive { snapshot, bytes: counted.bytes });
    Ok(needed(archives, scan.done()))
}

/// Leaves out the archives that nothing is read from any more.
fn needed(archives: Vec<Archive>, mut entries: Vec<Entry>) -> Manifest {
    let own = archives.len() - 1;
    let mut used = vec![false; archives.len()];
    used[own] = true;
    for entry in &entries {
        if let What::File { archive, .. } = &entry.what {
            used[*archive] = true;
        }
    }
    let mut next = 0;
    let places: Vec<usize> = used
        .iter()
        .map(|used| {
            let place = next;
            next += usize::from(*used);
            place
        })
        .collect();
    for entry in &mut entries {
        if let What::File { archive, .. } = &mut entry.what {
            *archive = places[*archive];
        }
    }
    let archives = archives.into_iter().zip(used).filter_map(|(archive, used)| used.then_some(archive));
    Manifest { archives: archives.collect(), entries }
}

struct Scan<'a> {
    base: Option<&'a Manifest>,
    /// The place of the archive that is written.
    own: usize,
    caps: &'a Caps,
    entries: Vec<Entry>,
    /// Files with several names, and where the first of them is in `entries`.
    links: HashMap<(u64, u64), usize>,
    bytes: u64,
    newest: (i64, u32),
}

impl<'a> Scan<'a> {
    fn new(base: Option<&'a Manifest>, caps: &'a Caps) -> Self {
        let own = base.map_or(0, |base| base.archives.len());
        Self { base, own, caps, entries: Vec::new(), links: HashMap::new(), bytes: 0, newest: (i64::MIN, 0) }
    }

    fn run<W: Write>(&mut self, files: &Files, left_out: LeftOut, out: &mut Builder<W>) -> Result<(), Error> {
        files.walk_marked(b"", self.caps, Marks::Obeyed, &|path| left_out.has(path), &mut |seen| {
            self.take(seen, out)
        })
    }

    fn take<W: Write>(&mut self, seen: &Seen<'_>, out: &mut Builder<W>) -> Result<(), Error> {
        let failed = || Error::io("the archive cannot be written");
        let mut mode = seen.mode();
        let path = Path::new(OsStr::from_bytes(seen.path));
        let changed = time(seen.stat.st_ctime, seen.stat.st_ctime_nsec);
        self.newest = self.newest.max(changed);
        let before = self.base.and_then(|base| base.get(seen.path));
        let what = match seen.kind {
            Kind::Special | Kind::Whiteout => return Ok(()),
            Kind::Directory => {
                if before.is_none_or(|before| before.what != What::Directory) {
                    let mut header = header(seen, EntryType::Directory, 0);
                    out.append_data(&mut header, path, io::empty()).map_err(failed())?;
                }
                What::Directory
            }
            Kind::Link => {
                let what = What::Link { target: seen.target()? };
                if let What::Link { target } = &what
                    && before.is_none_or(|before| before.what != what)
                {
                    let mut header = header(seen, EntryType::Symlink, 0);
                    out.append_link(&mut header, path, OsStr::from_bytes(target)).map_err(failed())?;
                }
                mode = 0;
                what
            }
            Kind::File => self.file(seen, changed, before, out)?,
        };
        let modified = time(seen.stat.st_mtime, seen.stat.st_mtime_nsec);
        self.entries.push(Entry { path: seen.path.to_vec(), mode, modified, what });
        Ok(())
    }

    fn file<W: Write>(
        &mut self,
        seen: &Seen<'_>,
        changed: (i64, u32),
        before: Option<&Entry>,
        out: &mut Builder<W>,
    ) -> Result<What, Error> {
        let size = copying::size(seen.stat);
        held(seen.path, "the file is too long", size, self.caps.file_bytes)?;
        let place = (seen.stat.st_dev, seen.stat.st_ino);
        if let Some(first) = self.links.get(&place).and_then(|first| self.entries.get_mut(*first)) {
            // The walk's order is not that of paths: the one that comes first there keeps the content.
            let mut what = first.what.clone();
            if let What::File { same_as, .. } = &mut what {
                *same_as = Some(first.path.clone());
            }
            return Ok(what);
        }
        if seen.stat.st_nlink > 1 {
            self.links.insert(place, self.entries.len());
        }
        self.bytes += size;
        held(seen.path, "the files are too long together", self.bytes, self.caps.bytes)?;
        let stamp = Some(Stamp { inode: seen.stat.st_ino, changed });
        let kept = match before.map(|before| (&before.what, before.modified)) {
            Some((What::File { size: before, hash, archive, same_as: None, stamp: known }, modified))
                if *before == size =>
            {
                let same_time = modified == time(seen.stat.st_mtime, seen.stat.st_mtime_nsec);
                Some((*hash, *archive, known.is_some() && *known == stamp && same_time))
            }
            _ => None,
        };
        if let Some((hash, archive, unchanged)) = kept
            && (unchanged || hashed(seen, &mut seen.open()?, size)? == hash)
        {
            return Ok(What::File { size, hash, archive, same_as: None, stamp });
        }
        let mut header = header(seen, EntryType::Regular, size);
        let mut content = Hashing { inner: seen.open()?.take(size), hash: Sha256::new(), bytes: 0 };
        let path = Path::new(OsStr::from_bytes(seen.path));
        out.append_data(&mut header, path, &mut content)
            .map_err(Error::io("the archive cannot be written"))?;
        if content.bytes != size {
            return Err(changed_meanwhile(seen));
        }
        let hash = BlobHash::from_bytes(content.hash.finalize().into());
        Ok(What::File { size, hash, archive: self.own, same_as: None, stamp })
    }

    /// The entries in their order, with stamps where they are certain: what may have been changed again in the moment
    /// in which the snapshot was taken has none.
    fn done(self) -> Vec<Entry> {
        let Self { mut entries, newest, .. } = self;
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        for entry in &mut entries {
            if let What::File { stamp, .. } = &mut entry.what {
                *stamp = stamp.filter(|stamp| stamp.changed.0 + SAME_TIME_S < newest.0);
            }
        }
        entries
    }
}

fn changed_meanwhile(seen: &Seen<'_>) -> Error {
    Error::Refused { path: super::files::text(seen.path), what: "it changed while it was read" }
}

/// The hash of what is there, which is `size` bytes.
fn hashed(seen: &Seen<'_>, file: &mut File, size: u64) -> Result<BlobHash, Error> {
    let mut content = Hashing { inner: file.take(size), hash: Sha256::new(), bytes: 0 };
    io::copy(&mut content, &mut io::sink()).map_err(Error::io("a file of the workspace cannot be read"))?;
    if content.bytes != size {
        return Err(changed_meanwhile(seen));
    }
    Ok(BlobHash::from_bytes(content.hash.finalize().into()))
}

fn header(seen: &Seen<'_>, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(seen.mode());
    header.set_uid(OWNER.into());
    header.set_gid(OWNER.into());
    header.set_mtime(u64::try_from(seen.stat.st_mtime).unwrap_or_default());
    header.set_size(size);
    header
}

fn time(seconds: i64, nanoseconds: u64) -> (i64, u32) {
    (seconds, u32::try_from(nanoseconds).unwrap_or_default())
}

/// Hashes and counts what is read through it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Counts what is written through it.
struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
