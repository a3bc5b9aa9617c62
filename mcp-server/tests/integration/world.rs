//! A platform in memory behind the product's doors, on a port of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use futures::FutureExt;
use futures::future::BoxFuture;
use kernel::{
    Caller, Code, EnvId, Error, KeyId, LimitInfo, LimitScope, Principal, Result, Scope, Scopes, TenantId,
};
use mcp_server::gate::{Gate, Shown};
use mcp_server::mcp::McpOptions;
use mcp_server::{Doors, http, mcp};
use rmcp::ServerHandler;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tool::{Attempt, Cx, Effect, Host, Ledger, Limiter, Record, Registry, ReplayKey, Replays, Spec, Tool};
use web::problem;

/// Bound to the environment `alpha`.
pub const ENV_KEY: &str = "key-of-alpha";
/// Bound to the environment `beta`.
pub const OTHER_KEY: &str = "key-of-beta";
/// Of the whole tenant.
pub const TENANT_KEY: &str = "key-of-the-tenant";
/// Bound to `alpha`, and may only read rows.
pub const READER_KEY: &str = "key-that-reads";
/// Bound to `alpha`, with no call left.
pub const TIRED_KEY: &str = "key-that-is-tired";

/// What the tools work on.
#[derive(Default)]
pub struct Memory {
    pub added: AtomicU32,
    pub records: Mutex<Vec<Record>>,
    pub replays: Mutex<HashMap<String, ([u8; 32], Value)>>,
    pub waiting: CancellationToken,
    pub cancelled: CancellationToken,
    pub release: CancellationToken,
    pub tired: Mutex<Option<KeyId>>,
}

impl Host for Memory {
    fn limiter(&self) -> &dyn Limiter {
        self
    }

    fn ledger(&self) -> &dyn Ledger {
        self
    }

    fn replays(&self) -> &dyn Replays {
        self
    }

    fn digest_key(&self) -> &[u8; 32] {
        &[7; 32]
    }
}

impl Limiter for Memory {
    fn admit(&self, caller: &Caller) -> Result<()> {
        if *self.tired.lock().unwrap() != Some(caller.credential) {
            return Ok(());
        }
        let limit = LimitInfo::new("key", LimitScope::Key, 300, "calls").window(6).reset(7);
        Err(Error::new(Code::RateLimited, "the key made too many calls")
            .retry_after(Duration::from_secs(7))
            .limit(limit))
    }
}

impl Ledger for Memory {
    fn record(&self, record: Record) -> BoxFuture<'_, Result<()>> {
        self.records.lock().unwrap().push(record);
        futures::future::ready(Ok(())).boxed()
    }
}

impl Replays for Memory {
    fn begin<'a>(&'a self, key: &'a ReplayKey) -> BoxFuture<'a, Result<Attempt>> {
        let attempt = match self.replays.lock().unwrap().get(&key.key) {
            None => Ok(Attempt::First),
            Some((digest, output)) if *digest == key.digest => Ok(Attempt::Done(output.clone())),
            Some(_) => Err(Error::idempotency_misuse("the key stood for another call")),
        };
        futures::future::ready(attempt).boxed()
    }

    fn finish<'a>(&'a self, key: &'a ReplayKey, output: Option<&'a Value>) -> BoxFuture<'a, Result<()>> {
        if let Some(output) = output {
            self.replays.lock().unwrap().insert(key.key.clone(), (key.digest, output.clone()));
        }
        futures::future::ready(Ok(())).boxed()
    }
}

/// Knows the keys above.
struct Keys {
    callers: HashMap<&'static str, Caller>,
    envs: HashMap<&'static str, EnvId>,
}

impl Keys {
    fn new(memory: &Memory) -> Self {
        let tenant = TenantId::new();
        let envs = HashMap::from([("alpha", EnvId::new()), ("beta", EnvId::new())]);
        let caller = |env: Option<&str>, scopes: Scopes| {
            Caller::new(Principal::Key, tenant, KeyId::new(), scopes).in_env(env.map(|slug| envs[slug]))
        };
        let callers = HashMap::from([
            (ENV_KEY, caller(Some("alpha"), Scopes::of_environment())),
            (OTHER_KEY, caller(Some("beta"), Scopes::of_environment())),
            (TENANT_KEY, caller(None, Scopes::of_tenant())),
            (READER_KEY, caller(Some("alpha"), [Scope::DbRead].into_iter().collect())),
            (TIRED_KEY, caller(Some("alpha"), Scopes::of_environment())),
        ]);
        *memory.tired.lock().unwrap() = Some(callers[TIRED_KEY].credential);
        Self { callers, envs }
    }

