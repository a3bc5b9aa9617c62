//! What a sandbox costs: made, used, paused, ended and idle, beside making a process in the same run.
//!
//! Times are milliseconds, `[p50, p99]`; `ratio` is the p50 by that of fork and exec. Bubblewrap is measured with the
//! same namespaces where it is installed. `cargo xtask bench sandbox` prints one line of JSON; it needs root.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hand::jail::Tree;
use kernel::SandboxId;
use sandbox::local::{Local, Settings, Spares};
use sandbox::runner::{Limits, Runner, Spec, Started};
use sandbox::session::{Exec, Run, Session};
use serde_json::{Value, json};

const ROUNDS: usize = 100;

/// Idle sandboxes that are there at once.
const CROWD: usize = 200;

/// Milliseconds of each round.
#[derive(Default)]
struct Times(Vec<f64>);

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
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        json!([round(self.percentile(50)), round(self.percentile(99))])
    }
}

struct Bench {
    local: Local,
    workspaces: std::path::PathBuf,
}

impl Bench {
    async fn create(&self) -> (SandboxId, Session) {
        let id = SandboxId::new();
        let path = self.workspaces.join(id.to_string());
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
        let workspace = Tree::Directory { path };
        let spec = Spec { id, workspace, layers: Vec::new(), limits: Limits::default() };
        let Started { hand, .. } = self.local.create(&spec).await.unwrap();
        (id, Session::open(hand).await.unwrap())
    }
}

fn nothing() -> Run {
    Run { exec: Exec::argv(["/bin/true"]), stdin: Vec::new(), head: 1024, tail: 0 }
}

/// Runs a program of the host to its end.
fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program}");
}

fn memory_available_kib() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let workspaces = directory.path().join("workspaces");
    fs::create_dir(&workspaces).unwrap();
    let host = |name: &str, spares: Spares| {
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
    let bench = host("cold", Spares::default());
    let warm = host("warm", Spares { count: 2, limits: Limits::default() });
    for bench in [&bench, &warm] {
        let (first, _) = bench.create().await;
        bench.local.destroy(first).await.unwrap();
    }

    let [mut process, mut bubblewrap, mut create, mut first, mut exec, mut pause, mut resume, mut destroy] =
        std::array::from_fn(|_| Times::default());
    let [mut given, mut given_and_first, mut swap] = std::array::from_fn(|_| Times::default());
    let version = |number: u32| format!("#!/bin/sh\n# {number}\n");
    let mut runners = Vec::new();
    for number in 0..2 {
        runners.push(bench.local.add_runner(&[("hand", version(number).as_bytes())]).await.unwrap());
    }
    let has_bubblewrap = Command::new("bwrap").arg("--version").output().is_ok();
    let (resident, session) = bench.create().await;
    for round in 0..ROUNDS {
        let begun = Instant::now();
        bench.local.swap_runner(resident, &session, runners[round % 2]).await.unwrap();
        swap.add(begun);
        let begun = Instant::now();
        run("/bin/true", &[]);
        process.add(begun);
        if has_bubblewrap {
            let begun = Instant::now();
            run(
                "bwrap",
                &["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"],
            );
            bubblewrap.add(begun);
        }
        let begun = Instant::now();
        session.run(nothing()).await.unwrap();
        exec.add(begun);
        let begun = Instant::now();
        bench.local.pause(resident).await.unwrap();
        pause.add(begun);
        let begun = Instant::now();
        bench.local.resume(resident).await.unwrap();
        resume.add(begun);
        let begun = Instant::now();
        let (id, session) = bench.create().await;
        create.add(begun);
        session.run(nothing()).await.unwrap();
        first.add(begun);
        let begun = Instant::now();
        bench.local.destroy(id).await.unwrap();
        destroy.add(begun);
        let begun = Instant::now();
        let (id, session) = warm.create().await;
        given.add(begun);
        session.run(nothing()).await.unwrap();
        given_and_first.add(begun);
        warm.local.destroy(id).await.unwrap();
        // The next is made while nobody waits for it.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    warm.local.close().await;
    let before = memory_available_kib();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(bench.create().await);
    }
    let each_kib = (before - memory_available_kib()) / i64::try_from(CROWD).unwrap();
    let mut in_crowd = Times::default();
    for (_, session) in &crowd {
        let begun = Instant::now();
        session.run(nothing()).await.unwrap();
        in_crowd.add(begun);
    }
    bench.local.close().await;

    let ratio = |times: &Times| (times.percentile(50) / process.percentile(50) * 100.0).round() / 100.0;
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
        "exec_in_crowd": in_crowd.both(),
        "pause": pause.both(),
        "resume": resume.both(),
        "destroy": destroy.both(),
        "idle_kib": each_kib,
        "idle_per_gib": if each_kib > 0 { (1 << 20) / each_kib } else { 0 },
    });
    if has_bubblewrap {
        found["bubblewrap"] = bubblewrap.both();
        found["create_to_bubblewrap"] =
            json!((create.percentile(50) / bubblewrap.percentile(50) * 100.0).round() / 100.0);
    }
    println!("{found}");
}
