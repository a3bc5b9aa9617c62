//! What the doors cost: calls per second through each, as a share of what a bare axum handler does in the same run.
//!
//! Each call is authenticated, limited, validated and audited by the real control plane. Client and server share
//! one process, so that only the ratios mean something. `cargo bench -p mcp-server --bench doors` prints one line
//! of JSON.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use control::{Control, ControlConfig, RateLimit, RateLimits};
use mcp_server::Doors;
use mcp_server::mcp::McpOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tool::{Cx, Effect, Host, Ledger, Limiter, Registry, Replays, Spec, Tool};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);

struct Platform {
    control: Arc<Control>,
}

impl Host for Platform {
    fn limiter(&self) -> &dyn Limiter {
        self.control.limiter()
    }

    fn ledger(&self) -> &dyn Ledger {
        self.control.ledger()
    }

    fn replays(&self) -> &dyn Replays {
        self.control.replays()
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Said {
    text: String,
}

struct Echo;

impl Tool<Platform> for Echo {
    type Proof = kernel::Env;
    type Input = Said;
    type Output = Said;
    const SPEC: Spec = Spec {
        title: "Echo",
        about: "Says what it heard.",
        scopes: &[kernel::Scope::DbRead],
        effect: Effect::Read,
        examples: &[],
    };

    async fn call(_: &Cx<'_, Platform, kernel::Env>, input: Said) -> kernel::Result<Said> {
        Ok(input)
    }
}

/// A request that is sent over and over.
struct Load {
    name: &'static str,
    address: SocketAddr,
    request: Vec<u8>,
}

impl Load {
    fn new(name: &'static str, address: SocketAddr, path: &str, headers: &str, body: &Value) -> Self {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len(),
        );
        Self { name, address, request: request.into_bytes() }
    }

    /// Calls per second over keep-alive connections.
    async fn round(&self) -> f64 {
        let began = Instant::now();
        let connections = (0..CONNECTIONS).map(|_| async {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let mut answer = Vec::with_capacity(4096);
            let mut calls = 0_u32;
            while began.elapsed() < ROUND {
                socket.write_all(&self.request).await.unwrap();
                self.read(&mut socket, &mut answer).await;
                calls += 1;
            }
            calls
        });
        let calls: u32 = futures::future::join_all(connections).await.into_iter().sum();
        f64::from(calls) / began.elapsed().as_secs_f64()
    }

    /// Reads one answer, up to the length it announces or to its last chunk.
    async fn read(&self, socket: &mut TcpStream, answer: &mut Vec<u8>) {
        answer.clear();
        loop {
            assert_ne!(socket.read_buf(answer).await.unwrap(), 0, "{}: the server closed", self.name);
            let text = std::str::from_utf8(answer).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let whole =
                length.map_or_else(|| body.ends_with("0\r\n\r\n"), |length: usize| body.len() >= length);
            if whole {
                assert!(head.starts_with("HTTP/1.1 200") && body.contains("hello"), "{}: {text}", self.name);
                return;
            }
        }
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = listener.tap_io(|socket| socket.set_nodelay(true).unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// The control plane with limits that let everything through, and the operator's key.
async fn control(data: &std::path::Path) -> (Arc<Control>, kernel::Secret) {
    let limit = RateLimit::new(1_000_000_000, 1_000_000_000).unwrap();
    let mut config = ControlConfig::new(data);
    config.limits = RateLimits { key: limit, token: limit, tenant: limit };
    let (control, first) = Control::open(config).await.unwrap();
    for environment in control.environments().unfinished().await.unwrap() {
        control.environments().ready(&environment).await.unwrap();
    }
    (Arc::new(control), first.operator_key.unwrap())
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

#[tokio::main]
async fn main() {
    let data = tempfile::tempdir().unwrap();
    let (control, key) = control(&data.path().join("data")).await;
    let registry = Arc::new(Registry::new().with::<Echo>("echo"));
    let platform = Arc::new(Platform { control: Arc::clone(&control) });
    let doors = Arc::new(Doors::new(registry, platform, Arc::clone(&control) as _));
    let doors = serve(mcp_server::router(doors, McpOptions::default())).await;
    let echo = serve(Router::new().route("/", post(async |Json(body): Json<Value>| Json(body)))).await;

    let said = json!({ "text": "hello" });
    let call = |meta: Value| {
        let params = json!({ "name": "echo", "arguments": said, "_meta": meta });
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
    };
    let version = "io.modelcontextprotocol/protocolVersion";
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    let legacy = call(json!({}));
    let modern = call(json!({ version: "2026-07-28", capabilities: {} }));
    let bearer = format!("authorization: Bearer {}\r\n", key.expose());
    let json = format!("{bearer}steading-env: default\r\n");
    let old = format!("{bearer}mcp-protocol-version: 2025-11-25\r\n");
    let new =
        format!("{bearer}mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: echo\r\n");
    let loads = [
        // The bare handler gets the longest request, so that no door looks worse than it is.
        Load::new("axum_echo", echo, "/", &new, &modern),
        Load::new("json", doors, "/v1/tools/echo", &json, &said),
        Load::new("mcp_2025_11_25", doors, "/mcp/default", &old, &legacy),
        Load::new("mcp_2026_07_28", doors, "/mcp/default", &new, &modern),
    ];
    let mut rounds = vec![vec![]; loads.len()];
    for _ in 0..ROUNDS {
        for (load, rounds) in loads.iter().zip(&mut rounds) {
            rounds.push(load.round().await);
        }
    }
    let rates: Vec<f64> = rounds.into_iter().map(median).collect();
    let mut found = json!({});
    for (load, rate) in loads.iter().zip(&rates) {
        let ratio = (rate / rates[0] * 100.0).round() / 100.0;
        found[load.name] = json!({ "per_second": rate.round(), "ratio": ratio });
    }
    println!("{found}");
    control.close().await;
}
