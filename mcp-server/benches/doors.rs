//! What the doors cost: calls per second through each, as a share of what a bare axum handler does in the same run.
//!
//! Each call is authenticated, limited, validated and recorded. Client and server share one process, so that only
//! the ratios mean something. `cargo bench -p mcp-server` prints one JSON line.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

#[path = "../tests/integration/world.rs"]
#[expect(dead_code, clippy::panic, reason = "the tests use the rest of it")]
mod world;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use world::{ENV_KEY, World};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);

/// A request that is sent over and over, and what its answer must hold.
struct Load {
    name: &'static str,
    address: SocketAddr,
    request: Vec<u8>,
    sign: &'static str,
}

impl Load {
    fn new(name: &'static str, address: SocketAddr, path: &str, headers: &str, body: &Value) -> Self {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {ENV_KEY}\r\n\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\n{headers}\
             content-length: {}\r\n\r\n{body}",
            body.len(),
        );
        Self { name, address, request: request.into_bytes(), sign: "hello" }
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

    /// Reads one answer: up to the length it announces, or to its last chunk.
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
                assert!(
                    head.starts_with("HTTP/1.1 200") && body.contains(self.sign),
                    "{}: {text}",
                    self.name
                );
                return;
            }
        }
    }
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", post(async |Json(body): Json<Value>| Json(body)));
    let listener = listener.tap_io(|socket| socket.set_nodelay(true).unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

#[tokio::main]
async fn main() {
    let (world, echo) = (World::start().await, echo().await);
    let said = json!({ "text": "hello" });
    let call = |meta: Value| {
        let params = json!({ "name": "echo", "arguments": said, "_meta": meta });
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
    };
    let version = "io.modelcontextprotocol/protocolVersion";
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    let legacy = call(json!({}));
    let modern = call(json!({ version: "2026-07-28", capabilities: {} }));
    let old = "mcp-protocol-version: 2025-11-25\r\n";
    let new = "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: echo\r\n";
    let loads = [
        // The bare handler gets the longest body, so that no door looks better than it is.
        Load::new("axum_echo", echo, "/", "", &modern),
        Load::new("json", world.address, "/v1/tools/echo", "", &said),
        Load::new("mcp_2025_11_25", world.address, "/mcp", old, &legacy),
        Load::new("mcp_2026_07_28", world.address, "/mcp", new, &modern),
    ];
    let mut rounds = vec![vec![]; loads.len()];
    for _ in 0..ROUNDS {
        for (load, rounds) in loads.iter().zip(&mut rounds) {
            rounds.push(load.round().await);
        }
    }
    let mut found = json!({});
    let rates: Vec<f64> = rounds.into_iter().map(median).collect();
    for (load, rate) in loads.iter().zip(&rates) {
        found[load.name] =
            json!({ "per_second": rate.round(), "ratio": (rate / rates[0] * 100.0).round() / 100.0 });
    }
    println!("{found}");
}
