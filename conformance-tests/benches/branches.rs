//! What it costs to keep, branch and restore an environment, small and of 76 MB, held against its targets.
//!
//! `cargo xtask bench branches` runs it on the optimised product.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

#[expect(dead_code, reason = "the parts that other benches share")]
mod load;

use std::process::ExitCode;

use serde_json::{Value, json};
use testkit::Client;

use crate::load::{Table, median, timed, unlimited};

const TIMES: usize = 15;

fn main() -> ExitCode {
    let mut table = Table::default();
    let steading = unlimited();
    let operator = steading.client().without_env();
    for (slug, rows, branch) in [("small", 10, 50.0), ("large", 370_000, 500.0)] {
        operator.output("env_create", &json!({ "slug": slug })).unwrap();
        let client = steading.client().in_env(slug);
        fill(&client, rows);
        let size = client.output("env_snapshot", &json!({ "name": "first" })).unwrap();
        table.note(&format!("{slug}: the database"), size["bytes"].as_f64().unwrap() / 1e6, "MB");
        let mut measure = |what: &str, target: f64, call: &dyn Fn() -> Value| {
            let mut took: Vec<f64> = (0..TIMES).map(|_| timed(|| drop(call()))).collect();
            table.most(&format!("{slug}: {what}, median of {TIMES}"), median(&mut took), target, "ms");
            table.note(&format!("{slug}: {what}, slowest of {TIMES}"), took[TIMES - 1], "ms");
        };
        measure("env_branch with data", branch, &|| client.output("env_branch", &json!({})).unwrap());
        measure("env_branch of a snapshot", branch, &|| {
            client.output("env_branch", &json!({ "snapshot": "first" })).unwrap()
        });
        measure("env_branch without data", 100.0, &|| {
            client.output("env_branch", &json!({ "data": "none" })).unwrap()
        });
        measure("env_snapshot", branch, &|| client.output("env_snapshot", &json!({})).unwrap());
        let input = json!({ "snapshot": "first", "dry_run": true });
        measure("env_restore, planned and done", 10.0 * branch, &|| {
            let plan = client.output("env_restore", &input).unwrap();
            let input = json!({ "snapshot": "first", "confirm": plan["confirm"] });
            client.output("env_restore", &input).unwrap()
        });
    }
    println!("\n{}", if table.missed == 0 { "all targets are met" } else { "targets are missed" });
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A table with so many rows of about 200 bytes.
fn fill(client: &Client, rows: u32) {
    let columns = json!({ "title": "text!", "n": "int" });
    let manifest = json!({ "database": { "tables": { "t": { "columns": columns, "access": "private" } } } });
    client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    for from in (0..rows).step_by(50_000) {
        let sql = "WITH RECURSIVE c(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM c WHERE i + 1 < ?2) \
                   INSERT INTO t (title, n) SELECT 'a title of a row that is some bytes long ' || i, i FROM c";
        let params = json!([from, rows.min(from + 50_000)]);
        client.output("db_execute", &json!({ "sql": sql, "params": params })).unwrap();
    }
}
