//! Schedules seen from outside: functions that run without anybody asking, once for each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conformance_tests::{Place, home_beside};
use serde_json::{Value, json};
use testkit::{Client, Fsync, Postgres, Steading, eventually, require};

const PATIENCE: Duration = Duration::from_secs(120);

/// Notes each run in a row; fails on the first attempt where its payload says so.
const CODE: &str = r#"
export default {
  async scheduled(event, env, ctx) {
    console.log("attempt", event.attempt);
    if (event.payload?.fails >= event.attempt) throw new RangeError("not yet");
    const { name, cron, scheduledTime, payload, attempt } = event;
    await env.db("runs").create({ name, told: { cron, scheduledTime, payload, attempt, caller: ctx.caller } });
    if (payload?.hangs && attempt === 1) await new Promise((done) => setTimeout(done, 600_000));
  },
};
"#;

fn app(schedules: &Value) -> Value {
    let columns = json!({ "name": "text!", "told": "json" });
    json!({ "manifest": {
        "database": { "tables": { "runs": { "columns": columns, "access": "admin_only" } } },
        "functions": { "job": { "files": { "index.ts": CODE } }, "web": { "files": { "index.ts": "export default { fetch: () => new Response('web') }" } } },
        "schedules": schedules,
    } })
}

/// Milliseconds since 1970.
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The times of a schedule's runs that are after `since`, oldest first.
fn times(client: &Client, name: &str, since: i64) -> Vec<i64> {
    let time = "json_extract(told, '$.scheduledTime')";
    let sql = format!("SELECT {time} FROM runs WHERE name = ?1 AND {time} > ?2 ORDER BY 1, id");
    let rows =
        client.output("db_query", &json!({ "sql": sql, "params": [name, since], "limit": 200 })).unwrap();
    rows["rows"].as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect()
}

/// What the function was told when it ran for a schedule first.
fn told(client: &Client, name: &str) -> Option<Value> {
    let sql = "SELECT told FROM runs WHERE name = ?1 ORDER BY created_at, id LIMIT 1";
    let rows = client.output("db_query", &json!({ "sql": sql, "params": [name] })).unwrap();
    let told = rows["rows"].get(0)?.get(0)?;
    Some(told.as_str().map_or_else(|| told.clone(), |it| serde_json::from_str(it).unwrap()))
}

fn runs(client: &Client) -> i64 {
    let rows = client.output("db_query", &json!({ "sql": "SELECT count(*) FROM runs" })).unwrap();
    rows["rows"][0][0].as_i64().unwrap()
}

fn described(client: &Client) -> Value {
    client.output("app_describe", &json!({})).unwrap()["schedules"].clone()
}

/// The newest line of the log that has that text.
pub fn logged(client: &Client, text: &str) -> Option<Value> {
    let found = client.output("logs_query", &json!({ "text": text })).unwrap();
    found["entries"].as_array().unwrap().first().cloned()
}

