//! `serve`: one line when ready, one process per data directory, an orderly end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;

use crate::platform::{Serving, err, out, run, steading};

/// A plain GET, and the status line of its answer.
fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn exactly_one_line_says_that_it_is_ready_and_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path(), &[]);
    let keys: Vec<_> = serving.ready.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["url", "mcp_url", "data_dir", "env", "key"]);
    assert_eq!(serving.ready["env"], "default");
    assert_eq!(serving.ready["mcp_url"], format!("{}/mcp/default", serving.url()));
    let data_dir = std::path::absolute(dir.path().join(".steading")).unwrap();
    assert_eq!(serving.ready["data_dir"], data_dir.to_str().unwrap());
    assert_eq!(get(serving.addr(), "/healthz"), "HTTP/1.1 200 OK");
    serving.signal("TERM");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    serving.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn both_signals_end_it_and_the_directory_is_free_again() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        let mut serving = Serving::start(dir.path(), &[]);
        serving.signal(signal);
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{signal}");
    }
    let mode = std::fs::metadata(dir.path().join(".steading")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn after_a_kill_it_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = Serving::start(dir.path(), &[]);
    let url = first.url().to_owned();
    drop(first);
    let second = Serving::start(dir.path(), &[]);
    let note: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join(".steading/lock")).unwrap()).unwrap();
    assert_eq!(note["url"], second.url());
    assert_ne!(note["url"], url);
}

#[test]
fn a_second_one_on_the_same_data_directory_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Serving::start(dir.path(), &[]);
    let output = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(
        err(&output),
        format!(
            "error: the data directory .steading is in use by process {}, which serves {}\n  \
             hint: stop that process, or choose another directory with --data-dir\n",
            first.child.id(),
            first.url()
        )
    );
    assert_eq!(get(first.addr(), "/healthz"), "HTTP/1.1 200 OK");
}

#[test]
fn of_many_started_at_once_one_serves_and_the_others_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut children: Vec<_> = (0..6)
        .map(|_| {
            let mut command = steading(dir.path());
            command.args(["serve", "--json", "--listen", "127.0.0.1:0"]);
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let mut serving = Vec::new();
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        match said["url"].is_string() {
            true => serving.push(child),
            false => {
                assert_eq!(said["code"], "conflict", "{said}");
                assert_eq!(child.wait().unwrap().code(), Some(5));
            }
        }
    }
    assert_eq!(serving.len(), 1);
    for child in serving {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_taken_port_is_said_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let output = run(dir.path(), &["serve", "--listen", &listen]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(out(&output), "");
    assert_eq!(
        err(&output),
        format!(
            "error: cannot listen on {listen}: the port is taken\n  \
             hint: choose another port with --listen, or a free one with --listen 127.0.0.1:0\n"
        )
    );
    assert!(!dir.path().join(".steading").exists());
}

#[test]
fn a_data_directory_that_cannot_be_made_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let output = run(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--data-dir", "file/data"]);
    assert_eq!(output.status.code(), Some(7), "{}", err(&output));
    assert!(err(&output).contains("the data directory file/data cannot be used"), "{}", err(&output));
}