    fn find(&self, shown: Shown<'_>) -> Result<Arc<Caller>> {
        let known = shown.bearer.and_then(|bearer| self.callers.get(bearer));
        let known = known.ok_or_else(|| Error::new(Code::Unauthenticated, "the credential is not valid"))?;
        let mut caller = known.clone().by(shown.surface, shown.source);
        if let Some(slug) = shown.env {
            let id = self.envs.get(slug).copied();
            let id = id.filter(|id| known.env.is_none_or(|bound| bound == *id));
            caller.env = Some(id.ok_or_else(|| Error::not_found(format!("environment {slug:?}")))?);
        }
        Ok(Arc::new(caller))
    }
}

impl Gate for Keys {
    fn caller<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Arc<Caller>>> {
        futures::future::ready(self.find(shown)).boxed()
    }

    fn missing_env<'a>(&'a self, _caller: &'a Caller) -> BoxFuture<'a, Error> {
        let error = Error::new(Code::InvalidInput, "this call needs an environment").hint("alpha, beta");
        futures::future::ready(error).boxed()
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// What comes back.
    text: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Heard {
    text: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Count {
    count: u32,
}

const fn spec(title: &'static str, scopes: &'static [Scope], effect: Effect) -> Spec {
    Spec { title, about: "A tool of the tests.", scopes, effect, examples: &[] }
}

struct Echo;

impl Tool<Memory> for Echo {
    type Proof = kernel::Env;
    type Input = Said;
    type Output = Heard;
    const SPEC: Spec = spec("Echo", &[Scope::DbRead], Effect::Read);

    async fn call(_: &Cx<'_, Memory, kernel::Env>, input: Said) -> Result<Heard> {
        Ok(Heard { text: input.text })
    }
}

struct Add;

impl Tool<Memory> for Add {
    type Proof = kernel::Env;
    type Input = Nothing;
    type Output = Count;
    const SPEC: Spec = spec("Add", &[Scope::DbWrite], Effect::Write);

    async fn call(cx: &Cx<'_, Memory, kernel::Env>, _: Nothing) -> Result<Count> {
        Ok(Count { count: cx.platform().added.fetch_add(1, Ordering::SeqCst) + 1 })
    }
}

struct Steps;

impl Tool<Memory> for Steps {
    type Proof = kernel::Env;
    type Input = Nothing;
    type Output = Count;
    const SPEC: Spec = spec("Steps", &[Scope::DbRead], Effect::Read);

    async fn call(cx: &Cx<'_, Memory, kernel::Env>, _: Nothing) -> Result<Count> {
        for step in 1..=3 {
            cx.progress(step, 3, format!("step {step}"));
            tokio::task::yield_now().await;
        }
        Ok(Count { count: 3 })
    }
}

/// Says when it is dropped or told to stop.
struct Wait;

impl Tool<Memory> for Wait {
    type Proof = kernel::Env;
    type Input = Nothing;
    type Output = Count;
    const SPEC: Spec = spec("Wait", &[Scope::DbRead], Effect::Read);

    async fn call(cx: &Cx<'_, Memory, kernel::Env>, _: Nothing) -> Result<Count> {
        let _gone = cx.platform().cancelled.clone().drop_guard();
        cx.platform().waiting.cancel();
        std::future::pending().await
    }
}

/// Ends when the test lets it.
struct Slow;

impl Tool<Memory> for Slow {
    type Proof = kernel::Env;
    type Input = Nothing;
    type Output = Count;
    const SPEC: Spec = spec("Slow", &[Scope::DbRead], Effect::Read);

    async fn call(cx: &Cx<'_, Memory, kernel::Env>, _: Nothing) -> Result<Count> {
        cx.platform().waiting.cancel();
        cx.platform().release.cancelled().await;
        Ok(Count { count: 1 })
    }
}

struct Wipe;

impl Tool<Memory> for Wipe {
    type Proof = kernel::Env;
    type Input = Nothing;
    type Output = Count;
    const SPEC: Spec = spec("Wipe", &[Scope::ResourceDelete], Effect::Destroy);

    async fn call(_: &Cx<'_, Memory, kernel::Env>, _: Nothing) -> Result<Count> {
        Ok(Count { count: 0 })
    }
}

struct Whoami;

impl Tool<Memory> for Whoami {
    type Proof = kernel::Tenant;
    type Input = Nothing;
    type Output = Heard;
    const SPEC: Spec = spec("Who am I", &[Scope::EnvRead], Effect::Read);

    async fn call(cx: &Cx<'_, Memory, kernel::Tenant>, _: Nothing) -> Result<Heard> {
        Ok(Heard { text: cx.caller().principal.kind().to_owned() })
    }
}

struct Panics;

impl Tool<Memory> for Panics {
    type Proof = kernel::Env;
    type Input = Nothing;
    type Output = Count;
    const SPEC: Spec = spec("Panics", &[Scope::DbRead], Effect::Read);

    async fn call(_: &Cx<'_, Memory, kernel::Env>, _: Nothing) -> Result<Count> {
        panic!("a tool of the tests panics on purpose")
    }
}

fn registry() -> Registry<Memory> {
    Registry::new()
        .with::<Echo>("echo")
        .with::<Add>("add")
        .with::<Steps>("steps")
        .with::<Wait>("wait")
        .with::<Slow>("slow")
        .with::<Wipe>("wipe")
        .with::<Whoami>("whoami")
        .with::<Panics>("panics")
}

/// The same routes for clients that have no key.
fn open_to_all(router: Router) -> Router {
    let key = format!("Bearer {ENV_KEY}").parse::<::http::HeaderValue>().unwrap();
    router.layer(axum::middleware::map_request(move |mut request: axum::extract::Request| {
        request.headers_mut().entry("authorization").or_insert(key.clone());
        std::future::ready(request)
    }))
}

/// A running server.
pub struct World {
    pub address: SocketAddr,
    pub memory: Arc<Memory>,
    pub client: reqwest::Client,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    pub async fn start() -> Self {
        Self::with(McpOptions::default()).await
    }

    pub async fn with(options: McpOptions) -> Self {
        let doors = Self::doors();
        let platform = Arc::clone(&doors.platform);
        Self::serve(mcp_server::router(doors, options), platform).await
    }

    /// With `beside` next to the tools, and everybody let in with [`ENV_KEY`].
    pub async fn beside<X: ServerHandler>(options: McpOptions, beside: X) -> Self {
        let doors = Self::doors();
        let platform = Arc::clone(&doors.platform);
        let router = http::router(Arc::clone(&doors)).merge(mcp::router_with(doors, options, beside));
        Self::serve(open_to_all(router), platform).await
    }

    /// As the product is, and everybody let in with [`ENV_KEY`].
    pub async fn open(options: McpOptions) -> Self {
        let doors = Self::doors();
        let platform = Arc::clone(&doors.platform);
        Self::serve(open_to_all(mcp_server::router(doors, options)), platform).await
    }

    fn doors() -> Arc<Doors<Memory>> {
        let memory = Arc::new(Memory::default());
        let keys = Arc::new(Keys::new(&memory));
        Arc::new(Doors::new(Arc::new(registry()), memory, keys))
    }

    async fn serve(router: Router, memory: Arc<Memory>) -> Self {
        let stop = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router.fallback(problem::unknown_route);
        let listener = listener.tap_io(|socket| socket.set_nodelay(true).unwrap());
        let stopped = stop.clone();
        tokio::spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned()).await.unwrap();
        });
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, memory, client, _stop: stop.drop_guard() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.client.get(self.url(path)).bearer_auth(key)
    }

    pub fn post(&self, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path)).bearer_auth(key)
    }

    /// One JSON-RPC request as clients of 2025-11-25 send it.
    pub async fn legacy(&self, path: &str, key: &str, method: &str, params: Value) -> reqwest::Response {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.post(path, key)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .json(&message)
            .send()
            .await
            .unwrap()
    }

    /// One JSON-RPC request as clients of 2026-07-28 send it.
    pub async fn modern(&self, path: &str, key: &str, method: &str, params: Value) -> reqwest::Response {
        let mut params = params;
        let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
        let meta = params.as_object_mut().unwrap().entry("_meta").or_insert_with(|| json!({}));
        meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut request = self
            .post(path, key)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        if let Some(name) = name {
            request = request.header("mcp-name", name);
        }
        request.json(&message).send().await.unwrap()
    }
}
