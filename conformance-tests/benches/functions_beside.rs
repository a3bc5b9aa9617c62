//! What functions that do what they should not cost their neighbours, and whether they serve again after it.
//!
//! `cargo xtask bench functions_beside` runs it on the optimised product, as root.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

#[expect(dead_code, reason = "the other benches need more of it")]
mod app;
#[expect(dead_code, reason = "the other benches need more of it")]
mod load;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Steading, eventually};
use tokio::runtime::Runtime;

use crate::app::{HELLO, at, deploy, environment, get, platform};
use crate::load::{Connection, Table, milliseconds};

/// Requests to a neighbour of one measurement, how long who asks rests, and how often it is begun anew where it comes out
/// badly: whoever else uses the machine is none of its business.
const BESIDE: usize = 200;
const REST: Duration = Duration::from_millis(4);
const TRIES: usize = 3;

/// What a function does that it should not, by name; each is asked again and again, with a second to answer.
const HOGS: [(&str, &str); 7] = [
    ("a loop without an end", "export default () => { while (true); };"),
    (
        "a memory hog",
        "const all = []; export default () => { while (true) all.push(new Uint8Array(1 << 20).fill(1)); };",
    ),
    (
        "a fork bomb",
        "import { spawn } from 'node:child_process';\n\
         export default async () => { while (true) { \
         try { spawn(process.execPath, ['-e', 'while (true);']).on('error', () => {}); } catch {} \
         await new Promise((done) => setTimeout(done, 1)); } };",
    ),
    (
        "a leak of open files",
        "import { openSync } from 'node:fs';\n\
         export default async () => { while (true) { try { openSync('/tmp', 'r'); } catch {} \
         await Promise.resolve(); } };",
    ),
    (
        "a storm of rejections",
        "export default async () => { while (true) { \
         for (let i = 0; i < 10_000; i++) Promise.reject(new Error('no')); \
         await new Promise((done) => setTimeout(done, 1)); } };",
    ),
    (
        "an answer of 1 GB",
        "const part = new Uint8Array(1 << 20); export default () => { let left = 1024; \
         return new Response(new ReadableStream({ pull: (to) => left-- > 0 ? to.enqueue(part) : to.close() })); };",
    ),
    ("a storm of lines", "export default () => { while (true) console.log('x'.repeat(1000)); };"),
];

fn main() -> ExitCode {
    let mut table = Table::default();
    hogs(&mut table);
    println!("\n{}", if table.missed == 0 { "all targets are met" } else { "targets are missed" });
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hogs(table: &mut Table) {
    let steading = platform(&[]);
    let (good, neighbour) = environment(&steading, "good");
    deploy(&good, "hello", &json!({ "index.ts": HELLO }), &Value::Null);
    let neighbour = get(&neighbour, "/_/fn/hello");
    let (greedy, hog) = environment(&steading, "greedy");
    for (number, (name, code)) in HOGS.iter().enumerate() {
        let wants = json!({ "timeout_s": 1 });
        let code = format!("{code}\n// {number}");
        let code = code.replacen("export default", "const hog =", 1);
        let both = "export default { fetch: (request) => \
                    new URL(request.url).pathname === '/hog' ? hog() : new Response('hello') };";
        deploy(&greedy, "hog", &json!({ "index.ts": format!("{code}\n{both}") }), &wants);
        let request = get(&hog, "/_/fn/hog/hog");
        beside(table, &steading, &neighbour, name, &|stop| until(steading.authority(), &request, stop));
        let next = served(steading.authority(), &get(&hog, "/_/fn/hog"));
        table.note("  it serves again after", next, "ms");
    }
    let lazy = format!("POST /_/fn/hello HTTP/1.1\r\nhost: {hog}\r\n");
    beside(table, &steading, &neighbour, "clients that send a byte at a time", &|stop| {
        let mut open: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(steading.authority()).unwrap()).collect();
        for byte in lazy.bytes().cycle() {
            open.iter_mut().for_each(|stream| drop(stream.write(&[byte])));
            sleep(Duration::from_millis(20));
            if stop.load(Ordering::SeqCst) {
                return;
            }
        }
    });
}

/// What somebody costs a neighbour: the slowest hundredth of its requests, by that of the same moment without them.
fn beside(
    table: &mut Table,
    steading: &Steading,
    request: &str,
    name: &str,
    hog: &(dyn Fn(&AtomicBool) + Sync),
) {
    let p99 = || at(&mut rested(steading.authority(), request), 99);
    let ratio = || {
        let before = p99();
        let stop = AtomicBool::new(false);
        let beside = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| hog(&stop));
            }
            sleep(Duration::from_millis(500));
            let beside = p99();
            stop.store(true, Ordering::SeqCst);
            beside
        });
        sleep(Duration::from_secs(1));
        (beside / before.midpoint(p99()), beside)
    };
    let mut ratios: Vec<(f64, f64)> = Vec::new();
    while ratios.len() < TRIES && ratios.last().is_none_or(|last| last.0 > 2.0) {
        ratios.push(ratio());
    }
    let best = ratios.into_iter().min_by(|a, b| f64::total_cmp(&a.0, &b.0)).unwrap();
    table.most(&format!("a neighbour of {name}, p99"), best.0, 2.0, "times");
    table.note("  which is", best.1, "ms");
}

/// Times of a neighbour who rests between requests.
fn rested(authority: &str, request: &str) -> Vec<f64> {
    Runtime::new().unwrap().block_on(async {
        let mut connection = Connection::open(authority).await;
        let mut times = Vec::new();
        for _ in 0..BESIDE {
            tokio::time::sleep(REST).await;
            let began = Instant::now();
            let (head, body) = connection.call(request.as_bytes()).await;
            times.push(milliseconds(began.elapsed()));
            assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
        }
        times
    })
}

/// Asks again and again, and reads whatever comes, until it is told to stop.
fn until(authority: &str, request: &str, stop: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::SeqCst) {
        let mut stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let request = request.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
        stream.write_all(request.as_bytes()).unwrap();
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                _ if stop.load(Ordering::SeqCst) => return,
                _ => {}
            }
        }
    }
}

/// How long it takes until a request is answered as it should be.
fn served(authority: &str, request: &str) -> f64 {
    let began = Instant::now();
    let answered = eventually(Duration::from_secs(120), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = Connection::open(authority).await;
            let (head, _) = connection.call(request.as_bytes()).await;
            head.starts_with("HTTP/1.1 200").then_some(())
        })
    });
    assert!(answered.is_some(), "it does not answer any more");
    milliseconds(began.elapsed())
}
