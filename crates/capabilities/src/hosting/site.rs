//! The bundle of a release: a checked, immutable map from paths to blobs, and the rules for serving it.

use std::collections::BTreeMap;

use kernel::{BlobHash, Env};
use serde::{Deserialize, Serialize};

use super::files::{Checked, Limits, Owner};
use super::headers::HeaderRule;
use super::path::SitePath;
use super::redirects::Redirect;
use super::spec::SiteSpec;
use super::{Blobs, Error, Result};

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
        let checked = Checked::of(Owner::Site, self.limits, spec.files)?;
        if spec.spa && !checked.has("index.html") {
            return Err(Error::SpaWithoutIndex);
        }
        let files = checked.store(&self.blobs, env).await?;
        Ok(Site { files, spa: spec.spa, headers, redirects })
    }
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
