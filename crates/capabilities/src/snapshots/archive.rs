//! The archive of an environment: a tar whose first entry lists all others with their sizes and hashes, in order.
//!
//! `steading.json`, then `main.db` (an SQLite database), then `blobs/<SHA-256>` and `files/<key>`. Nothing else, no
//! directories, no links, no extensions of the format. The sessions of users and the values of secrets are not in it.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kernel::{BlobHash, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::storage::pins::Named;

/// The first entry.
pub(super) const INDEX: &str = "steading.json";

/// The database.
pub(super) const DATABASE: &str = "main.db";

/// What every index says that it is.
const FORMAT: &str = "steading-environment";
const VERSION: u32 = 1;

/// How large an index may be, in bytes.
const LARGEST_INDEX: u64 = 32 << 20;

/// What a tar is made of: blocks, and records of twenty of them.
const BLOCK: u64 = 512;
const RECORD: u64 = 20 * BLOCK;

/// How much is read and written at a time.
const CHUNK: usize = 256 << 10;

/// The first entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: String,
    version: u32,
    /// Of which moment the environment is.
    pub created_at: Timestamp,
    /// The environment's slug, where it was.
    pub slug: String,
    /// The release that was current; 0 before the first.
    pub release: u64,
    /// Names of the secrets that were set.
    pub secrets: Vec<String>,
    /// Every other entry, in order.
    pub(super) files: Vec<Item>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    pub path: String,
    pub bytes: u64,
    pub sha256: BlobHash,
}

/// How large what an archive holds may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    pub database: u64,
    pub bytes: u64,
    pub files: usize,
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Form(String),
    #[error("the archive holds more than {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn form(why: impl Into<String>) -> Refused {
    Refused::Form(why.into())
}

impl Index {
    /// An index of what lies in `directory`, and of what is `named` and lies elsewhere.
    pub(super) fn of(
        directory: &Path,
        named: &[Named],
        created_at: Timestamp,
        slug: String,
        release: u64,
        secrets: Vec<String>,
    ) -> io::Result<Self> {
        let mut paths = vec![DATABASE.to_owned()];
        for folder in ["blobs", "files"] {
            let mut names: Vec<String> = super::store::entries(&directory.join(folder))?
                .iter()
                .filter_map(|path| Some(format!("{folder}/{}", path.file_name()?.to_str()?)))
                .collect();
            names.sort();
            paths.extend(names);
        }
        let files = paths.into_iter().map(|path| {
            let (bytes, sha256) =
                hash(&mut std::fs::File::open(directory.join(&path))?, &mut io::sink(), u64::MAX)?;
            Ok(Item { path, bytes, sha256 })
        });
        let mut files = files.collect::<io::Result<Vec<_>>>()?;
        files.extend(named.iter().map(|named| Item {
            path: format!("files/{}", named.key),
            bytes: named.size,
            sha256: named.sha256,
        }));
        Ok(Self { format: FORMAT.to_owned(), version: VERSION, created_at, slug, release, secrets, files })
    }

    /// Refuses what no archive of ours says.
    fn check(&self, most: Most) -> Result<(), Refused> {
        if self.format != FORMAT || self.version != VERSION {
            return Err(form(format!("the archive is not one of the format {FORMAT} {VERSION}")));
        }
        if self.files.first().is_none_or(|item| item.path != DATABASE || item.bytes > most.database) {
            return Err(form("the archive has no database, or one that is too large"));
        }
        if self.files.len() > most.files {
            return Err(form(format!("the archive has more than {} files", most.files)));
        }
        let mut bytes = 0_u64;
        let mut seen = HashSet::new();
        for item in &self.files {
            let good = match item.path.split_once('/') {
                None => item.path == DATABASE,
                Some(("blobs", name)) => name.parse::<BlobHash>().is_ok_and(|hash| hash == item.sha256),
                Some(("files", name)) => {
                    uuid::Uuid::try_parse(name).is_ok_and(|key| key.simple().to_string() == name)
                }
                Some(_) => false,
            };
            if !good || !seen.insert(&item.path) {
                let path: String = item.path.chars().take(80).collect();
                return Err(form(format!("the archive's index names {path:?}, which it cannot have")));
            }
            bytes = bytes.saturating_add(item.bytes);
        }
        if bytes > most.bytes { Err(Refused::TooLarge(most.bytes)) } else { Ok(()) }
    }
}

