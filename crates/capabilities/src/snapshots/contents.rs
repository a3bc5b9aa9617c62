//! Contents that never change, in several places at once: by hard links, or by copies where the disk has none.

use std::collections::HashSet;
use std::fs::{File, FileTimes};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kernel::{BlobHash, Error, Result};

use super::blocking;
use super::store::{entries, sync};

/// Puts the blobs of `wanted` that lie in `from` into `to` as well, where they are not there. They are as good as new there,
/// so that no collection takes them before they are needed.
///
/// # Errors
/// `internal` where one is in neither; the disk.
pub(super) async fn blobs(from: PathBuf, to: PathBuf, wanted: HashSet<BlobHash>) -> Result<()> {
    let missing = blocking(move || {
        if wanted.is_empty() {
            return Ok(None);
        }
        make(&to)?;
        for hash in wanted {
            let (from, to) = (from.join(hash.to_string()), to.join(hash.to_string()));
            match File::open(&from) {
                Ok(file) => file.set_times(FileTimes::new().set_modified(SystemTime::now()))?,
                Err(error) if error.kind() == ErrorKind::NotFound && to.exists() => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(hash)),
                Err(error) => return Err(error),
            }
            link(&from, &to)?;
        }
        sync(&to)?;
        Ok(None)
    })
    .await?;
    match missing {
        Some(hash) => Err(Error::internal(format!("the blob {hash} of a release is missing"))),
        None => Ok(()),
    }
}

/// Puts the files of buckets that lie in `from` into `to` as well; none where there is no `from`.
///
/// # Errors
/// The disk.
pub(super) async fn files(from: PathBuf, to: PathBuf) -> Result<()> {
    blocking(move || {
        let all = entries(&from)?;
        if all.is_empty() {
            return Ok(());
        }
        make(&to)?;
        for path in all {
            // What is being uploaded has a name that no row will have.
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if uuid::Uuid::try_parse(&name).is_err() {
                continue;
            }
            match link(&path, &to.join(name)) {
                // It was discarded meanwhile: no row named it any more.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                linked => linked?,
            }
        }
        sync(&to)
    })
    .await
}

fn make(directory: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The same content under another name; nothing where that has it.
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
        // Too many links, or a disk without any.
        Err(_) => {
            let half = to.with_extension("half");
            std::fs::copy(from, &half)?;
            File::open(&half)?.sync_all()?;
            std::fs::rename(half, to)
        }
    }
}
