//! From what a manifest brings to what a release has: files are stored, and functions and services are built where they are not
//! built already.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kernel::{Code, Env, Error, Result};
use tokio_util::sync::CancellationToken;

use super::entrusting::{Among, SET_FIRST};
use super::events;
use super::goal::Goal;
use super::manifest::Manifest;
use super::rehearsal::{Release, rehearse};
use super::running::{Until, answers, may_bring};
use super::{Applied, Releases};
use crate::database::Durability;
use crate::functions::{
    self, Artifact, Builder, Files, Function, FunctionChange, FunctionName, FunctionSpec, Functions, Kind,
    Runs, Runtime, ServiceChange, ServiceSpec, Serving, Settings, Sources,
};
use crate::hosting::{self, Checked, FileSpec, Owner, SitePath};
use crate::schedules;

/// How many functions are built at the same time.
pub(super) const BUILDS_AT_ONCE: usize = 4;

/// Hears what is being done.
type Note<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// A function or a service as a manifest writes it.
struct Brought {
    dir: Option<String>,
    files: BTreeMap<String, FileSpec>,
    what: What,
    settings: Settings,
}

/// What runs, before its files are known.
enum What {
    Function { runtime: Runtime, entry: Option<String> },
    Service(Serving),
}

/// What shall be otherwise about a function or a service.
pub enum CodeChange {
    /// About a function.
    Function(FunctionChange),
    /// About a service.
    Service(ServiceChange),
}

impl From<FunctionSpec> for Brought {
    fn from(spec: FunctionSpec) -> Self {
        let settings = spec.settings().in_order(Kind::Function);
        let what = What::Function { runtime: spec.runtime, entry: spec.entry };
        Self { dir: spec.dir, files: spec.files, what, settings }
    }
}

impl From<ServiceSpec> for Brought {
    fn from(spec: ServiceSpec) -> Self {
        let (settings, what) = (spec.settings().in_order(Kind::Service), What::Service(spec.serving()));
        Self { dir: spec.dir, files: spec.files, what, settings }
    }
}

impl What {
    const fn kind(&self) -> Kind {
        match self {
            Self::Function { .. } => Kind::Function,
            Self::Service(_) => Kind::Service,
        }
    }
}

impl CodeChange {
    const fn kind(&self) -> Kind {
        match self {
            Self::Function(_) => Kind::Function,
            Self::Service(_) => Kind::Service,
        }
    }

    const fn files(&self) -> Option<&BTreeMap<String, FileSpec>> {
        match self {
            Self::Function(change) => change.files.as_ref(),
            Self::Service(change) => change.files.as_ref(),
        }
    }

    /// How it runs that runs as `before` says, when this has changed.
    fn settings(&self, before: Option<&Function>) -> Settings {
        let before = before.map_or_else(Settings::default, |it| it.settings.clone());
        match self {
            Self::Function(change) => change.settings(&before),
            Self::Service(change) => change.settings(&before),
        }
    }
}

impl Releases {
    /// The same, with what builds functions.
    #[must_use]
    pub fn with_functions(self, builder: Arc<dyn Builder>) -> Self {
        Self { builder: Some(builder), ..self }
    }

    /// Where a manifest leads, with all that it brings stored and built, and started where that is wanted.
    ///
    /// # Errors
    /// What is wrong with it, with a pointer into it.
    pub(super) async fn goal(
        &self,
        env: &Env,
        manifest: Manifest,
        secrets: &[String],
        until: Until,
    ) -> Result<Goal> {
        may_bring(env, &manifest)?;
        for (i, name) in manifest.secrets.iter().flatten().enumerate() {
            if !secrets.contains(name) {
                return Err(Error::invalid(format!("/secrets/{i}"), format!("the secret {name} is not set"))
                    .hint(SET_FIRST));
            }
        }
        let mut manifest = manifest.formed()?;
        manifest.auth.iter().try_for_each(|it| it.has_secrets(secrets).map_err(|e| e.under("/auth")))?;
        for (name, spec) in manifest.functions.iter().flatten() {
            spec.settings().has_secrets(secrets).map_err(|e| e.under(&format!("/functions/{name}")))?;
        }
        for (name, spec) in manifest.services.iter().flatten() {
            spec.settings().has_secrets(secrets).map_err(|e| e.under(&format!("/services/{name}")))?;
        }
        manifest
            .schedules
            .iter()
            .try_for_each(|it| schedules::come(it).map_err(|e| e.under("/schedules")))?;
        manifest.domains = self.claimable(env, manifest.domains.take()).await?;
        // Wrong tables are said before any blob is stored.
        if let Some(database) = &manifest.database {
            let tables = database.tables();
            tables.and_then(|tables| database.well_written(&tables)).map_err(|e| e.under("/database"))?;
        }
        let site = match manifest.site.take() {
            Some(spec) => {
                let site = self.sites.prepare(env, spec).await;
                Some(site.map_err(|e| Error::from(e).under("/site"))?)
            }
            None => None,
        };
        let (functions, services) = (manifest.functions.take(), manifest.services.take());
        let variables = manifest.variables.as_ref();
        let functions = match functions.map(all_brought) {
            Some(all) => Some(self.brought(env, all, variables).await?),
            None => None,
        };
        let services = match services.map(all_brought) {
            Some(all) => Some(self.brought(env, all, variables).await?),
            None => None,
        };
        let goal = Goal::Apply { manifest: Box::new(manifest), site, functions, services };
        if until == Until::Started {
            self.planned_started(env, &goal, &self.current(env).await?).await?;
        }
        Ok(goal)
    }

