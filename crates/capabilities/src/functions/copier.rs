//! A builder for tests: what it builds is the sources one after another, in a file of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use kernel::{Code, Env, Error, Result};

use super::{Artifact, Builder, Files, Function, FunctionName, Handlers, Runs, Sources};
use crate::hosting::{Blobs, SiteFile, SitePath};

/// What sources have that do not build.
const WRONG: &str = "!!";

/// What sources have that do not start, unless a variable CALM is there.
const THROWS: &str = "??";

pub(crate) struct Copier {
    blobs: Blobs,
    /// The functions that were built, in order.
    built: Mutex<Vec<String>>,
    version: Mutex<u32>,
    /// The functions that were said to be live last.
    pub(crate) live: Mutex<Vec<String>>,
}

impl Copier {
    pub(crate) fn new(blobs: Blobs) -> Self {
        Self { blobs, built: Mutex::default(), version: Mutex::new(1), live: Mutex::default() }
    }

    /// What was built since this was asked.
    pub(crate) fn built(&self) -> Vec<String> {
        std::mem::take(&mut self.built.lock().unwrap())
    }

    /// Builds with the next version of the runtimes from now on.
    pub(crate) fn grow(&self) {
        *self.version.lock().unwrap() += 1;
    }

    async fn copy(&self, env: &Env, sources: &Sources) -> Result<Artifact> {
        let mut bundle = Vec::new();
        for (path, file) in &sources.files {
            let bytes = self.blobs.read(env, file.sha256).await?;
            if String::from_utf8_lossy(&bytes).contains(WRONG) {
                return Err(Error::new(Code::InvalidInput, format!("{path}:1:1: this is no code"))
                    .field(format!("/files/{path}")));
            }
            bundle.extend_from_slice(format!("// {path}\n").as_bytes());
            bundle.extend_from_slice(&bytes);
        }
        let entry: SitePath = "bundle.js".parse().unwrap();
        let size = bundle.len() as u64;
        let sha256 = self.blobs.put(env, Bytes::from(bundle)).await?;
        let file = SiteFile { sha256, size, content_type: "text/javascript".to_owned() };
        let built_by = self.builder(sources);
        Ok(Artifact { files: Files::from([(entry.clone(), file)]), entry, built_by })
    }
}

impl Builder for Copier {
    fn build<'a>(
        &'a self,
        env: &'a Env,
        name: &'a FunctionName,
        sources: &'a Sources,
        note: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Artifact>> {
        Box::pin(async move {
            note(&format!("building {name}"));
            self.built.lock().unwrap().push(name.to_string());
            self.copy(env, sources).await
        })
    }

    fn start<'a>(
        &'a self,
        env: &'a Env,
        _: &'a FunctionName,
        function: &'a Function,
        app: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Handlers>> {
        Box::pin(async move {
            let file = &function.artifact.files[&function.artifact.entry];
            let bytes = self.blobs.read(env, file.sha256).await?;
            let throws = String::from_utf8_lossy(&bytes).contains(THROWS);
            if throws && !app.contains_key("CALM") && !function.settings.variables.contains_key("CALM") {
                return Err(Error::new(Code::InvalidInput, "the function does not start: it throws"));
            }
            let text = String::from_utf8_lossy(&bytes);
            let has = ["fetch", "scheduled", "event"].into_iter().filter(|name| text.contains(name));
            Ok(has.map(str::to_owned).collect())
        })
    }

    fn switched(
        &self,
        _: &Env,
        functions: &BTreeMap<FunctionName, Arc<Function>>,
        _: &Arc<BTreeMap<String, String>>,
    ) {
        *self.live.lock().unwrap() = functions.keys().map(ToString::to_string).collect();
    }

    fn builder(&self, sources: &Sources) -> String {
        let what = match &sources.runs {
            Runs::Function { runtime, .. } => runtime.as_str(),
            Runs::Service { .. } => "service",
        };
        format!("{what} {}", self.version.lock().unwrap())
    }
}
