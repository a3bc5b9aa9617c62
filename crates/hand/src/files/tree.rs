//! Every file below a directory with its content, one after the other.

use std::fs::{self, DirEntry};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::failure::{On, Result, invalid};
use super::{below, carry, look};
use crate::wire::TreeCaps;

/// The most files and directories that are looked at.
const MOST_ENTRIES: usize = 100_000;

pub fn tree(path: &str, caps: TreeCaps) -> Result<()> {
    let root = Path::new(path);
    // All of it is looked at before anything is said of it.
    let files = files(root, caps)?;
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    for path in files {
        let named = path.display().to_string();
        let (mut file, metadata) = look::open(&path).on(&named)?;
        let size = metadata.len();
        if size > caps.file_bytes {
            return Err(invalid("it changed while it was read")).on(&named);
        }
        let entry = look::entry(below(root, &path), &metadata, None);
        serde_json::to_writer(&mut out, &entry).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        if carry(&mut Read::by_ref(&mut file).take(size), &mut out).on(&named)? != size {
            return Err(invalid("it changed while it was read")).on(&named);
        }
    }
    Ok(out.flush()?)
}

/// The files below a directory: of each directory what is none, by name, then the directories in it.
fn files(root: &Path, caps: TreeCaps) -> Result<Vec<PathBuf>> {
    let (mut files, mut bytes, mut seen) = (Vec::new(), 0_u64, 0);
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let named = directory.display().to_string();
        let mut entries = Vec::new();
        for entry in fs::read_dir(&directory).on(&named)? {
            seen += 1;
            if seen > MOST_ENTRIES {
                return Err(invalid(format!("it has at most {MOST_ENTRIES} files and directories")))
                    .on(&named);
            }
            entries.push(entry.on(&named)?);
        }
        entries.sort_by_key(DirEntry::file_name);
        let mut below_it = Vec::new();
        for entry in entries {
            let path = entry.path();
            let named = path.display().to_string();
            let metadata = entry.metadata().on(&named)?;
            if metadata.is_dir() {
                below_it.push(path);
                continue;
            }
            if metadata.is_symlink() {
                return Err(invalid("it is a link: put the file itself there")).on(&named);
            }
            if !metadata.is_file() {
                return Err(invalid("it is no file")).on(&named);
            }
            if path.to_str().is_none() {
                return Err(invalid("its name is no text in UTF-8")).on(&named);
            }
            bytes = bytes.saturating_add(metadata.len());
            files.push(path);
            if files.len() as u64 > caps.files || metadata.len() > caps.file_bytes || bytes > caps.bytes {
                let TreeCaps { files, file_bytes, bytes } = caps;
                return Err(invalid(format!(
                    "at most {files} files are taken, of {file_bytes} bytes each and {bytes} together"
                )))
                .on(&named);
            }
        }
        left.extend(below_it.into_iter().rev());
    }
    Ok(files)
}