#[test]
fn a_function_runs_at_its_times_and_what_has_come_of_it_is_told() {
    let place = Place::new("schedules").unwrap();
    let client = place.steading.client().in_env(&place.slug);
    let often = json!({ "function": "job", "cron": "*/5 * * * * * *", "payload": { "of": "zoë" } });
    let failing =
        json!({ "function": "job", "cron": "*/5 * * * * * *", "payload": { "fails": 1 }, "retries": 1 });
    let off = json!({ "function": "job", "cron": "*/5 * * * * * *", "enabled": false });
    let made =
        place.output("app_apply", &app(&json!({ "often": often, "failing": failing, "off": off }))).unwrap();
    assert!(made.to_string().contains("job at */5 * * * * * *"), "{made}");
    let seen =
        eventually(PATIENCE, || Some(times(&client, "often", 0)).filter(|times| times.len() >= 3)).unwrap();
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "{seen:?}");
    let time = seen[0];
    assert_eq!(time % 5000, 0, "{time}");
    let expected = json!({ "cron": "*/5 * * * * * *", "scheduledTime": time,
        "payload": { "of": "zoë" }, "attempt": 1, "caller": { "kind": "anonymous" } });
    assert_eq!(told(&client, "often"), Some(expected));
    // One that has failed is tried again, for the same time.
    let again = eventually(PATIENCE, || told(&client, "failing")).unwrap();
    assert_eq!(again["attempt"], 2, "{again}");
    let line = logged(&client, "the schedule failing has failed, and is tried again").unwrap();
    assert_eq!((&line["level"], &line["fields"]["schedule"]), (&json!("error"), &json!("failing")), "{line}");
    assert!(line["message"].as_str().unwrap().ends_with("RangeError: not yet"), "{line}");
    let of_run = client.output("logs_query", &json!({ "request_id": line["request_id"] })).unwrap();
    assert!(of_run.to_string().contains("attempt 1"), "{of_run}");
    assert!(logged(&client, "the schedule often ran in").is_some());
    let shown = described(&client);
    assert!(
        shown["often"]["next"].is_string() && shown["often"]["last"].as_str().unwrap().contains("ok, in"),
        "{shown}"
    );
    assert_eq!((&shown["off"]["off"], &shown["off"]["next"]), (&json!(true), &Value::Null));
    assert_eq!(told(&client, "off"), None);
    // Run now, by its owner.
    let asked = client.output("function_invoke", &json!({ "name": "job", "schedule": "off" })).unwrap();
    assert_eq!((&asked["status"], &asked["logs"][0]["text"]), (&json!(204), &json!("attempt 1")), "{asked}");
    assert_eq!(times(&client, "off", 0).len(), 1);
    let wrong = client.call("function_invoke", &json!({ "name": "web", "schedule": "off" })).unwrap();
    assert_eq!((wrong.status, wrong.body["field"].as_str()), (404, Some("/schedule")), "{wrong:?}");
    // A manifest's schedules are all of them.
    place.output("app_apply", &json!({ "manifest": { "schedules": {} } })).unwrap();
    assert_eq!(described(&client), Value::Null);
    place.output("app_rollback", &json!({ "release": made["release"] })).unwrap();
    let before = times(&client, "often", 0).len();
    assert!(eventually(PATIENCE, || (times(&client, "often", 0).len() > before).then_some(())).is_some());
}

