//! What it costs to start a function and to ask it, beside the same runtime started by itself.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

#[path = "../tests/it/rig.rs"]
mod rig;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use functions::{Assignment, Runtime};

use rig::{Rig, asked};

const STARTS: usize = 30;
const REQUESTS: usize = 3_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let rig = Rig::new().await;
        for kind in [Runtime::Bun, Runtime::Node] {
            let source = "export default { fetch: () => new Response('hello') };\n";
            let function = rig.function(kind, &[("index.js", source)]);
            started(&rig, kind, &function).await;
        }
    });
}

async fn started(rig: &Rig, kind: Runtime, function: &Assignment) {
    let name = kind.as_str();
    let (mut cold, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        bare.push(alone(kind, function));
        let begun = Instant::now();
        let instance = rig.start(function).await.unwrap();
        assert_eq!(asked(&instance, "GET", "/", "").await.1, "hello");
        cold.push(begun.elapsed());
        instance.stop(Duration::ZERO).await.unwrap();
    }
    println!(
        "{name}: start to first answer, p50 {:.1} ms, p90 {:.1} ms",
        at(&mut cold, 50),
        at(&mut cold, 90)
    );
    println!("{name}: the runtime by itself, an empty module to its end, p50 {:.1} ms", at(&mut bare, 50));
    let instance = rig.start(function).await.unwrap();
    let mut warm = Vec::new();
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        asked(&instance, "GET", "/", "").await;
        warm.push(begun.elapsed());
    }
    println!(
        "{name}: one request after the other, p50 {:.3} ms, p99 {:.3} ms",
        at(&mut warm, 50),
        at(&mut warm, 99)
    );
    let begun = Instant::now();
    let all = (0..16).map(async |_| {
        for _ in 0..REQUESTS / 4 {
            asked(&instance, "GET", "/", "").await;
        }
    });
    futures::future::join_all(all).await;
    let rate = (16 * (REQUESTS / 4)) as f64 / begun.elapsed().as_secs_f64();
    println!("{name}: sixteen at once, {rate:.0} requests per second");
    instance.stop(Duration::ZERO).await.unwrap();
}

/// How long the runtime takes to print a line, outside of any jail.
fn alone(kind: Runtime, function: &Assignment) -> Duration {
    let program = function.layers[0].join("bin").join(kind.as_str());
    let begun = Instant::now();
    let mut child =
        Command::new(program).args(["-e", "console.log(1)"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let took = begun.elapsed();
    child.wait().unwrap();
    took
}

fn at(all: &mut [Duration], percent: usize) -> f64 {
    all.sort();
    all[(all.len() * percent / 100).min(all.len() - 1)].as_secs_f64() * 1e3
}
