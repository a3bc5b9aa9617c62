//! What work in a sandbox costs from outside, held against its targets: tool calls by MCP on an idle machine, beside
//! neighbours who take all that they may, and beside one who tries to take what is everybody's; a preview that wakes a sandbox, and a change until an open page is told.
//!
//! `cargo xtask bench hands` runs it on the optimised product, as root.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

#[expect(dead_code, reason = "the other benches need more of it")]
mod load;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use conformance_tests::Preview;
use serde_json::{Value, json};
use testkit::{Client, Steading, eventually, require};

use crate::load::{Connection, Table, milliseconds, timed, unlimited};

const CALLS: usize = 150;

/// How long whoever calls thinks before the next call.
const REST: Duration = Duration::from_millis(25);

/// Sandboxes that are busy at once.
const NEIGHBOURS: usize = 3;

/// What each of them does: more processes than there are processors, and new ones all the time.
const BUSY: &str = "for i in 1 2 3 4; do (while :; do :; done) & done; (while :; do /bin/true; done) & \
                    (while :; do head -c 50M /dev/zero > /tmp/x; done) & sleep 1";

/// Answers, and tells whoever listens at `/events` when the file `seen` changes.
const SERVER: &str = r#"
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ready\n")
        self.wfile.flush()
        if self.path != "/events":
            return
        before = os.stat("seen").st_mtime_ns
        while True:
            time.sleep(0.002)
            now = os.stat("seen").st_mtime_ns
            if now != before:
                before = now
                self.wfile.write(b"changed\n")
                self.wfile.flush()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"#;

/// What one neighbour does to take what is everybody's, by name, until it is killed.
const HOGS: [(&str, &str); 8] = [
    ("a fork bomb", "bomb() { bomb | bomb & }; while :; do bomb; done"),
    ("a memory hog", "while :; do python3 -c 'x = bytearray(4 << 30)'; done"),
    ("processor hogs", "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait"),
    ("a filler of the disk", "while :; do head -c 400M /dev/zero > f; rm f; done"),
    (
        "a filler of the disk with files",
        "mkdir -p f && cd f && while :; do for i in $(seq 20000); do : > $i; done; find . -type f -delete; done",
    ),
    ("a filler of /tmp", "while :; do head -c 1G /dev/zero > /tmp/x; rm /tmp/x; done"),
    (
        "a filler of /tmp with files",
        "while :; do for i in $(seq 20000); do : > /tmp/$i; done; find /tmp -type f -delete; done",
    ),
    // Its output is read to its end, whatever is kept of it.
    ("a flood of output", "cat /dev/zero"),
];

/// Calls of one measurement beside a hog, and how often it is begun anew where it comes out badly: whoever else uses the
/// machine is none of its business.
const BESIDE: usize = 60;
const TRIES: usize = 3;

fn main() -> ExitCode {
    let mut table = Table::default();
    calls(&mut table);
    hogs(&mut table);
    previews(&mut table);
    println!("\n{}", if table.missed == 0 { "all targets are met" } else { "targets are missed" });
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Times of calls, the shortest first.
struct Times(Vec<f64>);

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    fn percentile(&self, percent: usize) -> f64 {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

fn run(client: &Client, command: &str) {
    let ran = client.output("shell_run", &json!({ "command": command, "timeout_s": 60 })).unwrap();
    assert_eq!(ran["exit_code"], 0, "{command}: {ran}");
}

fn calls(table: &mut Table) {
    let steading = unlimited();
    let client = steading.client();
    client.output("file_write", &json!({ "path": "page", "text": "x".repeat(4_095) + "\n" })).unwrap();
    let tools = [("shell_run", json!({ "command": "true" })), ("file_read", json!({ "path": "page" }))];
    let measure = |tool: &str, input: &Value| Times::of(by_mcp(&steading, tool, input, CALLS));
    for (tool, input) in &tools {
        let times = measure(tool, input);
        table.most(&format!("{tool} by MCP, p50"), times.percentile(50), 20.0, "ms");
        table.note("  p99", times.percentile(99), "ms");
    }
    let operator = client.clone().without_env();
    for number in 0..NEIGHBOURS {
        let slug = format!("neighbour-{number}");
        operator.output("env_create", &json!({ "slug": slug })).unwrap();
        run(&client.clone().in_env(&slug), &format!("({BUSY}) > /dev/null 2>&1 & sleep 0.2"));
    }
    for (tool, input) in &tools {
        let times = measure(tool, input);
        table.note(
            &format!("{tool} by MCP beside {NEIGHBOURS} busy neighbours, p50"),
            times.percentile(50),
            "ms",
        );
        table.most("  p99", times.percentile(99), 150.0, "ms");
    }
}

/// What each hog costs its neighbour: the time of a command there, by that of the same moment without the hog.
fn hogs(table: &mut Table) {
    let steading = unlimited();
    let client = steading.client();
    client.clone().without_env().output("env_create", &json!({ "slug": "greedy" })).unwrap();
    let greedy = client.in_env("greedy");
    let nothing = json!({ "command": "true" });
    let p50 = || Times::of(by_mcp(&steading, "shell_run", &nothing, BESIDE)).percentile(50);
    for (name, hog) in HOGS {
        let ratio = || {
            let before = p50();
            let beside = std::thread::scope(|scope| {
                let hogging = json!({ "command": format!("({hog}) 2> /dev/null"), "timeout_s": 600 });
                let greedy = &greedy;
                let hogging = scope.spawn(move || greedy.call("shell_run", &hogging).unwrap());
                sleep(Duration::from_millis(500));
                let beside = p50();
                let ended = hogging.is_finished();
                healed(greedy);
                // What has ended by itself shows nothing of its neighbour.
                if ended { f64::INFINITY } else { beside }
            });
            beside / before.midpoint(p50())
        };
        let mut ratios: Vec<f64> = Vec::new();
        while ratios.len() < TRIES && ratios.last().is_none_or(|last| *last > 2.0) {
            ratios.push(ratio());
        }
        let best = ratios.into_iter().min_by(f64::total_cmp).unwrap();
        table.most(&format!("shell_run beside {name}, p50"), best, 2.0, "times");
    }
}

/// Ends all that somebody runs, and removes what it has filled.
fn healed(client: &Client) {
    let heal = json!({ "command": "kill -9 -1; rm -rf f /tmp/*; echo healed", "timeout_s": 120 });
    let healed = eventually(Duration::from_secs(300), || {
        let ran = client.call("shell_run", &heal).unwrap();
        (ran.body["stdout"] == "healed\n").then_some(())
    });
    assert!(healed.is_some(), "it cannot be ended");
}

/// So many whole calls over one connection, in milliseconds.
fn by_mcp(steading: &Steading, tool: &str, input: &Value, calls: usize) -> Vec<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": input },
    })
    .to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nauthorization: Bearer {}\r\nsteading-env: default\r\n\
         content-length: {}\r\n\r\n{call}",
        steading.authority(),
        steading.ready().key,
        call.len(),
    );
    runtime.block_on(async {
        let mut connection = Connection::open(steading.authority()).await;
        let mut times = Vec::new();
        for _ in 0..calls {
            tokio::time::sleep(REST).await;
            let began = Instant::now();
            let (head, body) = connection.call(request.as_bytes()).await;
            times.push(milliseconds(began.elapsed()));
            assert!(head.starts_with("HTTP/1.1 200") && !body.contains("\"isError\":true"), "{head} {body}");
        }
        times
    })
}