impl Item {
    /// What it is, where it is the content of a file.
    pub(super) fn named(&self) -> Option<Named> {
        let key = self.path.strip_prefix("files/")?.to_owned();
        Some(Named { key, size: self.bytes, sha256: self.sha256 })
    }
}

/// Writes the archive of what `index` names and `open` gives.
pub(super) fn write<R: Read>(
    index: &Index,
    open: impl Fn(&Item) -> io::Result<R>,
    to: impl Write,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    let text = serde_json::to_vec(index)?;
    tar.append(&header(INDEX, text.len() as u64, index.created_at)?, text.as_slice())?;
    for item in &index.files {
        let mut content = open(item)?.take(item.bytes);
        tar.append(&header(&item.path, item.bytes, index.created_at)?, &mut content)?;
        if content.limit() > 0 {
            // Who reads the archive must not take the next entry for the rest of this one.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} is cut off", item.path)));
        }
    }
    tar.into_inner()?.flush()
}

fn header(path: &str, bytes: u64, at: Timestamp) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(at.as_secs()).unwrap_or_default());
    header.set_cksum();
    Ok(header)
}

/// Reads an archive into `directory`, which is empty, and refuses one that is not as its index says, to the last byte.
pub(super) fn read(from: impl Read, directory: &Path, most: Most) -> Result<Index, Refused> {
    let mut archive = tar::Archive::new(from);
    // Raw: an entry that means another one is an entry that is not a file.
    let mut entries = archive.entries()?.raw(true);
    let mut next = |path: &str| -> Result<_, Refused> {
        let entry = entries.next().ok_or_else(|| form(format!("the archive ends before {path}")))??;
        if entry.header().entry_type() != tar::EntryType::Regular || *entry.path_bytes() != *path.as_bytes() {
            return Err(form(format!("the archive has something else where {path} should be")));
        }
        Ok(entry)
    };
    let mut text = Vec::new();
    let mut first = next(INDEX)?;
    if first.size() > LARGEST_INDEX {
        return Err(form("the archive's index is too large"));
    }
    first.read_to_end(&mut text)?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|error| form(format!("the archive's index cannot be read: {error}")))?;
    index.check(most)?;
    for item in &index.files {
        let mut entry = next(&item.path)?;
        if entry.size() != item.bytes {
            return Err(form(format!("{} has not the size that the index says", item.path)));
        }
        let path: PathBuf = directory.join(&item.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = std::fs::File::create_new(&path)?;
        let (bytes, sha256) = hash(&mut entry, &mut file, item.bytes)?;
        if (bytes, sha256) != (item.bytes, item.sha256) {
            return Err(form(format!("{} has not the content that the index says", item.path)));
        }
        file.sync_all()?;
    }
    let last = index.files.last().map_or(0, |item| item.bytes);
    ended(archive.into_inner(), last)?;
    Ok(index)
}

/// Refuses what does not end as a tar ends: behind the last entry, which has `bytes`, come two blocks of zeros, and then
/// nothing but the zeros that some programs fill the last record with.
fn ended(from: impl Read, bytes: u64) -> Result<(), Refused> {
    let padding = bytes.next_multiple_of(BLOCK) - bytes;
    let (least, most) = (padding + 2 * BLOCK, padding + 2 * BLOCK + RECORD);
    let mut rest = Vec::new();
    from.take(most + 1).read_to_end(&mut rest)?;
    let length = rest.len() as u64;
    if rest.iter().any(|byte| *byte != 0) || length > most {
        return Err(form("the archive goes on after what its index names"));
    }
    if length < least || !(length - padding).is_multiple_of(BLOCK) {
        return Err(form("the archive is cut off before its end"));
    }
    Ok(())
}

/// Copies at most `most` bytes; how many there were, and their hash.
pub(super) fn hash(from: &mut impl Read, to: &mut impl Write, most: u64) -> io::Result<(u64, BlobHash)> {
    let mut from = from.take(most);
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, BlobHash::from_bytes(hasher.finalize().into())));
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
