//! Events seen from outside: functions that are told of what happens in their app, of all of it, and of nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use conformance_tests::{App, Place};
use serde_json::{Value, json};
use testkit::http::Request;
use testkit::{Client, Steading, eventually, require};

use crate::schedules::logged;

const PATIENCE: Duration = Duration::from_secs(60);

/// Notes what it is told of in a row; fails as often as the row's text says.
const CODE: &str = r#"
export default {
  async event(event, env, ctx) {
    const fails = Number(/fails (\d+)/.exec(event.row?.text)?.[1] ?? 0);
    console.log("told", event.attempt);
    if (fails >= event.attempt) throw new RangeError("not yet");
    await env.db("seen").create({ event: event.id, about: event.table ?? event.bucket ?? "auth", did: event.do,
      told: { ...event, user: ctx.user, caller: ctx.caller } });
  },
};
"#;

/// Writes into what it listens to.
const LOOP: &str = r#"
export default {
  async event(event, env) { await env.db("turns").create({ n: event.row.n + 1 }); },
  async fetch(request, env) { return Response.json(await env.db("notes").create({ text: "by a function" })); },
};
"#;

fn app() -> Value {
    let note = json!({ "text": "text!", "done": "bool", "extra": "json" });
    let seen = json!({ "event": "text!", "about": "text!", "did": "text!", "told": "json!" });
    json!({ "manifest": {
        "database": { "tables": {
            "notes": { "columns": note, "access": "private" },
            "other": { "columns": { "text": "text!" }, "access": "private" },
            "turns": { "columns": { "n": "int!" }, "access": "admin_only" },
            "seen": { "columns": seen, "access": "admin_only" },
        } },
        "storage": { "buckets": { "photos": { "access": "private" }, "letters": { "access": "private" } } },
        "auth": { "methods": ["password"] },
        "functions": {
            "told": { "files": { "index.ts": CODE }, "events": [
                { "on": "rows", "table": "notes" }, { "on": "files", "bucket": "photos" }, { "on": "auth" },
            ] },
            "loop": { "files": { "index.ts": LOOP }, "access": "public", "events": [{ "on": "rows", "table": "turns", "do": ["create"] }] },
        },
    } })
}

/// What the function was told of, oldest first.
fn seen(client: &Client, about: &str) -> Vec<Value> {
    let sql = "SELECT told FROM seen WHERE about = ?1 ORDER BY created_at, rowid";
    let mut all = Vec::new();
    let mut query = json!({ "sql": sql, "params": [about], "limit": 50 });
    loop {
        let rows = client.output("db_query", &query).unwrap();
        for row in rows["rows"].as_array().unwrap() {
            all.push(row[0].as_str().map_or_else(|| row[0].clone(), |it| serde_json::from_str(it).unwrap()));
        }
        match rows["cursor"].as_str() {
            Some(cursor) => query["cursor"] = json!(cursor),
            None => return all,
        }
    }
}

fn dids(client: &Client, about: &str) -> Vec<String> {
    seen(client, about).iter().map(|it| it["do"].as_str().unwrap().to_owned()).collect()
}

fn sees(client: &Client, about: &str, count: usize) -> Vec<Value> {
    let told = eventually(PATIENCE, || Some(seen(client, about)).filter(|all| all.len() >= count));
    told.unwrap_or_else(|| {
        let described = client.output("app_describe", &json!({})).unwrap()["functions"].clone();
        let logs = client.output("logs_query", &json!({ "limit": 20 })).unwrap();
        panic!("{:?} of {count} {about}\n{described}\n{logs}", seen(client, about))
    })
}

fn execute(client: &Client, sql: &str) {
    client.output("db_execute", &json!({ "sql": sql })).unwrap();
}

