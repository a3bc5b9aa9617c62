//! From sources to what runs: packages are installed and everything becomes one file, by Bun, in a sandbox that has no secret
//! and goes when that is done. What becomes of a service is beside it.
//!
//! What a build reads is untrusted, and so is what it says: macros and scripts of packages do not run, the registry is the
//! only host that is reached, and only while packages are installed. Packages that were fetched stay for the next build of
//! the same environment, and of no other: who could write into what others build from would be in their code.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capabilities::functions::{
    Artifact, Builder, Files, Function, FunctionName, Handlers, Kind, Runs, Runtime, Sources,
};
use capabilities::hosting::{SiteFile, SitePath};
use futures::future::BoxFuture;

use kernel::{Code, Env, Error, Result, SandboxId, WorkspaceId};
use sandbox::egress::{Egress, Event, Journal, Pattern, Policy, Target};
use sandbox::runner::{Limits, Runner as _, Spec};
use sandbox::session::{Exec, Outcome, Ran, Run, Session, TreeCaps};
use sandbox::workspace::{Origin, Tree};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::entry;
use crate::host::Called;
use crate::packing::packed_by;
use crate::supervisor::{Functions, Inner};
use crate::wrong::{broken, does_not_serve, does_not_start, said, too_large};

/// Builds at once on this machine.
pub(crate) const AT_ONCE: usize = 2;

/// What a build may use.
pub(crate) const LIMITS: Limits =
    Limits { memory_bytes: 1 << 30, cpu_millis: 2_000, pids: 256, tmp_bytes: 256 << 20 };

/// What packages of an environment and what is built of them may hold.
const DISK: u64 = 2 << 30;

/// How long packages may take, and the rest.
const INSTALLING: Duration = Duration::from_secs(180);
pub(crate) const BUNDLING: Duration = Duration::from_secs(60);

/// What comes of a build at most: the code itself, and with what cannot be part of one file.
const CODE: u64 = 25 << 20;
pub(crate) const CAPS: TreeCaps = TreeCaps { files: 5_000, file_bytes: 100 << 20, bytes: 250 << 20 };

/// The largest source map that is read, in bytes.
const LARGEST_MAP: usize = 16 << 20;

/// Where it is, inside.
pub(crate) const BUILD: &str = "/workspace/build";
const OUT: &str = "/workspace/out";

/// What says which line of the bundle is of which line of the sources.
const MAP: &str = "index.js.map";

/// Where packages come from.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Its address.
    pub url: String,
    /// The certificates that it is to be judged by, in PEM, where they are not the usual ones.
    pub certificates: Option<String>,
}

pub(crate) struct Quiet;

impl Journal for Quiet {
    fn told(&self, _: Event) {}
}

impl Builder for Functions {
    fn build<'a>(
        &'a self,
        env: &'a Env,
        name: &'a FunctionName,
        sources: &'a Sources,
        note: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Artifact>> {
        Box::pin(async move {
            let (said, mut heard) = mpsc::unbounded_channel();
            let build = Build {
                inner: Arc::clone(&self.0),
                env: env.clone(),
                name: name.clone(),
                sources: sources.clone(),
                said,
            };
            // To its end, also where whoever waits for it has gone: what is half done is in the way of the next one.
            let mut built = tokio::spawn(build.in_turn());
            loop {
                tokio::select! {
                    Some(what) = heard.recv() => note(what),
                    built = &mut built => return built.map_err(Error::internal)?,
                }
            }
        })
    }

    fn start<'a>(
        &'a self,
        env: &'a Env,
        name: &'a FunctionName,
        function: &'a Function,
        app: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Handlers>> {
        Box::pin(async move {
            let called = Called {
                env: env.clone(),
                name: name.clone(),
                function: Arc::new(function.clone()),
                variables: Arc::new(app.clone()),
            };
            self.boot(&called).await.map_err(|error| match function.kind() {
                Kind::Function => does_not_start(error, &function.sources.files),
                Kind::Service => does_not_serve(error),
            })
        })
    }

    fn switched(
        &self,
        env: &Env,
        functions: &BTreeMap<FunctionName, Arc<Function>>,
        app: &Arc<BTreeMap<String, String>>,
    ) {
        self.settle(env, functions, app);
    }

