//! What the built product costs, held against its targets: a table on stdout, and exit code 1 where one is missed.
//!
//! The product is a process of its own, and so is the bare axum server that its tool calls are compared with, in the
//! same run, by the same client. `cargo xtask bench ground_floor` runs it on the optimised product.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

mod bare;
mod load;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Steading, eventually, require, temporary};

use crate::bare::Echo;
use crate::load::{Connection, Table, example, median, milliseconds, processor_time, timed, unlimited};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_millis(500);
const ENVIRONMENTS: usize = 1_000;

fn main() -> ExitCode {
    if bare::served() {
        return ExitCode::SUCCESS;
    }
    let mut table = Table::default();
    starts(&mut table);
    calls(&mut table);
    creations(&mut table);
    applies(&mut table);
    environments(&mut table);
    println!("\n{}", if table.missed == 0 { "all targets are met" } else { "targets are missed" });
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn starts(table: &mut Table) {
    let mut first = Vec::new();
    let mut later = Vec::new();
    for _ in 0..5 {
        let directory = temporary().unwrap();
        let start = || require(Steading::launch().data_dir(directory.path().join("data")).start());
        first.push(milliseconds(start().ready_after()));
        later.push(milliseconds(start().ready_after()));
    }
    table.most("the first start to ready, median of 5", median(&mut first), 150.0, "ms");
    table.most("a later start to ready, median of 5", median(&mut later), 150.0, "ms");
    let idle = unlimited();
    idle.client().output("app_describe", &json!({})).unwrap();
    table.most("idle memory (VmRSS)", settled_megabytes(&idle), 40.0, "MB");
}

/// Tool calls by MCP with a key, limits and audit, held against a bare server that reads and writes the same JSON.
fn calls(table: &mut Table) {
    let steading = unlimited();
    let echo = Echo::start();
    let query = json!({ "sql": "SELECT 1 AS hello" });
    let call = |tool: &str, input: &Value| {
        let params = json!({ "name": tool, "arguments": input });
        json!({ "jsonrpc": "2.0", "id": "hello", "method": "tools/call", "params": params })
    };
    let key = format!("authorization: Bearer {}\r\nsteading-env: default\r\n", steading.ready().key);
    let by_mcp =
        |tool: &str, input: &Value| Load::new(steading.authority(), "/mcp", &key, &call(tool, input));
    let pid = steading.id();
    let mut loads = [
        ("bare axum echo", Load::new(echo.address(), "/", &key, &call("db_query", &query)), echo.pid()),
        ("db_query by MCP, a tool", by_mcp("db_query", &query), pid),
        ("env_list by MCP, a tool", by_mcp("env_list", &json!({})), pid),
        ("logs_query by MCP, a tool", by_mcp("logs_query", &json!({})), pid),
        ("app_describe by MCP, a tool", by_mcp("app_describe", &json!({})), pid),
        (
            "ping by MCP, no tool at all",
            Load::new(
                steading.authority(),
                "/mcp",
                &key,
                &json!({ "jsonrpc": "2.0", "id": "hello", "method": "ping" }),
            ),
            pid,
        ),
        ("db_query by JSON", Load::new(steading.authority(), "/v1/tools/db_query", &key, &query), pid),
    ]
    .map(|(name, load, pid)| (name, load, pid, Vec::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // The first rounds warm everything up; the others take turns, so that all have the same neighbours.
    for round in 0..=ROUNDS {
        for (_, load, pid, rounds) in &mut loads {
            let done = runtime.block_on(load.round(*pid));
            if round > 0 {
                rounds.push(done);
            }
        }
    }
    let rates: Vec<Rate> = loads.iter().map(|(_, _, _, rounds)| Rate::of(rounds)).collect();
    for ((name, ..), rate) in loads.iter().zip(&rates) {
        table.note(name, rate.per_second, "/s");
        table.note("  processor time of one", rate.processor * 1e6, "us");
    }
    // What a tool does is in here; what the doors alone cost is the bench of `mcp-server`, which has a target.
    let tools = loads.iter().zip(&rates).filter(|((name, ..), _)| name.ends_with("a tool"));
    let best = tools.map(|(_, rate)| rate.per_second).fold(0.0, f64::max);
    let share = best / rates[0].per_second;
    table.note("the cheapest tool by MCP as a share of a bare axum echo", share, "");
}

fn creations(table: &mut Table) {
    let steading = unlimited();
    let client = steading.client().without_env();
    let mut took: Vec<f64> = (0..200)
        .map(|n| timed(|| drop(client.output("env_create", &json!({ "slug": format!("e{n}") })).unwrap())))
        .collect();
    table.most("env_create, p50 of 200", median(&mut took), 10.0, "ms");
    table.note("env_create, p99 of 200", took[took.len() * 99 / 100], "ms");
}

fn applies(table: &mut Table) {
    let steading = unlimited();
    let hello = example("hello");
    let mut took: Vec<f64> = (0..11)
        .map(|n| {
            let slug = format!("hello-{n}");
            let client = steading.client().in_env(&slug);
            client.clone().without_env().output("env_create", &json!({ "slug": slug })).unwrap();
            timed(|| drop(client.output("app_apply", &json!({ "manifest": hello })).unwrap()))
        })
        .collect();
    table.most("app_apply of examples/hello, median of 11", median(&mut took), 500.0, "ms");
    table.note("app_apply of examples/hello, slowest of 11", took[took.len() - 1], "ms");
}

fn environments(table: &mut Table) {
    let steading = unlimited();
    let tiny = json!({ "database": { "tables": { "notes": { "columns": { "title": "text!" } } } } });
    let began = Instant::now();
    for n in 0..ENVIRONMENTS {
        let slug = format!("tiny-{n}");
        let client = steading.client().in_env(&slug);
        client.clone().without_env().output("env_create", &json!({ "slug": slug })).unwrap();
        client.output("app_apply", &json!({ "manifest": tiny })).unwrap();
        client.output("db_query", &json!({ "sql": "SELECT count(*) FROM notes" })).unwrap();
    }
    let took = began.elapsed();
    table.most("memory after 1,000 environments in turn (VmRSS)", megabytes(&steading), 100.0, "MB");
    table.note("  at its highest (VmHWM)", highest_megabytes(&steading), "MB");
    table.note("  time for each: create, apply, query", milliseconds(took) / 1_000.0, "ms");
}

/// A request that is sent over and over.
struct Load {
    address: String,
    request: Vec<u8>,
}

/// What one round came to.
struct Round {
    calls: f64,
    seconds: f64,
    processor: f64,
}

struct Rate {
    /// Calls per second, the median of the rounds.
    per_second: f64,
    /// Processor time of the server for one call, in seconds.
    processor: f64,
}

impl Rate {
    fn of(rounds: &[Round]) -> Self {
        let mut rates: Vec<f64> = rounds.iter().map(|round| round.calls / round.seconds).collect();
        let sum = |of: fn(&Round) -> f64| rounds.iter().map(of).sum::<f64>();
        let processor = sum(|round| round.processor) / sum(|round| round.calls);
        Self { per_second: median(&mut rates), processor }
    }
}

impl Load {
    fn new(address: &str, path: &str, headers: &str, body: &Value) -> Self {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len(),
        );
        Self { address: address.to_owned(), request: request.into_bytes() }
    }

    /// Calls over keep-alive connections, as many as fit, with the processor time that process `pid` took.
    async fn round(&self, pid: u32) -> Round {
        let (began, processor) = (Instant::now(), processor_time(pid));
        let connections = (0..CONNECTIONS).map(|_| async {
            let mut connection = Connection::open(&self.address).await;
            let mut calls = 0_u32;
            while began.elapsed() < ROUND {
                let (head, body) = connection.call(&self.request).await;
                assert!(head.starts_with("HTTP/1.1 200") && body.contains("hello"), "{head} {body}");
                calls += 1;
            }
            calls
        });
        let calls: u32 = futures::future::join_all(connections).await.into_iter().sum();
        let processor = processor_time(pid) - processor;
        Round { calls: calls.into(), seconds: began.elapsed().as_secs_f64(), processor }
    }
}

fn megabytes(steading: &Steading) -> f64 {
    steading.rss().unwrap() as f64 / f64::from(1 << 20)
}

/// Once nothing uses the processor any more.
fn settled_megabytes(steading: &Steading) -> f64 {
    let mut before = steading.cpu().unwrap();
    let mut since = Instant::now();
    eventually(Duration::from_secs(30), || {
        let now = steading.cpu().unwrap();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(2)).then_some(())
    });
    megabytes(steading)
}

fn highest_megabytes(steading: &Steading) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", steading.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_024.0
}
