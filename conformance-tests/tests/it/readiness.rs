//! Whether the platform says that it is ready, as it is: with its database, its disk and its sandboxes, and until it stops; and
//! what a copy of its data directory is good for.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use conformance_tests::Metrics;
use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Steading, eventually, require, temporary};

const LIMIT: Duration = Duration::from_secs(20);

fn ready(steading: &Steading) -> Response {
    Request::get(&format!("{}/readyz", steading.ready().url)).send().unwrap()
}

/// The parts that are not there; none where it is ready.
fn lacking(answer: &Response) -> Vec<String> {
    let body = answer.json().unwrap();
    if answer.status == 200 {
        assert_eq!(body, json!({ "status": "ready" }));
        return Vec::new();
    }
    assert_eq!((answer.status, &body["code"]), (503, &json!("unavailable")), "{body}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    let parts = body["not_ready"].as_array().unwrap().iter();
    parts.map(|part| part["part"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn it_is_not_ready_without_its_database_or_its_directory() {
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let steading = require(Steading::launch().data_dir(&data).start());
    assert_eq!(lacking(&ready(&steading)), [""; 0]);
    let (file, away) = (data.join("control.db"), directory.path().join("away"));
    fs::rename(&file, &away).unwrap();
    let answer = ready(&steading);
    assert_eq!(lacking(&answer), ["control_database"]);
    let said = answer.text().unwrap();
    for secret in [data.to_str().unwrap(), &steading.ready().key] {
        assert!(!said.contains(secret), "{said}");
    }
    let metrics = Metrics::of(&steading.client().without_env()).unwrap();
    let part = |part: &str| metrics.get(&format!("steading_ready{{part=\"{part}\"}}"));
    assert_eq!(["control_database", "disk", "sandboxes", "running"].map(part), [0.0, 1.0, 1.0, 1.0]);
    assert_eq!(Request::get(&format!("{}/healthz", steading.ready().url)).send().unwrap().status, 200);
    fs::rename(&away, &file).unwrap();
    assert_eq!(lacking(&ready(&steading)), [""; 0]);
    fs::rename(&data, &away).unwrap();
    assert_eq!(lacking(&ready(&steading)), ["control_database", "disk"]);
    fs::rename(&away, &data).unwrap();
    assert_eq!(lacking(&ready(&steading)), [""; 0]);
}

#[test]
fn it_is_not_ready_once_nothing_makes_sandboxes_any_more() {
    let steading = require(Steading::start());
    assert_eq!(lacking(&ready(&steading)), [""; 0]);
    let of = format!("/proc/{0}/task/{0}/children", steading.id());
    // One that starts the process that makes sandboxes, and nothing else: it is there from the beginning.
    let children = fs::read_to_string(of).unwrap();
    let starter = children.split_whitespace().find(|id| {
        fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.contains("sandbox-starter"))
    });
    let starter = starter.unwrap_or_else(|| panic!("{children:?}"));
    assert!(Command::new("kill").args(["-KILL", starter]).status().unwrap().success());
    let lacks = eventually(LIMIT, || Some(lacking(&ready(&steading))).filter(|lacking| !lacking.is_empty()));
    assert_eq!(lacks.unwrap(), ["sandboxes"]);
    // All else goes on.
    steading.client().output("db_query", &json!({ "sql": "SELECT 1" })).unwrap();
}

#[test]
fn whoever_asks_while_it_stops_is_told_so() {
    let mut steading = require(Steading::start());
    let authority = steading.authority().to_owned();
    let mut half = TcpStream::connect(&authority).unwrap();
    half.write_all(format!("GET /readyz HTTP/1.1\r\nhost: {authority}\r\n").as_bytes()).unwrap();
    // It has been taken in when another one that came later is answered.
    let open = || Metrics::of(&steading.client()).unwrap().get("steading_connections_open");
    eventually(LIMIT, || (open() >= 2.0).then_some(())).unwrap();
    assert_eq!(lacking(&ready(&steading)), [""; 0]);
    let id = steading.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    // Another server may get the port by then.
    eventually(LIMIT, || {
        let asked = Request::new("GET", &format!("http://{authority}/readyz")).send();
        asked.map_or(true, |answer| answer.status != 200).then_some(())
    })
    .unwrap();
    half.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["not_ready"], json!([{ "part": "running", "message": "the platform was told to stop" }]));
    drop(half);
    assert!(steading.stop().is_some_and(|status| status.success()));
}

#[test]
fn a_copy_of_the_data_directory_of_a_platform_that_has_stopped_is_the_platform() {
    let directory = temporary().unwrap();
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let mut steading = require(Steading::launch().data_dir(&data).start());
    let manifest = json!({
        "database": { "tables": { "notes": { "columns": { "text": "text!" } } } },
        "site": { "files": { "index.html": "kept" } },
    });
    let client = steading.client();
    client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    client.output("db_execute", &json!({ "sql": "INSERT INTO notes (text) VALUES ('kept')" })).unwrap();
    client.output("secret_set", &json!({ "name": "KEY", "value": "sealed" })).unwrap();
    let made = client.request("POST", "/v1/keys").json(&json!({ "name": "kept" })).send().unwrap();
    let key = made.json().unwrap()["key"].as_str().unwrap().to_owned();
    assert!(steading.stop().is_some_and(|status| status.success()));
    assert!(Command::new("cp").arg("-a").arg(&data).arg(&copy).status().unwrap().success());
    fs::remove_dir_all(&data).unwrap();

    let restored = require(Steading::launch().data_dir(&copy).start());
    assert_eq!(restored.ready().key, steading.ready().key);
    let client = restored.client().with_key(&key);
    let rows = client.output("db_query", &json!({ "sql": "SELECT text FROM notes" })).unwrap();
    assert_eq!(rows["rows"], json!([["kept"]]));
    let port = restored.authority().rsplit(':').next().unwrap();
    let site = Request::get(&format!("http://default.localhost:{port}/")).send().unwrap();
    assert_eq!((site.status, site.text().unwrap()), (200, "kept"));
    let app = client.output("app_describe", &json!({})).unwrap();
    assert_eq!(app["secrets"], json!(["KEY"]));
    assert_eq!(lacking(&ready(&restored)), [""; 0]);
}
