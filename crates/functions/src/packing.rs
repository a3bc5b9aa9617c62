//! From a service's sources to the archive that its processes begin with: a line of bash runs over them once, in a sandbox that
//! has no secret and reaches nothing but the registries of packages.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capabilities::functions::{Artifact, Base, Files, Serving};
use capabilities::hosting::{SiteFile, SitePath};
use kernel::{Code, Error, Result, SandboxId, WorkspaceId};
use sandbox::egress::Egress;
use sandbox::runner::{Runner as _, Spec};
use sandbox::session::{Exec, Outcome, Session, Write};
use sandbox::workspace::Tree;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::build::{BUILD, BUNDLING, Build, CAPS, LIMITS, Quiet, Registry, reach};
use crate::runtime;
use crate::serving::is_over;
use crate::supervisor::Inner;
use crate::wrong::said;

/// The archive, among the files of what is built and inside where it is built.
const ARCHIVE: &str = "workspace.tar";
const PACKED: &str = "/workspace/workspace.tar";

/// How long a build may take.
const BUILDING: Duration = Duration::from_secs(240);

/// How often it is looked what a build has written.
const WEIGHED: Duration = Duration::from_secs(1);

/// Asks pip where its packages come from where nothing else is said, and where their files are.
const USUAL: &str =
    "from pip._internal.models.index import PyPI; print(PyPI.simple_url, PyPI.file_storage_domain)";

/// What builds services: the version of what they are packed by, and what they have below `/usr/local`.
pub(crate) fn packed_by(serving: &Serving) -> String {
    format!("service 1 {}", serving.template.map_or("all", Base::as_str))
}

impl Build {
    /// What the service comes to.
    pub(crate) async fn packed(
        &self,
        place: &mut Option<WorkspaceId>,
        serving: &Serving,
    ) -> Result<Artifact> {
        let archive = match &serving.build {
            None => Bytes::from(self.archive(None).await?),
            Some(line) => self.built_by(place, serving, line).await?,
        };
        let size = archive.len() as u64;
        let sha256 = self.inner.artifacts.blobs().put(&self.env, archive).await?;
        let entry: SitePath = ARCHIVE.parse().map_err(Error::internal)?;
        let file = SiteFile { sha256, size, content_type: "application/x-tar".to_owned() };
        Ok(Artifact { files: Files::from([(entry.clone(), file)]), entry, built_by: packed_by(serving) })
    }

    async fn built_by(
        &self,
        place: &mut Option<WorkspaceId>,
        serving: &Serving,
        line: &str,
    ) -> Result<Bytes> {
        let id = self.workspace(place).await?;
        let (template, templates) = (serving.template, self.inner.templates.clone());
        let layers = tokio::task::spawn_blocking(move || runtime::bases(template, &templates)).await;
        let layers = layers.map_err(Error::internal)??;
        let workspace: Tree = self.inner.local.tree(id).await?;
        let spec = Spec { id: SandboxId::new(), workspace, layers, limits: LIMITS };
        let started = self.inner.local.create(&spec).await?;
        self.inner.local.count_for(spec.id, self.env.tenant(), self.env.id());
        let mut serving = JoinSet::new();
        let built = async {
            let session = Session::open(started.hand).await?;
            self.unpack(&session, None).await?;
            let registries = self.inner.registries().await?;
            let policy = reach(&registries.all())?;
            let egress = Egress::new(Arc::clone(&self.inner.outside), policy, Arc::new(Quiet))?;
            serving.spawn(async move { egress.serve(started.egress).await });
            self.note("building");
            let mut exec = Exec::command(line);
            exec.env = registries.settings(&session).await?;
            let ran = tokio::select! {
                ran = self.ran(&session, exec, Vec::new(), BUILDING) => ran?,
                full = self.filled(id) => return Err(full),
            };
            serving.shutdown().await;
            match ran.outcome {
                Outcome::Code(0) => {}
                Outcome::TimedOut => {
                    let message = format!("it was not built within {} s: {}", BUILDING.as_secs(), said(&ran));
                    return Err(Error::invalid("/build", message).hint("have it do less"));
                }
                _ => {
                    let message = format!("it does not build: {}", said(&ran));
                    return Err(Error::invalid("/build", message).hint(
                        "mend what is said; a build reaches the registries of npm and pip, and nothing else",
                    ));
                }
            }
            self.note("packing");
            let line = format!("exec tar -cf {PACKED} --owner=0 --group=0 --numeric-owner -C {BUILD} .");
            let packed = self.ran(&session, Exec::command(line), Vec::new(), BUNDLING).await?;
            if packed.outcome != Outcome::Code(0) {
                return Err(Error::invalid(
                    "/build",
                    format!("what is built cannot be packed: {}", said(&packed)),
                ));
            }
            read(&session).await
        };
        let built = built.await;
        if let Err(error) = self.inner.local.destroy(spec.id).await {
            tracing::warn!(sandbox.id = %spec.id, error = error.chain(), "a build's sandbox could not be ended");
        }
        built
    }
}

