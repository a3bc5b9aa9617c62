//! Commands against the real platform: the one that serves the data directory, or the one they run themselves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::platform::{Serving, err, out, run, steading};

/// Runs a command with `--json` and gives its result.
fn result(dir: &Path, args: &[&str]) -> Value {
    let output = steading(dir).args(args).args(["--json", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", out(&output), err(&output));
    serde_json::from_str(&out(&output)).unwrap()
}

/// An app with a table and a site.
fn app(dir: &Path) {
    std::fs::create_dir(dir.join("site")).unwrap();
    std::fs::write(dir.join("site/index.html"), "<h1>Hi</h1>").unwrap();
    std::fs::write(dir.join("site/large.txt"), "x".repeat(100_000)).unwrap();
    let manifest = json!({
        "name": "Shop",
        "database": { "tables": { "items": { "columns": { "title": "text" } } } },
        "site": { "dir": "site" },
    });
    std::fs::write(dir.join("steading.json"), manifest.to_string()).unwrap();
}

#[test]
fn commands_run_the_platform_themselves_and_leave_what_they_did() {
    let dir = tempfile::tempdir().unwrap();
    app(dir.path());
    let applied = result(dir.path(), &["apply"]);
    assert_eq!((&applied["release"], &applied["changed"]), (&json!(1), &json!(true)));
    let again = result(dir.path(), &["apply"]);
    assert_eq!((&again["release"], &again["changed"]), (&json!(1), &json!(false)));
    result(dir.path(), &["call", "db_execute", r#"{"sql":"INSERT INTO items (title) VALUES ('tea')"}"#]);
    let rows = result(dir.path(), &["call", "db_query", r#"{"sql":"SELECT title FROM items"}"#]);
    assert_eq!(rows["rows"], json!([["tea"]]));
}

#[test]
fn commands_use_the_process_that_serves_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), &[]);
    app(dir.path());
    let applied = result(dir.path(), &["apply"]);
    let port = serving.addr().rsplit(':').next().unwrap();
    assert_eq!(applied["url"], format!("http://default.localhost:{port}"));
    let mut stream = TcpStream::connect(serving.addr()).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nhost: default.localhost:{port}\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.ends_with("<h1>Hi</h1>"), "{page}");
}

#[test]
fn losing_data_needs_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let _serving = Serving::start(dir.path(), &[]);
    app(dir.path());
    result(dir.path(), &["apply"]);
    result(dir.path(), &["call", "db_execute", r#"{"sql":"INSERT INTO items (title) VALUES ('tea')"}"#]);
    let manifest = json!({ "database": { "tables": { "items": { "columns": { "title": "int" } } } } });
    std::fs::write(dir.path().join("steading.json"), manifest.to_string()).unwrap();
    let refused = run(dir.path(), &["apply"]);
    assert_eq!(refused.status.code(), Some(5), "{}", err(&refused));
    let hint = err(&refused).lines().last().unwrap().to_owned();
    let shown = hint.split("apply what was shown: ").nth(1).unwrap();
    let args: Vec<_> = std::iter::once("apply").chain(shown.split(' ')).collect();
    assert_eq!(result(dir.path(), &args)["release"], 2);
    assert_eq!(result(dir.path(), &["rollback"])["release"], 1);
}

#[test]
fn a_key_is_of_the_tenant_unless_it_is_bound() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), &[]);
    let of_tenant = result(dir.path(), &["key", "create", "ci"]);
    let bound = result(dir.path(), &["key", "create", "app", "--bound", "--scope", "db:read"]);
    assert_eq!(of_tenant["env"], Value::Null);
    assert!(bound["env"].as_str().unwrap().starts_with("env_"), "{bound}");
    for key in [&of_tenant, &bound] {
        let mut command = steading(dir.path());
        command.env("STEADING_URL", serving.url()).env("STEADING_KEY", key["key"].as_str().unwrap());
        let output = command.args(["call", "db_query", r#"{"sql":"SELECT 1"}"#, "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    }
    let revoked = result(dir.path(), &["key", "revoke", bound["id"].as_str().unwrap()]);
    assert_eq!(revoked, json!({ "revoked": true }));
    let mut command = steading(dir.path());
    command.env("STEADING_URL", serving.url()).env("STEADING_KEY", bound["key"].as_str().unwrap());
    assert_eq!(
        command.args(["call", "db_query", r#"{"sql":"SELECT 1"}"#]).output().unwrap().status.code(),
        Some(3)
    );
}

#[test]
fn environments_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let _serving = Serving::start(dir.path(), &[]);
    assert_eq!(result(dir.path(), &["env", "create", "shop"])["slug"], "shop");
    let slugs = |list: &Value| -> Vec<String> {
        let environments = list["environments"].as_array().unwrap();
        environments.iter().map(|env| env["slug"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(slugs(&result(dir.path(), &["env", "list"])), ["default", "shop"]);
    assert_eq!(run(dir.path(), &["env", "create", "shop"]).status.code(), Some(5));
    assert_eq!(result(dir.path(), &["env", "delete", "shop", "--yes"])["deleted"], true);
    assert_eq!(slugs(&result(dir.path(), &["env", "list"])), ["default"]);
    let missing = run(dir.path(), &["call", "app_describe", "--env", "shop"]);
    assert_eq!(missing.status.code(), Some(4), "{}", err(&missing));
}

#[test]
fn a_person_is_shown_the_operator_key_once() {
    let dir = tempfile::tempdir().unwrap();
    let banner = || {
        let mut command = steading(dir.path());
        command.args(["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut said: Vec<String> = lines.by_ref().take_while(|line| line != "Stop with Ctrl-C.").collect();
        child.kill().unwrap();
        said.extend(lines);
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        child.wait().unwrap();
        (said.join("\n"), log)
    };
    let (first, log) = banner();
    let path = dir.path().join(".steading/operator.key");
    let key = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(first.matches(key.trim()).count(), 1, "{first}");
    let (second, second_log) = banner();
    for text in [second, log, second_log] {
        assert!(!text.contains(key.trim()), "{text}");
    }
}

#[test]
fn a_program_is_given_the_key_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let key = Serving::start(dir.path(), &[]).ready["key"].clone();
    assert!(key.is_string());
    assert_eq!(Serving::start(dir.path(), &[]).ready["key"], key);
}

#[test]
fn a_call_in_flight_is_answered_after_the_signal() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path(), &[]);
    let mut stream = TcpStream::connect(serving.addr()).unwrap();
    let body = r#"{"sql":"SELECT 'drained'"}"#;
    write!(
        stream,
        "POST /v1/tools/db_query HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nsteading-env: default\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        serving.addr(),
        serving.ready["key"].as_str().unwrap(),
        body.len(),
    )
    .unwrap();
    // The server asks for the body when it is in the middle of the call.
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    serving.signal("TERM");
    while TcpStream::connect(serving.addr()).is_ok() {
        std::thread::yield_now();
    }
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    reader.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("HTTP/1.1 200 OK") && answer.contains(r#"[["drained"]]"#), "{answer}");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_agent_that_starts_the_server_itself_sees_the_tools() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = steading(dir.path());
    command.args(["mcp", "--listen", "127.0.0.1:0"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ask = |id: u64, method: &str, params: Value| -> Value {
        writeln!(stdin, "{}", json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .unwrap();
        serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
    };
    let hello = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "t", "version": "1" },
    });
    assert_eq!(ask(1, "initialize", hello)["result"]["serverInfo"]["name"], "steading");
    let tools = ask(2, "tools/list", json!({}));
    assert!(tools["result"]["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "app_apply"));
    let called = ask(3, "tools/call", json!({ "name": "db_query", "arguments": { "sql": "SELECT 7" } }));
    assert_eq!(called["result"]["structuredContent"]["rows"], json!([[7]]));
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