    /// The functions, or the services, that a manifest brings, with the variables that it brings for all.
    async fn brought(
        &self,
        env: &Env,
        all: Vec<(FunctionName, Brought)>,
        variables: Option<&BTreeMap<String, String>>,
    ) -> Result<Functions> {
        let base = self.current(env).await?;
        let was = base.manifest.variables.clone().unwrap_or_default();
        let app = variables.unwrap_or(&was);
        let mut stored = Vec::new();
        // All that can be wrong without building is said before anything is built.
        for (name, brought) in all {
            let at = place(brought.what.kind(), &name);
            brought.settings.fits(app).map_err(|e| e.under(&at))?;
            let settings = brought.settings.clone();
            let sources = self.stored(env, brought).await.map_err(|e| e.under(&at))?;
            stored.push((name, sources, settings));
        }
        let before = &base.functions;
        let built = stored.into_iter().map(|(name, sources, settings)| async move {
            let artifact = self.built(env, &name, &sources, before.get(&name), &|_| {}).await;
            let at = place(sources.kind(), &name);
            let function = Function { sources, artifact: artifact.map_err(|e| e.under(&at))?, settings };
            Ok::<_, Error>((name, function))
        });
        stream::iter(built).buffered(BUILDS_AT_ONCE).try_collect().await
    }

    /// Makes a release that has this function or service so, and else is the current one; and the function. `secrets` are the names of
    /// those that the app can use, `note` hears what is being done.
    ///
    /// # Errors
    /// `invalid_input` with a pointer to the field; of [`Builder::build`]; `conflict` where it was deployed by another
    /// meanwhile, and this has no files; as [`Releases::apply`].
    pub async fn deploy_code(
        &self,
        env: &Env,
        name: FunctionName,
        change: CodeChange,
        secrets: &[String],
        note: Note<'_>,
        cancel: &CancellationToken,
    ) -> Result<(Applied, Function)> {
        let before = self.current(env).await?;
        let timed = before.manifest.schedules.iter().flatten().any(|(_, it)| it.function == name);
        let app = before.manifest.variables.unwrap_or_default();
        let (before, kind) = (before.functions.get(&name), change.kind());
        if let Some(other) = before.map(Function::kind).filter(|it| *it != kind) {
            return Err(functions::taken(&name, other).field("/name"));
        }
        let settings = change.settings(before);
        settings.check(kind)?;
        settings.fits(&app)?;
        settings.has_secrets(secrets)?;
        let work = async {
            let sources = self.changed(env, &change, before).await?;
            let artifact = self.built(env, &name, &sources, before, note).await?;
            let function = Function { sources, artifact, settings: settings.in_order(kind) };
            if before != Some(&function) {
                note("starting");
                let among = |function| Among { function, app: &app };
                let handlers = self.started(env, &name, among(&function), before.map(among)).await?;
                events::answers(&name, &function.settings.events, &handlers)
                    .map_err(|e| e.field("/files"))?;
                if timed {
                    answers(&name, &handlers).map_err(|e| e.field("/files"))?;
                }
            }
            Ok(function)
        };
        let Function { sources, artifact, .. } = unless(cancel, work).await?;
        let mut db = self.writer(env, cancel).await?;
        // While it was built, another release may have come with other settings.
        db.begin(Durability::Normal).await?;
        let current = Release::current(&mut db).await?;
        db.rollback().await?;
        let current = current.functions.get(&name);
        let code = |function: Option<&Function>| function.map(|it| it.sources.clone());
        if change.files().is_none() && code(current) != code(before) {
            let message = format!("the {} {name} was deployed by another meanwhile", kind.as_str());
            return Err(Error::new(Code::Conflict, message).field("/name").hint("look at it, and try again"));
        }
        let settings = change.settings(current.filter(|it| it.kind() == kind));
        settings.check(kind)?;
        settings.has_secrets(secrets)?;
        let function = Function { sources, artifact, settings: settings.in_order(kind) };
        let goal = Goal::Function { name, function: Box::new(function.clone()) };
        let rehearsal = rehearse(&mut db, &goal, "").await?;
        Ok((self.finish(env, db, rehearsal, cancel).await?, function))
    }

