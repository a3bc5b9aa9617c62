//! Which contents snapshots need where no links keep them: a list beside each snapshot, of names that are never used
//! again.
//!
//! A snapshot in the making has a directory before its moment, and its list before the turn to make it ends. Until then
//! it may need anything. A whole one without a list needs nothing.

use std::collections::HashMap;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use kernel::BlobHash;

/// The list's name in the directory of a snapshot.
const LIST: &str = "contents";

/// What the name of a snapshot's directory begins with that is not whole yet.
pub(crate) const HALF: &str = "half-";

/// Contents as a row names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Named {
    /// Their name.
    pub key: String,
    /// How many bytes they have.
    pub size: u64,
    /// Their hash.
    pub sha256: BlobHash,
}

/// Reads what [`Named::read`] reads.
pub(crate) const NAMED: &str =
    "SELECT content, max(size), max(etag) FROM _steading_object GROUP BY content ORDER BY content";

impl Named {
    /// A row of [`NAMED`]; none where it is no such row.
    pub(crate) fn read(row: &[serde_json::Value]) -> Option<Self> {
        let key = row.first()?.as_str()?.to_owned();
        let is_name = uuid::Uuid::try_parse(&key).is_ok_and(|name| name.simple().to_string() == key);
        let sha256 = row.get(2)?.as_str()?.trim_matches('"').parse().ok()?;
        is_name.then_some(Self { key, size: row.get(1)?.as_u64()?, sha256 })
    }
}

/// Notes in the directory of a snapshot what it needs; on the disk when it returns. Who reads meanwhile finds all of it
/// or nothing, which stands for anything.
///
/// # Errors
/// The disk.
pub(crate) fn write(snapshot: &Path, named: &[Named]) -> std::io::Result<()> {
    let half = snapshot.join("contents.half");
    let mut file = std::io::BufWriter::new(std::fs::File::create_new(&half)?);
    for Named { key, size, .. } in named {
        writeln!(file, "{key} {size}")?;
    }
    file.into_inner()?.sync_all()?;
    std::fs::rename(half, snapshot.join(LIST))
}

/// Everything that the snapshots in a directory need, with its size in bytes.
///
/// # Errors
/// The disk.
pub(crate) fn all(snapshots: &Path) -> std::io::Result<HashMap<String, u64>> {
    let mut pinned = HashMap::new();
    for list in lists(snapshots)?.into_iter().flatten() {
        for line in list.lines() {
            let line =
                line.split_once(' ').and_then(|(key, size)| Some((key.to_owned(), size.parse().ok()?)));
            let (key, size) =
                line.ok_or_else(|| std::io::Error::other("a snapshot's list of contents is damaged"))?;
            pinned.insert(key, size);
        }
    }
    Ok(pinned)
}

/// Whether a snapshot in a directory needs these contents, or one in the making may.
///
/// # Errors
/// The disk.
pub(crate) fn may_need(snapshots: &Path, key: &str) -> std::io::Result<bool> {
    let may = |list: &Option<String>| list.as_ref().is_none_or(|list| list.contains(key));
    Ok(lists(snapshots)?.iter().any(may))
}

/// Whether a snapshot needs contents that are not in its own directory.
///
/// # Errors
/// The disk.
pub(crate) fn has_any(snapshot: &Path) -> std::io::Result<bool> {
    Ok(list(snapshot)?.is_some_and(|list| !list.is_empty()))
}

/// The lists of all snapshots in a directory that have one; none for one in the making that has none yet.
fn lists(snapshots: &Path) -> std::io::Result<Vec<Option<String>>> {
    let entries = match std::fs::read_dir(snapshots) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut lists = Vec::new();
    for entry in entries {
        let entry = entry?;
        let list = list(&entry.path())?;
        if list.is_some() || entry.file_name().as_encoded_bytes().starts_with(HALF.as_bytes()) {
            lists.push(list);
        }
    }
    Ok(lists)
}

fn list(snapshot: &Path) -> std::io::Result<Option<String>> {
    match std::fs::read_to_string(snapshot.join(LIST)) {
        Ok(list) => Ok(Some(list)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_what_it_names_and_one_that_is_not_written_yet_everything() {
        let directory = tempfile::tempdir().unwrap();
        let named = |key: &str, size| Named { key: key.to_owned(), size, sha256: BlobHash::of(b"") };
        assert_eq!(
            (all(directory.path()).unwrap(), may_need(directory.path(), "a").unwrap()),
            (HashMap::new(), false)
        );
        assert!(!may_need(&directory.path().join("missing"), "a").unwrap());
        for (snapshot, kept) in
            [("one", vec![named("a", 1), named("b", 2)]), ("two", vec![named("b", 2)]), ("three", vec![])]
        {
            let path = directory.path().join(snapshot);
            std::fs::create_dir(&path).unwrap();
            write(&path, &kept).unwrap();
            assert_eq!(has_any(&path).unwrap(), !kept.is_empty());
        }
        assert_eq!(all(directory.path()).unwrap(), HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
        assert_eq!(["a", "b", "c"].map(|key| may_need(directory.path(), key).unwrap()), [true, true, false]);
        std::fs::create_dir(directory.path().join("without")).unwrap();
        assert!(!may_need(directory.path(), "c").unwrap());
        std::fs::create_dir(directory.path().join("half-four")).unwrap();
        assert!(may_need(directory.path(), "c").unwrap());
        assert_eq!(all(directory.path()).unwrap().len(), 2);
        std::fs::write(directory.path().join("half-four/contents"), "c").unwrap();
        assert!(all(directory.path()).is_err(), "what a damaged list needs is not known");
    }

    #[test]
    fn only_a_name_of_ours_is_one() {
        let hash = BlobHash::of(b"x");
        let read = |key: &str| Named::read(&[key.into(), 3.into(), format!("\"{hash}\"").into()]);
        let key = "0190a0b0c0d07000800000000000000f";
        assert_eq!(read(key), Some(Named { key: key.to_owned(), size: 3, sha256: hash }));
        for wrong in
            ["", "..", "../x", "0190A0B0C0D07000800000000000000F", "0190a0b0-c0d0-7000-8000-00000000000f"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
