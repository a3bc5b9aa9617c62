//! A wrong configuration stops the program before it does anything.

use std::net::TcpListener;

use serde_json::Value;

use crate::platform::{Serving, err, out, run, steading};

#[test]
fn an_unknown_key_is_named_with_its_line_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("steading.toml"), "listen = '127.0.0.1:0'\n[mcp]\nlegacy = true\n")
        .unwrap();
    let output = run(dir.path(), &["serve"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(out(&output), "");
    assert_eq!(
        err(&output),
        "error: steading.toml, line 3: there is no setting \"mcp.legacy\"\n  hint: remove it; steading.example.toml lists all\n"
    );
    assert!(!dir.path().join(".steading").exists());
}

#[test]
fn a_wrong_configuration_is_found_before_the_port_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let output = steading(dir.path())
        .args(["serve", "--listen", &listen])
        .env("STEADING_MCP_BODY_LIMIT", "lots")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(err(&output).starts_with("error: the variable STEADING_MCP_BODY_LIMIT: mcp.body_limit must be"));
}

#[test]
fn wrong_flags_and_values_end_with_64() {
    let dir = tempfile::tempdir().unwrap();
    let attempts: &[&[&str]] = &[
        &["serve", "--lisen", "127.0.0.1:0"],
        &["serve", "--listen", "127.0.0.1"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["serve", "--config", "missing.toml"],
        &["serve", "--public-url", "ftp://x"],
        &["dance"],
        &["tools", "--log-level", "loud"],
        &[],
    ];
    for args in attempts {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{args:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn with_json_the_problem_is_on_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["serve", "--json", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(64));
    let problem: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(problem["code"], "invalid_input");
    assert!(problem["hint"].as_str().unwrap().contains("allow_insecure_http"), "{problem}");
    assert_eq!(err(&output), "");
}

#[test]
fn an_unknown_variable_is_a_warning_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let output = steading(dir.path())
        .args(["doctor", "--json", "--listen", "127.0.0.1:0"])
        .env("STEADING_LISTNE", "x")
        .env("STEADING_URL", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(err(&output).contains("STEADING_LISTNE"), "{}", err(&output));
    assert!(!err(&output).contains("STEADING_URL"), "{}", err(&output));
}

#[test]
fn plain_http_beyond_loopback_is_served_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let serving =
        Serving::start(dir.path(), &["--allow-insecure-http", "--public-url", "http://cloud.example"]);
    assert_eq!(serving.ready["url"], "http://cloud.example");
    assert_eq!(serving.ready["mcp_url"], "http://cloud.example/mcp/default");
}
