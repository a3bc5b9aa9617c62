//! What a sandbox costs: made, used, paused, ended and idle, beside making a process in the same run, held against its
//! targets.
//!
//! Times are milliseconds, `[p50, p99]`; `ratio` is the p50 by that of fork and exec. Nothing is measured right after
//! something else: what the kernel still has in its hands then costs less than what somebody meets who comes by now and
//! then. Bubblewrap and runc run the same program in namespaces of their own, where they are installed.
//! `cargo xtask bench sandbox` prints one line of JSON, and fails where a target is missed; it needs root.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

mod engines;
mod memory;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use hand::jail::Tree;
use kernel::SandboxId;
use sandbox::local::{Local, Settings, Spares};
use sandbox::runner::{Limits, Runner, Spec, Started};
use sandbox::session::{Exec, Run, Session};
use serde_json::{Value, json};

const ROUNDS: usize = 60;

/// Idle sandboxes that are there at once.
const CROWD: usize = 200;

/// How long the machine rests before each thing that is measured.
const REST: Duration = Duration::from_millis(40);

/// What p50 may be at most, in milliseconds.
const TARGETS: [(&str, f64); 5] = [
    ("create", 10.0),
    ("warm_and_first_exec", 5.0),
    ("exec_overhead", 2.0),
    ("runner_swap", 100.0),
    ("pause", 5.0),
];

/// How many idle sandboxes a GiB is to hold at least.
const IDLE_PER_GIB: f64 = 1_500.0;

