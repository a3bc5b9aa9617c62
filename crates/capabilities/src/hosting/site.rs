//! The bundle of a release: a checked, immutable map from paths to blobs, and the rules for serving it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kernel::{BlobHash, Env};
use serde::{Deserialize, Serialize};

use super::headers::HeaderRule;
use super::path::{PathError, SitePath};
use super::redirects::Redirect;
use super::spec::{FileSpec, SiteSpec, pointer_escape};
use super::{Blobs, Error, Result, content_type};

/// How many blobs of one site are written at the same time.
const WRITES_AT_ONCE: usize = 8;

/// How large a site may be.
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

/// A site that can be served: every blob it names was stored when it was made. Part of a release, so never
/// changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Path to content.
    pub files: BTreeMap<SitePath, SiteFile>,
    /// Whether unknown pages get index.html.
    #[serde(default)]
    pub spa: bool,
    /// Header rules, later ones over earlier ones.
    #[serde(default)]
    pub headers: Vec<HeaderRule>,
    /// Redirects, the first match counts.
    #[serde(default)]
    pub redirects: Vec<Redirect>,
}

/// One file of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFile {
    /// The blob.
    pub sha256: BlobHash,
    /// Its size in bytes.
    pub size: u64,
    /// The `Content-Type` to send.
    pub content_type: String,
}

/// What differs between two sites.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SiteDiff {
    /// Files that are new.
    pub added: Vec<SitePath>,
    /// Files with other content.
    pub changed: Vec<SitePath>,
    /// Files that are gone.
    pub removed: Vec<SitePath>,
    /// How many bytes the added and changed files have.
    pub bytes: u64,
    /// Which of `spa`, `headers` and `redirects` differ.
    pub settings: Vec<&'static str>,
}

impl Site {
    /// Refuses rules that no manifest could have brought.
    ///
    /// # Errors
    /// What is wrong with the first, at its place below the site.
    pub(crate) fn kept(&self) -> Result<()> {
        let redirects = Redirect::parse_all(self.redirects.iter().map(Redirect::spec).collect())?;
        let headers = HeaderRule::parse_all(self.headers.iter().map(HeaderRule::spec).collect())?;
        if redirects != self.redirects || headers != self.headers {
            let why = "the rules are not written as they are kept".to_owned();
            return Err(Error::HeaderRule { at: "/headers".to_owned(), why });
        }
        Ok(())
    }

    /// What has to happen to this site to make it `other`.
    #[must_use]
    pub fn diff(&self, other: &Site) -> SiteDiff {
        let mut diff = SiteDiff::default();
        for (path, file) in &other.files {
            match self.files.get(path) {
                Some(before) if before == file => continue,
                Some(_) => diff.changed.push(path.clone()),
                None => diff.added.push(path.clone()),
            }
            diff.bytes += file.size;
        }
        diff.removed = self.files.keys().filter(|path| !other.files.contains_key(*path)).cloned().collect();
        let settings = [
            ("spa", self.spa != other.spa),
            ("headers", self.headers != other.headers),
            ("redirects", self.redirects != other.redirects),
        ];
        diff.settings = settings.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect();
        diff
    }

    /// The blobs it needs, for [`Blobs::collect`].
    pub fn blobs(&self) -> impl Iterator<Item = BlobHash> {
        self.files.values().map(|file| file.sha256)
    }

    /// The blobs it needs, each with the size that the site says it has.
    pub fn sizes(&self) -> impl Iterator<Item = (BlobHash, u64)> {
        self.files.values().map(|file| (file.sha256, file.size))
    }

    /// How many bytes its files have together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }
}

impl SiteDiff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &SiteDiff::default()
    }
}

/// Makes sites out of what manifests say.
#[derive(Debug, Clone)]
pub struct Sites {
    blobs: Blobs,
    limits: Limits,
}

/// A file that was checked, before its blob is stored.
enum Content {
    Bytes(Bytes),
    Named { hash: BlobHash, at: String },
}

impl Sites {
    /// Sites whose files are in `blobs`, with the default limits.
    #[must_use]
    pub fn new(blobs: Blobs) -> Self {
        Self { blobs, limits: Limits::default() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Checks everything `spec` says, then stores its content. Nothing is stored where something is wrong
    /// with it, except for a named blob that turns out to be missing. The blobs of the site are kept from
    /// collection for one grace period, within which its release must exist.
    ///
    /// # Errors
    /// What is wrong, with a pointer relative to the site object; [`Error::NotUploaded`]; the disk.
    pub async fn prepare(&self, env: &Env, spec: SiteSpec) -> Result<Site> {
        if spec.dir.is_some() {
            return Err(Error::Directory);
        }
        let headers = HeaderRule::parse_all(spec.headers)?;
        let redirects = Redirect::parse_all(spec.redirects)?;
        let contents = self.check_files(spec.files)?;
        if spec.spa && !contents.contains_key("index.html") {
            return Err(Error::SpaWithoutIndex);
        }
        let (named, given): (Vec<_>, Vec<_>) =
            contents.into_iter().partition(|(_, content)| matches!(content, Content::Named { .. }));
        let mut files = BTreeMap::new();
        let mut total = 0;
        // Named blobs first: a missing one is found before anything is written.
        for contents in [named, given] {
            let mut stored = stream::iter(contents)
                .map(|(path, content)| self.store(env, path, content))
                .buffer_unordered(WRITES_AT_ONCE);
            while let Some((path, file)) = stored.try_next().await? {
                total += file.size;
                if total > self.limits.bytes {
                    return Err(Error::SiteTooLarge { limit: self.limits.bytes });
                }
                files.insert(path, file);
            }
        }
        Ok(Site { files, spa: spec.spa, headers, redirects })
    }

    async fn store(&self, env: &Env, path: SitePath, content: Content) -> Result<(SitePath, SiteFile)> {
        let (sha256, size) = match content {
            Content::Bytes(bytes) => {
                let size = bytes.len() as u64;
                (self.blobs.put(env, bytes).await?, size)
            }
            Content::Named { hash, at } => match self.blobs.size(env, hash).await? {
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

    fn check_files(&self, specs: BTreeMap<String, FileSpec>) -> Result<BTreeMap<SitePath, Content>> {
        if specs.len() > self.limits.files {
            return Err(Error::TooManyFiles { count: specs.len(), limit: self.limits.files });
        }
        let mut contents = BTreeMap::new();
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
                self.check_size(&path, &at, size)?;
                total += size;
                if total > self.limits.bytes {
                    return Err(Error::SiteTooLarge { limit: self.limits.bytes });
                }
            }
            contents.insert(path, content);
        }
        names.check_directories()?;
        Ok(contents)
    }

    fn check_size(&self, path: &SitePath, at: &str, size: u64) -> Result<()> {
        let limit = self.limits.file_bytes;
        if size <= limit {
            return Ok(());
        }
        Err(Error::FileTooLarge { at: at.to_owned(), path: path.to_string(), size, limit })
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

/// The names of a site without regard to case, to find files that would be one on other machines.
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

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
