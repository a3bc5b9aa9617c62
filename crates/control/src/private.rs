//! Files that only their owner can read.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::OpenError;

/// Makes a directory of mode 0700 with what is above it, and takes everyone else's rights from one that is there.
pub(crate) fn directory(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| tighten(path))
        .map_err(|source| OpenError::File { path: path.to_owned(), source })
}

/// The file's bytes, or `None` where there is none. Everyone else's rights to it are taken.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    match tighten(path).and_then(|()| std::fs::read(path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::File { path: path.to_owned(), source }),
    }
}

/// Writes a file of mode 0600, whole or not at all, and on disk when this returns.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), OpenError> {
    let half = path.with_extension("new");
    let write = || {
        let _ = std::fs::remove_file(&half);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&half, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().map_err(|source| OpenError::File { path: path.to_owned(), source })
}

/// Puts a file in place of another, on disk when this returns.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<(), OpenError> {
    let replace = || {
        std::fs::rename(from, to)?;
        to.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    replace().map_err(|source| OpenError::File { path: to.to_owned(), source })
}

fn tighten(path: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others could read this; they cannot any more");
    std::fs::set_permissions(path, Permissions::from_mode(mode & 0o700))
}
