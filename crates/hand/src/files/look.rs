//! Reading one file, and what is known of it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::failure::{On, Result, invalid};
use crate::wire::{Entry, FileKind};

pub fn read(path: &str, offset: u64, limit: Option<u64>) -> Result<()> {
    let (mut file, metadata) = open(Path::new(path)).on(path)?;
    let mut out = io::stdout().lock();
    let mut line = serde_json::to_vec(&entry(path.to_owned(), &metadata, None)).map_err(io::Error::from)?;
    line.push(b'\n');
    out.write_all(&line)?;
    file.seek(SeekFrom::Start(offset)).on(path)?;
    let mut left = limit.unwrap_or(u64::MAX);
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match file.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(count) => {
                left -= count as u64;
                out.write_all(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).on(path),
        }
    }
    Ok(out.flush()?)
}

pub fn stat(path: &str) -> Result<()> {
    let metadata = fs::symlink_metadata(path).on(path)?;
    let target = fs::read_link(path).ok();
    let mut line =
        serde_json::to_vec(&entry(path.to_owned(), &metadata, target.as_deref())).map_err(io::Error::from)?;
    line.push(b'\n');
    Ok(io::stdout().write_all(&line)?)
}

/// Opens a regular file and nothing else: what it is, is known before it is opened, for to open a pipe may wait and to
/// open a device may do something.
pub fn open(path: &Path) -> Result<(File, Metadata)> {
    let found = File::from(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    let metadata = found.metadata()?;
    if metadata.is_dir() {
        return Err(invalid("it is a directory"));
    }
    if !metadata.is_file() {
        return Err(invalid("it is no regular file"));
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    Ok((file, metadata))
}

pub fn entry(path: String, metadata: &Metadata, target: Option<&Path>) -> Entry {
    let kind = if metadata.is_file() {
        FileKind::File
    } else if metadata.is_dir() {
        FileKind::Directory
    } else if metadata.is_symlink() {
        FileKind::Link
    } else {
        FileKind::Other
    };
    Entry {
        path,
        kind,
        size: metadata.len(),
        modified_ms: metadata.mtime().saturating_mul(1_000).saturating_add(metadata.mtime_nsec() / 1_000_000),
        mode: metadata.permissions().mode() & 0o7777,
        target: target.map(|target| target.to_string_lossy().into_owned()),
    }
}