#[test]
fn numbers_are_to_the_last_bit_what_was_written_wherever_they_come_out() {
    let place = Place::new("numbers").unwrap();
    let (client, app) = (&place.client, App::new(&place.url));
    let mut manifest = app_with_numbers();
    manifest["manifest"]["functions"]["told"]["events"] = json!([{ "on": "rows", "table": "numbers" }]);
    place.output("app_apply", &manifest).unwrap();
    let ada = app.sign_up("ada@example.org", "a long enough password").unwrap();
    let mut numbers = vec![0.1 + 0.2, 5e-324, f64::MAX, f64::MIN_POSITIVE, 12.490598428394481, -0.1, 1e23];
    numbers.extend((1..40).map(|n| f64::from(n * n) / 7.0 * 1.1));
    let bits = |value: &Value| value.to_string().parse::<f64>().unwrap().to_bits();
    for (at, number) in numbers.iter().enumerate() {
        let row = json!({ "at": at, "n": number, "all": { "n": number } });
        let made = ada.create("numbers", &row).unwrap();
        assert_eq!(
            (bits(&made["n"]), bits(&made["all"]["n"])),
            (number.to_bits(), number.to_bits()),
            "{made}"
        );
        // By the tool that writes, and by the one that reads.
        let change = json!({ "sql": "UPDATE numbers SET n = ?1 WHERE at = ?2", "params": [number, at] });
        client.output("db_execute", &change).unwrap();
        let query =
            json!({ "sql": "SELECT n FROM numbers WHERE n = ?1 AND at = ?2", "params": [number, at] });
        let found = client.output("db_query", &query).unwrap();
        assert_eq!(bits(&found["rows"][0][0]), number.to_bits(), "{found}");
    }
    for told in sees(client, "numbers", numbers.len()) {
        let row = &told["row"];
        let number = numbers[row["at"].as_u64().unwrap() as usize].to_bits();
        assert_eq!((bits(&row["n"]), bits(&row["all"]["n"])), (number, number), "{told}");
    }
}

fn app_with_numbers() -> Value {
    let mut manifest = app();
    manifest["manifest"]["functions"].as_object_mut().unwrap().remove("loop");
    let columns = json!({ "at": "int!", "n": "real!", "all": "json!" });
    manifest["manifest"]["database"]["tables"]["numbers"] =
        json!({ "columns": columns, "access": "private" });
    manifest
}

