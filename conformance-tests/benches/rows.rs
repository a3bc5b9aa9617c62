//! What a row costs: the same Todo app under the same load on the product and on PocketBase, in the same minutes.
//!
//! Both get what they would in use: strangers who signed up, a rule that everybody sees only what is theirs, an
//! index that serves it, and defaults otherwise. They take turns, one operation after the other, over keep-alive
//! connections, each with the same number of requests. `cargo xtask bench rows` runs it on the optimised product.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

mod bare;
mod load;
mod todo;

use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::bare::Echo;
use crate::load::{Connection, Table, example, median, milliseconds, processor_time, timed, unlimited};
use crate::todo::{OnPocketBase, OnSteading, People, Todo};

const PEOPLE: usize = 200;
const ROWS: usize = 25;
const CONNECTIONS: usize = 8;
const ROUNDS: usize = 10;

/// What is measured, how often in each round, and what it must come to: microseconds of processor time at most, and
/// requests per second as a multiple of PocketBase's.
struct Operation {
    name: &'static str,
    requests: usize,
    processor: f64,
    multiple: f64,
    request: fn(&dyn Todo, &People, usize) -> String,
    status: &'static str,
}

const OPERATIONS: [Operation; 3] = [
    Operation {
        name: "get one by its id",
        requests: 2_000,
        processor: 80.0,
        multiple: 3.0,
        request: |todo, people, n| todo.get(people.person(n), people.row(n)),
        status: "HTTP/1.1 200",
    },
    Operation {
        name: "list the newest 20 of one's own",
        requests: 1_000,
        processor: 250.0,
        multiple: 2.0,
        request: |todo, people, n| todo.list(people.person(n)),
        status: "HTTP/1.1 200",
    },
    Operation {
        name: "insert one",
        requests: 1_000,
        processor: 200.0,
        multiple: 3.0,
        request: |todo, people, n| todo.insert(people.person(n), n),
        status: "HTTP/1.1 20",
    },
];

fn main() -> ExitCode {
    if bare::served() {
        return ExitCode::SUCCESS;
    }
    let mut table = Table::default();
    applies(&mut table);
    rows(&mut table);
    println!("\n{}", if table.missed == 0 { "all targets are met" } else { "targets are missed" });
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// From one call to a live app. The time is the caller's, which is more than the server's own.
fn applies(table: &mut Table) {
    let steading = unlimited();
    let manifest = example("todo");
    let mut took: Vec<f64> = (0..11)
        .map(|n| {
            let slug = format!("todo-{n}");
            let client = steading.client().in_env(&slug);
            client.clone().without_env().output("env_create", &json!({ "slug": slug })).unwrap();
            timed(|| drop(client.output("app_apply", &json!({ "manifest": manifest })).unwrap()))
        })
        .collect();
    table.most("app_apply of examples/todo, median of 11", median(&mut took), 500.0, "ms");
    table.note("app_apply of examples/todo, slowest of 11", took[took.len() - 1], "ms");
}

fn rows(table: &mut Table) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    floor(table, &runtime);
    let (steading, pocketbase) = (OnSteading::start(), OnPocketBase::start());
    let sides: [&dyn Todo; 2] = [&steading, &pocketbase];
    let people = sides.map(|todo| runtime.block_on(settle(todo, table)));
    for operation in &OPERATIONS {
        let requests: [Vec<Vec<u8>>; 2] = [0, 1].map(|side| {
            let request = |n| (operation.request)(sides[side], &people[side], n).into_bytes();
            (0..operation.requests).map(request).collect()
        });
        let mut rounds: [Vec<Round>; 2] = Default::default();
        // The first round warms both up; in the others they take turns at being the first.
        for round in 0..=ROUNDS {
            for turn in 0..2 {
                let side = (round + turn) % 2;
                let done = runtime.block_on(Round::of(
                    sides[side].address(),
                    sides[side].pid(),
                    &requests[side],
                    operation.status,
                ));
                if round > 0 {
                    rounds[side].push(done);
                }
            }
        }
        report(table, operation, &rounds);
    }
    for (name, todo) in [("memory of Steading (VmRSS)", sides[0]), ("memory of PocketBase (VmRSS)", sides[1])]
    {
        table.note(name, megabytes(todo.pid()), "MB");
    }
}

/// What no server can be below: a bare axum server that reads a row and writes it back.
fn floor(table: &Table, runtime: &Runtime) {
    let echo = Echo::start();
    let row = todo::request("POST", echo.address(), "/", "", Some(&json!({ "title": "Todo number 1" })));
    let requests = vec![row.into_bytes(); 10_000];
    let round = || runtime.block_on(Round::of(echo.address(), echo.pid(), &requests, "HTTP/1.1 200"));
    round();
    let round = round();
    table.note("bare axum echo of a row: requests per second", round.rate(), "/s");
    table.note(
        "bare axum echo of a row: processor time of one",
        round.processor / round.requests * 1e6,
        "us",
    );
}

