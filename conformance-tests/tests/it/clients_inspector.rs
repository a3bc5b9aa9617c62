//! The Inspector's strict reading of the tools, over HTTP and stdio.

use std::fs;
use std::path::Path;
use std::time::Duration;

use conformance_tests::Place;
use serde_json::{Value, json};
use testkit::{Finished, NodeTool, finish, require};

const LIMIT: Duration = Duration::from_secs(90);

#[derive(Clone, Copy)]
enum Door {
    Http,
    Stdio,
}

/// Runs the Inspector with `arguments` against a place.
fn inspect(place: &Place, door: Door, arguments: &[&str]) -> Finished {
    let home = testkit::temporary().unwrap();
    let mut inspector = require(NodeTool::install()).command("mcp-inspector", home.path()).unwrap();
    inspector.arg("--cli");
    let ready = place.steading.ready();
    match door {
        Door::Http => {
            let header = format!("Authorization: Bearer {}", ready.key);
            inspector.args([&place.mcp_url(), "--transport", "http", "--header", &header]).args(arguments);
        }
        Door::Stdio => {
            inspector.args(arguments).arg("--").arg(place.binary());
            inspector.args(["mcp", "--env", &place.slug, "--data-dir"]).arg(&ready.data_dir);
        }
    }
    finish(inspector, LIMIT).unwrap()
}

fn check(door: Door, era: &str) {
    let place = Place::new("inspector").unwrap();
    let listed = inspect(&place, door, &["--protocol-era", era, "--method", "tools/list", "--strict"]);
    assert!(listed.success(), "{}", listed.stderr);
    assert_eq!(listed.stderr, "", "schemas that some clients do not take");
    let tools: Value = serde_json::from_str(&listed.stdout).unwrap();
    let known = place.client.request("GET", "/v1/tools").send().unwrap().json().unwrap();
    assert_eq!(tools["tools"].as_array().unwrap().len(), known["tools"].as_array().unwrap().len());
    let call = ["--method", "tools/call", "--tool-name", "db_query", "--tool-arg", "sql=SELECT 1 AS one"];
    let called = inspect(&place, door, &[&["--protocol-era", era][..], &call].concat());
    assert!(called.success(), "{called:?}");
    let called: Value = serde_json::from_str(&called.stdout).unwrap();
    assert_eq!(called["structuredContent"], json!({ "columns": ["one"], "rows": [[1]] }));
    let verify = ["--method", "skills/list", "--verify", "--require-digests"];
    let verified = inspect(&place, door, &[&["--protocol-era", era][..], &verify].concat());
    assert!(verified.success(), "{verified:?}");
    let skills: Vec<Value> =
        verified.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("../skills");
    let there = fs::read_dir(there).unwrap().flatten().filter(|it| it.path().join("SKILL.md").is_file());
    assert_eq!(skills.len(), there.count(), "{skills:?}");
    assert!(skills.iter().all(|skill| skill["outcome"] == "verified"), "{skills:?}");
}

#[test]
fn http_is_strictly_right() {
    check(Door::Http, "modern");
}

#[test]
fn http_is_strictly_right_for_older_clients() {
    check(Door::Http, "legacy");
}

#[test]
fn stdio_is_strictly_right() {
    check(Door::Stdio, "modern");
}

#[test]
fn stdio_is_strictly_right_for_older_clients() {
    check(Door::Stdio, "legacy");
}