#[test]
fn functions_are_told_of_rows_files_and_users_whoever_changes_them() {
    let place = Place::new("events").unwrap();
    let made = place.output("app_apply", &app()).unwrap();
    assert!(made.to_string().contains("events (rows of notes: create, update, delete"), "{made}");
    let (client, app) = (&place.client, App::new(&place.url));
    let ada = app.sign_up("ada@example.org", "a long enough password").unwrap();
    let hostile = "'); DROP TABLE notes; -- \u{1f33e}\u{0001}\"\\";
    let note =
        ada.create("notes", &json!({ "text": hostile, "done": true, "extra": { "a": [1, null] } })).unwrap();
    let id = note["id"].as_str().unwrap();
    assert_eq!(
        ada.send("PATCH", &format!("/_/db/notes/{id}"), &json!({ "done": false })).unwrap().status,
        200
    );
    assert_eq!(ada.ask("DELETE", &format!("/_/db/notes/{id}")).unwrap().status, 204);
    let told = sees(client, "notes", 3);
    assert_eq!(dids(client, "notes"), ["create", "update", "delete"]);
    let mut first = told[0].clone();
    assert_eq!((&first["row"], &first["old"]), (&note, &Value::Null));
    for (name, value) in [
        ("on", json!("rows")),
        ("table", json!("notes")),
        ("type", json!("rows.create")),
        ("attempt", json!(1)),
        ("user", Value::Null),
        ("caller", json!({ "kind": "anonymous" })),
    ] {
        assert_eq!(first[name].take(), value, "{name} of {first}");
    }
    assert_eq!((&told[1]["old"], &told[1]["row"]["done"]), (&note, &json!(false)));
    assert_eq!((&told[2]["row"], &told[2]["old"]["id"]), (&Value::Null, &json!(id)));
    // By SQL, by a function, and in a batch of which one fails.
    execute(client, "INSERT INTO notes (text) VALUES ('by sql')");
    let by_function = Request::new("POST", &format!("{}/_/fn/loop", place.url)).send().unwrap();
    assert_eq!(by_function.status, 200, "{by_function:?}");
    let batch = json!({ "operations": [
        { "create": "notes", "row": { "text": "undone" } }, { "create": "notes", "row": { "text": 1 } },
    ] });
    assert_ne!(ada.send("POST", "/_/batch", &batch).unwrap().status, 200);
    ada.create("other", &json!({ "text": "not listened to" })).unwrap();
    execute(client, "UPDATE notes SET text = text");
    execute(client, "DELETE FROM notes WHERE text = 'by sql'");
    let told = sees(client, "notes", 6);
    let texts: Vec<_> = told[3..]
        .iter()
        .map(|it| it["row"]["text"].as_str().or(it["old"]["text"].as_str()).unwrap())
        .collect();
    assert_eq!(texts, ["by sql", "by a function", "by sql"]);
    // Files.
    let put = |path: &str, text: &str| {
        let request = ada.request("PUT", path).header("content-type", "text/plain").body(text.to_owned());
        assert!([200, 201].contains(&request.send().unwrap().status));
    };
    put("/_/files/photos/a.txt", "one");
    put("/_/files/photos/a.txt", "two");
    put("/_/files/letters/a.txt", "not listened to");
    assert_eq!(ada.ask("DELETE", "/_/files/photos/a.txt").unwrap().status, 204);
    let told = sees(client, "photos", 3);
    assert_eq!(dids(client, "photos"), ["upload", "upload", "delete"]);
    assert_eq!((&told[1]["row"]["path"], &told[1]["old"]["size"]), (&json!("a.txt"), &json!(3)));
    // Users.
    app.login("ada@example.org", "a long enough password").unwrap();
    let told = sees(client, "auth", 3);
    let dids: BTreeMap<_, _> =
        told.iter().map(|it| (it["do"].as_str().unwrap(), it["row"]["id"].clone())).collect();
    assert_eq!(dids, BTreeMap::from([("login", json!(ada.id())), ("signup", json!(ada.id()))]));
    assert!(!told.iter().any(|it| it.to_string().contains("argon")), "{told:?}");
    assert_eq!(seen(client, "other").len() + seen(client, "letters").len(), 0);
}

#[test]
fn one_that_fails_is_told_again_and_then_given_up_and_holds_up_no_other() {
    let place = Place::new("events-failing").unwrap();
    let mut manifest = app();
    manifest["manifest"]["functions"]["told"]["events"][0]["retries"] = json!(1);
    place.output("app_apply", &manifest).unwrap();
    let client = &place.client;
    execute(client, "INSERT INTO notes (text) VALUES ('fails 1'), ('fails 2'), ('last')");
    App::new(&place.url).sign_up("ada@example.org", "a long enough password").unwrap();
    let told = sees(client, "notes", 2);
    let texts: Vec<_> = told
        .iter()
        .map(|it| (it["row"]["text"].as_str().unwrap(), it["attempt"].as_i64().unwrap()))
        .collect();
    assert_eq!(texts, [("fails 1", 2), ("last", 1)], "in order");
    sees(client, "auth", 2);
    let line = eventually(PATIENCE, || logged(client, "is not told again")).unwrap();
    assert!(line["message"].as_str().unwrap().ends_with("RangeError: not yet"), "{line}");
    assert_eq!(line["fields"]["function"], "told");
    let of_run = client.output("logs_query", &json!({ "request_id": line["request_id"] })).unwrap();
    assert!(of_run.to_string().contains("told 2"), "{of_run}");
    let shown = client.output("app_describe", &json!({})).unwrap()["functions"]["told"].clone();
    assert!(shown["failed"].as_str().unwrap().contains("RangeError: not yet"), "{shown}");
    assert_eq!(shown["events"][0], "rows of notes: create, update, delete, retries 1", "{shown}");
    // A function that sets itself off comes to its end, and says so.
    execute(client, "INSERT INTO turns (n) VALUES (1)");
    let line = eventually(PATIENCE, || logged(client, "set each other off more than 8 times")).unwrap();
    assert_eq!(line["fields"]["function"], "loop", "{line}");
    let turns = client.output("db_query", &json!({ "sql": "SELECT count(*), max(n) FROM turns" })).unwrap();
    assert_eq!(turns["rows"][0], json!([10, 10]), "{turns}");
}