#[test]
fn schedules_that_cannot_be_are_refused_at_their_field() {
    let place = Place::new("schedules-refused").unwrap();
    place.output("app_apply", &app(&json!({}))).unwrap();
    let client = place.steading.client().in_env(&place.slug);
    let refused = |manifest: Value| {
        let answer = client.call("app_apply", &json!({ "manifest": manifest })).unwrap();
        let text = |key: &str| answer.body[key].as_str().unwrap_or_default().to_owned();
        (answer.status, text("field"), text("message"))
    };
    let with = |more: Value| {
        let mut one = json!({ "function": "job", "cron": "0 3 * * *" });
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "schedules": { "nightly": one } })
    };
    for (more, field, message) in [
        (json!({ "cron": "0 3 * *" }), "cron", "has 4 fields"),
        (json!({ "cron": "0 0 30 2 *" }), "cron", "no such time"),
        (json!({ "cron": "* * * * * * *" }), "cron", "more often than every 5 seconds"),
        (json!({ "timezone": "Mars/Base" }), "timezone", "no time zone"),
        (json!({ "function": "none" }), "function", "no function none"),
        (json!({ "function": "web" }), "function", "no handler that a schedule could ask"),
        (json!({ "retries": 4 }), "retries", "0 to 3"),
        (json!({ "payload": "x".repeat(9000) }), "payload", "the limit is 8192"),
        (json!({ "overlap": "queue" }), "overlap", "unknown value"),
    ] {
        let (status, at, said) = refused(with(more));
        assert_eq!((status / 100, at), (4, format!("/manifest/schedules/nightly/{field}")), "{said}");
        assert!(said.contains(message), "{said}");
    }
    let many: BTreeMap<_, _> =
        (0..51).map(|i| (format!("s{i}"), json!({ "function": "job", "cron": "@daily" }))).collect();
    assert_eq!(refused(json!({ "schedules": many })).1, "/manifest/schedules");
    let (status, at, _) =
        refused(json!({ "schedules": { "no name\r\n": { "function": "job", "cron": "@daily" } } }));
    assert_eq!(status, 400, "{at}");
    // Not without the function that a schedule names, whichever way that would go.
    place.output("app_apply", &json!({ "manifest": with(json!({})) })).unwrap();
    let (_, at, said) = refused(json!({ "functions": {} }));
    assert_eq!(
        (at.as_str(), said.as_str()),
        ("/manifest/schedules/nightly/function", "there is no function job")
    );
    let removed = client
        .call("resource_delete", &json!({ "kind": "function", "name": "job", "dry_run": true }))
        .unwrap();
    assert_eq!((removed.status, removed.code()), (409, "conflict"), "{removed:?}");
    let silent = json!({ "name": "job", "files": { "index.ts": "export default { fetch: () => new Response('x') }" } });
    let deployed = client.call("function_deploy", &silent).unwrap();
    assert_eq!((deployed.status, deployed.body["field"].as_str()), (400, Some("/files")), "{deployed:?}");
    // Who may not bring code may not have it run.
    let wanted = json!({ "name": "ci", "env": place.slug, "scopes": ["app:read", "app:write"] });
    let operator = place.steading.client().without_env();
    let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
    let limited = Client::new(&place.steading.ready().url).with_key(made["key"].as_str().unwrap());
    let answer = limited.call("app_apply", &json!({ "manifest": { "schedules": {} } })).unwrap();
    assert_eq!(
        (answer.status, answer.body["field"].as_str()),
        (403, Some("/manifest/schedules")),
        "{answer:?}"
    );
}

#[test]
fn schedules_of_a_branch_do_not_run_until_it_has_a_manifest_with_them() {
    let place = Place::new("schedules-branch").unwrap();
    let schedules = json!({ "often": { "function": "job", "cron": "*/5 * * * * * *" } });
    place.output("app_apply", &app(&schedules)).unwrap();
    let branched = place.output("env_branch", &json!({ "data": "none" })).unwrap();
    let branch = place.steading.client().in_env(branched["slug"].as_str().unwrap());
    let parent = place.steading.client().in_env(&place.slug);
    assert!(eventually(PATIENCE, || (runs(&parent) >= 2).then_some(())).is_some());
    let shown = branch.output("app_describe", &json!({})).unwrap();
    assert_eq!((&shown["schedules"]["often"]["off"], runs(&branch)), (&json!(true), 0), "{shown}");
    assert!(shown["advice"].to_string().contains("no schedule runs in this copy"), "{shown}");
    // Another release alone does not have them run.
    branch.output("app_apply", &json!({ "manifest": { "name": "Branch" } })).unwrap();
    assert_eq!(described(&branch)["often"]["off"], true);
    let plan = branch.output("app_plan", &json!({ "manifest": { "schedules": schedules } })).unwrap();
    assert!(plan["effects"].to_string().contains("beside those of the environment"), "{plan}");
    branch.output("app_apply", &json!({ "plan_id": plan["plan_id"] })).unwrap();
    assert!(eventually(PATIENCE, || (runs(&branch) > 0).then_some(())).is_some());
}

