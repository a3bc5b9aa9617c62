//! Changes: each is done as a whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

use super::carry;
use super::failure::{Failed, On, Result, invalid};
use crate::wire::{Cause, Contents, Existing, Failure};

pub fn write(path: &str, size: u64, mode: Option<u32>, existing: Existing) -> Result<()> {
    if mode.is_some_and(|mode| mode & !0o777 != 0) {
        return Err(invalid("permissions are three octal digits"));
    }
    // Through a link the file is written to which it leads.
    let target = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    let there = fs::symlink_metadata(&target).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return Err(invalid("there is something that is no regular file")).on(path);
    }
    if there.is_some() && existing == Existing::Refuse {
        return Err(exists()).on(path);
    }
    let directory = parent(&target).ok_or_else(|| invalid("it names no file")).on(path)?;
    if target.file_name().is_none() || path.ends_with('/') {
        return Err(invalid("it names no file")).on(path);
    }
    fs::create_dir_all(directory).on(path)?;
    let mode = mode.or_else(|| there.map(|there| there.permissions().mode() & 0o777)).unwrap_or(0o644);
    let new = directory.join(format!(".steading-new-{}", std::process::id()));
    let filled = fill(&new, size, mode).and_then(|()| match existing {
        Existing::Replace => Ok(fs::rename(&new, &target)?),
        Existing::Refuse => Ok(rename_to_nothing(&new, &target)?),
    });
    if filled.is_err() {
        // What is there is no use to anybody.
        let _ = fs::remove_file(&new);
    }
    filled.on(path)
}

fn fill(new: &Path, size: u64, mode: u32) -> Result<()> {
    // One of a process that was killed, whose id this one has got.
    let _ = fs::remove_file(new);
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let come = carry(&mut io::stdin().lock().take(size), &mut file)?;
    if come != size {
        return Err(invalid(format!("only {come} of {size} bytes have come")));
    }
    Ok(file.set_permissions(Permissions::from_mode(mode))?)
}

pub fn make_directory(path: &str) -> Result<()> {
    fs::create_dir_all(path).on(path)
}

pub fn rename(from: &str, to: &str, existing: Existing) -> Result<()> {
    fs::symlink_metadata(from).on(from)?;
    if let Some(directory) = parent(Path::new(to)) {
        fs::create_dir_all(directory).on(to)?;
    }
    match existing {
        Existing::Replace => fs::rename(from, to).on(to),
        Existing::Refuse => rename_to_nothing(Path::new(from), Path::new(to)).on(to),
    }
}

/// Renames where there is nothing of that name yet. gVisor's kernel does not do that in one step with files of the host;
/// then a file has both names for a moment, and only for a directory somebody may come between.
fn rename_to_nothing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL) if fs::symlink_metadata(from)?.is_dir() => match fs::symlink_metadata(to) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(_) => fs::rename(from, to),
        },
        Err(Errno::INVAL) => {
            linkat(CWD, from, CWD, to, AtFlags::empty())?;
            fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

pub fn remove(path: &str, contents: Contents) -> Result<()> {
    let metadata = fs::symlink_metadata(path).on(path)?;
    match (metadata.is_dir(), contents) {
        (false, _) => fs::remove_file(path).on(path),
        (true, Contents::Refuse) => fs::remove_dir(path).on(path),
        (true, Contents::Remove) => fs::remove_dir_all(path).on(path),
    }
}

/// The directory of a path, as something that can be opened.
fn parent(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn exists() -> Failed {
    Failed(Failure { cause: Cause::Exists, message: "there is one already".to_owned() })
}
