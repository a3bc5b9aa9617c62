//! What rules cost: a row made under one against a row made under none, and how long an explanation takes.
//!
//! `cargo xtask bench access` runs it on the optimised product. Both tables have the same columns and indexes, and the
//! requests take turns, so that both meet the same machine.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

#[expect(dead_code, reason = "the other benches need more of it")]
mod load;

use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use crate::load::{Connection, Table, median, unlimited};

const REQUESTS: usize = 10_000;
const QUESTIONS: usize = 500;

fn manifest() -> Value {
    let table = |create: &str| {
        json!({
            "columns": { "title": "text!", "team": "text!", "done": "bool = false" },
            "access": { "create": create, "get": "row.owner == auth.uid", "list": "row.owner == auth.uid" },
        })
    };
    json!({
        "auth": { "methods": ["anonymous"] },
        "database": { "tables": {
            "open": table("true"),
            "guarded": table("new.owner == auth.uid && size(new.title) < 200 && new.done == false"),
            "teams": table("exists(members, team == new.team && user == auth.uid)"),
            "members": { "columns": { "team": "text!", "user": "text!" }, "indexes": [["user", "team"]], "access": "admin_only" },
        } },
    })
}

fn main() -> ExitCode {
    let mut table = Table::default();
    let steading = unlimited();
    let client = steading.client();
    let applied = client.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let url = applied["url"].as_str().unwrap().to_owned();
    let session = testkit::http::Request::new("POST", &format!("{url}/_/auth/anonymous"))
        .json(&json!({}))
        .send()
        .unwrap();
    let session: Value = serde_json::from_slice(&session.body).unwrap();
    let (token, user) = (session["access_token"].as_str().unwrap(), session["user"]["id"].as_str().unwrap());
    let member = json!({ "sql": "INSERT INTO members (team, user) VALUES ('red', ?1)", "params": [user] });
    client.output("db_execute", &member).unwrap();
    creates(&mut table, &url, token);
    explanations(&mut table, &client);
    println!("\n{}", if table.missed == 0 { "all targets are met" } else { "targets are missed" });
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Microseconds of requests that take turns one by one, so that what others do on the machine meets all alike.
fn creates(table: &mut Table, url: &str, token: &str) {
    let host = url.trim_start_matches("http://");
    let body = json!({ "title": "a title as long as most are", "team": "red" }).to_string();
    let request = |name: &str| {
        format!(
            "POST /_/db/{name} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let names = ["open", "guarded", "teams"];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut took = [const { Vec::new() }; 3];
    runtime.block_on(async {
        // Names below localhost are the loopback address, which the machine need not know.
        let port = host.rsplit_once(':').unwrap().1;
        let mut connection = Connection::open(&format!("127.0.0.1:{port}")).await;
        let requests = names.map(request);
        for n in 0..REQUESTS {
            // Who comes first changes too.
            for index in (0..3).map(|index| (index + n) % 3) {
                let from = Instant::now();
                assert!(connection.call(requests[index].as_bytes()).await.0.starts_with("HTTP/1.1 201"));
                took[index].push(from.elapsed().as_secs_f64() * 1e6);
            }
        }
    });
    let half = took.each_mut().map(|took| median(took));
    for (index, what) in [(0, "`true`"), (1, "three conditions"), (2, "exists(…)")] {
        table.note(&format!("a row made under {what}, median"), half[index], "µs");
        table.note(&format!("a row made under {what}, 99 of 100"), took[index][REQUESTS * 99 / 100], "µs");
    }
    for (index, what) in [(1, "three conditions"), (2, "exists(…)")] {
        let more = (half[index] / half[0] - 1.0) * 100.0;
        table.most(&format!("what {what} add to the median"), more, 10.0, "%");
    }
}

fn explanations(table: &mut Table, client: &testkit::Client) {
    let mut took: Vec<f64> = (0..QUESTIONS)
        .map(|n| {
            let operation = ["list", "get", "create", "update", "delete"][n % 5];
            let question = json!({ "on": "guarded", "do": operation, "as": "other" });
            let from = Instant::now();
            client.output("access_explain", &question).unwrap();
            from.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    table.note("access_explain, median", median(&mut took), "ms");
    table.most("access_explain, 99 of 100", took[QUESTIONS * 99 / 100], 20.0, "ms");
}
