//! What functions cost from outside, held against their targets and against the same runtime by itself: started, asked,
//! idle, deployed.
//!
//! `cargo xtask bench functions` runs it on the optimised product, as root.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

mod app;
#[expect(dead_code, reason = "the other benches need more of it")]
mod load;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Steading, eventually};

use crate::app::{HELLO, asked, at, deploy, environment, get, memory, platform, running};
use crate::load::{Connection, Table, milliseconds};

/// Starts and deploys of one measurement.
const STARTS: usize = 20;
const DEPLOYS: usize = 10;

/// Requests of one measurement: one after the other, and sixteen at once.
const REQUESTS: usize = 3_000;
const AT_ONCE: usize = 16;

/// Functions of one measurement of what lies idle.
const IDLE: usize = 20;

/// How long a process waits for its next request where it is measured how one starts.
const SHORT: Duration = Duration::from_secs(1);

/// The same without anything around it.
const BARE: &str = "const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response('hello') }); \
                    console.log(server.port);";

fn main() -> ExitCode {
    let mut table = Table::default();
    starts(&mut table);
    warm(&mut table);
    idle(&mut table);
    deploys(&mut table);
    println!("\n{}", if table.missed == 0 { "all targets are met" } else { "targets are missed" });
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The app of several hundred modules that functions are held against, with the packages that it needs.
fn large() -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("packages");
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let pinned: Value = serde_json::from_str(&read("package.json")).unwrap();
    let needed = ["@supabase/supabase-js", "date-fns", "hono", "jose", "nanoid", "pg", "zod"];
    let needed: BTreeMap<_, _> = needed.map(|name| (name, &pinned["dependencies"][name])).into();
    let package = json!({ "type": "module", "dependencies": needed });
    json!({ "index.ts": read("app.ts"), "package.json": package.to_string() })
}

/// Bun, where a running function has it, so that what is compared is the same program.
fn bun(steading: &Steading) -> PathBuf {
    let pid = running(steading, "bun")[0];
    let copy = std::env::temp_dir().join(format!("bun-{}", std::process::id()));
    if !copy.exists() {
        fs::copy(format!("/proc/{pid}/exe"), &copy).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&copy, mode).unwrap();
    }
    copy
}

/// Bun's own server by itself, and the port that it has taken.
fn alone(program: &Path) -> (Child, u16) {
    let mut child = Command::new(program).args(["-e", BARE]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut said, mut byte) = (String::new(), [0]);
    let out = child.stdout.as_mut().unwrap();
    while !said.ends_with('\n') {
        out.read_exact(&mut byte).unwrap();
        said.push(char::from(byte[0]));
    }
    let port = said.trim().parse().unwrap();
    (child, port)
}

fn starts(table: &mut Table) {
    let idle_s = SHORT.as_secs().to_string();
    let steading = platform(&[("STEADING_FUNCTIONS_IDLE_S", &idle_s)]);
    let (client, host) = environment(&steading, "starts");
    deploy(&client, "hello", &json!({ "index.ts": HELLO }), &Value::Null);
    let program = bun(&steading);
    let large = large();
    for (name, runtime) in [("large", "bun"), ("hello-node", "node"), ("large-node", "node")] {
        let files = if name.starts_with("large") { large.clone() } else { json!({ "index.ts": HELLO }) };
        deploy(&client, name, &files, &json!({ "runtime": runtime, "variables": { "GREETING": "hello" } }));
    }
    let alone = (0..STARTS).map(|_| {
        let began = Instant::now();
        let (mut child, port) = alone(&program);
        asked(&format!("127.0.0.1:{port}"), &get("localhost", "/"));
        let took = milliseconds(began.elapsed());
        child.kill().unwrap();
        child.wait().unwrap();
        took
    });
    let bare = at(&mut alone.collect::<Vec<_>>(), 50);
    table.note("Bun by itself, from its start to its first answer, p50", bare, "ms");
    let targets = [
        ("hello", "/", "bun", 30.0),
        ("large", "/none", "bun", 80.0),
        ("hello-node", "/", "node", 120.0),
        ("large-node", "/none", "node", 200.0),
    ];
    for (name, path, program, target) in targets {
        let mut times: Vec<f64> = (0..STARTS)
            .map(|_| {
                let gone = eventually(Duration::from_secs(60), || {
                    running(&steading, program).is_empty().then_some(())
                });
                assert!(gone.is_some(), "it does not end");
                cold(steading.authority(), &get(&host, &format!("/_/fn/{name}{path}")))
            })
            .collect();
        let (p50, p99) = (at(&mut times, 50), at(&mut times, 99));
        table.most(&format!("{name}, from zero to its answer, p50"), p50, target, "ms");
        table.note("  the slowest", p99, "ms");
        if name == "hello" {
            table.note("  times Bun by itself", p50 / bare, "times");
        }
    }
}

