//! An edge with one app, whose users sign in with tokens that nothing but this test trusts.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use capabilities::auth::{Asking, Auth, AuthLimits, Claims, Outside, SignIn, TokenKeys};
use capabilities::database::{Databases, Limits};
use capabilities::hosting::Blobs;
use capabilities::logs::Logs;
use capabilities::mail::{Addresses, At, Post, Route};
use capabilities::realtime::{Realtime, RealtimeLimits};
use capabilities::releases::{LiveCheck, Releases, Served, Wanted};
use capabilities::rows::{AuthSettings, LiveApps, Method, Rows};
use capabilities::storage::{Contents, LinkKeys, Storage, StorageLimits};
use edge::{Apps, AtDomain, Data, Edge, HostKind, Which};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request};
use kernel::{Env, EnvId, Error, Result, Scopes, Secret, Slug, TenantId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub struct Ground {
    _dir: TempDir,
    env: Env,
    auth: Auth,
    edge: Edge,
}

pub struct Reply {
    pub status: u16,
    headers: HeaderMap,
    pub body: Vec<u8>,
    pub json: Value,
}

/// Tokens are their claims, in the open.
struct Keys;

impl Addresses for Keys {
    fn url<'a>(&'a self, _: &'a Env, _: At<'a>) -> BoxFuture<'a, Result<String>> {
        async { Ok("http://shop.localhost".to_owned()) }.boxed()
    }
}

impl TokenKeys for Keys {
    fn sign<'a>(&'a self, _: &'a Env, claims: &'a Claims) -> BoxFuture<'a, Result<Secret>> {
        let text: String =
            serde_json::to_vec(claims).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        async { Ok(Secret::new(text)) }.boxed()
    }

    fn verify<'a>(&'a self, _: &'a Env, token: &'a Secret) -> BoxFuture<'a, Result<Option<Claims>>> {
        let text = token.expose().as_bytes();
        let bytes: Option<Vec<u8>> = text.len().is_multiple_of(2).then_some(text).and_then(|text| {
            text.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
        });
        let claims = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        async { Ok(claims) }.boxed()
    }

    fn service<'a>(
        &'a self,
        _: &'a Env,
        _: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<(kernel::KeyId, Scopes)>>> {
        async { Ok(None) }.boxed()
    }

    fn jwks<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<Value>> {
        async { Ok(json!({ "keys": [] })) }.boxed()
    }

    fn kid<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<String>> {
        async { Ok("test".to_owned()) }.boxed()
    }

    fn seal(&self, _: &str, _: &[u8]) -> Result<String> {
        Err(Error::internal("no seal"))
    }

    fn open(&self, _: &str, _: &str) -> Result<Zeroizing<Vec<u8>>> {
        Err(Error::internal("no seal"))
    }
}

impl LinkKeys for Keys {
    fn mac<'a>(&'a self, env: &'a Env, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 32]>> {
        let keyed = [env.id().to_string().as_bytes(), message].concat();
        async move { Ok(kernel::BlobHash::of(&keyed).to_bytes()) }.boxed()
    }

    fn is_good<'a>(&'a self, _: &'a Env, _: kernel::KeyId) -> BoxFuture<'a, Result<bool>> {
        async { Ok(false) }.boxed()
    }
}

struct Unchecked;

impl LiveCheck for Unchecked {
    fn check<'a>(&'a self, _: &'a Env, _: &'a Served) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }
}

/// The one app.
struct Known {
    env: Env,
    releases: Arc<Releases>,
}

impl Apps for Known {
    fn find<'a>(&'a self, _: &'a Slug) -> BoxFuture<'a, Result<Option<Env>>> {
        async { Ok(Some(self.env.clone())) }.boxed()
    }

    fn at_domain<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<AtDomain>>> {
        async { Ok(None) }.boxed()
    }

    fn release<'a>(&'a self, env: &'a Env, _: Which) -> BoxFuture<'a, Result<Option<Arc<Served>>>> {
        self.releases.live(env).boxed()
    }
}

impl Ground {
    /// The todo app, with a table that nobody has access to.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        let databases = Arc::new(Databases::new(dir.path().to_owned(), Limits::default()));
        databases.create(env.id()).await.unwrap();
        let (blobs, logs) = (Blobs::new(dir.path()).unwrap(), Logs::new(dir.path()));
        let check = Arc::new(Unchecked);
        let releases = Releases::new(Arc::clone(&databases), blobs.clone(), logs.clone(), check);
        let releases = Arc::new(releases);
        let manifest = json!({
            "auth": { "methods": ["anonymous", "password"] },
            "database": { "tables": {
                "lists": { "columns": { "name": "text!" }, "access": "public_read" },
                "todos": {
                    "columns": {
                        "title": "text!", "done": "bool! = false", "list": "ref:lists", "rank": "int",
                        "weight": "real", "note": "json", "picture": "blob", "due": "timestamp",
                    },
                    "access": "private",
                },
                "locked": { "columns": { "title": "text" } },
            } },
            "storage": { "buckets": {
                "photos": { "access": "private", "types": ["image/*"], "max_size": 200_000 },
                "public": { "access": "public_read" },
                "closed": {},
            } },
        });
        let wanted = Wanted::Manifest(Box::new(serde_json::from_value(manifest).unwrap()));
        releases.apply(&env, wanted, &[], &CancellationToken::new()).await.unwrap();
        let post = Post::new(&Route::Outbox, Arc::new(Keys), logs.clone()).unwrap();
        let auth = Auth::new(
            Arc::clone(&databases),
            Arc::new(Keys),
            post,
            Outside::unknown().unwrap(),
            AuthLimits::default(),
        );
        let live = Arc::clone(&releases) as Arc<dyn LiveApps>;
        let (limits, stopping) = (RealtimeLimits::default(), CancellationToken::new());
        let realtime =
            Realtime::new(Arc::clone(&databases), Arc::clone(&live), auth.clone(), limits, stopping);
        let data = Data {
            auth: auth.clone(),
            rows: Rows::new(Arc::clone(&databases), Arc::clone(&live)),
            files: Storage::new(
                databases,
                live,
                Contents::local(dir.path()).unwrap(),
                Arc::new(Keys),
                StorageLimits::default(),
            ),
            realtime,
        };
        let edge = Edge::new(Arc::new(Known { env: env.clone(), releases }), blobs, data, logs);
        Self { _dir: dir, env, auth, edge }
    }

    /// The access token of a new user.
    pub async fn session(&self) -> String {
        let settings = AuthSettings { methods: [Method::Anonymous].into(), ..AuthSettings::default() };
        let asking = Asking { env: &self.env, settings: &settings, client: None, device: None, domain: None };
        let SignIn::Session(session) = self.auth.anonymous(&asking).await.unwrap() else {
            panic!("no session")
        };
        session.access_token.expose().to_owned()
    }

    /// Sends a request without a body. An empty `token` is none.
    pub async fn ask(&self, method: &str, path: &str, token: &str, headers: &[(&str, &str)]) -> Reply {
        self.with(method, path, token, headers, "").await
    }

    pub async fn send(&self, method: &str, path: &str, token: &str, body: Value) -> Reply {
        self.with(method, path, token, &[], &body.to_string()).await
    }

    pub async fn with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("host", "shop.localhost");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let host = HostKind::App("shop".parse().unwrap());
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.edge.serve(&host, request).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body, json }
    }
}

impl Reply {
    /// The header's value; empty where there is none.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }
}