impl Build {
    /// Comes when what a build has written is more than it may be, where nothing else holds it to that.
    async fn filled(&self, id: WorkspaceId) -> Error {
        loop {
            sleep(WEIGHED).await;
            if is_over(self.inner.local.fullness(id).await) {
                let message = "it writes more than a build may, which is 2 GiB and half a million files";
                return Error::new(Code::TooLarge, message).field("/build").hint("have it do less");
            }
        }
    }
}

/// What was packed.
async fn read(session: &Session) -> Result<Bytes> {
    let mut content = session.files().open(PACKED, 0, None).await?;
    let mut all = Vec::new();
    while let Some(chunk) = content.chunk().await? {
        all.extend_from_slice(&chunk);
        if all.len() as u64 > CAPS.bytes {
            let message = format!("what is built has more than {} MiB", CAPS.bytes >> 20);
            return Err(Error::new(Code::TooLarge, message).field("/build").hint("install fewer packages"));
        }
    }
    Ok(all.into())
}

/// Where packages come from, as far as this machine says so.
pub(crate) struct Registries {
    npm: Option<Registry>,
    pip: Option<Registry>,
    /// Where the files of pip's packages are, where that is elsewhere.
    pip_files: Option<Registry>,
}

impl Registries {
    fn all(&self) -> Vec<&Registry> {
        self.npm.iter().chain(&self.pip).chain(&self.pip_files).collect()
    }

    /// What tells npm and pip of them, inside.
    async fn settings(&self, session: &Session) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        let mut set = |name: &str, value: &str| drop(all.insert(name.to_owned(), value.to_owned()));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            set(name, "http://127.0.0.1:3128");
        }
        set("npm_config_cache", "/workspace/packages-npm");
        set("npm_config_update_notifier", "false");
        set("PIP_CACHE_DIR", "/workspace/packages-pip");
        set("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        set("PIP_NO_INPUT", "1");
        set("PIP_ROOT_USER_ACTION", "ignore");
        if let Some(pip) = &self.pip {
            set("PIP_INDEX_URL", &pip.url);
        }
        if let Some(npm) = &self.npm {
            set("npm_config_registry", &npm.url);
        }
        let pems = [("npm_config_cafile", self.npm.as_ref()), ("PIP_CERT", self.pip.as_ref())];
        for (name, registry) in pems {
            let Some(pem) = registry.and_then(|it| it.certificates.as_ref()) else { continue };
            let place = format!("/workspace/{name}.pem");
            session.files().write(&place, pem.as_bytes(), pem.len() as u64, Write::default()).await?;
            set(name, &place);
        }
        Ok(all)
    }
}

impl Inner {
    /// Where packages of every language come from: where this machine's own npm and pip get theirs.
    pub async fn registries(&self) -> Result<Registries> {
        // A machine without npm, or without pip, builds what needs none.
        let npm = self.registry().await.ok();
        let (pip, pip_files) = tokio::task::spawn_blocking(pip).await.map_err(Error::internal)??;
        Ok(Registries { npm, pip, pip_files })
    }
}

/// What this machine's Python answers.
fn asked(arguments: &[&str]) -> Option<String> {
    let output = Command::new("/usr/bin/python3").args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where this machine's pip gets packages from, and where their files are, where that is elsewhere.
fn pip() -> Result<(Option<Registry>, Option<Registry>)> {
    let Some(listed) = asked(&["-m", "pip", "config", "list"]) else { return Ok((None, None)) };
    let setting = |name: &str| {
        let found = [":env:", "install", "global"].into_iter().find_map(|part| {
            let begin = format!("{part}.{name}=");
            listed.lines().find_map(|line| line.strip_prefix(&begin))
        });
        found.map(|value| value.trim_matches(['\'', '"']).to_owned())
    };
    let usual = asked(&["-c", USUAL]);
    let usual = usual.as_deref().and_then(|said| said.split_once(' '));
    let said = setting("index-url").or_else(|| usual.map(|(url, _)| url.to_owned()));
    let Some(url) = said else { return Ok((None, None)) };
    // What stands before an @ is somebody's credential, and a build sees all that it is given.
    if url.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().unwrap_or(rest).contains('@')) {
        let message = "the index that pip is set to has a credential in its address";
        return Err(Error::new(Code::Unavailable, message)
            .hint("name an index that packages can be fetched from without one"));
    }
    let certificates = setting("cert").map(|path| std::fs::read_to_string(Path::new(&path)));
    let certificates = certificates
        .transpose()
        .map_err(|error| Error::internal(format!("the certificates of pip cannot be read: {error}")))?;
    let same = |one: &str| one.trim_end_matches('/') == url.trim_end_matches('/');
    let files = usual.filter(|(index, _)| same(index));
    let files = files.map(|(_, host)| Registry { url: format!("https://{host}/"), certificates: None });
    Ok((Some(Registry { url, certificates }), files))
}
