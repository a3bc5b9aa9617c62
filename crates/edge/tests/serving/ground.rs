//! A listener with one edge and one environment, and a client that sends exactly what it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use axum::{Router, extract::State};
use bytes::Bytes;
use capabilities::auth::{Auth, AuthLimits, Claims, Outside, TokenKeys};
use capabilities::database::{Databases, Limits};
use capabilities::hosting::{Blobs, Site, Sites};
use capabilities::logs::{Entry, Logs, Query};
use capabilities::mail::{Addresses, At, Post, Route};
use capabilities::realtime::{Realtime, RealtimeLimits};
use capabilities::rows::{App, AuthSettings, LiveApps, Method, Rows};
use capabilities::storage::{Contents, LinkKeys, Storage, StorageLimits};
use control::{Control, ControlConfig};
use edge::{Apps, AtDomain, Data, Edge, Hosts, Served, Which};
use futures::FutureExt;
use futures::future::BoxFuture;
use kernel::{Code, Env, EnvId, Error, Result, Scopes, Secret, Slug, TenantId};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

/// Environments and their releases in memory; the highest release is live.
#[derive(Default)]
struct Known {
    apps: Mutex<HashMap<Slug, Resident>>,
}

struct Resident {
    env: Env,
    releases: Vec<Arc<Served>>,
}

impl Apps for Known {
    fn find<'a>(&'a self, slug: &'a Slug) -> BoxFuture<'a, Result<Option<Env>>> {
        let found = match slug.as_str() {
            "broken" => Err(Error::new(Code::Unavailable, "the control plane is away")),
            _ => Ok(self.apps.lock().unwrap().get(slug).map(|app| app.env.clone())),
        };
        async { found }.boxed()
    }

    fn at_domain<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<AtDomain>>> {
        async { Ok(None) }.boxed()
    }

    fn release<'a>(&'a self, env: &'a Env, which: Which) -> BoxFuture<'a, Result<Option<Arc<Served>>>> {
        let apps = self.apps.lock().unwrap();
        let found = apps.values().find(|app| app.env == *env).and_then(|app| match which {
            Which::Live => app.releases.last().cloned(),
            Which::Number(number) => app.releases.iter().find(|served| served.release == number).cloned(),
        });
        async { Ok(found) }.boxed()
    }
}

impl LiveApps for Known {
    fn app<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Arc<App>>> {
        let live = self.release(env, Which::Live);
        live.map(|live| Ok(live?.map(|served| Arc::clone(&served.app)).unwrap_or_default())).boxed()
    }
}

/// Nobody signs in here.
struct NoKeys;

impl Addresses for NoKeys {
    fn url<'a>(&'a self, _: &'a Env, _: At<'a>) -> BoxFuture<'a, Result<String>> {
        Box::pin(async { Ok("http://shop.localhost".to_owned()) })
    }
}

impl TokenKeys for NoKeys {
    fn sign<'a>(&'a self, _: &'a Env, _: &'a Claims) -> BoxFuture<'a, Result<Secret>> {
        async { Err(Error::internal("no keys")) }.boxed()
    }

    fn verify<'a>(&'a self, _: &'a Env, _: &'a Secret) -> BoxFuture<'a, Result<Option<Claims>>> {
        async { Ok(None) }.boxed()
    }

    fn service<'a>(
        &'a self,
        _: &'a Env,
        _: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<(kernel::KeyId, Scopes)>>> {
        async { Ok(None) }.boxed()
    }

    fn jwks<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<Value>> {
        async { Err(Error::internal("no keys")) }.boxed()
    }

    fn kid<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<String>> {
        async { Ok("kid".to_owned()) }.boxed()
    }

    fn seal(&self, _: &str, _: &[u8]) -> Result<String> {
        Err(Error::internal("no seal"))
    }

    fn open(&self, _: &str, _: &str) -> Result<Zeroizing<Vec<u8>>> {
        Err(Error::internal("no seal"))
    }
}

