//! How many functions one machine has: five hundred that wait for their next request in 4 GiB, and ten thousand that were
//! deployed and that nobody asks.
//!
//! `cargo xtask bench functions_many` runs it on the optimised product, as root.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

#[expect(dead_code, reason = "the other benches need more of it")]
mod app;
#[expect(dead_code, reason = "the other benches need more of it")]
mod load;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Steading, eventually};

use crate::app::{HELLO, asked, at, environment, get, memory, platform, running};
use crate::load::{Table, milliseconds, processor_time};

/// Functions of one environment, environments whose functions wait, and those whose functions do not run.
const EACH: usize = 100;
const RESIDENT: usize = 5;
const DEPLOYED: usize = 100;

/// What all that wait may use together, in MiB.
const ROOM: f64 = 4_096.0;

fn main() -> ExitCode {
    let mut table = Table::default();
    resident(&mut table);
    deployed(&mut table);
    println!("\n{}", if table.missed == 0 { "all targets are met" } else { "targets are missed" });
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An environment with as many functions as one has here; the host of its app.
fn filled(steading: &Steading, slug: &str) -> String {
    let (client, host) = environment(steading, slug);
    let function = json!({ "files": { "index.ts": HELLO }, "access": "public", "memory_mb": 64 });
    let functions: BTreeMap<String, &Value> =
        (0..EACH).map(|number| (format!("f{number}"), &function)).collect();
    client.output("app_apply", &json!({ "manifest": { "functions": functions } })).unwrap();
    host
}

fn ask(steading: &Steading, host: &str, number: usize) -> f64 {
    asked(steading.authority(), &get(host, &format!("/_/fn/f{number}"))).1
}

fn resident(table: &mut Table) {
    let steading = platform(&[("STEADING_FUNCTIONS_IDLE_S", "3600")]);
    let hosts: Vec<String> =
        (0..RESIDENT).map(|number| filled(&steading, &format!("resident-{number}"))).collect();
    let all = hosts.iter().flat_map(|host| (0..EACH).map(move |number| (host, number)));
    for (host, number) in all.clone() {
        ask(&steading, host, number);
    }
    let there = running(&steading, "bun");
    let used: f64 = there.iter().map(|pid| memory(*pid)).sum();
    table.row("functions that wait", there.len() as f64, ">= 500", "", there.len() >= RESIDENT * EACH);
    table.most("  what all of them use (PSS)", used, ROOM, "MiB");
    let mut warm: Vec<f64> = all.map(|(host, number)| ask(&steading, host, number)).collect();
    table.note("  one of them answers, p50", at(&mut warm, 50), "ms");
    let (before, began) = (spent(&steading, &there), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let share = (spent(&steading, &there) - before) / began.elapsed().as_secs_f64();
    table.note("  processor time of all while nobody asks", share * 1e3, "ms per s");
}

/// Processor time of these and of the platform, in seconds.
fn spent(steading: &Steading, all: &[u32]) -> f64 {
    all.iter().chain([&steading.id()]).map(|pid| processor_time(*pid)).sum()
}

fn deployed(table: &mut Table) {
    let steading = platform(&[("STEADING_FUNCTIONS_IDLE_S", "1")]);
    let began = Instant::now();
    let hosts: Vec<String> =
        (0..DEPLOYED).map(|number| filled(&steading, &format!("deployed-{number}"))).collect();
    table.note("functions deployed", (DEPLOYED * EACH) as f64, "");
    table.note(
        "  each, with its first start",
        milliseconds(began.elapsed()) / (DEPLOYED * EACH) as f64,
        "ms",
    );
    let none = eventually(Duration::from_secs(120), || running(&steading, "bun").is_empty().then_some(()));
    assert!(none.is_some(), "some go on");
    table.note("  memory of the platform (PSS)", memory(steading.id()), "MiB");
    let (before, began) = (processor_time(steading.id()), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let share = (processor_time(steading.id()) - before) / began.elapsed().as_secs_f64();
    table.note("  its processor time while nobody asks", share * 1e3, "ms per s");
    let mut times: Vec<f64> =
        (0..20).map(|number| ask(&steading, &hosts[number * 37 % DEPLOYED], number * 11 % EACH)).collect();
    table.most("  any of them, from zero to its answer, p50", at(&mut times, 50), 100.0, "ms");
}
