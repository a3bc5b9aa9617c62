//! `kill -9` while an environment is made, deleted or loaded: there is all of it afterwards, or nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};
use testkit::Client;
use testkit::http::Request;

use crate::assault_doomed::{Doomed, Histogram, Moment};

/// How many moments of each call are tried in every test run.
const SAMPLE: i64 = 5;

/// The moments to die at: every write, or a sample of them.
fn moments(writes: i64, every: bool) -> Vec<Moment> {
    if every {
        return (1..=writes + 1).flat_map(|n| [Moment::Before(n), Moment::Amid(n)]).collect();
    }
    (0..SAMPLE).map(|step| Moment::Before(1 + step * writes / (SAMPLE - 1))).collect()
}

/// The environments that the platform knows, and the directories that there are.
fn environments(doomed: &Doomed) -> (BTreeSet<String>, BTreeSet<String>) {
    let client = doomed.client().without_env();
    let (mut known, mut cursor) = (BTreeSet::new(), None::<String>);
    loop {
        let input = cursor.map_or(json!({}), |cursor| json!({ "cursor": cursor }));
        let page = client.output("env_list", &input).unwrap();
        known.extend(page["environments"].as_array().unwrap().iter().map(|env| text(&env["env"])));
        cursor = page["cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    let entries = std::fs::read_dir(doomed.data().join("envs")).unwrap();
    let there = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    (known, there)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn creations(every: bool, title: &str) {
    let mut doomed = Doomed::start();
    let make = |client: &Client, n: usize| {
        client.clone().without_env().call("env_create", &json!({ "slug": format!("made-{n}") }))
    };
    let (writes, _) = doomed.count(|client| make(client, 0));
    let mut histogram = Histogram::default();
    for (n, moment) in moments(writes, every).into_iter().enumerate() {
        let n = n + 1;
        let fate = doomed.die(moment, |client| make(client, n));
        let (known, there) = environments(&doomed);
        assert_eq!(known, there, "{moment:?}, {}", fate.place);
        let slug = format!("made-{n}");
        let client = doomed.client().in_env(&slug);
        let query = client.call("db_query", &json!({ "sql": "SELECT 1" })).unwrap();
        let found = match (query.status, &fate.answer) {
            (200, Some(answer)) if answer.status == 200 => "made, as answered",
            (200, None) => "made, not answered",
            (404, None) => "not made",
            (status, answer) => panic!("{moment:?}, {}: {status} after {answer:?}", fate.place),
        };
        if query.status == 200 {
            // It is a whole one.
            client
                .output("app_apply", &json!({ "manifest": { "site": { "files": { "a": "a" } } } }))
                .unwrap();
        } else {
            client.without_env().output("env_create", &json!({ "slug": slug })).unwrap();
        }
        histogram.add(fate.place, found);
    }
    histogram.print(title);
    assert_eq!(doomed.strangers(), Vec::<String>::new());
}

fn deletions(every: bool, title: &str) {
    let mut doomed = Doomed::start();
    let manifest = json!({
        "database": { "tables": { "notes": { "columns": { "title": "text" } } } },
        "site": { "files": { "index.html": "here" } },
    });
    let prepare = |doomed: &Doomed, slug: &str| {
        let client = doomed.client().without_env();
        let made = client.output("env_create", &json!({ "slug": slug })).unwrap();
        let app = client.clone().in_env(slug);
        app.output("app_apply", &json!({ "manifest": manifest })).unwrap();
        app.output("secret_set", &json!({ "name": "TOKEN", "value": "a value" })).unwrap();
        let dry = client.output("env_delete", &json!({ "env": slug, "dry_run": true })).unwrap();
        (text(&made["env"]), json!({ "env": slug, "confirm": dry["confirm"] }))
    };
    let (_, input) = prepare(&doomed, "doomed-0");
    let (writes, _) = doomed.count(|client| client.clone().without_env().call("env_delete", &input));
    let mut histogram = Histogram::default();
    for (n, moment) in moments(writes, every).into_iter().enumerate() {
        let slug = format!("doomed-{}", n + 1);
        let (env, input) = prepare(&doomed, &slug);
        let fate = doomed.die(moment, |client| client.clone().without_env().call("env_delete", &input));
        let (known, there) = environments(&doomed);
        assert_eq!(known, there, "{moment:?}, {}", fate.place);
        let site = Request::get(&format!("http://{slug}.localhost:{}/", doomed.port())).send().unwrap();
        let described = doomed.client().in_env(&slug).call("app_describe", &json!({})).unwrap();
        let found = if known.contains(&env) {
            assert_eq!((site.status, described.status), (200, 200), "{moment:?}, {}", fate.place);
            assert_eq!(described.body["tables"]["notes"]["columns"], json!({ "title": "text" }));
            assert_eq!(described.body["secrets"], json!(["TOKEN"]));
            assert!(fate.answer.is_none(), "{moment:?}: deleted and there: {:?}", fate.answer);
            "whole"
        } else {
            assert_eq!((site.status, described.status), (404, 404), "{moment:?}, {}", fate.place);
            if fate.answer.is_some() { "gone, as answered" } else { "gone, not answered" }
        };
        histogram.add(fate.place, found);
    }
    histogram.print(title);
    // A note of whose an environment was stays as long as backups of it would.
    let strangers = doomed.strangers().into_iter().filter(|path| !path.starts_with("backups/deleted/"));
    assert_eq!(strangers.collect::<Vec<_>>(), Vec::<String>::new());
}

fn loads(every: bool, title: &str) {
    const ROWS: i64 = 3_000;
    let mut doomed = Doomed::start();
    let columns = json!({ "title": "text!", "n": "int!" });
    let manifest = json!({ "database": { "tables": { "rows": { "columns": columns } } } });
    doomed.client().output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let mut csv = "title,n\n".to_owned();
    for n in 0..ROWS {
        writeln!(csv, "a title that takes some room in its page {n},{n}").unwrap();
    }
    let input = json!({ "table": "rows", "format": "csv", "text": csv });
    let count = |doomed: &Doomed| {
        let rows =
            doomed.client().output("db_query", &json!({ "sql": "SELECT count(*) FROM rows" })).unwrap();
        rows["rows"][0][0].as_i64().unwrap()
    };
    let (writes, _) = doomed.count(|client| client.call("db_load", &input));
    let mut histogram = Histogram::default();
    let mut rows = ROWS;
    assert_eq!(count(&doomed), rows);
    // Each page of the rows is a write of its own, and they are all alike: a soak takes every fifth.
    let step = if every { 5 } else { 1 };
    for moment in moments(writes, every).into_iter().step_by(step) {
        let fate = doomed.die(moment, |client| client.call("db_load", &input));
        let now = count(&doomed);
        let found = match (now - rows, fate.answer.map(|answer| answer.status)) {
            (0, None) => "none",
            (ROWS, None) => "all, not answered",
            (ROWS, Some(200)) => "all, as answered",
            (new, answer) => panic!("{moment:?}, {}: {new} rows after {answer:?}", fate.place),
        };
        rows = now;
        histogram.add(fate.place, found);
    }
    histogram.print(title);
    assert_eq!(doomed.strangers(), Vec::<String>::new());
}

#[test]
fn a_kill_while_an_environment_is_made_leaves_a_whole_one_or_none() {
    creations(false, "env_create");
}

#[test]
fn a_kill_while_an_environment_is_deleted_leaves_a_whole_one_or_none() {
    deletions(false, "env_delete");
}

#[test]
fn a_kill_while_rows_are_loaded_leaves_all_of_them_or_none() {
    loads(false, "db_load");
}

#[test]
#[ignore = "soak: every write of env_create"]
fn soak_kills_at_every_write_of_a_creation() {
    creations(true, "env_create");
}

#[test]
#[ignore = "soak: every write of env_delete"]
fn soak_kills_at_every_write_of_a_deletion() {
    deletions(true, "env_delete");
}

#[test]
#[ignore = "soak: every fifth write of db_load"]
fn soak_kills_at_the_writes_of_a_load() {
    loads(true, "db_load");
}