/// Signs people up, and gives each of them rows.
async fn settle(todo: &dyn Todo, table: &Table) -> People {
    let mut connection = Connection::open(todo.address()).await;
    let mut tokens = Vec::new();
    let mut took = Vec::new();
    for n in 0..PEOPLE {
        let began = Instant::now();
        let mut session = Value::Null;
        for request in todo.sign_up(n) {
            let (head, body) = connection.call(request.as_bytes()).await;
            assert!(head.starts_with("HTTP/1.1 20"), "{head}\n{body}");
            session = serde_json::from_str(body).unwrap();
        }
        tokens.push(todo.person(&session));
        took.push(milliseconds(began.elapsed()));
    }
    let with_passwords = median(&mut took[..todo::WITH_PASSWORDS]);
    table.note(&format!("sign up with a password and log in, {}", todo.name()), with_passwords, "ms");
    let mut people = People { people: tokens, rows: Vec::new() };
    for n in 0..PEOPLE * ROWS {
        let (head, body) = connection.call(todo.insert(people.person(n), n).as_bytes()).await;
        assert!(head.starts_with("HTTP/1.1 20"), "{head}\n{body}");
        let row: Value = serde_json::from_str(body).unwrap();
        people.rows.push(row["id"].as_str().unwrap().to_owned());
    }
    people
}

/// What one round of requests took.
struct Round {
    requests: f64,
    seconds: f64,
    /// Processor time of the server.
    processor: f64,
    /// Processor time of this process, which is what sends the load.
    client: f64,
    /// Milliseconds of each request.
    latencies: Vec<f64>,
}

impl Round {
    async fn of(address: &str, pid: u32, requests: &[Vec<u8>], status: &str) -> Self {
        let connections = futures::future::join_all((0..CONNECTIONS).map(|_| Connection::open(address)));
        let connections = connections.await;
        let (began, processor, client) = (Instant::now(), processor_time(pid), own_time());
        let share = requests.len() / CONNECTIONS;
        let work = connections.into_iter().enumerate().map(async |(n, mut connection)| {
            let mut latencies = Vec::with_capacity(share);
            for request in &requests[n * share..(n + 1) * share] {
                let sent = Instant::now();
                let (head, body) = connection.call(request).await;
                latencies.push(milliseconds(sent.elapsed()));
                assert!(head.starts_with(status) && body.contains("Todo number"), "{head}\n{body}");
            }
            latencies
        });
        let latencies = futures::future::join_all(work).await.concat();
        Self {
            requests: latencies.len() as f64,
            seconds: began.elapsed().as_secs_f64(),
            processor: processor_time(pid) - processor,
            client: own_time() - client,
            latencies,
        }
    }

    fn rate(&self) -> f64 {
        self.requests / self.seconds
    }
}

fn own_time() -> f64 {
    processor_time(std::process::id())
}

fn report(table: &mut Table, operation: &Operation, rounds: &[Vec<Round>; 2]) {
    println!("\n{}", operation.name);
    let mut processors = [0.0; 2];
    for (side, name) in ["Steading", "PocketBase"].into_iter().enumerate() {
        let rounds = &rounds[side];
        let sum = |of: fn(&Round) -> f64| rounds.iter().map(of).sum::<f64>();
        let requests = sum(|round| round.requests);
        let mut latencies: Vec<f64> =
            rounds.iter().flat_map(|round| round.latencies.iter().copied()).collect();
        latencies.sort_by(f64::total_cmp);
        let mut rates: Vec<f64> = rounds.iter().map(Round::rate).collect();
        let processor = sum(|round| round.processor) / requests * 1e6;
        processors[side] = processor;
        let label = |what: &str| format!("  {name}: {what}");
        table.note(&label("requests per second"), median(&mut rates), "/s");
        table.note(&label("p50"), latencies[latencies.len() / 2], "ms");
        table.note(&label("p99"), latencies[latencies.len() * 99 / 100], "ms");
        match side {
            0 => table.most(&label("processor time of one"), processor, operation.processor, "us"),
            _ => table.note(&label("processor time of one"), processor, "us"),
        }
        // Near 1 the sender of the load is what limits the rate.
        let busy = sum(|round| round.client) / sum(|round| round.seconds);
        table.note(&label("processors that the sender of the load kept busy"), busy, "");
    }
    // Of rounds that came one after the other, and so had the same neighbours on the machine.
    let mut multiples: Vec<f64> =
        rounds[0].iter().zip(&rounds[1]).map(|(ours, theirs)| ours.rate() / theirs.rate()).collect();
    let multiple = median(&mut multiples);
    let target = format!(">= {}", operation.multiple);
    table.row(
        "  requests per second, times PocketBase's",
        multiple,
        &target,
        "x",
        multiple >= operation.multiple,
    );
    // Neighbours on the machine change this less.
    table.note("  requests per processor second, times PocketBase's", processors[1] / processors[0], "x");
}

fn megabytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_024.0
}
