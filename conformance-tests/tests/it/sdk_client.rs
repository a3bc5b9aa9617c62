//! The browser client: its logic in Node against a small app and the real one, its types by the TypeScript compiler.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conformance_tests::Place;
use serde_json::json;
use testkit::{Finished, NodeTool, finish, require};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs one of the pinned programs where the client and the named files lie side by side.
fn run(program: &str, arguments: &[&str], files: &[&str], app: &str) -> Finished {
    let home = testkit::temporary().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = |from: PathBuf, name: &str| {
        std::fs::copy(&from, home.path().join(name)).unwrap_or_else(|error| panic!("{from:?}: {error}"))
    };
    let client = here.join("../crates/edge/src/data");
    // Node takes a file for a module by its ending.
    copy(client.join("sdk.js"), "sdk.mjs");
    copy(client.join("sdk.d.ts"), "sdk.d.ts");
    for file in files {
        copy(here.join("tests/it/sdk").join(file), file);
    }
    let mut command = require(NodeTool::install()).command(program, home.path()).unwrap();
    command.args(arguments).env("APP", app);
    finish(command, LIMIT).unwrap()
}

fn passes(test: &str, app: &str) {
    let ran = run("node", &["--test", "--test-reporter=spec", test], &["app.mjs", test], app);
    assert!(ran.success(), "{}\n{}", ran.stdout, ran.stderr);
    assert!(!ran.stdout.contains("tests 0\n"), "{}", ran.stdout);
}

#[test]
fn a_session_survives_tabs_ends_of_tokens_and_lost_networks() {
    passes("client.test.mjs", "");
}

#[test]
fn rows_versions_pages_and_filters_become_the_right_requests() {
    passes("rows.test.mjs", "");
}

#[test]
fn the_client_and_the_app_understand_each_other() {
    let place = Place::new("sdk").unwrap();
    let columns = json!({ "title": "text!", "done": "bool = false", "position": "real = 0" });
    let manifest = json!({
        "database": { "tables": { "todos": { "columns": columns, "access": "private" } } },
        "auth": { "methods": ["anonymous", "password"] },
        "site": { "files": {} },
    });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    passes("live.test.mjs", &place.url);
}

#[test]
fn the_types_take_what_an_app_says_and_refuse_its_mistakes() {
    let options = ["--strict", "--noEmit", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"];
    let target = ["--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "sample.ts"];
    let ran = run("tsc", &[&options[..], &target[..]].concat(), &["sample.ts"], "");
    assert!(ran.success(), "{}\n{}", ran.stdout, ran.stderr);
}

#[test]
fn the_client_is_small_and_needs_nothing_else() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/edge/src/data/sdk.js");
    let text = std::fs::read_to_string(client).unwrap();
    let code: usize = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//") && !line.starts_with("/*"))
        .map(|line| line.len() + 1)
        .sum();
    assert!(code < 9_500, "{code} bytes without comments and indentation");
    assert!(!text.contains("import ") || text.matches("import ").count() == 1, "only the example imports");
}
