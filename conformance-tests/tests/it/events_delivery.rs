//! Events while things go wrong around them: a busy database, no room for a process, a gateway that dies, an environment that
//! is deleted.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conformance_tests::{Place, home_beside};
use serde_json::{Value, json};
use testkit::http::Request;
use testkit::{Client, Fsync, Postgres, Steading, eventually, require};

const PATIENCE: Duration = Duration::from_secs(90);

/// Takes as long as the row says, and notes what it was told of: in its log at once, in a row at the end.
const TOLD: &str = r#"
export default {
  async event(event, env) {
    console.log("began", event.row.text, "attempt", event.attempt);
    await new Promise((over) => setTimeout(over, event.row.ms ?? 0));
    console.log("ended", event.row.text);
    if (event.table === "notes") await env.db("seen").create({ event: event.id, text: event.row.text });
  },
};
"#;

const HOG: &str = r#"
export default {
  async fetch(request) {
    console.log("hogs");
    await new Promise((over) => setTimeout(over, Number(new URL(request.url).searchParams.get("ms"))));
    return new Response("over");
  },
};
"#;

fn app() -> Value {
    let row = json!({ "columns": { "text": "text!", "ms": "int" }, "access": "admin_only" });
    let events = |tables: &[&str]| -> Value {
        tables.iter().map(|it| json!({ "on": "rows", "table": it, "do": ["create"], "retries": 0 })).collect()
    };
    json!({ "manifest": {
        "database": { "tables": {
            "notes": row, "quiet": row, "other": row,
            "seen": { "columns": { "event": "text!", "text": "text!" }, "access": "admin_only" },
        } },
        "functions": {
            "told": { "files": { "index.ts": TOLD }, "events": events(&["notes", "quiet", "other"]) },
            "hog": { "files": { "index.ts": HOG }, "access": "public", "timeout_s": 120, "concurrency": 1 },
        },
    } })
}

fn insert(client: &Client, table: &str, text: &str, ms: u64) {
    let sql = format!("INSERT INTO {table} (text, ms) VALUES (?1, ?2)");
    client.output("db_execute", &json!({ "sql": sql, "params": [text, ms] })).unwrap();
}

/// What the function was told of, oldest first, each as often as it was.
fn seen(client: &Client) -> Vec<String> {
    let sql = "SELECT group_concat(text, ' ') FROM (SELECT text FROM seen ORDER BY created_at, rowid)";
    let rows = client.output("db_query", &json!({ "sql": sql })).unwrap();
    let all = rows["rows"][0][0].as_str().unwrap_or_default().to_owned();
    all.split_whitespace().map(str::to_owned).collect()
}

fn waits(client: &Client) -> Value {
    client.output("app_describe", &json!({})).unwrap()["functions"]["told"]["waiting"].clone()
}

/// The lines of the log that have that text.
fn logged(client: &Client, text: &str) -> Vec<String> {
    let found = client.output("logs_query", &json!({ "text": text, "limit": 50 })).unwrap();
    let lines = found["entries"].as_array().unwrap().iter();
    lines.map(|it| it["message"].as_str().unwrap().to_owned()).collect()
}

fn is_told(client: &Client, text: &str) {
    let told = eventually(PATIENCE, || (!logged(client, text).is_empty()).then_some(()));
    let lines = || client.output("logs_query", &json!({ "limit": 30 })).unwrap();
    assert!(told.is_some(), "{text}: {:#}", lines());
}

fn nothing_waits(client: &Client) {
    let over = eventually(PATIENCE, || waits(client).is_null().then_some(()));
    assert!(over.is_some(), "{} wait, seen {:?}", waits(client), seen(client));
}

/// The database of the only environment.
fn database(data_dir: &Path) -> std::path::PathBuf {
    let mut envs = std::fs::read_dir(data_dir.join("envs")).unwrap();
    let env = envs.next().unwrap().unwrap().path();
    assert!(envs.next().is_none());
    let mut files = std::fs::read_dir(&env).unwrap().map(|it| it.unwrap().path());
    files.find(|it| it.extension().is_some_and(|it| it == "db")).unwrap()
}

#[test]
fn what_was_told_while_the_database_is_busy_is_not_told_again_and_breaks_off_no_other() {
    let server = require(Steading::start());
    let client = server.client();
    client.output("app_apply", &app()).unwrap();
    insert(&client, "quiet", "q0", 0);
    is_told(&client, "ended q0");
    // The one ends while somebody else writes, for longer than a turn or a call's patience lasts; the other goes on longer.
    insert(&client, "quiet", "q1", 2_000);
    insert(&client, "other", "o1", 30_000);
    is_told(&client, "began q1");
    is_told(&client, "began o1");
    let file = database(&server.ready().data_dir);
    let holder = ["BEGIN IMMEDIATE;", ".shell sleep 20", "ROLLBACK;"];
    let held = Command::new("sqlite3").arg(file).args(holder).status().unwrap();
    assert!(held.success());
    is_told(&client, "ended q1");
    is_told(&client, "ended o1");
    nothing_waits(&client);
    for text in ["began q1", "began o1"] {
        assert_eq!(logged(&client, text).len(), 1, "{text}");
    }
    assert!(server.log().contains("a function could not be told of events"), "it was broken off");
    insert(&client, "quiet", "q2", 0);
    is_told(&client, "ended q2");
}