/// Milliseconds of each round.
#[derive(Default)]
pub struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, begun: Instant) {
        self.0.push(begun.elapsed().as_secs_f64() * 1000.0);
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) * percent / 100]
    }

    fn both(&self) -> Value {
        json!([rounded(self.percentile(50)), rounded(self.percentile(99))])
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

struct Bench {
    local: Local,
    workspaces: PathBuf,
}

/// A sandbox, with what whoever holds it holds.
struct Cell {
    id: SandboxId,
    session: Session,
    _sockets: [tokio::net::UnixListener; 2],
}

impl Bench {
    async fn create(&self) -> Cell {
        let id = SandboxId::new();
        let path = self.workspaces.join(id.to_string());
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
        let workspace = Tree::Directory { path };
        let spec = Spec { id, workspace, layers: Vec::new(), limits: Limits::default() };
        let Started { hand, egress, bridge, .. } = self.local.create(&spec).await.unwrap();
        Cell { id, session: Session::open(hand).await.unwrap(), _sockets: [egress, bridge] }
    }
}

async fn run_nothing(session: &Session) {
    let run = Run { exec: Exec::argv(["/bin/true"]), stdin: Vec::new(), head: 1024, tail: 0 };
    session.run(run).await.unwrap();
}

async fn rested() -> Instant {
    tokio::time::sleep(REST).await;
    Instant::now()
}

#[tokio::main]
async fn main() -> ExitCode {
    let directory = tempfile::tempdir().unwrap();
    let workspaces = directory.path().join("workspaces");
    fs::create_dir(&workspaces).unwrap();
    let host = |name: &str, spares: Vec<Spares>| {
        let trees = vec![workspaces.clone()];
        let settings = Settings { run_dir: directory.path().join(name), trees, spares, runsc: None };
        let kept = directory.path().join(format!("{name}-kept"));
        let start = move || {
            let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_sandbox-host")));
            command.arg(&kept);
            command
        };
        Bench { local: Local::new(start, settings), workspaces: workspaces.clone() }
    };
    let cold = host("cold", Vec::new());
    let warm = host("warm", vec![Spares { count: 2, limits: Limits::default() }]);
    for bench in [&cold, &warm] {
        let first = bench.create().await;
        bench.local.destroy(first.id).await.unwrap();
    }
    let engines = engines::installed(directory.path());
    let mut found = times(&cold, &warm, &engines).await;
    warm.local.close().await;
    let crowd = crowd(&cold).await;
    for (name, value) in crowd.as_object().unwrap() {
        found[name] = value.clone();
    }
    cold.local.close().await;
    let mut missed: Vec<&str> = TARGETS
        .into_iter()
        .filter(|(name, most)| found[*name][0].as_f64().unwrap() > *most)
        .map(|(name, _)| name)
        .collect();
    if found["idle_per_gib"].as_f64().unwrap() < IDLE_PER_GIB {
        missed.push("idle_per_gib");
    }
    found["missed"] = json!(missed);
    println!("{found}");
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn times(cold: &Bench, warm: &Bench, engines: &[engines::Engine]) -> Value {
    let mut others: Vec<Times> = engines.iter().map(|_| Times::default()).collect();
    let [mut process, mut create, mut first, mut exec, mut pause, mut resume, mut destroy] =
        std::array::from_fn(|_| Times::default());
    let [mut given, mut given_and_first, mut swap] = std::array::from_fn(|_| Times::default());
    let mut runners = Vec::new();
    for number in 0..2 {
        let version = format!("#!/bin/sh\n# {number}\n");
        runners.push(cold.local.add_runner(&[("hand", version.as_bytes())]).await.unwrap());
    }
    let resident = cold.create().await;
    for round in 0..ROUNDS {
        let begun = rested().await;
        engines::run(&mut Command::new("/bin/true"));
        process.add(begun);
        for (engine, times) in engines.iter().zip(&mut others) {
            let begun = rested().await;
            engine.run();
            times.add(begun);
        }
        let begun = rested().await;
        cold.local.swap_runner(resident.id, &resident.session, runners[round % 2]).await.unwrap();
        swap.add(begun);
        let begun = rested().await;
        run_nothing(&resident.session).await;
        exec.add(begun);
        let begun = rested().await;
        cold.local.pause(resident.id).await.unwrap();
        pause.add(begun);
        let begun = rested().await;
        cold.local.resume(resident.id).await.unwrap();
        resume.add(begun);
        let begun = rested().await;
        let cell = cold.create().await;
        create.add(begun);
        run_nothing(&cell.session).await;
        first.add(begun);
        let begun = rested().await;
        cold.local.destroy(cell.id).await.unwrap();
        destroy.add(begun);
        // By now the spare ones are there again.
        tokio::time::sleep(REST * 3).await;
        let begun = rested().await;
        let cell = warm.create().await;
        given.add(begun);
        run_nothing(&cell.session).await;
        given_and_first.add(begun);
        warm.local.destroy(cell.id).await.unwrap();
    }
    cold.local.destroy(resident.id).await.unwrap();

    let ratio = |times: &Times| rounded(times.percentile(50) / process.percentile(50));
    let overhead = |percent| rounded(exec.percentile(percent) - process.percentile(percent));
    let mut found = json!({
        "fork_exec": process.both(),
        "create": create.both(),
        "create_ratio": ratio(&create),
        "create_and_first_exec": first.both(),
        "warm": given.both(),
        "warm_ratio": ratio(&given),
        "warm_and_first_exec": given_and_first.both(),
        "runner_swap": swap.both(),
        "exec": exec.both(),
        "exec_ratio": ratio(&exec),
        "exec_overhead": [overhead(50), overhead(99)],
        "pause": pause.both(),
        "resume": resume.both(),
        "destroy": destroy.both(),
    });
    for (engine, times) in engines.iter().zip(&others) {
        found[engine.name()] = times.both();
        found[format!("create_and_first_exec_to_{}", engine.name())] =
            json!(rounded(first.percentile(50) / times.percentile(50)));
    }
    found
}

/// What idle sandboxes use, and what a command costs where there are many of them.
async fn crowd(bench: &Bench) -> Value {
    let before = memory::Memory::now();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(bench.create().await);
    }
    let mut exec = Times::default();
    for cell in &crowd {
        let begun = Instant::now();
        run_nothing(&cell.session).await;
        exec.add(begun);
    }
    // What waits to be given back to the machine is nobody's.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut found = before.until_now(CROWD);
    found["exec_in_crowd"] = exec.both();
    found
}
