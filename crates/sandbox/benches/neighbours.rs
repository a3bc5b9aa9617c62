//! What a sandbox that takes all it can costs the one beside it: the time of a command there, alone and beside each of
//! the attacks.
//!
//! Times are milliseconds, `[p50, p99]`; `ratio` is the p50 by that of the quiet rounds before and after the attack.
//! `cargo xtask bench sandbox` prints one line of JSON; it needs root.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use hand::jail::Tree;
use kernel::SandboxId;
use sandbox::local::{Local, Settings};
use sandbox::runner::{Limits, Runner, Spec, Started};
use sandbox::session::{Exec, Run, Session};
use serde_json::{Map, Value, json};

const ROUNDS: usize = 150;

/// What is done beside it, by name.
const ATTACKS: [(&str, &str); 7] = [
    ("fork_bomb", "bomb() { bomb | bomb & }; bomb > /dev/null 2>&1 &"),
    ("memory", "(while :; do python3 -c 'x = bytearray(2 << 30)'; done) > /dev/null 2>&1 &"),
    ("cpu", "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) > /dev/null 2>&1 & done"),
    ("disk", "(while :; do head -c 1G /dev/zero > f; done) > /dev/null 2>&1 &"),
    ("temporary", "(while :; do head -c 1G /dev/zero > /tmp/x; done) > /dev/null 2>&1 &"),
    ("inodes", "(while :; do for i in $(seq 20000); do : > $i; done; rm -f *; done) > /dev/null 2>&1 &"),
    ("output", "head -c 100G /dev/zero"),
];

struct Cell {
    id: SandboxId,
    session: Session,
    _sockets: [tokio::net::UnixListener; 2],
}

async fn cell(local: &Local, workspaces: &Path, limits: Limits) -> Cell {
    let id = SandboxId::new();
    let path = workspaces.join(id.to_string());
    fs::create_dir(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
    let spec = Spec { id, workspace: Tree::Directory { path }, layers: Vec::new(), limits };
    let Started { hand, egress, bridge, .. } = local.create(&spec).await.unwrap();
    Cell { id, session: Session::open(hand).await.unwrap(), _sockets: [egress, bridge] }
}

fn run(exec: Exec) -> Run {
    Run { exec, stdin: Vec::new(), head: 1024, tail: 0 }
}

/// Milliseconds of `true`, in order.
async fn times(victim: &Cell) -> Vec<f64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        victim.session.run(run(Exec::argv(["/bin/true"]))).await.unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        // As often as somebody works who waits for nothing, and not all the time.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    times.sort_by(f64::total_cmp);
    times
}

fn percentile(times: &[f64], percent: usize) -> f64 {
    times[(times.len() - 1) * percent / 100]
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn both(times: &[f64]) -> Value {
    json!([rounded(percentile(times, 50)), rounded(percentile(times, 99))])
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let workspaces = directory.path().join("workspaces");
    fs::create_dir(&workspaces).unwrap();
    let trees = vec![workspaces.clone()];
    let settings = Settings { run_dir: directory.path().join("run"), trees, spares: Vec::new(), runsc: None };
    let kept: PathBuf = directory.path().join("kept");
    let start = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox-host"));
        command.arg(&kept);
        command
    };
    let local = Local::new(start, settings);
    let victim = cell(&local, &workspaces, Limits::default()).await;
    let mut found = Map::new();
    for (name, attack) in ATTACKS {
        let before = times(&victim).await;
        let limits = Limits { memory_bytes: 256 << 20, cpu_millis: 500, pids: 128, tmp_bytes: 64 << 20 };
        let attacker = cell(&local, &workspaces, limits).await;
        let session = attacker.session.clone();
        let attacking =
            tokio::spawn(async move { session.run(run(Exec::argv(["/bin/bash", "-c", attack]))).await });
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let beside = times(&victim).await;
        local.destroy(attacker.id).await.unwrap();
        // It has ended by itself, or with its sandbox.
        let _ = attacking.await;
        fs::remove_dir_all(workspaces.join(attacker.id.to_string())).unwrap();
        let after = times(&victim).await;
        let quiet = percentile(&before, 50).midpoint(percentile(&after, 50));
        let ratio = rounded(percentile(&beside, 50) / quiet);
        found.insert(
            name.to_owned(),
            json!({ "ratio": ratio, "beside": both(&beside), "before": both(&before), "after": both(&after) }),
        );
    }
    local.close().await;
    println!("{}", Value::Object(found));
}