/// Nobody signs links here.
struct NoLinks;

impl LinkKeys for NoLinks {
    fn mac<'a>(&'a self, _: &'a Env, _: &'a [u8]) -> BoxFuture<'a, Result<[u8; 32]>> {
        async { Err(Error::internal("no keys")) }.boxed()
    }

    fn is_good<'a>(&'a self, _: &'a Env, _: kernel::KeyId) -> BoxFuture<'a, Result<bool>> {
        async { Ok(false) }.boxed()
    }
}

/// The keys of a control plane.
struct Keys(Arc<Control>);

impl TokenKeys for Keys {
    fn sign<'a>(&'a self, env: &'a Env, claims: &'a Claims) -> BoxFuture<'a, Result<Secret>> {
        self.0.app_keys().sign(env, claims).boxed()
    }

    fn verify<'a>(&'a self, env: &'a Env, token: &'a Secret) -> BoxFuture<'a, Result<Option<Claims>>> {
        self.0.app_keys().verify(env, token.expose()).boxed()
    }

    fn service<'a>(
        &'a self,
        env: &'a Env,
        key: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<(kernel::KeyId, Scopes)>>> {
        self.0.service(env, key).boxed()
    }

    fn jwks<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Value>> {
        self.0.app_keys().jwks(env).boxed()
    }

    fn kid<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<String>> {
        self.0.app_keys().kid(env).boxed()
    }

    fn seal(&self, place: &str, value: &[u8]) -> Result<String> {
        self.0.sealing().seal(place, value)
    }

    fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.0.sealing().open(place, sealed)
    }
}

pub struct Ground {
    dir: TempDir,
    address: SocketAddr,
    apps: Arc<Known>,
    pub blobs: Blobs,
    logs: Logs,
    pub env: Env,
    pub databases: Arc<Databases>,
}

pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Ground {
    /// An environment `shop` without a release, and one `empty` too.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        std::fs::create_dir(dir.path().join(env.id().to_string())).unwrap();
        Self::open(dir, env, Arc::new(NoKeys)).await
    }

    /// With one release in which people sign in by every method, and pages of `https://friend.example` may call.
    /// Also its control plane.
    pub async fn with_users() -> (Self, Arc<Control>) {
        let dir = tempfile::tempdir().unwrap();
        let (control, _) = Control::open(ControlConfig::new(dir.path().join("control"))).await.unwrap();
        let environment = control.environments().unfinished().await.unwrap().remove(0);
        let environment = control.environments().ready(&environment).await.unwrap();
        let env = Env::for_upkeep(environment.tenant, environment.id);
        let control = Arc::new(control);
        let ground = Self::open(dir, env, Arc::new(Keys(Arc::clone(&control)))).await;
        ground.databases.create(ground.env.id()).await.unwrap();
        let app = App {
            auth: AuthSettings {
                methods: [Method::Anonymous, Method::Password].into(),
                origins: ["https://friend.example".to_owned()].into(),
                ..AuthSettings::default()
            },
            ..App::default()
        };
        ground.publish(Site::default(), app);
        (ground, control)
    }

    async fn open(dir: TempDir, env: Env, keys: Arc<dyn TokenKeys>) -> Self {
        let blobs = Blobs::new(dir.path()).unwrap();
        let logs = Logs::new(dir.path());
        let apps = Arc::new(Known::default());
        for (slug, env) in [("shop", env.clone()), ("empty", Env::for_upkeep(env.tenant(), EnvId::new()))] {
            apps.apps.lock().unwrap().insert(slug.parse().unwrap(), Resident { env, releases: Vec::new() });
        }
        let databases = Arc::new(Databases::new(dir.path().to_owned(), Limits::default()));
        let post = Post::new(&Route::Outbox, Arc::new(NoKeys), logs.clone()).unwrap();
        let auth =
            Auth::new(Arc::clone(&databases), keys, post, Outside::unknown().unwrap(), AuthLimits::default());
        let (limits, stopping) = (RealtimeLimits::default(), tokio_util::sync::CancellationToken::new());
        let realtime = Realtime::new(Arc::clone(&databases), apps.clone(), auth.clone(), limits, stopping);
        let data = Data {
            auth,
            rows: Rows::new(Arc::clone(&databases), apps.clone()),
            files: Storage::new(
                Arc::clone(&databases),
                apps.clone(),
                Contents::local(dir.path()).unwrap(),
                Arc::new(NoLinks),
                StorageLimits::default(),
            ),
            realtime,
        };
        let edge = Edge::new(apps.clone(), blobs.clone(), data, logs.clone());
        let hosts = Arc::new(Hosts::new([], "localhost").unwrap());
        let router = Router::new().fallback(answer).with_state((hosts, edge));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { dir, address, apps, blobs, logs, env, databases }
    }

    /// With one release of this site.
    pub async fn with(spec: Value) -> Self {
        let ground = Self::new().await;
        ground.release(spec).await;
        ground
    }

    pub async fn release(&self, spec: Value) {
        let sites = Sites::new(self.blobs.clone());
        let site = sites.prepare(&self.env, serde_json::from_value(spec).unwrap()).await.unwrap();
        self.serve(site);
    }

    pub fn serve(&self, site: Site) {
        self.publish(site, App::default());
    }

    fn publish(&self, site: Site, app: App) {
        let mut apps = self.apps.apps.lock().unwrap();
        let resident = apps.get_mut(&"shop".parse::<Slug>().unwrap()).unwrap();
        let release = resident.releases.len() as u64 + 1;
        resident.releases.push(Arc::new(Served {
            release,
            site,
            functions: Default::default(),
            variables: Default::default(),
            app: Arc::new(app),
        }));
    }

    /// Sends these bytes and reads until the other side closes.
    pub async fn raw(&self, request: &[u8]) -> Reply {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await.unwrap();
        Reply::read(&answer)
    }

    pub async fn ask(&self, method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n");
        self.raw(request.as_bytes()).await
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.ask("GET", "shop.localhost", path, headers).await
    }

    pub async fn log(&self) -> Vec<Entry> {
        self.logs.query(&self.env, Query::default()).await.unwrap().entries
    }

    /// Overwrites a stored blob behind the platform's back.
    pub fn damage(&self, content: &[u8], with: &[u8]) {
        let name = kernel::BlobHash::of(content).to_string();
        let blobs = self.dir.path().join(self.env.id().to_string()).join("blobs");
        std::fs::write(blobs.join(name), with).unwrap();
    }
}

impl Reply {
    fn read(answer: &[u8]) -> Self {
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&answer[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: answer[end + 4..].to_vec() }
    }

    /// The header's value; of several, joined as they stand.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> =
            self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect();
        if values.is_empty() { None } else { Some(values.join(" | ")) }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Status, all headers but the changing ones, and the body, to compare whole answers.
    pub fn whole(&self) -> String {
        let mut lines: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| name != "date" && name != "x-request-id")
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        lines.sort();
        format!("{}\n{}\n{}", self.status, lines.concat(), String::from_utf8_lossy(&self.body))
    }
}

async fn answer(State((hosts, edge)): State<(Arc<Hosts>, Edge)>, request: Request) -> Response {
    let host = hosts.of(request.uri(), request.headers());
    edge.serve(&host, request).await
}

pub async fn decode(coding: &str, bytes: &[u8]) -> Bytes {
    use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder};
    let mut plain = Vec::new();
    match coding {
        "br" => BrotliDecoder::new(bytes).read_to_end(&mut plain).await.unwrap(),
        "gzip" => GzipDecoder::new(bytes).read_to_end(&mut plain).await.unwrap(),
        other => panic!("unknown coding {other}"),
    };
    plain.into()
}
