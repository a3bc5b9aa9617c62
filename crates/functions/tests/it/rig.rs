//! A process that makes sandboxes, and functions in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use functions::{Assignment, Instance, InstanceLimits, Line, Meta, RUNNERS, Runtime, layers};
use futures::FutureExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use sandbox::local::{Local, Settings, Spares};
use sandbox::workspace::templates::Templates;
use testkit::{Engine, Unavailable, require};

/// Functions below a directory of their own.
pub struct Rig {
    pub local: Arc<Local>,
    pub directory: tempfile::TempDir,
    pub templates: Templates,
    pub log: Arc<Mutex<Vec<Line>>>,
}

impl Rig {
    /// With nothing in it.
    pub async fn new() -> Self {
        require(Engine::Npm.is_present().then_some(()).ok_or(Unavailable::Missing(Engine::Npm)));
        let directory = tempfile::tempdir().unwrap();
        let (sources, templates) = (directory.path().join("sources"), cache());
        std::fs::create_dir(&sources).unwrap();
        std::fs::create_dir(directory.path().join("artifacts")).unwrap();
        std::fs::create_dir_all(&templates).unwrap();
        let spares = vec![Spares { count: 1, limits: InstanceLimits::default().sandbox }];
        let run_dir = directory.path().join("run");
        let trees = vec![sources.clone(), templates.clone(), directory.path().join("artifacts")];
        let settings = Settings { run_dir, trees, spares, runsc: None };
        let start = move || {
            let mut command = Command::new(sandbox_host());
            command.arg(&sources);
            command
        };
        let local = Arc::new(Local::new(start, settings));
        let runner = local.add_runner(&RUNNERS).await.unwrap();
        local.use_runner(runner).await.unwrap();
        Self { local, directory, templates: Templates::new(templates), log: Arc::default() }
    }

    /// A function of these files, the first of which is loaded.
    pub fn function(&self, runtime: Runtime, files: &[(&str, &str)]) -> Assignment {
        let place =
            tempfile::Builder::new().tempdir_in(self.directory.path().join("sources")).unwrap().keep();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&place, everybody).unwrap();
        for (name, text) in files {
            std::fs::write(place.join(name), text).unwrap();
        }
        Assignment {
            runtime,
            layers: layers(runtime, &self.templates).unwrap(),
            files: place,
            entry: files[0].0.to_owned(),
            env: BTreeMap::new(),
            meta: Meta::default(),
            limits: InstanceLimits::default(),
        }
    }

    /// Starts it.
    pub async fn start(&self, it: &Assignment) -> functions::Result<Instance> {
        let log = Arc::clone(&self.log);
        let sink = Arc::new(move |line| log.lock().unwrap().push(line));
        let nothing_around = Box::new(|_, _| std::future::pending().boxed());
        Instance::start(Arc::clone(&self.local), it, sink, nothing_around).await
    }
}

/// Where the product keeps what it has fetched for this user.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration that says where the cache is")]
fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap();
    base.join("steading/templates")
}

/// The program of the sandbox crate that makes sandboxes.
fn sandbox_host() -> PathBuf {
    let mut place = std::env::current_exe().unwrap();
    place.pop();
    if place.ends_with("deps") {
        place.pop();
    }
    place.join(Path::new("sandbox-host"))
}

/// A request that a visitor makes.
pub fn request(method: &str, path: &str, body: &str) -> Request<functions::Sent> {
    let body =
        Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder().method(method).uri(path).header("host", "app.localhost");
    request.header("steading-fn-request", "req_1").body(body).unwrap()
}

/// Its status and body.
pub async fn asked(instance: &Instance, method: &str, path: &str, body: &str) -> (u16, String) {
    let response = instance.send(request(method, path, body)).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}
