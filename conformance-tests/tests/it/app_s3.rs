//! An installation whose files and backups are in a real S3 service: everything works as it does without, and the service
//! holds what is needed and nothing else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use conformance_tests::{App, Person};
use serde_json::{Value, json};
use testkit::{Client, SeaweedFs, Steading, require};

const MEGABYTE: usize = 1 << 20;

fn manifest() -> Value {
    json!({
        "auth": { "methods": ["anonymous"] },
        "database": { "tables": { "log": { "columns": { "n": "int!" }, "access": "admin_only" } } },
        "storage": { "buckets": { "docs": { "access": "public_read" } } },
        "backups": { "every": "1h", "keep": 3 },
        "site": { "files": { "index.html": "in S3" } },
    })
}

fn put(person: &Person, path: &str, bytes: Vec<u8>) {
    let request = person.request("PUT", &format!("/_/files/docs/{path}"));
    let put = request.header("content-type", "application/octet-stream").body(bytes).send().unwrap();
    assert!(matches!(put.status, 200 | 201), "{path}: {:?}", put.text());
}

fn delete(person: &Person, path: &str) {
    assert_eq!(person.ask("DELETE", &format!("/_/files/docs/{path}")).unwrap().status, 204);
}

/// The bytes at each path; none where there is no file.
fn files(app: &App, paths: &[&str]) -> Vec<Option<Vec<u8>>> {
    let get = |path: &&str| {
        let answer = app.request("GET", &format!("/_/files/docs/{path}")).send().unwrap();
        assert!(matches!(answer.status, 200 | 404), "{path}: {:?}", answer.text());
        (answer.status == 200).then_some(answer.body)
    };
    paths.iter().map(get).collect()
}

