//! Functions and services of an app: what a manifest says of them, and what a release keeps of each. What builds and runs them
//! is behind a port. Both are one thing here, of two kinds: a service is a function whose process is a command that listens.

#[cfg(test)]
pub(crate) mod copier;
mod events;
mod name;
mod service;
mod settings;
mod spec;
pub(crate) mod variables;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use kernel::{BlobHash, Code, Env, Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use events::{Did, EventSpec, On};
pub use name::FunctionName;
pub use service::{Base, Health, ServiceChange, ServiceSpec, Serving};
pub use settings::{FunctionLimits, Kind, Settings};
pub use spec::{Access, FunctionChange, FunctionSpec, Runtime};

use crate::hosting::{Limits, SiteFile, SitePath};

/// Files by their paths; every blob that they name was stored when they were.
pub type Files = BTreeMap<SitePath, SiteFile>;

/// The functions and services of a release.
pub type Functions = BTreeMap<FunctionName, Function>;

/// How many functions an app has at most.
const MOST: usize = 100;

/// How many files the sources of all of them have at most: a release is read as a whole.
const MOST_FILES: usize = 10_000;

/// How many files all of them have at most with what was built of them, and how many that of one, with how many bytes.
const MOST_WITH_BUILT: usize = 20_000;
const MOST_BUILT: usize = 5_000;
const BUILT_BYTES: u64 = 250 << 20;

/// How large the sources of one may be.
pub(crate) const SOURCES: Limits = Limits { files: 2_000, file_bytes: 25 << 20, bytes: 25 << 20 };

/// One version of a function or a service. Part of a release, so never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// What was deployed.
    pub sources: Sources,
    /// What runs.
    pub artifact: Artifact,
    /// How it runs, and for whom.
    pub settings: Settings,
}

/// What a function is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// What becomes of the files.
    #[serde(flatten)]
    pub runs: Runs,
    /// All of its files.
    pub files: Files,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Runs {
    /// A command that listens.
    Service {
        /// How it is run.
        service: Serving,
    },
    /// Handlers.
    Function {
        /// What they run on.
        runtime: Runtime,
        /// The file that exports them, where the sources do not say it themselves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entry: Option<SitePath>,
    },
}

/// What has been built, and runs without anything else: on the runtime that it was built for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Which of the files is loaded.
    pub entry: SitePath,
    /// The bundle, its source map, and what could not be bundled.
    pub files: Files,
    /// The program that built it, which is the one that may run it: a runtime's name and version.
    pub built_by: String,
}

/// What a function can be asked for, by the names of its handlers: `fetch`, `scheduled`, `event`, `main`.
pub type Handlers = Vec<String>;

/// Builds functions, and tries whether they start.
pub trait Builder: Send + Sync {
    /// The files that `sources` of a function named `name` come to. `note` hears what is being done.
    ///
    /// # Errors
    /// `invalid_input` where the sources do not build or the module does not load, with the file, line and column in the
    /// message, and a pointer below the function where there is one (`/files/index.ts`); `too_large`; `unavailable` where
    /// nothing can be built here.
    fn build<'a>(
        &'a self,
        env: &'a Env,
        name: &'a FunctionName,
        sources: &'a Sources,
        note: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Artifact>>;

    /// Starts a function with the variables of its app, so that it is known to start, and answers at once when it is asked. Tells
    /// what it can be asked for.
    ///
    /// # Errors
    /// `invalid_input` where its module does not load, with the file, line and column in the message.
    fn start<'a>(
        &'a self,
        env: &'a Env,
        name: &'a FunctionName,
        function: &'a Function,
        app: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Handlers>>;

    /// These are the functions of an environment's release from here on, with the variables of the app. What runs of others
    /// ends.
    fn switched(
        &self,
        env: &Env,
        functions: &BTreeMap<FunctionName, Arc<Function>>,
        app: &Arc<BTreeMap<String, String>>,
    );

    /// What would build these: [`Artifact::built_by`] of what it builds.
    fn builder(&self, sources: &Sources) -> String;
}

impl Sources {
    /// What they are of.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.runs {
            Runs::Function { .. } => Kind::Function,
            Runs::Service { .. } => Kind::Service,
        }
    }

    /// How the service is run that they are of.
    #[must_use]
    pub const fn serving(&self) -> Option<&Serving> {
        match &self.runs {
            Runs::Service { service } => Some(service),
            Runs::Function { .. } => None,
        }
    }

    /// As much of them as what is built depends on.
    pub(crate) fn of_build(&self) -> Self {
        let runs = match &self.runs {
            Runs::Service { service } => Runs::Service { service: service.of_build() },
            function @ Runs::Function { .. } => function.clone(),
        };
        Self { runs, files: self.files.clone() }
    }

    /// What of them says what is run.
    pub(crate) fn of_code(&self) -> Self {
        let runs = match &self.runs {
            Runs::Service { service } => {
                Runs::Service { service: Serving { health: Health::default(), ..service.clone() } }
            }
            function @ Runs::Function { .. } => function.clone(),
        };
        Self { runs, files: self.files.clone() }
    }
}

impl Artifact {
    /// Refuses one that is too large for a release: a release is read as a whole.
    ///
    /// # Errors
    /// `too_large` at `/files`.
    pub(crate) fn bounded(&self) -> Result<()> {
        let (files, bytes) = (self.files.len(), sum(&self.files));
        let message = if files > MOST_BUILT {
            format!("what is built of it has {files} files; the limit is {MOST_BUILT}")
        } else if bytes > BUILT_BYTES {
            format!("what is built of it has {bytes} bytes; the limit is {BUILT_BYTES}")
        } else {
            return Ok(());
        };
        Err(Error::new(Code::TooLarge, message)
            .field("/files")
            .hint("use fewer packages, or some without native code"))
    }
}

