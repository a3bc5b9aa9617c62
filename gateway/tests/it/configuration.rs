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

#[test]
fn settings_of_https_that_make_no_sense_are_refused_before_a_port_is_bound() {
    let said = |settings: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("steading.toml"), format!("listen = '127.0.0.1:0'\n{settings}"))
            .unwrap();
        let output = run(dir.path(), &["serve"]);
        assert_eq!(output.status.code(), Some(64), "{settings}: {}", err(&output));
        assert!(!dir.path().join(".steading").exists(), "{settings}");
        err(&output).lines().next().unwrap_or_default().to_owned()
    };
    for (settings, wanted) in [
        ("tls.http_redirect = '0.0.0.0:80'", "error: tls.http_redirect is set and tls.listen is not"),
        (
            "tls.listen = '0.0.0.0:443'\ntls.cert_file = 'a'",
            "error: tls.cert_file is set and tls.key_file is not",
        ),
        ("tls.cert_dir = 'a'", "error: tls.cert_dir is set and tls.listen is not"),
        (
            "tls.listen = '0.0.0.0:443'\ntls.mode = 'files'",
            "error: tls.mode = \"files\" is set and tls.cert_file or tls.cert_dir is not",
        ),
        (
            "tls.mode = 'self-signed'",
            "error: steading.toml, line 2: tls.mode must be one of local_ca, acme, files",
        ),
        (
            "tls.listen = '443'",
            "error: steading.toml, line 2: tls.listen must be an address and a port, such as \"127.0.0.1:8787\"",
        ),
        (
            "acme.directory = 'http://ca.example/dir'",
            "error: steading.toml, line 2: acme.directory must be an address that begins with \"https://\"",
        ),
        (
            "acme.contact = 'nobody'",
            "error: steading.toml, line 2: acme.contact must be an address such as \"admin@example.com\"",
        ),
        (
            "domains.dns = 'ns.example'",
            "error: steading.toml, line 2: domains.dns must be addresses such as \"192.0.2.53:53\"",
        ),
        (
            "domains.addresses = '203.0.113.7 x'",
            "error: steading.toml, line 2: domains.addresses must be addresses such as \"203.0.113.7, 2001:db8::7\"",
        ),
    ] {
        assert_eq!(said(settings), wanted);
    }
}
