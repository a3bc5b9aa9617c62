//! What the doors cost: calls per second through each, as a share of what a bare axum handler does in the same run.
//!
//! Each call is authenticated, limited, validated and audited by the real control plane. Client and server share
//! one process, so that only the ratios mean something: `ratio` of the calls per second of processor time, which
//! neighbours on the machine do not change, and `ratio_wall` of the calls per second as they came.
//! `cargo bench -p mcp-server --bench doors` prints one line of JSON.
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

/// The share of a bare handler's calls per second that a tool call over MCP has to reach.
const TARGET: f64 = 0.30;

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_millis(500);

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

    fn digest_key(&self) -> &[u8; 32] {
        self.control.digest_key()
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

/// Calls, and the seconds they took.
struct Round {
    calls: f64,
    wall: f64,
    cpu: f64,
}

/// The processor time of this process in seconds, all its threads together (proc_pid_stat(5), fields 14 and 15).
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / 100.0
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

    /// Calls over keep-alive connections, as many as fit.
    async fn round(&self) -> Round {
        let (began, cpu) = (Instant::now(), processor_time());
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
        Round { calls: calls.into(), wall: began.elapsed().as_secs_f64(), cpu: processor_time() - cpu }
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

fn median(rounds: &[Round]) -> f64 {
    let mut rates: Vec<f64> = rounds.iter().map(|round| round.calls / round.wall).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn cpu_per_call(rounds: &[Round]) -> f64 {
    let (cpu, calls) = rounds.iter().fold((0.0, 0.0), |sum, round| (sum.0 + round.cpu, sum.1 + round.calls));
    cpu / calls
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
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
    let mut rounds: Vec<Vec<Round>> = loads.iter().map(|_| vec![]).collect();
    for _ in 0..ROUNDS {
        for (load, rounds) in loads.iter().zip(&mut rounds) {
            rounds.push(load.round().await);
        }
    }
    let (base_wall, base_cpu) = (median(&rounds[0]), cpu_per_call(&rounds[0]));
    let mut found = json!({});
    for (load, rounds) in loads.iter().zip(&rounds) {
        let (wall, cpu) = (median(rounds), cpu_per_call(rounds));
        found[load.name] = json!({
            "ratio": rounded(base_cpu / cpu),
            "ratio_wall": rounded(wall / base_wall),
            "per_second": wall.round(),
            "cpu_us": rounded(cpu * 1e6),
        });
    }
    println!("{found}");
    control.close().await;
    for door in ["mcp_2025_11_25", "mcp_2026_07_28"] {
        let share = found[door]["ratio_wall"].as_f64().unwrap();
        assert!(
            share >= TARGET,
            "{door} makes {share} of the calls of a bare handler; the target is {TARGET}"
        );
    }
}
