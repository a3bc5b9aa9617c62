//! Functions that are built and asked as an app's are, on a platform that has a variable, a secret and a way to answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use capabilities::functions::{Builder as _, Function, FunctionName, Runs, Runtime, Settings, Sources};
use capabilities::hosting::{Blobs, SiteFile};
use functions::{
    Artifacts, Asker, Asking, By, Called, Functions, FunctionsLimits, Host, Kind, Line, Place, Reply, Sent,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use kernel::{Env, EnvId, Secret, TenantId};
use sandbox::egress::{Event, Policy};
use sandbox::runner::Isolation;

use super::rig::{Rig, request};

/// What the platform of the tests was told.
#[derive(Default)]
pub struct Platform {
    pub log: Mutex<Vec<(String, Option<String>, String)>>,
    pub asked: Mutex<Vec<String>>,
    pub is_strict: AtomicBool,
}

impl Host for Platform {
    fn place<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, kernel::Result<Place>> {
        async { Ok(Place { slug: "app".to_owned(), url: "http://app.localhost".to_owned() }) }.boxed()
    }

    fn secrets<'a>(
        &'a self,
        _: &'a Env,
        names: &'a [String],
    ) -> BoxFuture<'a, kernel::Result<BTreeMap<String, Secret>>> {
        async { Ok(names.iter().map(|name| (name.clone(), Secret::new("hidden"))).collect()) }.boxed()
    }

    fn admits<'a>(&'a self, _: &'a Env, isolation: Isolation) -> BoxFuture<'a, kernel::Result<()>> {
        let is_strict = self.is_strict.load(Ordering::SeqCst) && isolation == Isolation::Namespaces;
        let refused = || Err(kernel::Error::new(kernel::Code::Unavailable, "more is demanded"));
        async move { if is_strict { refused() } else { Ok(()) } }.boxed()
    }

    fn policy<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, kernel::Result<Policy>> {
        async { Ok(Policy::default()) }.boxed()
    }

    fn log(&self, called: &Called, request: Option<&str>, line: &Line) {
        self.log.lock().unwrap().push((
            called.name.to_string(),
            request.map(str::to_owned),
            line.text.clone(),
        ));
    }

    fn told(&self, _: &Called, _: Event) {}

    fn answer<'a>(&'a self, asker: &'a Asker, request: Request<Incoming>) -> BoxFuture<'a, Response<Sent>> {
        let rid = request.headers().get("steading-fn-request").and_then(|id| id.to_str().ok());
        let of = rid.map_or("nobody", |id| match asker.by(id) {
            By::Platform => "its own",
            _ => "another's",
        });
        let text = format!("{} {} by {} for {of}", request.method(), request.uri(), asker.name);
        self.asked.lock().unwrap().push(text.clone());
        async move { Response::new(body(&text)) }.boxed()
    }
}

fn body(text: &str) -> Sent {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}

/// One environment's functions.
pub struct World {
    pub functions: Functions,
    pub platform: Arc<Platform>,
    pub env: Env,
    blobs: Blobs,
    rig: Rig,
}

impl World {
    pub async fn new() -> Self {
        Self::with(FunctionsLimits::default()).await
    }

    pub async fn with(limits: FunctionsLimits) -> Self {
        let rig = Rig::new().await;
        let blobs = Blobs::new(rig.directory.path().join("envs")).unwrap();
        let artifacts = Artifacts::open(rig.directory.path().join("artifacts"), blobs.clone()).unwrap();
        let platform = Arc::new(Platform::default());
        let (local, host) = (Arc::clone(&rig.local), Arc::clone(&platform) as Arc<dyn Host>);
        let functions = Functions::new(local, rig.templates.clone(), artifacts, host, limits).unwrap();
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        Self { functions, platform, env, blobs, rig }
    }

    /// Where what was built of its functions is.
    pub fn artifacts(&self) -> std::path::PathBuf {
        self.rig.directory.path().join("artifacts").join(self.env.id().to_string())
    }

    /// Files as sources.
    pub async fn sources(&self, runtime: Runtime, files: &[(&str, &str)]) -> Sources {
        let mut all = BTreeMap::new();
        for (path, text) in files {
            let sha256 = self.blobs.put(&self.env, Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
            let file = SiteFile { sha256, size: text.len() as u64, content_type: String::new() };
            all.insert(path.parse().unwrap(), file);
        }
        Sources { runs: Runs::Function { runtime, entry: None }, files: all }
    }

    /// Builds a function.
    pub async fn built(&self, name: &str, sources: Sources, settings: Settings) -> kernel::Result<Called> {
        let name: FunctionName = name.parse().unwrap();
        let artifact = self.functions.build(&self.env, &name, &sources, &|_| {}).await?;
        let function = Arc::new(Function { sources, artifact, settings });
        let variables = Arc::new(BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]));
        Ok(Called { env: self.env.clone(), name, function, variables })
    }

    /// A function of one file.
    pub async fn function(&self, runtime: Runtime, text: &str, settings: Settings) -> Called {
        let sources = self.sources(runtime, &[("index.ts", text)]).await;
        self.built("hello", sources, settings).await.unwrap()
    }

    pub async fn ask(&self, called: &Called, path: &str) -> functions::Result<Reply> {
        self.functions.ask(called, Asking::new(request("GET", path, ""), "req_1", Kind::Http)).await
    }

    /// Its status and text.
    pub async fn asked(&self, called: &Called, path: &str) -> (u16, String) {
        let reply = self.ask(called, path).await.unwrap();
        let status = reply.response.status().as_u16();
        let bytes = reply.response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Waits until so many processes are there.
    pub async fn has(&self, processes: usize) {
        for _ in 0..600 {
            if self.functions.processes() == processes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} processes, and not {processes}", self.functions.processes());
    }
}