/// Calls a tool that wants a dry run first.
fn confirmed(client: &Client, tool: &str, input: &Value) -> Value {
    let with = |more: Value| {
        let mut input = input.clone();
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        client.output(tool, &input).unwrap()
    };
    let plan = with(json!({ "dry_run": true }));
    with(json!({ "confirm": plan["confirm"] }))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn import(client: &Client, slug: &str, archive: Vec<u8>) -> App {
    let made = client.request("POST", &format!("/v1/envs/{slug}/import")).body(archive).send().unwrap();
    assert_eq!(made.status, 201, "{:?}", made.text());
    App::new(made.json().unwrap()["url"].as_str().unwrap())
}

#[test]
fn snapshots_branches_archives_and_backups_have_the_files_that_are_in_s3() {
    let seaweed = require(SeaweedFs::start());
    let mut launch = Steading::launch();
    for (name, value) in seaweed.settings() {
        launch = launch.env(name, value);
    }
    let server = require(launch.env("STEADING_ENVIRONMENTS_UPKEEP_S", "1").start());
    let (client, operator) = (server.client(), server.client().without_env());
    let made = client.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let app = App::new(made["url"].as_str().unwrap());
    let env = text(&client.output("app_describe", &json!({})).unwrap()["env"]);
    let ada = app.stranger().unwrap();
    let stored = |env: &str| seaweed.names(&format!("{env}/files")).unwrap().len();

    let large: Vec<u8> = (0..12 * MEGABYTE).map(|n| (n % 251) as u8).collect();
    put(&ada, "a", b"one".to_vec());
    put(&ada, "large", large.clone());
    let part =
        app.request("GET", "/_/files/docs/large").header("range", "bytes=6000000-6000009").send().unwrap();
    assert_eq!((part.status, part.body.as_slice()), (206, &large[6_000_000..6_000_010]));
    assert_eq!(stored(&env), 2);

    // A moment, what comes after it, and the way back and forth.
    client.output("env_snapshot", &json!({ "name": "first" })).unwrap();
    put(&ada, "a", b"two".to_vec());
    delete(&ada, "large");
    let paths = ["a", "large"];
    let (first, second) = ([Some(b"one".to_vec()), Some(large.clone())], [Some(b"two".to_vec()), None]);
    assert_eq!(files(&app, &paths), second);
    assert_eq!(stored(&env), 3, "what the snapshot needs stays");
    let back = confirmed(&client, "env_restore", &json!({ "snapshot": "first" }));
    assert_eq!(files(&app, &paths), first);
    confirmed(&client, "env_restore", &json!({ "snapshot": back["undo"] }));
    assert_eq!(files(&app, &paths), second);

    // Branches, of now and of then, which outlive what they come from and leave nothing.
    let branch = |input: Value| {
        let made = client.output("env_branch", &input).unwrap();
        (text(&made["env"]), text(&made["slug"]), App::new(made["url"].as_str().unwrap()))
    };
    let (now, then) = (branch(json!({})), branch(json!({ "snapshot": "first" })));
    assert_eq!((files(&now.2, &paths), files(&then.2, &paths)), (second.to_vec(), first.to_vec()));
    assert_eq!((stored(&now.0), stored(&then.0)), (1, 2));
    delete(&ada, "a");
    assert_eq!(files(&now.2, &paths), second);
    confirmed(&client, "resource_delete", &json!({ "kind": "snapshot", "name": "first" }));
    assert_eq!(files(&then.2, &paths), first);
    confirmed(&operator, "env_delete", &json!({ "env": now.1 }));
    assert_eq!((stored(&now.0), files(&then.2, &paths)), (0, first.to_vec()));

    // Out of S3 and into a directory, and back again.
    let export = operator.request("GET", &format!("/v1/envs/{}/export", then.1)).send().unwrap();
    assert_eq!(export.status, 200);
    let elsewhere = require(Steading::start());
    let moved = import(&elsewhere.client().without_env(), "moved", export.body);
    assert_eq!(files(&moved, &paths), first);
    let export = elsewhere.client().without_env().request("GET", "/v1/envs/moved/export").send().unwrap();
    let returned = import(&operator, "returned", export.body.clone());
    assert_eq!(files(&returned, &paths), first);
    let mut damaged = export.body;
    let at = damaged.len() - 2 * MEGABYTE;
    damaged[at] ^= 1;
    let refused = operator.request("POST", "/v1/envs/never/import").body(damaged).send().unwrap();
    assert_eq!(refused.status, 400);
    let known: Vec<Value> =
        operator.output("env_list", &json!({})).unwrap()["environments"].as_array().unwrap().clone();
    let known: Vec<String> = known.iter().map(|env| text(&env["env"])).collect();
    let folders = seaweed.names("").unwrap();
    let strangers: Vec<_> =
        folders.iter().filter(|name| name.starts_with("env_") && !known.contains(name)).collect();
    let left: Vec<_> = strangers.iter().filter(|name| stored(name) > 0).collect();
    assert!(left.is_empty(), "nobody's files are left: {left:?}");

    backups_under_load(&server, &app, &ada, &env, &elsewhere);
}

/// Backups in the bucket, made while others write: each is of one moment, with its files, and restores elsewhere.
fn backups_under_load(server: &Steading, app: &App, ada: &Person, env: &str, elsewhere: &Steading) {
    let (client, operator) = (server.client(), server.client().without_env());
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let path = "/v1/envs/default/backups";
    let made: Vec<(Value, u64, u64)> = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1_u64.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                put(ada, "n", n.to_string().into_bytes());
                client
                    .output("db_execute", &json!({ "sql": "INSERT INTO log (n) VALUES (?1)", "params": [n] }))
                    .unwrap();
                written.store(n, Ordering::SeqCst);
            }
        });
        let made = (0..6).map(|_| {
            let least = written.load(Ordering::SeqCst);
            let made = operator.request("POST", path).send().unwrap();
            let most = written.load(Ordering::SeqCst) + 1;
            assert_eq!(made.status, 201, "{:?}", made.text());
            (made.json().unwrap(), least, most)
        });
        let made = made.collect();
        stop.store(true, Ordering::SeqCst);
        made
    });
    let listed = || {
        let listed = operator.request("GET", path).send().unwrap().json().unwrap();
        listed["backups"].as_array().unwrap().iter().map(|it| text(&it["backup"])).collect::<Vec<_>>()
    };
    let kept: Vec<String> = made.iter().rev().take(3).map(|(it, ..)| text(&it["backup"])).collect();
    let gone = testkit::eventually(std::time::Duration::from_secs(30), || (listed() == kept).then_some(()));
    assert!(gone.is_some(), "{:?} are there, {kept:?} are to be kept", listed());
    let there = elsewhere.client().without_env();
    for (n, (backup, least, most)) in made.iter().rev().take(3).enumerate() {
        let read = operator.request("GET", &format!("{path}/{}", text(&backup["backup"]))).send().unwrap();
        assert_eq!((read.status, json!(read.body.len())), (200, backup["bytes"].clone()));
        let slug = format!("restored-{n}");
        let restored = import(&there, &slug, read.body);
        let sql = json!({ "sql": "SELECT count(*), max(n) FROM log" });
        let seen = elsewhere.client().in_env(&slug).output("db_query", &sql).unwrap()["rows"][0].clone();
        let row = seen[0].as_u64().unwrap();
        assert!(seen[1] == row && (*least..=*most).contains(&row), "{seen}, {least} to {most} were written");
        let file = files(&restored, &["n"]).pop().flatten().unwrap();
        let file: u64 = String::from_utf8(file).unwrap().parse().unwrap();
        assert!(file == row || file == row + 1, "{file} and {row} have never been together");
    }
    assert_eq!(files(app, &["large"]), [None]);
    assert!(!env.is_empty());
}
