//! Backups: made by themselves, of one moment, and good for another server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Client, Steading, require};

fn backups(client: &Client) -> Vec<Value> {
    let answer = client.request("GET", "/v1/envs/default/backups").send().unwrap();
    assert_eq!(answer.status, 200);
    answer.json().unwrap()["backups"].as_array().unwrap().clone()
}

#[test]
fn a_backup_made_by_itself_under_load_is_of_one_moment_and_restores_elsewhere() {
    let server = require(Steading::launch().env("STEADING_ENVIRONMENTS_UPKEEP_S", "1").start());
    let (client, operator) = (server.client(), server.client().without_env());
    let manifest = json!({
        "database": { "migrations": [{ "name": "log", "sql": "CREATE TABLE log (n INTEGER PRIMARY KEY, twice INTEGER)" }] },
        "site": { "files": { "index.html": "backed up" } },
        "backups": { "every": "1h", "keep": 2 },
        "lifecycle": { "logs": { "age": "1d" }, "snapshots": { "keep": 1 } },
    });
    client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let made = std::thread::scope(|scope| {
        scope.spawn(|| {
            let sql =
                "INSERT INTO log SELECT coalesce(max(n), 0) + 1, 2 * (coalesce(max(n), 0) + 1) FROM log";
            while !stop.load(Ordering::SeqCst) {
                client.output("db_execute", &json!({ "sql": sql })).unwrap();
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        });
        let until = Instant::now() + Duration::from_secs(60);
        let mut made = backups(&operator);
        while made.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
            made = backups(&operator);
        }
        let before = acknowledged.load(Ordering::SeqCst);
        let now = operator.request("POST", "/v1/envs/default/backups").send().unwrap();
        let after = acknowledged.load(Ordering::SeqCst) + 1;
        stop.store(true, Ordering::SeqCst);
        assert_eq!((made.len(), now.status), (1, 201));
        [(made[0].clone(), 0, after), (now.json().unwrap(), before, after)]
    });
    let seen = client.output("app_describe", &json!({})).unwrap()["backups"].clone();
    assert_eq!((&seen["every"], &seen["there"]), (&json!("1h"), &json!(2)));
    assert!(seen["latest"].is_string(), "{seen}");
    let told = client.output("logs_query", &json!({ "text": "backup" })).unwrap()["entries"].clone();
    let told = told.as_array().unwrap().iter().filter(|entry| entry["level"] == "info").count();
    assert_eq!(told, 1, "the one that was made by itself");
    let elsewhere = require(Steading::start());
    for (n, (backup, least, most)) in made.iter().enumerate() {
        let id = backup["backup"].as_str().unwrap();
        // From the store itself, as an operator has it who has lost everything else.
        let path = std::path::Path::new(&server.ready().data_dir).join("backups");
        let path = path.join(client.output("app_describe", &json!({})).unwrap()["env"].as_str().unwrap());
        let archive = std::fs::read(path.join(format!("{id}.tar"))).unwrap();
        let shown = operator.request("GET", &format!("/v1/envs/default/backups/{id}")).send().unwrap();
        assert_eq!((shown.status, shown.body == archive), (200, true));
        let slug = format!("restored-{n}");
        let there = elsewhere.client().without_env();
        let made = there.request("POST", &format!("/v1/envs/{slug}/import")).body(archive).send().unwrap();
        assert_eq!(made.status, 201, "{:?}", made.text());
        let there = elsewhere.client().in_env(&slug);
        let sql = "SELECT count(*), max(n), sum(twice = 2 * n) FROM log";
        let seen = there.output("db_query", &json!({ "sql": sql })).unwrap()["rows"][0].clone();
        let rows = seen[0].as_u64().unwrap();
        assert!((*least..=*most).contains(&rows), "{rows} rows, {least} to {most} were acknowledged");
        assert!(rows == 0 || seen == json!([rows, rows, rows]), "not a moment that there was: {seen}");
    }
    let missing = operator.request("GET", "/v1/envs/default/backups/snap_0").send().unwrap();
    assert_eq!(missing.status, 404);
    for path in ["/v1/envs/default/backups/..%2F..%2Foperator.key", "/v1/envs/nowhere/backups"] {
        assert_eq!(operator.request("GET", path).send().unwrap().status, 404, "{path}");
    }
}

#[test]
fn a_backup_that_cannot_be_made_is_told_to_the_makers() {
    let server = require(Steading::launch().env("STEADING_ENVIRONMENTS_UPKEEP_S", "1").start());
    let client = server.client();
    let store = std::path::Path::new(&server.ready().data_dir).join("backups");
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::write(&store, "no directory").unwrap();
    client.output("app_apply", &json!({ "manifest": { "backups": { "every": "1h" } } })).unwrap();
    let told = || {
        let wanted = json!({ "text": "a backup that was due could not be made", "level": "error" });
        let entries = client.output("logs_query", &wanted).unwrap()["entries"].as_array().unwrap().len();
        (entries > 0).then_some(entries)
    };
    assert_eq!(testkit::eventually(Duration::from_secs(60), told), Some(1));
    let seen = client.output("app_describe", &json!({})).unwrap();
    assert_eq!(seen["backups"], json!({ "every": "1h" }), "nobody knows how many there are");
    let advice = seen["advice"].to_string();
    assert!(advice.contains("the store of backups does not answer, this says why"), "{advice}");
}