fn sum(files: &Files) -> u64 {
    files.values().fold(0_u64, |sum, file| sum.saturating_add(file.size))
}

impl Function {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.sources.kind()
    }

    /// What holds for it, said or not.
    #[must_use]
    pub fn limits(&self) -> FunctionLimits {
        self.settings.limits(self.kind())
    }

    /// Its place in a manifest.
    pub(crate) fn place(&self, name: &FunctionName) -> String {
        format!("/{}s/{name}", self.kind().as_str())
    }

    /// Its version: the same where the same runs on the same runtime, whatever its settings are. Twelve hexadecimal digits.
    #[must_use]
    pub fn version(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.artifact.built_by.as_bytes());
        hash.update([0]);
        hash.update(self.artifact.entry.as_str());
        for (kind, files) in [(1, &self.sources.files), (2, &self.artifact.files)] {
            for (path, file) in files {
                hash.update([0, kind]);
                hash.update(path.as_str());
                hash.update([0]);
                hash.update(file.sha256.to_string());
            }
        }
        if let Some(serving) = self.sources.serving() {
            hash.update([0, 3]);
            hash.update(serde_json::to_vec(serving).unwrap_or_default());
        }
        hash.finalize().iter().take(6).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    }

    /// The path of its own address on the app's host.
    #[must_use]
    pub fn path(&self, name: &FunctionName) -> String {
        format!("{}{name}", self.kind().below())
    }

    /// Refuses what no release of ours keeps, with its place below the function.
    pub(crate) fn kept(&self) -> Result<()> {
        self.settings.check(self.kind())?;
        let wrong = |at: &str, why: &str| Err(Error::invalid(at, why));
        let Self { sources, artifact, .. } = self;
        let few = (1..=SOURCES.files).contains(&sources.files.len());
        if !few || sum(&sources.files) > SOURCES.bytes {
            return wrong("/sources/files", "a function has some files, and not as many or as large ones");
        }
        match &sources.runs {
            Runs::Function { entry: Some(entry), .. } if !sources.files.contains_key(entry) => {
                return wrong("/sources/entry", "it is none of the files");
            }
            Runs::Function { .. } => {}
            Runs::Service { service } => service.check().map_err(|e| e.under("/sources/service"))?,
        }
        if !artifact.files.contains_key(&artifact.entry) {
            return wrong("/artifact/entry", "it is none of the files");
        }
        artifact.bounded().map_err(|e| e.field("/artifact/files"))?;
        if artifact.built_by.is_empty() || artifact.built_by.len() > 100 {
            return wrong("/artifact/built_by", "this names no runtime");
        }
        Ok(())
    }

    /// The blobs that it needs, with their sizes.
    pub fn sizes(&self) -> impl Iterator<Item = (BlobHash, u64)> {
        let files = self.sources.files.values().chain(self.artifact.files.values());
        files.map(|file| (file.sha256, file.size))
    }
}

/// Refuses more functions than an app may have, and more files than they may have together.
pub(crate) fn bounded(files: impl ExactSizeIterator<Item = usize>) -> Result<()> {
    if files.len() > MOST {
        let message = format!("an app has at most {MOST} functions and services");
        return Err(Error::invalid("/functions", message));
    }
    let files: usize = files.sum();
    if files > MOST_FILES {
        let message = format!("the functions have {files} files; the limit is {MOST_FILES} for all together");
        return Err(Error::new(Code::TooLarge, message).field("/functions").hint("bundle them first"));
    }
    Ok(())
}

/// The same with what was built of them.
pub(crate) fn bounded_with_built(functions: &Functions) -> Result<()> {
    bounded(functions.values().map(|function| function.sources.files.len()))?;
    for (name, function) in functions {
        function.artifact.bounded().map_err(|e| e.under(&function.place(name)))?;
    }
    let files: usize = functions.values().map(|it| it.sources.files.len() + it.artifact.files.len()).sum();
    if files > MOST_WITH_BUILT {
        let message = format!(
            "the functions have {files} files with what is built of them; the limit is {MOST_WITH_BUILT} for all together"
        );
        return Err(Error::new(Code::TooLarge, message)
            .field("/functions")
            .hint("use fewer packages with native code"));
    }
    Ok(())
}

/// Those of a release that had `base`, where a manifest brings all functions or all services anew.
///
/// # Errors
/// `conflict` where one of each kind would have the same name.
pub(crate) fn replaced(
    base: &Functions,
    functions: Option<&Functions>,
    services: Option<&Functions>,
) -> Result<Functions> {
    let brought = [(Kind::Function, functions), (Kind::Service, services)];
    let mut all = Functions::new();
    for (kind, brought) in brought {
        let stay = base.iter().filter(|(_, it)| brought.is_none() && it.kind() == kind);
        for (name, function) in stay.chain(brought.into_iter().flatten()) {
            if all.insert(name.clone(), function.clone()).is_some() {
                let at = if services.is_some() { Kind::Service } else { Kind::Function };
                return Err(taken(name, at.other()).field(format!("/{}s/{name}", at.as_str())));
            }
        }
    }
    Ok(all)
}

/// That a name is another kind's.
pub(crate) fn taken(name: &FunctionName, kind: Kind) -> Error {
    let message = format!("the name {name} is that of a {} of this app", kind.as_str());
    Error::new(Code::Conflict, message).hint("choose another name, or delete the other first")
}

/// The blobs that functions need.
#[must_use]
pub fn blobs(functions: &Functions) -> HashSet<BlobHash> {
    functions.values().flat_map(|function| function.sizes().map(|(hash, _)| hash)).collect()
}
