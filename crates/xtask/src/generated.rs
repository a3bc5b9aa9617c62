//! The files of the repository that are made from the code, written and compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::workspace::{cargo, metadata, root, run, say};

/// Directories that hold generated files only: what is no longer generated must go from them.
const WHOLLY_GENERATED: [&str; 1] = ["tool-schemas"];

/// File contents by their paths below a directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Writes what is generated into the repository.
///
/// # Errors
/// Where the product does not compile, or generates nothing.
pub fn write() -> anyhow::Result<()> {
    let fresh = fresh()?;
    for (path, change) in compare(&committed(&fresh)?, &fresh) {
        let file = root().join(&path);
        say(&format!("{} is {}", path.display(), change.name()));
        match change {
            Change::Missing | Change::Different => {
                std::fs::create_dir_all(file.parent().context("no directory")?)?;
                std::fs::write(file, &fresh[&path])?;
            }
            Change::Stale => std::fs::remove_file(file)?,
        }
    }
    Ok(())
}

/// Fails where the repository does not hold exactly what would be generated.
///
/// # Errors
/// As [`write`], and with the names of the files that differ.
pub fn check() -> anyhow::Result<()> {
    let fresh = fresh()?;
    let changes = compare(&committed(&fresh)?, &fresh);
    for (path, change) in &changes {
        say(&format!("{} is {}", path.display(), change.name()));
    }
    ensure!(changes.is_empty(), "run `cargo xtask gen` and commit the result");
    say("gen: in order");
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Missing,
    Different,
    Stale,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Different => "not what the code generates",
            Self::Stale => "no longer generated",
        }
    }
}

/// What the product generates: only there do the tools, the errors and the configuration meet.
fn fresh() -> anyhow::Result<Files> {
    let target =
        metadata()?["target_directory"].as_str().map(PathBuf::from).context("no target directory")?;
    let directory = target.join("generated");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    let mut generate = cargo(&["run", "--locked", "--quiet", "-p", "gateway", "--bin", "steading", "--"]);
    run(generate.args(["generate", "--dir"]).arg(&directory))?;
    let mut files = Files::new();
    read_below(&directory, &directory, &mut files)?;
    if files.is_empty() {
        bail!("`steading generate` wrote nothing");
    }
    Ok(files)
}

/// The repository's own copies, and whatever else is in the directories that are wholly generated.
fn committed(fresh: &Files) -> anyhow::Result<Files> {
    let root = root();
    let mut files = Files::new();
    for path in fresh.keys().filter(|path| root.join(path).is_file()) {
        files.insert(path.clone(), std::fs::read(root.join(path))?);
    }
    for directory in WHOLLY_GENERATED.map(|name| root.join(name)).iter().filter(|path| path.is_dir()) {
        read_below(&root, directory, &mut files)?;
    }
    Ok(files)
}

fn compare(committed: &Files, fresh: &Files) -> Vec<(PathBuf, Change)> {
    let mut changes = Vec::new();
    for (path, content) in fresh {
        match committed.get(path) {
            None => changes.push((path.clone(), Change::Missing)),
            Some(old) if old != content => changes.push((path.clone(), Change::Different)),
            Some(_) => {}
        }
    }
    let stale = committed.keys().filter(|path| !fresh.contains_key(*path));
    changes.extend(stale.map(|path| (path.clone(), Change::Stale)));
    changes
}

fn read_below(base: &Path, directory: &Path, files: &mut Files) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_below(base, &path, files)?;
        } else {
            files.insert(path.strip_prefix(base)?.to_path_buf(), std::fs::read(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_different_and_stale_files_are_told_apart() {
        let files = |all: &[(&str, &str)]| -> Files {
            all.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect()
        };
        let committed = files(&[("same", "1"), ("edited", "1"), ("tool-schemas/old.json", "{}")]);
        let fresh = files(&[("same", "1"), ("edited", "2"), ("new", "1")]);
        let expected = [
            ("edited", Change::Different),
            ("new", Change::Missing),
            ("tool-schemas/old.json", Change::Stale),
        ]
        .map(|(path, change)| (PathBuf::from(path), change));
        assert_eq!(compare(&committed, &fresh), expected);
        assert_eq!(compare(&fresh, &fresh), []);
    }

    #[test]
    fn files_are_read_at_every_depth_by_their_paths_below_the_base() {
        let base = testkit::temporary().unwrap();
        std::fs::create_dir_all(base.path().join("a/b")).unwrap();
        std::fs::write(base.path().join("a/b/c.json"), "{}").unwrap();
        let mut files = Files::new();
        read_below(base.path(), &base.path().join("a"), &mut files).unwrap();
        assert_eq!(files, Files::from([(PathBuf::from("a/b/c.json"), b"{}".to_vec())]));
    }
}