#[test]
fn events_outlive_the_platform_a_change_of_the_table_and_are_told_in_order() {
    let server = require(Steading::start());
    let client = server.client();
    client.output("app_apply", &app()).unwrap();
    // The first is under way, and the others wait, when the platform is killed.
    execute(&client, "INSERT INTO notes (text) VALUES ('fails 1')");
    for n in 0..40 {
        execute(&client, &format!("INSERT INTO notes (text) VALUES ('n {n}')"));
    }
    let mut server = server;
    server.kill();
    let server = server.restart().unwrap();
    let client = server.client();
    sees(&client, "notes", 41);
    // The last of what it was told of when the platform was killed it may be told of twice.
    let mut ids = BTreeSet::new();
    let mut told = seen(&client, "notes");
    told.retain(|it| ids.insert(it["id"].as_str().unwrap().to_owned()));
    let texts: Vec<_> = told.iter().map(|it| it["row"]["text"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> =
        std::iter::once("fails 1".to_owned()).chain((0..40).map(|n| format!("n {n}"))).collect();
    assert_eq!(texts, expected);
    // Whoever changes the table, by a migration, by SQL, by a manifest.
    client.output("db_migrate", &json!({ "name": "more", "sql": "ALTER TABLE notes ADD COLUMN more TEXT; UPDATE notes SET text = 'x'" })).unwrap();
    execute(&client, "ALTER TABLE notes ADD COLUMN most TEXT");
    execute(&client, "INSERT INTO notes (text, more, most) VALUES ('after', 'm', 'mm')");
    let told = sees(&client, "notes", 42);
    let last = &told.last().unwrap()["row"];
    assert_eq!((&last["more"], &last["most"]), (&json!("m"), &json!("mm")), "{last}");
    let dropped = client
        .call("db_migrate", &json!({ "name": "gone", "sql": "DROP TABLE notes", "confirm": "x" }))
        .unwrap();
    assert_ne!(dropped.status, 200, "{dropped:?}");
    let mut rebuilt = app();
    rebuilt["manifest"]["database"]["tables"]["notes"]["columns"] = json!({ "text": "text!", "done": "bool", "extra": "json", "more": "text", "most": "text", "n": "int" });
    let plan = client.output("app_plan", &rebuilt).unwrap();
    let apply = json!({ "plan_id": plan["plan_id"], "confirm": plan["confirm"] });
    client.output("app_apply", &apply).unwrap();
    execute(&client, "INSERT INTO notes (text, n) VALUES ('rebuilt', 7)");
    let told = sees(&client, "notes", 43);
    assert_eq!(told.last().unwrap()["row"]["n"], 7);
    assert_eq!(
        told.iter().filter(|it| it["do"] != "create").count(),
        0,
        "a migration's own changes are none"
    );
    // Without events nothing is noted any more.
    let mut silent = app();
    silent["manifest"] = json!({ "functions": silent["manifest"]["functions"].clone() });
    silent["manifest"]["functions"]["told"].as_object_mut().unwrap().remove("events");
    client.output("app_apply", &silent).unwrap();
    execute(&client, "INSERT INTO notes (text) VALUES ('silent')");
    client.output("app_rollback", &json!({ "release": 1 })).ok();
    let shown = client.output("app_describe", &json!({})).unwrap();
    assert_eq!(shown["functions"]["told"]["waiting"], Value::Null, "{shown}");
}

#[test]
fn a_copy_tells_its_functions_of_nothing_until_a_manifest_brings_them() {
    let place = Place::new("events-branch").unwrap();
    place.output("app_apply", &app()).unwrap();
    execute(&place.client, "INSERT INTO notes (text) VALUES ('fails 1')");
    let branched = place.output("env_branch", &json!({})).unwrap();
    let branch = place.steading.client().in_env(branched["slug"].as_str().unwrap());
    sees(&place.client, "notes", 1);
    execute(&branch, "INSERT INTO notes (text) VALUES ('in the branch')");
    let shown = branch.output("app_describe", &json!({})).unwrap();
    let shown = shown["functions"].get("told").unwrap_or(&shown);
    assert!(shown["events"].to_string().contains("off in this copy"), "{shown}");
    assert_eq!(shown["waiting"], Value::Null, "{shown}");
    let manifest = json!({ "manifest": { "functions": app()["manifest"]["functions"] } });
    let begun = branch.output("app_apply", &manifest).unwrap();
    assert!(begun["changes"].to_string().contains("of this copy"), "{begun}");
    execute(&branch, "INSERT INTO notes (text) VALUES ('from now on')");
    let told = sees(&branch, "notes", 1);
    assert_eq!(told[0]["row"]["text"], "from now on");
    assert_eq!(seen(&place.client, "notes").len(), 1, "nothing of the branch");
}

#[test]
fn events_that_cannot_be_are_refused_at_their_field() {
    let place = Place::new("events-refused").unwrap();
    let refused = |events: Value, code: &str| {
        let mut manifest = app();
        manifest["manifest"]["functions"]["told"] =
            json!({ "files": { "index.ts": code }, "events": events });
        let answer = place.client.call("app_apply", &manifest).unwrap();
        let text = |key: &str| answer.body[key].as_str().unwrap_or_default().to_owned();
        (answer.status / 100, text("field"), text("message"))
    };
    for (events, field, message) in [
        (json!([{ "on": "rows" }]), "/0/table", "name it"),
        (json!([{ "on": "rows", "table": "none" }]), "/0/table", "no table none"),
        (json!([{ "on": "rows", "table": "_steading_user" }]), "/0/table", "no table"),
        (json!([{ "on": "rows", "table": "sqlite_schema" }]), "/0/table", "no table"),
        (json!([{ "on": "rows", "table": "notes", "do": ["upload"] }]), "/0/do/0", "create, update, delete"),
        (json!([{ "on": "rows", "table": "notes", "do": ["create", "create"] }]), "/0/do/1", "each once"),
        (json!([{ "on": "files", "bucket": "none" }]), "/0/bucket", "no bucket none"),
        (json!([{ "on": "auth", "table": "notes" }]), "/0/table", "have no table"),
        (json!([{ "on": "rows", "table": "notes", "retries": 5 }]), "/0/retries", "0 to 4"),
        (json!([{ "on": "auth" }, { "on": "auth" }]), "/1", "another entry"),
    ] {
        let (status, at, said) = refused(events.clone(), CODE);
        assert_eq!((status, at), (4, format!("/manifest/functions/told/events{field}")), "{events}: {said}");
        assert!(said.contains(message), "{said}");
    }
    let (status, at, said) =
        refused(json!([{ "on": "auth" }]), "export default { fetch: () => new Response('web') }");
    assert_eq!((status, at.as_str()), (4, "/manifest/functions/told/events"), "{said}");
    assert!(said.contains("no handler"), "{said}");
}

/// At least once, nothing that did not happen, and each row's own changes in their order.
#[test]
fn whatever_is_written_is_told_and_nothing_else() {
    let place = Place::new("events-random").unwrap();
    place.output("app_apply", &app()).unwrap();
    let client = &place.client;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |most: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % most
    };
    let mut there: BTreeMap<u64, u64> = BTreeMap::new();
    let mut expected: Vec<(String, u64, u64)> = Vec::new();
    for step in 0..80 {
        let id = next(6);
        let (sql, done) = match (there.get(&id), next(4)) {
            (None, 0..=2) => {
                (format!("INSERT INTO notes (id, text) VALUES ('r{id}', '{step}')"), Some("create"))
            }
            (Some(_), 0) => (format!("DELETE FROM notes WHERE id = 'r{id}'"), Some("delete")),
            (Some(_), 1) => (format!("UPDATE notes SET text = '{step}' WHERE id = 'r{id}'"), Some("update")),
            (Some(_), 2) => (
                format!(
                    "INSERT INTO notes (id, text) VALUES ('r{id}', 'x') ON CONFLICT DO UPDATE SET text = '{step}'"
                ),
                Some("update"),
            ),
            // Not one of these changes anything.
            (Some(_), _) => {
                (format!("INSERT INTO notes (id, text) VALUES ('new{step}', 'x'), ('r{id}', 'x')"), None)
            }
            (None, _) => (format!("UPDATE notes SET text = 'x' WHERE id = 'r{id}'"), None),
        };
        let answer = client.call("db_execute", &json!({ "sql": sql })).unwrap();
        assert!(answer.status == 200 || done.is_none(), "{sql}: {answer:?}");
        if let Some(did) = done {
            let text = if did == "delete" { there.remove(&id).unwrap() } else { step };
            if did != "delete" {
                there.insert(id, step);
            }
            expected.push((did.to_owned(), id, text));
        }
    }
    sees(client, "notes", expected.len());
    let mut told: Vec<Value> = seen(client, "notes");
    told.dedup_by(|a, b| a["id"] == b["id"]);
    let told: Vec<_> = told
        .iter()
        .map(|it| {
            let row = if it["row"].is_null() { &it["old"] } else { &it["row"] };
            let number =
                |name: &str| row[name].as_str().unwrap().trim_start_matches('r').parse::<u64>().unwrap();
            (it["do"].as_str().unwrap().to_owned(), number("id"), number("text"))
        })
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn hidden_columns_stay_hidden_and_rows_may_be_as_heavy_as_ever() {
    let place = Place::new("events-hidden").unwrap();
    let mut manifest = app();
    let secret = json!({ "type": "text", "hidden": true });
    let people = json!({ "columns": { "name": "text!", "secret": secret, "a": "text", "b": "text" }, "access": "private" });
    manifest["manifest"]["database"]["tables"]["people"] = people;
    manifest["manifest"]["functions"]["told"]["events"] = json!([{ "on": "rows", "table": "people" }]);
    place.output("app_apply", &manifest).unwrap();
    let client = &place.client;
    execute(client, "INSERT INTO people (name, secret) VALUES ('ada', 's3cret')");
    execute(client, "UPDATE people SET secret = 's3cret too'");
    execute(client, "UPDATE people SET name = 'Ada', secret = 's3cret still'");
    for filler in ["'x'", "char(1)", "'\"'"] {
        let heavy = format!("replace(printf('%.950000c', 'x'), 'x', {filler})");
        execute(client, &format!("UPDATE people SET a = {heavy}, b = {heavy}"));
    }
    execute(client, "UPDATE people SET a = printf('%.2000c', 'x'), b = json_object('n', 1)");
    execute(client, "DELETE FROM people");
    let told = sees(client, "people", 7);
    assert!(!json!(told).to_string().contains("s3cret"), "a function was told what is hidden");
    assert_eq!((&told[1]["do"], &told[1]["row"]["name"]), (&json!("update"), &json!("Ada")));
    for heavy in &told[2..5] {
        assert_eq!((&heavy["row"]["a"], &heavy["row"]["name"]), (&Value::Null, &json!("Ada")));
        assert!(heavy["omitted"].to_string().contains("row.a"), "{}", heavy["omitted"]);
    }
    assert_eq!(told[5]["row"]["a"].as_str().unwrap().len(), 2_000);
    assert_eq!((&told[5]["row"]["b"], &told[6]["old"]["b"]), (&json!("{\"n\":1}"), &json!("{\"n\":1}")));
    assert!(told.iter().all(|it| it["row"].get("secret").is_none() && it["old"].get("secret").is_none()));
    // From when a release hides it.
    manifest["manifest"]["database"]["tables"]["people"]["columns"]["a"] =
        json!({ "type": "text", "hidden": true });
    client.output("app_apply", &manifest).unwrap();
    execute(client, "INSERT INTO people (name, a) VALUES ('eve', 's3cret')");
    let told = sees(client, "people", 8);
    assert_eq!(told[7]["row"]["name"], "eve");
    assert!(told[7]["row"].get("a").is_none(), "{}", told[7]["row"]);
}