fn previews(table: &mut Table) {
    let freezing = Steading::launch()
        .env("STEADING_SANDBOX_FREEZE_AFTER_S", "1")
        .env("STEADING_SANDBOX_PARK_AFTER_S", "3600");
    let steading = require(freezing.start());
    let client = steading.client();
    client.output("file_write", &json!({ "path": "server.py", "text": SERVER })).unwrap();
    let start = "touch seen && (python3 server.py > /dev/null 2>&1 &)";
    let mut shown = Value::Null;
    let took = timed(|| {
        run(&client, start);
        shown = client.output("preview_open", &json!({ "port": 8000 })).unwrap();
    });
    table.most("a server is started and its preview opened", took, 1_500.0, "ms");
    let preview = Preview::of(&shown, &steading).unwrap();
    let get = || {
        let got = preview.ask("GET", "/").send().unwrap();
        assert_eq!((got.status, got.body.as_slice()), (200, b"ready\n".as_slice()));
    };
    let awake = Times::of((0..50).map(|_| timed(get)).collect());
    table.note("a page by preview, p50 of 50", awake.percentile(50), "ms");
    let frozen: Vec<f64> = (0..5)
        .map(|_| {
            until(&client, "paused");
            timed(get)
        })
        .collect();
    table.most(
        "a preview wakes its frozen sandbox, slowest of 5",
        Times::of(frozen).percentile(100),
        1_500.0,
        "ms",
    );
    parked(table);
    let mut page = events(&preview, steading.authority());
    let told = (0..20).map(|number| {
        sleep(REST);
        timed(|| {
            let input = json!({ "path": "seen", "text": number.to_string() });
            client.output("file_write", &input).unwrap();
            read_until(&mut page, "changed\n");
        })
    });
    let told = Times::of(told.collect());
    table.most("a file changes until an open page is told, p50 of 20", told.percentile(50), 100.0, "ms");
}

/// How long a visitor waits for the first byte of a server that ended with its sandbox.
fn parked(table: &mut Table) {
    let parking = Steading::launch()
        .env("STEADING_SANDBOX_FREEZE_AFTER_S", "1")
        .env("STEADING_SANDBOX_PARK_AFTER_S", "3");
    let steading = require(parking.start());
    let client = steading.client();
    client.output("file_write", &json!({ "path": "server.py", "text": SERVER })).unwrap();
    let wanted = json!({ "port": 8000, "command": "touch seen; exec python3 server.py" });
    let shown = client.output("preview_open", &wanted).unwrap();
    let preview = Preview::of(&shown, &steading).unwrap();
    let visits = (0..5).map(|_| {
        until(&client, "parked");
        timed(|| {
            let got = preview.ask("GET", "/").send().unwrap();
            assert_eq!((got.status, got.body.as_slice()), (200, b"ready\n".as_slice()));
        })
    });
    let slowest = Times::of(visits.collect()).percentile(100);
    table.most("a preview starts the server of its parked sandbox, slowest of 5", slowest, 1_500.0, "ms");
}

/// Waits until the sandbox is so.
fn until(client: &Client, state: &str) {
    let shown = || client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    let is_so = eventually(Duration::from_secs(60), || (shown()["state"] == state).then_some(()));
    assert!(is_so.is_some(), "{}", shown());
}

/// A page that listens.
fn events(preview: &Preview, authority: &str) -> TcpStream {
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let pass = preview.pass.as_deref().unwrap_or_default();
    let head = format!("host: {}\r\nsteading-preview: {pass}", preview.host);
    write!(stream, "GET /events HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    read_until(&mut stream, "ready\n");
    stream
}

fn read_until(stream: &mut TcpStream, wanted: &str) {
    let (mut seen, mut buffer) = (String::new(), [0; 4_096]);
    while !seen.contains(wanted) {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the page ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}