#[test]
fn where_there_is_no_process_for_it_a_function_is_told_later() {
    let server = require(Steading::launch().env("STEADING_FUNCTIONS_PROCESSES", "2").start());
    let client = server.client();
    client.output("app_apply", &app()).unwrap();
    let url = client.output("app_describe", &json!({})).unwrap()["url"].as_str().unwrap().to_owned();
    let url = format!("{}/_/fn/hog?ms=25000", url.trim_end_matches('/'));
    let hogs: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn({
                let url = url.clone();
                // Where the apply's own processes are still there, there is no room yet.
                move || {
                    eventually(PATIENCE, || {
                        Request::new("GET", &url).send().ok().filter(|it| it.status != 503)
                    })
                }
            })
        })
        .collect();
    let both = eventually(PATIENCE, || (logged(&client, "hogs").len() == 2).then_some(()));
    assert!(both.is_some());
    insert(&client, "notes", "a", 0);
    insert(&client, "notes", "b", 0);
    is_told(&client, "told could not be told of create of notes yet: this machine has no room");
    assert_eq!(seen(&client), [""; 0]);
    nothing_waits(&client);
    assert_eq!(seen(&client), ["a", "b"]);
    assert_eq!(logged(&client, "attempt 1").len(), 2, "it was no attempt");
    hogs.into_iter().for_each(|hog| drop(hog.join().unwrap()));
}

#[test]
fn of_two_gateways_one_tells_each_event_in_order_also_where_the_other_dies_over_it() {
    let postgres = require(Postgres::start(Fsync::Off));
    let launch = || Steading::launch().env("STEADING_DATABASE_URL", postgres.url("postgres"));
    let mut one = require(launch().start());
    one.client().output("app_apply", &app()).unwrap();
    let other = home_beside(&one).unwrap();
    let two = require(launch().data_dir(other.path()).start());
    let (first, client) = (one.client(), two.client());
    let texts = |from: usize, to: usize| (from..to).map(|n| format!("n{n}")).collect::<Vec<_>>();
    for (n, text) in texts(0, 20).iter().enumerate() {
        insert(if n % 2 == 0 { &first } else { &client }, "notes", text, 0);
    }
    nothing_waits(&client);
    assert_eq!(seen(&client), texts(0, 20), "each once, in order");
    // The one that is told is killed over it.
    let idle = eventually(PATIENCE, || {
        let free = postgres.execute("SELECT count(*) FROM listeners WHERE until = 0").ok()?;
        (free.trim() == "1").then_some(())
    });
    assert!(idle.is_some(), "who has nothing to tell lets go of it");
    for text in texts(20, 60) {
        insert(&first, "notes", &text, 200);
    }
    assert!(eventually(PATIENCE, || (seen(&client).len() > 25).then_some(())).is_some());
    one.kill();
    nothing_waits(&client);
    let told = seen(&client);
    let mut known = BTreeSet::new();
    let once: Vec<_> = told.iter().filter(|it| known.insert((*it).clone())).cloned().collect();
    assert_eq!(once, texts(0, 60));
    assert!(told.len() < 64, "what was about to be noted may come twice: {told:?}");
    insert(&client, "notes", "last", 0);
    assert!(eventually(PATIENCE, || (seen(&client).last()? == "last").then_some(())).is_some());
}

#[test]
fn an_environment_that_is_deleted_is_told_nothing_more_and_leaves_nothing_behind() {
    let place = Place::new("events-deleted").unwrap();
    place.output("app_apply", &app()).unwrap();
    let branched = place.output("env_branch", &json!({})).unwrap();
    let slug = branched["slug"].as_str().unwrap();
    let branch = place.steading.client().in_env(slug);
    branch
        .output("app_apply", &json!({ "manifest": { "functions": app()["manifest"]["functions"] } }))
        .unwrap();
    for n in 0..20 {
        insert(&branch, "notes", &format!("n{n}"), 5_000);
    }
    is_told(&branch, "began n0");
    let dry = place.output("env_delete", &json!({ "env": slug, "dry_run": true })).unwrap();
    place.output("env_delete", &json!({ "env": slug, "confirm": dry["confirm"] })).unwrap();
    // The others are told as ever.
    insert(&place.client, "notes", "here", 0);
    nothing_waits(&place.client);
    assert_eq!(seen(&place.client), ["here"]);
}

#[test]
fn the_return_to_a_snapshot_drops_what_waits_and_nothing_that_comes_later() {
    let place = Place::new("events-restored").unwrap();
    place.output("app_apply", &app()).unwrap();
    place.output("env_snapshot", &json!({ "name": "then" })).unwrap();
    for n in 0..4 {
        insert(&place.client, "notes", &format!("n{n}"), 4_000);
    }
    is_told(&place.client, "began n0");
    let plan = place.output("env_restore", &json!({ "snapshot": "then", "dry_run": true })).unwrap();
    place.output("env_restore", &json!({ "snapshot": "then", "confirm": plan["confirm"] })).unwrap();
    insert(&place.client, "notes", "after", 0);
    is_told(&place.client, "ended after");
    nothing_waits(&place.client);
    let told = seen(&place.client);
    // What was under way may still write.
    assert!(told.iter().all(|it| it == "n0" || it == "after"), "{told:?}");
    assert!(told.contains(&"after".to_owned()), "{told:?}");
}