    fn builder(&self, sources: &Sources) -> String {
        sources.serving().map_or_else(|| self.0.templates.bun_layer(), packed_by)
    }
}

impl Inner {
    pub async fn remove_workspace(&self, id: WorkspaceId) {
        if let Err(error) = self.local.remove_workspace(id).await {
            // What no row names goes at the next start.
            tracing::warn!(workspace.id = %id, error = error.chain(), "a build's workspace could not be removed");
        }
    }
}

pub(crate) struct Build {
    pub inner: Arc<Inner>,
    pub env: Env,
    name: FunctionName,
    sources: Sources,
    said: mpsc::UnboundedSender<&'static str>,
}

impl Build {
    /// Builds when it is its turn: in the workshop of its environment first, so that one environment takes no more than one
    /// of the machine's.
    async fn in_turn(self) -> Result<Artifact> {
        let inner = Arc::clone(&self.inner);
        let (workshop, surplus) = inner.workshops.of(self.env.id())?;
        let (mut place, turn) = inner.workshops.turn(&workshop).await?;
        inner.host.admits(&self.env, inner.local.isolation()).await?;
        let built = self.run(&mut place).await;
        if built.is_err()
            && let Some(id) = place.take()
        {
            // What has failed may have been for want of room, or for what an earlier build has left.
            inner.remove_workspace(id).await;
        }
        drop(turn);
        drop(place);
        for old in surplus {
            inner.close_workshop(&old).await;
        }
        built
    }

    pub(crate) fn note(&self, what: &'static str) {
        // Nobody may hear it any more.
        let _ = self.said.send(what);
    }

    async fn run(&self, place: &mut Option<WorkspaceId>) -> Result<Artifact> {
        match &self.sources.runs {
            Runs::Service { service } => self.packed(place, service).await,
            Runs::Function { runtime, entry } => self.bundled(place, *runtime, entry.as_ref()).await,
        }
    }

    /// The workspace of its environment's builds.
    pub(crate) async fn workspace(&self, place: &mut Option<WorkspaceId>) -> Result<WorkspaceId> {
        if let Some(id) = *place {
            return Ok(id);
        }
        let id = *place.insert(WorkspaceId::new());
        self.inner.local.create_workspace(id, Origin::Empty, DISK).await?;
        Ok(id)
    }

    async fn bundled(
        &self,
        place: &mut Option<WorkspaceId>,
        runtime: Runtime,
        entry: Option<&SitePath>,
    ) -> Result<Artifact> {
        let package = self.package().await?;
        let entry = entry::of(&self.sources.files, entry, package.as_ref())?;
        let workspace = self.workspace(place).await?;
        let templates = self.inner.templates.clone();
        let bun = tokio::task::spawn_blocking(move || templates.bun()).await.map_err(Error::internal)??;
        let workspace: Tree = self.inner.local.tree(workspace).await?;
        let spec = Spec { id: SandboxId::new(), workspace, layers: vec![bun.clone()], limits: LIMITS };
        let started = self.inner.local.create(&spec).await?;
        self.inner.local.count_for(spec.id, self.env.tenant(), self.env.id());
        let mut serving = JoinSet::new();
        let built = async {
            let session = Session::open(started.hand).await?;
            self.unpack(&session, entry::lean(&self.sources, package.as_ref()).as_ref()).await?;
            if package.as_ref().is_some_and(entry::has_dependencies) {
                let registry = self.inner.registry().await?;
                let egress =
                    Egress::new(Arc::clone(&self.inner.outside), reach(&[&registry])?, Arc::new(Quiet))?;
                serving.spawn(async move { egress.serve(started.egress).await });
                self.install(&session, &registry).await?;
                // From here on nothing is reached: the connections end with who serves them.
                serving.shutdown().await;
            }
            self.bundle(&session, runtime, &entry).await?;
            self.take(&session).await
        };
        let built = built.await;
        if let Err(error) = self.inner.local.destroy(spec.id).await {
            tracing::warn!(sandbox.id = %spec.id, error = error.chain(), "a build's sandbox could not be ended");
        }
        let built_by = bun.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let entry: SitePath = "index.js".parse().map_err(Error::internal)?;
        Ok(Artifact { entry, files: built?, built_by })
    }