    /// What it is to be built from.
    async fn stored(&self, env: &Env, brought: Brought) -> Result<Sources> {
        if brought.dir.is_some() {
            return Err(hosting::Error::Directory.into());
        }
        let files = self.store(env, brought.what.kind(), brought.files).await?;
        let runs = match brought.what {
            What::Function { runtime, entry } => {
                let entry = entry.as_deref().map(|entry| entry_of(&files, entry)).transpose()?;
                Runs::Function { runtime, entry }
            }
            What::Service(service) => Runs::Service { service },
        };
        Ok(Sources { runs, files })
    }

    /// What it is to be built from that was built from what `before` says, with what `change` says of it.
    async fn changed(&self, env: &Env, change: &CodeChange, before: Option<&Function>) -> Result<Sources> {
        let (before, kind) = (before.map(|it| &it.sources), change.kind());
        // What is wrong without the files is said before they are stored.
        let service = match change {
            CodeChange::Service(change) => Some(change.serving(before.and_then(Sources::serving))?),
            CodeChange::Function(_) => None,
        };
        let files = match (change.files(), before) {
            (Some(files), _) => self.store(env, kind, files.clone()).await?,
            (None, Some(before)) => before.files.clone(),
            (None, None) => {
                let message = format!("there is no such {} yet: give it its files", kind.as_str());
                return Err(Error::invalid("/files", message));
            }
        };
        let runs = match (change, service) {
            (CodeChange::Function(change), _) => {
                let before = before.map(|it| &it.runs);
                let (was, from) = match before {
                    Some(Runs::Function { runtime, entry }) => (Some(*runtime), entry.clone()),
                    _ => (None, None),
                };
                let entry = match &change.entry {
                    Some(entry) => Some(entry_of(&files, entry)?),
                    None => from.filter(|entry| files.contains_key(entry)),
                };
                Runs::Function { runtime: change.runtime.or(was).unwrap_or_default(), entry }
            }
            (CodeChange::Service(_), Some(service)) => Runs::Service { service },
            (CodeChange::Service(_), None) => return Err(Error::internal("a service without a command")),
        };
        Ok(Sources { runs, files })
    }

    async fn store(&self, env: &Env, kind: Kind, files: BTreeMap<String, FileSpec>) -> Result<Files> {
        let (owner, example) = match kind {
            Kind::Function => {
                (Owner::Function, r#"{"index.ts": "export default { fetch: () => new Response('hello') }"}"#)
            }
            Kind::Service => (Owner::Service, r#"{"app.py": "…"} with the command python3 app.py"#),
        };
        if files.is_empty() {
            let message = format!("a {} needs its files", kind.as_str());
            return Err(Error::invalid("/files", message).hint(example));
        }
        let checked = Checked::of(owner, functions::SOURCES, files)?;
        Ok(checked.store(&self.blobs, env).await?)
    }

    /// What `sources` come to; what was built of the same ones by what would build them now stays.
    async fn built(
        &self,
        env: &Env,
        name: &FunctionName,
        sources: &Sources,
        before: Option<&Function>,
        note: Note<'_>,
    ) -> Result<Artifact> {
        let builder = self.builder.as_ref();
        let stays =
            |artifact: &Artifact| builder.is_none_or(|builder| builder.builder(sources) == artifact.built_by);
        let before = before.filter(|it| it.sources.of_build() == sources.of_build());
        let before = before.map(|it| it.artifact.clone());
        for artifact in [before, self.lately.find(env.id(), sources)?].into_iter().flatten() {
            if stays(&artifact) && self.has(env, &artifact).await? {
                return Ok(artifact);
            }
        }
        let builder =
            builder.ok_or_else(|| Error::new(Code::Unavailable, "this machine runs no functions"))?;
        let artifact = builder.build(env, name, sources, note).await?;
        artifact.bounded()?;
        self.lately.note(env.id(), sources, &artifact)?;
        Ok(artifact)
    }

    /// Whether all of it is there; where it is, it is kept from collection as files that were just stored are.
    async fn has(&self, env: &Env, artifact: &Artifact) -> Result<bool> {
        for file in artifact.files.values() {
            if !self.blobs.has(env, file.sha256).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn all_brought<S: Into<Brought>>(specs: BTreeMap<FunctionName, S>) -> Vec<(FunctionName, Brought)> {
    specs.into_iter().map(|(name, spec)| (name, spec.into())).collect()
}

/// A place in a manifest.
fn place(kind: Kind, name: &FunctionName) -> String {
    format!("/{}s/{name}", kind.as_str())
}

fn entry_of(files: &Files, entry: &str) -> Result<SitePath> {
    let missing = || {
        Error::invalid("/entry", format!("there is no file {entry:?}"))
            .hint("name one of `files`, or leave it out")
    };
    let path: SitePath = entry.parse().map_err(|_| missing())?;
    if files.contains_key(&path) { Ok(path) } else { Err(missing()) }
}

/// What `work` comes to, unless the call is cancelled before.
pub(super) async fn unless<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = cancel.cancelled() => {
            Err(Error::new(Code::Timeout, "the call was cancelled; nothing has changed"))
        }
    }
}