#[test]
fn a_run_that_the_platform_died_over_has_failed_and_is_tried_again_where_that_is_wanted() {
    let server = require(Steading::start());
    let hanging = |retries: u8| json!({ "function": "job", "cron": "*/5 * * * * * *", "payload": { "hangs": true }, "retries": retries });
    let mut manifest = app(&json!({ "again": hanging(1), "never": hanging(0) }));
    manifest["manifest"]["functions"]["job"]["timeout_s"] = json!(900);
    server.client().output("app_apply", &manifest).unwrap();
    let client = server.client();
    let first = |name: &str| eventually(PATIENCE, || times(&client, name, 0).first().copied()).unwrap();
    let (again, never) = (first("again"), first("never"));
    let mut server = server;
    server.kill();
    let server = server.restart().unwrap();
    let client = server.client();
    // Half a minute later, for the same time.
    let twice =
        eventually(PATIENCE, || Some(times(&client, "again", 0)).filter(|times| times.len() >= 2)).unwrap();
    assert_eq!(twice[..2], [again, again]);
    let told = || logged(&client, "the schedule never has failed: the platform ended while it ran");
    assert!(eventually(PATIENCE, told).is_some());
    assert_eq!(times(&client, "never", 0).iter().filter(|time| **time == never).count(), 1);
    // And goes on with the next.
    assert!(eventually(PATIENCE, || (times(&client, "never", never).len() == 1).then_some(())).is_some());
}

/// Two gateways that have the same control plane and the same environments.
#[test]
fn of_two_gateways_one_runs_each_time_and_what_was_missed_is_as_each_schedule_says() {
    let postgres = require(Postgres::start(Fsync::Off));
    let launch = || Steading::launch().env("STEADING_DATABASE_URL", postgres.url("postgres"));
    let mut one = require(launch().start());
    let often = json!({ "function": "job", "cron": "*/5 * * * * * *" });
    // Half an hour ago, each day.
    let past = now() / 60_000 - 30;
    let daily = format!("{} {} * * *", past % 60, past / 60 % 24);
    let mut schedules: BTreeMap<_, _> = (0..8).map(|i| (format!("s{i}"), often.clone())).collect();
    for missed in ["once", "skip"] {
        schedules
            .insert(format!("late-{missed}"), json!({ "function": "job", "cron": daily, "missed": missed }));
    }
    one.client().output("app_apply", &app(&json!(schedules))).unwrap();
    let client = one.client();
    assert!(eventually(PATIENCE, || (runs(&client) >= 8).then_some(())).is_some());
    one.stop();

    let other = home_beside(&one).unwrap();
    // As if nothing had run for more than a day.
    let minutes = past - 24 * 60;
    let due = format!("UPDATE schedules SET due = {} WHERE name LIKE 'late-%'", minutes * 60_000_000);
    assert!(postgres.execute(&due).is_ok());
    let begun = now();
    let mut one = one.restart().unwrap();
    let two = require(launch().data_dir(other.path()).start());
    let client = two.client();
    let since = |name: &str| times(&client, name, begun);
    let begins = eventually(PATIENCE, || (since("s0").len() >= 4).then_some(()));
    assert!(begins.is_some(), "{:#}\n{}\n{}", described(&client), one.log(), two.log());
    one.kill();
    // What one of them does not do any more the other one does.
    let before = since("s7").len();
    assert!(eventually(PATIENCE, || (since("s7").len() >= before + 2).then_some(())).is_some());
    for i in 0..8 {
        let times = since(&format!("s{i}"));
        let different: BTreeSet<_> = times.iter().collect();
        assert_eq!(different.len(), times.len(), "each time once: {times:?}");
        // What the killed one was just about may be lost with it.
        assert!(times.len() >= 3, "{times:?}");
    }
    assert_eq!(times(&client, "late-once", 0), [past * 60_000], "the last of those that were missed");
    assert_eq!(times(&client, "late-skip", 0), [0; 0]);
    let shown = described(&client);
    assert!(shown["late-skip"]["last"].as_str().unwrap().contains("missed"), "{shown}");
    assert!(shown["late-skip"]["next"].is_string(), "{shown}");
}
