//! Files by their names and their lines.

use std::fs;
use std::io::Read;
use std::path::Path;

use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;
use regex::bytes::{Regex, RegexBuilder};

use super::failure::{On, Result, invalid};
use super::{Lines, below, look};
use crate::wire::{Among, Completeness, Found, MAX_RESULTS};

/// The largest file that is looked into, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// The largest `.gitignore` that is read, in bytes.
const MAX_IGNORE: u64 = 1 << 20;

/// How much of a line is told, in bytes.
const LINE: usize = 400;

/// A file with a zero byte in its first bytes is no text.
const TEXT: usize = 8 << 10;

pub fn search(path: &str, name: Option<&str>, line: Option<&str>, among: Among, limit: u32) -> Result<()> {
    if limit == 0 || limit > MAX_RESULTS {
        return Err(invalid(format!("limit is between 1 and {MAX_RESULTS}")));
    }
    let root = Path::new(path);
    let first = fs::symlink_metadata(root).on(path)?;
    let line = line.map(expression).transpose()?;
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false).follow_links(false).sort_by_file_name(Ord::cmp);
    let tracked = among == Among::Tracked;
    if tracked && tame(root) {
        walk.git_ignore(true).ignore(true).require_git(false);
    }
    if let Some(name) = name {
        let mut overrides = OverrideBuilder::new(root);
        let wrong = |error: ignore::Error| invalid(format!("the name is no glob: {error}"));
        overrides.add(name.trim_start_matches('!')).map_err(wrong)?;
        walk.overrides(overrides.build().map_err(wrong)?);
    }
    walk.filter_entry(move |entry| {
        let directory = entry.file_type().is_some_and(|kind| kind.is_dir());
        !(tracked && (entry.file_name() == ".git" || directory && !tame(entry.path())))
    });

    let mut lines = Lines::new(limit);
    let (mut files, mut skipped) = (0, 0);
    let mut completeness = Completeness::Whole;
    for entry in walk.build() {
        let Ok(entry) = entry else {
            skipped += 1;
            continue;
        };
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let shown = if first.is_file() { path.to_owned() } else { below(root, entry.path()) };
        completeness = match &line {
            None => {
                files += 1;
                lines.add(&Found::File { path: shown })?
            }
            Some(line) => match content(entry.path()) {
                Some(bytes) => {
                    files += 1;
                    look_into(&bytes, line, &shown, &mut lines)?
                }
                None => {
                    skipped += 1;
                    continue;
                }
            },
        };
        if completeness == Completeness::More {
            break;
        }
    }
    lines.line(&Found::End { completeness, files, skipped })?;
    lines.flush()
}

fn expression(pattern: &str) -> Result<Regex> {
    RegexBuilder::new(pattern)
        .multi_line(true)
        .size_limit(4 << 20)
        .build()
        .map_err(|error| invalid(format!("the line is no regular expression: {error}")))
}

/// Whether what names ignored files in a directory can be read without waiting and in a moment.
fn tame(directory: &Path) -> bool {
    [".gitignore", ".ignore"].iter().all(|name| match fs::symlink_metadata(directory.join(name)) {
        Ok(metadata) => metadata.is_file() && metadata.len() <= MAX_IGNORE,
        Err(_) => true,
    })
}

/// A text file's content.
fn content(path: &Path) -> Option<Vec<u8>> {
    let (file, metadata) = look::open(path).ok()?;
    if metadata.len() > MAX_FILE {
        return None;
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    let text = !bytes[..bytes.len().min(TEXT)].contains(&0);
    text.then_some(bytes)
}

fn look_into(bytes: &[u8], line: &Regex, path: &str, lines: &mut Lines) -> Result<Completeness> {
    let (mut at, mut number, mut counted) = (0, 1, 0);
    while let Some(found) = line.find_at(bytes, at) {
        let start =
            bytes[..found.start()].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let end = bytes[found.start()..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(bytes.len(), |n| found.start() + n);
        // A match at the very end is of no line.
        if start == bytes.len() {
            break;
        }
        number += bytes[counted..start].iter().filter(|byte| **byte == b'\n').count() as u64;
        counted = start;
        let text = shorten(&bytes[start..end], found.start() - start);
        if lines.add(&Found::Line { path: path.to_owned(), number, text })? == Completeness::More {
            return Ok(Completeness::More);
        }
        at = end + 1;
        if at > bytes.len() {
            break;
        }
    }
    Ok(Completeness::Whole)
}

/// At most [`LINE`] bytes of a line, those around `place` where it is longer.
fn shorten(line: &[u8], place: usize) -> String {
    if line.len() <= LINE {
        return String::from_utf8_lossy(line).into_owned();
    }
    let from = place.saturating_sub(LINE / 4).min(line.len() - LINE);
    String::from_utf8_lossy(&line[from..from + LINE]).into_owned()
}
