//! Files of a site or of a function: checked together, then stored as blobs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kernel::{BlobHash, Env};

use super::path::{PathError, SitePath};
use super::site::SiteFile;
use super::spec::{FileSpec, pointer_escape};
use super::{Blobs, Error, Result, content_type};

/// How many blobs are written at the same time.
const WRITES_AT_ONCE: usize = 8;

/// How large all files of one owner may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many files.
    pub files: usize,
    /// How many bytes one file has at most.
    pub file_bytes: u64,
    /// How many bytes all files together have at most.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 10_000, file_bytes: 25 << 20, bytes: 512 << 20 }
    }
}

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A site's.
    Site,
    /// A function's.
    Function,
    /// A service's.
    Service,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Owner::Site => "site",
            Owner::Function => "function",
            Owner::Service => "service",
        })
    }
}

/// Files with nothing wrong about them, as far as can be said before they are stored.
pub(crate) struct Checked {
    of: Owner,
    limits: Limits,
    contents: BTreeMap<SitePath, Content>,
}

/// A file that was checked, before its blob is stored.
enum Content {
    Bytes(Bytes),
    Named { hash: BlobHash, at: String },
}

impl Checked {
    /// Checks all of `specs`.
    ///
    /// # Errors
    /// What is wrong, with a pointer relative to their owner.
    pub(crate) fn of(of: Owner, limits: Limits, specs: BTreeMap<String, FileSpec>) -> Result<Self> {
        if specs.len() > limits.files {
            return Err(Error::TooManyFiles { of, count: specs.len(), limit: limits.files });
        }
        let mut checked = Self { of, limits, contents: BTreeMap::new() };
        let mut names = Names::default();
        let mut total = 0;
        for (given, spec) in specs {
            let at = format!("/files/{}", pointer_escape(&given));
            let path: SitePath = match given.parse() {
                Ok(path) => path,
                // Its pointer would be as long as the path.
                Err(why @ PathError::TooLong) => {
                    let path = given.chars().take(64).chain(['…']).collect();
                    return Err(Error::Path { at: "/files".into(), path, why });
                }
                Err(why) => return Err(Error::Path { at, path: given, why }),
            };
            names.add(&path, &given, &at)?;
            let content = read_content(spec, &given, at.clone())?;
            if let Content::Bytes(bytes) = &content {
                let size = bytes.len() as u64;
                checked.check_size(&path, &at, size)?;
                total += size;
                checked.check_total(total)?;
            }
            checked.contents.insert(path, content);
        }
        names.check_directories()?;
        Ok(checked)
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.contents.contains_key(path)
    }

    /// Stores them. They are kept from collection for one grace period, within which their release must exist.
    ///
    /// # Errors
    /// [`Error::NotUploaded`]; a named blob that is over a limit; the disk.
    pub(crate) async fn store(mut self, blobs: &Blobs, env: &Env) -> Result<BTreeMap<SitePath, SiteFile>> {
        let (named, given): (Vec<_>, Vec<_>) = std::mem::take(&mut self.contents)
            .into_iter()
            .partition(|(_, content)| matches!(content, Content::Named { .. }));
        let mut files = BTreeMap::new();
        let mut total = 0;
        // Named blobs first: a missing one is found before anything is written.
        for contents in [named, given] {
            let mut stored = stream::iter(contents)
                .map(|(path, content)| self.store_one(blobs, env, path, content))
                .buffer_unordered(WRITES_AT_ONCE);
            while let Some((path, file)) = stored.try_next().await? {
                total += file.size;
                self.check_total(total)?;
                files.insert(path, file);
            }
        }
        Ok(files)
    }

    async fn store_one(
        &self,
        blobs: &Blobs,
        env: &Env,
        path: SitePath,
        content: Content,
    ) -> Result<(SitePath, SiteFile)> {
        let (sha256, size) = match content {
            Content::Bytes(bytes) => {
                let size = bytes.len() as u64;
                (blobs.put(env, bytes).await?, size)
            }
            Content::Named { hash, at } => match blobs.size(env, hash).await? {
                Some(size) => {
                    self.check_size(&path, &at, size)?;
                    (hash, size)
                }
                None => return Err(Error::NotUploaded { at, path: path.into(), hash }),
            },
        };
        let content_type = content_type::of(path.as_str());
        Ok((path, SiteFile { sha256, size, content_type }))
    }

    fn check_size(&self, path: &SitePath, at: &str, size: u64) -> Result<()> {
        let (of, limit) = (self.of, self.limits.file_bytes);
        if size <= limit {
            return Ok(());
        }
        Err(Error::FileTooLarge { of, at: at.to_owned(), path: path.to_string(), size, limit })
    }

    fn check_total(&self, bytes: u64) -> Result<()> {
        let (of, limit) = (self.of, self.limits.bytes);
        if bytes <= limit { Ok(()) } else { Err(Error::TooManyBytes { of, limit }) }
    }
}

fn read_content(spec: FileSpec, path: &str, at: String) -> Result<Content> {
    match spec {
        FileSpec::Text(text) => Ok(Content::Bytes(text.into())),
        FileSpec::Base64 { base64 } => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Content::Bytes(bytes.into())),
            Err(_) => Err(Error::Base64 { at: at + "/base64", path: path.to_owned() }),
        },
        FileSpec::Blob { sha256 } => match sha256.parse() {
            Ok(hash) => Ok(Content::Named { hash, at: at + "/sha256" }),
            Err(_) => Err(Error::Hash { at: at + "/sha256", path: path.to_owned() }),
        },
    }
}

/// The names of files without regard to case, to find those that would be one on other machines.
#[derive(Default)]
struct Names {
    /// Folded path to the path as given and its pointer.
    files: HashMap<String, (String, String)>,
    directories: HashSet<String>,
}

impl Names {
    fn add(&mut self, path: &SitePath, given: &str, at: &str) -> Result<()> {
        let folded = path.folded();
        for (end, _) in folded.match_indices('/') {
            if !self.directories.contains(&folded[..end]) {
                self.directories.insert(folded[..end].to_owned());
            }
        }
        match self.files.insert(folded, (given.to_owned(), at.to_owned())) {
            None => Ok(()),
            Some((first, _)) => Err(Error::Collision { at: at.to_owned(), first, second: given.to_owned() }),
        }
    }

    fn check_directories(&self) -> Result<()> {
        // In order, so that the same manifest always gets the same answer.
        let folded: BTreeSet<&String> = self.files.keys().collect();
        for file in folded.iter().filter(|file| self.directories.contains(file.as_str())) {
            let inside = format!("{file}/");
            let below = folded.range::<String, _>(&inside..).next().and_then(|below| self.files.get(*below));
            if let (Some((file, _)), Some((below, at))) = (self.files.get(file.as_str()), below) {
                return Err(Error::FileAndDirectory {
                    at: at.clone(),
                    file: file.clone(),
                    below: below.clone(),
                });
            }
        }
        Ok(())
    }
}