/// How long an answer takes, whichever it is.
fn cold(authority: &str, request: &str) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(authority).await;
        let began = Instant::now();
        let (head, body) = connection.call(request.as_bytes()).await;
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 404"), "{head} {body}");
        milliseconds(began.elapsed())
    })
}

fn warm(table: &mut Table) {
    let steading = platform(&[]);
    let (client, host) = environment(&steading, "warm");
    deploy(&client, "hello", &json!({ "index.ts": HELLO }), &Value::Null);
    let (mut child, port) = alone(&bun(&steading));
    let places = [
        (format!("127.0.0.1:{port}"), get("localhost", "/")),
        (steading.authority().to_owned(), get(&host, "/_/fn/hello")),
    ];
    let [(bare, bare_p99), (own, own_p99)] = places.clone().map(|(authority, request)| {
        let mut times = one_by_one(&authority, &request, REQUESTS);
        (at(&mut times, 50) * 1e3, at(&mut times, 99) * 1e3)
    });
    table.note("Bun by itself, one request after the other, p50", bare, "us");
    table.note("a function, one request after the other, p50", own, "us");
    table.most("  more than Bun by itself, p50", own - bare, 60.0, "us");
    table.most("  more than Bun by itself, p99", own_p99 - bare_p99, 1_000.0, "us");
    // They take turns, so that whoever else uses the machine slows both.
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (rates, (authority, request)) in rates.iter_mut().zip(&places) {
            rates.push(rate(authority, request));
        }
    }
    let [bare, own] = rates.each_mut().map(|rates| at(rates, 50));
    table.note("Bun by itself, sixteen at once", bare, "per s");
    table.row("a function, sixteen at once", own, ">= 10000", "per s", own >= 10_000.0);
    table.row("  of Bun by itself", own / bare, ">= 0.6", "times", own / bare >= 0.6);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Times of requests over one connection, in milliseconds.
fn one_by_one(authority: &str, request: &str, count: usize) -> Vec<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(authority).await;
        for _ in 0..count / 10 {
            connection.call(request.as_bytes()).await;
        }
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            let (head, _) = connection.call(request.as_bytes()).await;
            times.push(milliseconds(began.elapsed()));
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        times
    })
}

/// Requests a second, sixteen at once.
fn rate(authority: &str, request: &str) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let all = (0..AT_ONCE).map(async |_| {
            let mut connection = Connection::open(authority).await;
            for _ in 0..REQUESTS / 4 {
                let (head, _) = connection.call(request.as_bytes()).await;
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            }
        });
        futures::future::join_all(all).await;
        (AT_ONCE * (REQUESTS / 4)) as f64 / began.elapsed().as_secs_f64()
    })
}

fn idle(table: &mut Table) {
    let steading = platform(&[]);
    let (client, host) = environment(&steading, "idle");
    for (kind, files, target) in [("trivial", json!({ "index.ts": HELLO }), 6.0), ("large", large(), 14.0)] {
        let before = running(&steading, "bun").len();
        let function = json!({ "files": files, "access": "public" });
        let functions: BTreeMap<String, &Value> =
            (0..IDLE).map(|number| (format!("{kind}-{number}"), &function)).collect();
        client.output("app_apply", &json!({ "manifest": { "functions": functions } })).unwrap();
        for name in functions.keys() {
            cold(steading.authority(), &get(&host, &format!("/_/fn/{name}/none")));
        }
        // Those of the release before go.
        let all = || Some(running(&steading, "bun")).filter(|all| all.len() == IDLE);
        let all = eventually(Duration::from_secs(60), all).unwrap_or_else(|| panic!("{before}"));
        let each = all.iter().map(|pid| memory(*pid)).sum::<f64>() / all.len() as f64;
        table.most(&format!("memory of an idle function, {kind} (PSS)"), each, target, "MiB");
    }
}

fn deploys(table: &mut Table) {
    let steading = platform(&[]);
    let (client, host) = environment(&steading, "deploys");
    let measure = |name: &str, files: &dyn Fn(usize) -> Value| -> Vec<f64> {
        let request = get(&host, &format!("/_/fn/{name}/none"));
        (0..=DEPLOYS)
            .map(|number| {
                let began = Instant::now();
                deploy(&client, name, &files(number), &Value::Null);
                cold(steading.authority(), &request);
                milliseconds(began.elapsed())
            })
            .collect()
    };
    let mut small =
        measure("hello", &|number| json!({ "index.ts": format!("{HELLO} // {number}") })).split_off(1);
    table.most("one file, from its deploy to its first answer, p50", at(&mut small, 50), 150.0, "ms");
    let large = large();
    let mut times = measure("large", &|number| {
        let mut files = large.clone();
        files["index.ts"] = json!(format!("{}// {number}\n", large["index.ts"].as_str().unwrap()));
        files
    });
    table.note("seven packages, with nothing of them in the cache", times[0], "ms");
    let mut times = times.split_off(1);
    table.most(
        "seven packages, from their deploy to the first answer, p50",
        at(&mut times, 50),
        1_500.0,
        "ms",
    );
}
