//! `kill -9` while a snapshot is taken and while one is restored: each is there whole or not at all.

use serde_json::{Value, json};
use testkit::Client;

use crate::assault_doomed::{Doomed, Histogram, Moment};

/// What a client sees of the app and its snapshots.
fn seen(client: &Client) -> Value {
    let rows =
        client.output("db_query", &json!({ "sql": "SELECT rowid, * FROM app ORDER BY rowid" })).unwrap();
    let app = client.output("app_describe", &json!({})).unwrap();
    json!([rows["rows"], app["release"], app["site"], app["tables"]])
}

fn snapshots(client: &Client) -> Vec<String> {
    let app = client.output("app_describe", &json!({})).unwrap();
    let all = app["snapshots"].as_array().cloned().unwrap_or_default();
    all.iter().map(|it| it["snapshot"].as_str().unwrap().to_owned()).collect()
}

fn apply(client: &Client, columns: Value, page: &str) {
    let tables = json!({ "app": { "columns": columns } });
    let manifest = json!({ "database": { "tables": tables }, "site": { "files": { "index.html": page } } });
    client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
}

fn insert(client: &Client, title: &str) {
    let sql = "INSERT INTO app (title) VALUES (?1)";
    client.output("db_execute", &json!({ "sql": sql, "params": [title] })).unwrap();
}

fn confirmed(client: &Client, snapshot: &str) -> Value {
    let plan = client.output("env_restore", &json!({ "snapshot": snapshot, "dry_run": true })).unwrap();
    json!({ "snapshot": snapshot, "confirm": plan["confirm"] })
}

fn remove(client: &Client, snapshot: &str) {
    let mut input = json!({ "kind": "snapshot", "name": snapshot, "dry_run": true });
    let plan = client.output("resource_delete", &input).unwrap();
    input = json!({ "kind": "snapshot", "name": snapshot, "confirm": plan["confirm"] });
    client.output("resource_delete", &input).unwrap();
}

/// Where the app was, where it is, and the snapshots of both.
struct Siege {
    doomed: Doomed,
    then: (String, Value),
    now: (String, Value),
    histogram: Histogram,
}

impl Siege {
    fn start() -> Self {
        let doomed = Doomed::start();
        let client = doomed.client();
        apply(&client, json!({ "title": "text!" }), "then");
        insert(&client, "one");
        let take =
            || client.output("env_snapshot", &json!({})).unwrap()["snapshot"].as_str().unwrap().to_owned();
        let then = (take(), seen(&client));
        apply(&client, json!({ "title": "text!", "more": "int" }), "now");
        insert(&client, "two");
        let now = (take(), seen(&client));
        Self { doomed, then, now, histogram: Histogram::default() }
    }

    /// How many writes a snapshot takes, and a return.
    fn writes(&self) -> (i64, i64) {
        let client = self.doomed.client();
        let (snapshot, taken) = self.doomed.count(|client| client.call("env_snapshot", &json!({})));
        remove(&client, taken["snapshot"].as_str().unwrap());
        let input = confirmed(&client, &self.now.0);
        let (back, _) = self.doomed.count(|client| client.call("env_restore", &input));
        (snapshot, back)
    }

    fn die_taking(&mut self, moment: Moment) {
        let before = snapshots(&self.doomed.client());
        let fate = self.doomed.die(moment, |client| client.call("env_snapshot", &json!({})));
        let client = self.doomed.client();
        assert_eq!(seen(&client), self.now.1, "{moment:?}, {}", fate.place);
        let found: Vec<_> = snapshots(&client).into_iter().filter(|it| !before.contains(it)).collect();
        assert!(found.len() <= 1, "{found:?}");
        assert!(fate.answer.is_none_or(|answer| answer.status != 200 || found.len() == 1));
        for snapshot in &found {
            client.output("env_restore", &confirmed(&client, &self.then.0)).unwrap();
            client.output("env_restore", &confirmed(&client, snapshot)).unwrap();
            assert_eq!(seen(&client), self.now.1, "a half snapshot: {moment:?}, {}", fate.place);
            remove(&client, snapshot);
        }
        self.histogram.add(fate.place, if found.is_empty() { "no snapshot" } else { "a whole snapshot" });
    }

    fn die_returning(&mut self, moment: Moment) {
        let client = self.doomed.client();
        let input = confirmed(&client, &self.then.0);
        let fate = self.doomed.die(moment, |client| client.call("env_restore", &input));
        let client = self.doomed.client();
        let found = seen(&client);
        let back = found == self.then.1;
        assert!(back || found == self.now.1, "{moment:?}, {}: {found}", fate.place);
        assert!(fate.answer.is_none_or(|answer| answer.status != 200 || back));
        if back {
            client.output("env_restore", &confirmed(&client, &self.now.0)).unwrap();
            assert_eq!(seen(&client), self.now.1);
        }
        self.histogram.add(fate.place, if back { "then" } else { "now" });
    }

    fn end(self, title: &str) {
        // The next one sweeps what the dead ones have left.
        self.doomed.client().output("env_snapshot", &json!({})).unwrap();
        self.histogram.print(title);
        let strangers = self.doomed.strangers();
        assert!(strangers.is_empty(), "files that nothing owns: {strangers:?}");
    }
}

#[test]
fn a_kill_leaves_a_snapshot_whole_or_not_and_a_return_done_or_not() {
    let mut siege = Siege::start();
    let (snapshot, back) = siege.writes();
    for step in 0..5 {
        let n = |writes: i64| 1 + step * writes / 4;
        siege.die_taking(Moment::Before(n(snapshot)));
        siege.die_returning(if step % 2 == 1 { Moment::Amid(n(back)) } else { Moment::Before(n(back)) });
    }
    siege.end("snapshots and returns");
}

#[test]
#[ignore = "soak: every write of env_snapshot and env_restore"]
fn soak_kills_at_every_write_of_a_snapshot_and_a_return() {
    let mut siege = Siege::start();
    let (snapshot, back) = siege.writes();
    for n in 1..=snapshot + 1 {
        siege.die_taking(Moment::Before(n));
        siege.die_taking(Moment::Amid(n));
    }
    for n in 1..=back + 1 {
        siege.die_returning(Moment::Before(n));
        siege.die_returning(Moment::Amid(n));
    }
    siege.end("snapshots and returns");
}
