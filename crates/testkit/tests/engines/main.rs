//! Each engine, started for real.

#![cfg(test)]

mod chromium;
mod mailbox;
mod pocketbase;
mod postgres;
mod process;
mod steading;
mod tools;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether the process ends: a killed one is there until whoever inherited it has looked.
fn gone(process: u32) -> bool {
    testkit::eventually(LIMIT, || (!alive(process)).then_some(())).is_some()
}

fn alive(process: u32) -> bool {
    // A zombie has ended; only its parent has not looked yet.
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// The processes, other than this one, whose command line has `text` in it.
fn processes_naming(text: &str) -> Vec<u32> {
    let ids = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        *id != std::process::id() && alive(*id) && String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}

/// A program that cargo built beside these tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples").join(name)
}

/// Starts `engine` in a process of its own and kills that process. Gives the engine's id and what else it said.
fn orphaned(engine: &str) -> (u32, String) {
    let mut owner = Command::new(example("engine"));
    let mut owner = owner.arg(engine).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (id, rest) = line.trim_end().split_once(' ').unwrap();
    let id = id.parse().unwrap();
    assert!(alive(id));
    owner.kill().unwrap();
    owner.wait().unwrap();
    (id, rest.to_owned())
}

/// A request's head, up to its empty line.
fn read_head(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}