    /// The sources' package.json.
    async fn package(&self) -> Result<Option<serde_json::Value>> {
        let Some(file) = self.sources.files.iter().find(|(path, _)| path.as_str() == "package.json") else {
            return Ok(None);
        };
        let bytes = self.inner.artifacts.blobs().read(&self.env, file.1.sha256).await?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::invalid("/files/package.json", format!("package.json is no JSON: {error}"))
        })
    }

    /// The sources as an archive, with `lean` in place of their package.json.
    pub(crate) async fn archive(&self, lean: Option<&serde_json::Value>) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, file) in &self.sources.files {
            let mut bytes = self.inner.artifacts.blobs().read(&self.env, file.sha256).await?;
            if let (true, Some(package)) = (path.as_str() == "package.json", lean) {
                bytes = package.to_string().into();
            }
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            // What says by which program it runs, or is a program, is one.
            let is_program = bytes.starts_with(b"#!") || bytes.starts_with(b"\x7fELF");
            header.set_mode(if is_program { 0o755 } else { 0o644 });
            archive.append_data(&mut header, path.as_str(), &*bytes).map_err(Error::internal)?;
        }
        archive.into_inner().map_err(Error::internal)
    }

    /// Puts the sources there.
    pub(crate) async fn unpack(&self, session: &Session, lean: Option<&serde_json::Value>) -> Result<()> {
        let archive = self.archive(lean).await?;
        let line = format!("rm -rf {BUILD} {OUT} && mkdir -p {BUILD} && exec tar -xpf - -C {BUILD}");
        let ran = self.ran(session, Exec::command(line), archive, BUNDLING).await?;
        if ran.outcome == Outcome::Code(0) {
            return Ok(());
        }
        tracing::warn!(said = said(&ran), "the sources of a function could not be unpacked");
        Err(Error::new(Code::Unavailable, "the sources could not be unpacked where they are to be built"))
    }

    async fn install(&self, session: &Session, registry: &Registry) -> Result<()> {
        self.note("installing packages");
        let mut line =
            "exec /usr/local/bin/bun install --production --ignore-scripts --no-progress --no-summary"
                .to_owned();
        if let Some(pem) = &registry.certificates {
            let place = "/workspace/certificates.pem";
            session
                .files()
                .write(place, pem.as_bytes(), pem.len() as u64, sandbox::session::Write::default())
                .await?;
            line.push_str(" --cafile=");
            line.push_str(place);
        }
        let mut exec = Exec::command(line);
        exec.env.insert("BUN_CONFIG_REGISTRY".to_owned(), registry.url.clone());
        exec.env.insert("BUN_INSTALL_CACHE_DIR".to_owned(), "/workspace/packages".to_owned());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            exec.env.insert(name.to_owned(), "http://127.0.0.1:3128".to_owned());
        }
        let ran = self.ran(session, exec, Vec::new(), INSTALLING).await?;
        match ran.outcome {
            Outcome::Code(0) => Ok(()),
            Outcome::TimedOut => Err(Error::invalid(
                "/files/package.json",
                format!("its packages were not installed within {} s", INSTALLING.as_secs()),
            )
            .hint("use fewer or smaller packages")),
            _ => Err(Error::invalid(
                "/files/package.json",
                format!("its packages cannot be installed: {}", said(&ran)),
            )
            .hint("name packages and versions that the registry has")),
        }
    }

    async fn bundle(&self, session: &Session, runtime: Runtime, entry: &SitePath) -> Result<()> {
        self.note("bundling");
        let native = self.native(session).await?;
        let mut words: Vec<String> = ["/usr/local/bin/bun", "build"].map(str::to_owned).to_vec();
        words.push(format!("./{entry}"));
        let target = match runtime {
            Runtime::Bun => "bun",
            Runtime::Node => "node",
        };
        words.push(format!("--target={target}"));
        words.push(format!("--outdir={OUT}"));
        let usual = ["--format=esm", "--no-macros", "--minify", "--keep-names", "--sourcemap=linked"];
        words.extend(usual.map(str::to_owned));
        words.push("--entry-naming=index.js".to_owned());
        words.extend(native.iter().map(|package| format!("--external={package}")));
        let ran = self.ran(session, Exec::argv(words), Vec::new(), BUNDLING).await?;
        match ran.outcome {
            Outcome::Code(0) => {}
            Outcome::TimedOut => {
                let message = format!("it was not bundled within {} s", BUNDLING.as_secs());
                return Err(Error::invalid("/files", message).hint("use fewer or smaller packages"));
            }
            _ => return Err(broken(&said(&ran), &self.sources.files)),
        }
        if !native.is_empty() {
            // What is no JavaScript stays in its package, with those that it needs.
            // Programs of packages are links that nothing here runs, and packages of the sources' own may be links too.
            let line = format!(
                "find {BUILD}/node_modules -name .bin -type d -prune -exec rm -rf {{}} + && \
                 cp -aL {BUILD}/node_modules {OUT}/node_modules"
            );
            let ran = self.ran(session, Exec::command(line), Vec::new(), BUNDLING).await?;
            if ran.outcome != Outcome::Code(0) {
                return Err(Error::invalid("/files/package.json", "its packages are too large")
                    .hint("use fewer packages, or some without native code"));
            }
        }
        Ok(())
    }

    /// Packages that have native code, which no bundle takes.
    async fn native(&self, session: &Session) -> Result<Vec<String>> {
        let line = "find node_modules -name '*.node' -type f 2>/dev/null | head -n 1000";
        let ran = self.ran(session, Exec::command(line), Vec::new(), BUNDLING).await?;
        let mut all: Vec<String> = ran.stdout.head.lines().filter_map(entry::package_of).collect();
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// What was built, as blobs.
    async fn take(&self, session: &Session) -> Result<Files> {
        let mut tree = session.files().tree(OUT, CAPS).await.map_err(too_large)?;
        let (mut files, mut code) = (BTreeMap::new(), 0);
        while let Some((path, content)) = tree.file().await.map_err(too_large)? {
            let content = if path == MAP { remapped(content).await? } else { content };
            let size = content.len() as u64;
            if !path.starts_with("node_modules/") {
                code += size;
            }
            if code > CODE {
                let message = format!("{} is larger than {} MiB when it is bundled", self.name, CODE >> 20);
                return Err(Error::new(Code::TooLarge, message).field("/files").hint("use smaller packages"));
            }
            let path: SitePath = path
                .parse()
                .map_err(|why| Error::invalid("/files", format!("{path:?} cannot be kept: {why}")))?;
            let sha256 = self.inner.artifacts.blobs().put(&self.env, content).await?;
            files
                .insert(path, SiteFile { sha256, size, content_type: "application/octet-stream".to_owned() });
        }
        if !files.keys().any(|path| path.as_str() == "index.js") {
            return Err(Error::invalid("/files", "nothing came of bundling it"));
        }
        Ok(files)
    }

    pub(crate) async fn ran(
        &self,
        session: &Session,
        mut exec: Exec,
        stdin: Vec<u8>,
        within: Duration,
    ) -> Result<Ran> {
        exec.cwd.get_or_insert_with(|| if stdin.is_empty() { BUILD } else { "/workspace" }.to_owned());
        exec.timeout = Some(within);
        exec.env.insert("HOME".to_owned(), "/tmp".to_owned());
        exec.env.insert("NO_COLOR".to_owned(), "1".to_owned());
        let run = Run { exec, stdin, head: 64 << 10, tail: 64 << 10 };
        Ok(session.run(run).await?)
    }
}

/// The source map with the sources where their author has them. One that is none, or a very large one, stays as it is.
async fn remapped(map: Bytes) -> Result<Bytes> {
    if map.len() > LARGEST_MAP {
        return Ok(map);
    }
    let work = move || entry::remapped(&map).map_or(map, Bytes::from);
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)
}

/// Only these registries.
pub(crate) fn reach(registries: &[&Registry]) -> Result<Policy> {
    let (mut allow, mut origins) = (Vec::new(), Vec::new());
    for registry in registries {
        let url: http::Uri = registry.url.parse().map_err(Error::internal)?;
        let host = url.host().ok_or_else(|| Error::internal("the registry's address has no host"))?;
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
        // The operator has said where packages come from, wherever that is.
        let target = Target::new(host, port)?;
        let pattern: Pattern = target.to_string().parse()?;
        allow.push(pattern);
        origins.push(target);
    }
    let advice = "packages come from the registry alone".to_owned();
    Ok(Policy { allow, origins, advice, ..Policy::default() })
}
