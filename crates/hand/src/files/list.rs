//! What is in a directory.

use std::fs;
use std::path::{Path, PathBuf};

use super::failure::{On, Result, invalid};
use super::{Lines, below, look};
use crate::wire::{Completeness, Listed, MAX_RESULTS};

/// The most names of one directory that are put in order; of one with more, these.
const MAX_NAMES: usize = MAX_RESULTS as usize;

pub fn list(path: &str, depth: u32, limit: u32) -> Result<()> {
    if depth == 0 || limit == 0 || limit > MAX_RESULTS {
        return Err(invalid(format!("depth is at least 1, limit between 1 and {MAX_RESULTS}")));
    }
    let root = Path::new(path);
    let mut completeness = Completeness::Whole;
    let mut lines = Lines::new(limit);
    // Directories that are still to be told of, with how deep what is in them lies; the next one is the last.
    let mut left: Vec<(PathBuf, u32)> = Vec::new();
    let mut next = Some((root.to_owned(), 1));
    while let Some((directory, level)) = next {
        match names(&directory) {
            Ok((names, whole)) => {
                if whole == Completeness::More {
                    completeness = whole;
                }
                // One whole directory after the other, each before what is below it.
                let mut below_it = Vec::new();
                for path in names {
                    let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                    let target = metadata.is_symlink().then(|| fs::read_link(&path).ok()).flatten();
                    let entry = look::entry(below(root, &path), &metadata, target.as_deref());
                    if lines.add(&Listed::Entry(entry))? == Completeness::More {
                        lines.line(&Listed::End(Completeness::More))?;
                        return lines.flush();
                    }
                    if metadata.is_dir() && level < depth {
                        below_it.push((path, level + 1));
                    }
                }
                left.extend(below_it.into_iter().rev());
            }
            // One that went away, or may not be read, or lies too deep, has nothing to tell of; the first one must.
            Err(error) if level == 1 => return Err(error).on(path),
            Err(_) => completeness = Completeness::More,
        }
        next = left.pop();
    }
    lines.line(&Listed::End(completeness))?;
    lines.flush()
}

fn names(directory: &Path) -> std::io::Result<(Vec<PathBuf>, Completeness)> {
    let mut entries = fs::read_dir(directory)?;
    let mut names: Vec<PathBuf> =
        entries.by_ref().take(MAX_NAMES).flatten().map(|entry| entry.path()).collect();
    names.sort();
    let completeness = if entries.next().is_some() { Completeness::More } else { Completeness::Whole };
    Ok((names, completeness))
}
