//! Logs of an app seen from outside: what is found, what is bounded, and what is never in them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conformance_tests::{App, Place, Reply};
use serde_json::{Value, json};
use testkit::{Client, Steading, eventually, require};

fn query(client: &Client, input: &Value) -> Vec<Value> {
    client.output("logs_query", input).unwrap()["entries"].as_array().unwrap().clone()
}

fn messages(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["message"].as_str().unwrap()).collect()
}

/// All files below a directory whose path has this part.
fn files(directory: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, part));
        } else if entry.to_string_lossy().contains(part) {
            found.push(entry);
        }
    }
    found
}

#[test]
fn what_happened_is_found_by_time_level_request_and_text() {
    let place = Place::new("logs").unwrap();
    let manifest = json!({
        "auth": { "methods": ["anonymous"] },
        "database": { "tables": { "notes": { "columns": { "text": "text!" }, "access": "private" } } },
        "site": { "files": { "index.html": "home", "about.html": "about" } },
    });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(&place.url);
    let home = app.visitor().ask("GET", "/").unwrap();
    let missing = app.visitor().ask("GET", "/nowhere").unwrap();
    let refused = app.visitor().send("POST", "/_/db/notes", &json!({ "text": "x" })).unwrap();
    refused.refuses(403, "forbidden").unwrap();
    let of = |reply: &Reply| {
        let id = reply.header("x-request-id").unwrap().to_owned();
        query(&place.client, &json!({ "request_id": id }))
    };
    assert_eq!(messages(&of(&home)), ["GET / 200"]);
    assert_eq!(messages(&of(&missing)), ["GET /nowhere 404"]);
    let [entry] = of(&refused).try_into().unwrap();
    assert_eq!((&entry["level"], &entry["source"]), (&json!("warn"), &json!("edge")));
    assert_eq!(entry["request_id"], refused.body["request_id"], "the answer names what the log knows it by");
    assert_eq!((&entry["fields"]["code"], &entry["fields"]["status"]), (&json!("forbidden"), &json!(403)));
    let warned = query(&place.client, &json!({ "level": "warn" }));
    assert_eq!(messages(&warned), ["POST /_/db/notes 403", "GET /nowhere 404"]);
    assert_eq!(messages(&query(&place.client, &json!({ "text": "NOWHERE" }))), ["GET /nowhere 404"]);
    assert_eq!(messages(&query(&place.client, &json!({ "text": "forbidden" }))), ["POST /_/db/notes 403"]);
    assert!(!query(&place.client, &json!({ "since": "1h", "text": "GET / 200" })).is_empty());
    assert_eq!(query(&place.client, &json!({ "since": "2100-01-01T00:00:00Z" })), [Value::Null; 0]);
    // Nobody makes a line as long as a head may be.
    let method = "LONG".repeat(15_000);
    app.visitor().ask(&method, "/").unwrap();
    let [long] = query(&place.client, &json!({ "text": "LONGLONG" })).try_into().unwrap();
    assert_eq!(
        (&long["message"], &long["fields"]["method"]),
        (&json!(format!("{} / 405", &method[..32])), &json!(method[..32]))
    );
    // A manifest says how long lines are kept, in words that a plan repeats.
    let plan =
        |logs: Value| place.output("app_plan", &json!({ "manifest": { "lifecycle": { "logs": logs } } }));
    let planned = plan(json!({ "age": "7d" })).unwrap();
    assert_eq!(planned["changes"][0]["detail"], "as usual → logs: none older than 7d");
    for wrong in [json!({ "keep": 5 }), json!({ "age": "7" }), json!({ "age": "7d", "size": 1 })] {
        assert!(plan(wrong.clone()).unwrap_err().to_string().contains("/manifest/lifecycle/logs"), "{wrong}");
    }
}

#[test]
fn a_noisy_app_fills_neither_its_log_nor_anybody_elses() {
    let steading = require(
        Steading::launch()
            .env("STEADING_ENVIRONMENTS_MAX_LOG_PER_SECOND", "5")
            .env("STEADING_ENVIRONMENTS_MAX_LOG_BYTES", "20000")
            .start(),
    );
    let client = steading.client();
    let quiet = client.output("env_create", &json!({ "slug": "quiet" })).unwrap();
    let quiet = (client.clone().in_env("quiet"), App::new(quiet["url"].as_str().unwrap()));
    let site = json!({ "manifest": { "site": { "files": { "index.html": "home" } } } });
    let noisy = App::new(client.output("app_apply", &site).unwrap()["url"].as_str().unwrap());
    quiet.0.output("app_apply", &site).unwrap();
    let (mut asked, mut dropped) = (0, 0);
    // The lines that are written fill its files several times over.
    for _ in 0..6 {
        for _ in 0..100 {
            assert_eq!(noisy.visitor().ask("GET", "/").unwrap().status, 200);
            asked += 1;
        }
        let notices = query(&client, &json!({ "text": "were dropped", "limit": 1 }));
        let notice = notices.first().expect("nothing says that entries were dropped");
        assert_eq!((&notice["level"], &notice["source"]), (&json!("warn"), &json!("logs")));
        dropped += notice["fields"]["dropped"].as_u64().unwrap();
    }
    assert!(dropped > 0 && dropped <= asked, "{dropped} of {asked}");
    // A failure is told all the same, with its request.
    let missing = noisy.visitor().ask("GET", "/missing").unwrap();
    let id = missing.header("x-request-id").unwrap();
    assert_eq!(messages(&query(&client, &json!({ "request_id": id }))), ["GET /missing 404"]);
    // Who is quiet loses nothing.
    let visit = quiet.1.visitor().ask("GET", "/").unwrap();
    let id = visit.header("x-request-id").unwrap();
    assert_eq!(messages(&query(&quiet.0, &json!({ "request_id": id }))), ["GET / 200"]);
    assert_eq!(query(&quiet.0, &json!({ "text": "were dropped" })), [Value::Null; 0]);
    let env = client.output("app_describe", &json!({})).unwrap()["env"].as_str().unwrap().to_owned();
    let logs = files(&steading.ready().data_dir, &format!("{env}/logs/"));
    let bytes: u64 = logs.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(logs.len() <= 8 && bytes <= 24_000, "{bytes} bytes in {logs:?}");
}

#[test]
fn a_failure_of_ours_is_an_error_in_the_log_of_the_app() {
    let steading = require(Steading::start());
    let client = steading.client();
    let lost = "a page whose content somebody removes";
    let manifest = json!({ "site": { "files": { "index.html": "home", "lost.html": lost } } });
    let app = client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(app["url"].as_str().unwrap());
    for blob in files(&steading.ready().data_dir, "/blobs/") {
        if std::fs::read(&blob).unwrap() == lost.as_bytes() {
            std::fs::remove_file(blob).unwrap();
        }
    }
    let reply = app.visitor().ask("GET", "/lost").unwrap();
    assert_eq!(reply.status, 500, "{reply:?}");
    let id = reply.header("x-request-id").unwrap();
    let found = query(&client, &json!({ "level": "error" }));
    assert_eq!(messages(&found), ["GET /lost 500"]);
    assert_eq!(found[0]["request_id"], id);
}

#[test]
fn no_secret_of_a_user_is_in_a_log() {
    let steading = require(Steading::start());
    let client = steading.client();
    let manifest = json!({
        "auth": { "methods": ["password", "otp"], "signup": "open" },
        "storage": { "buckets": { "papers": { "access": { "list": "auth.uid != null", "get": "auth.uid != null", "create": "auth.uid != null" } } } },
        "routes": { "/p/*": { "to": { "bucket": "papers" } } },
    });
    let app = client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(app["url"].as_str().unwrap());
    let asked = app.auth("otp", &json!({ "email": "ada@example.org" })).unwrap();
    assert!(asked.status < 300, "{asked:?}");
    // The answer does not wait for the mail.
    let code = eventually(Duration::from_secs(20), || {
        let mails = client.output("auth_users", &json!({ "mails": true })).unwrap().to_string();
        let found = mails.split(|c: char| !c.is_ascii_digit()).find(|part| part.len() == 6);
        found.map(str::to_owned)
    });
    let code = code.expect("no code was mailed");
    let signed_in = app.auth("otp/verify", &json!({ "email": "ada@example.org", "code": code })).unwrap();
    assert_eq!(signed_in.status, 200, "{signed_in:?}");
    let token = signed_in.body["access_token"].as_str().unwrap().to_owned();
    let refresh = signed_in.body["refresh_token"].as_str().unwrap().to_owned();
    let ada = app.visitor().with_token(&token);
    let put =
        Reply::of(ada.request("PUT", "/_/files/papers/a.txt").header("content-type", "text/plain").body("x"))
            .unwrap();
    assert_eq!(put.status, 201, "{put:?}");
    let link = ada.send("POST", "/_/files/papers/a.txt/sign", &json!({ "method": "get" })).unwrap();
    let link = link.body["url"].as_str().unwrap().to_owned();
    let signature = link.split_once("token=").unwrap().1.to_owned();
    assert_eq!(app.visitor().ask("GET", &link).unwrap().status, 200);
    assert_eq!(app.visitor().ask("GET", &format!("/p/a.txt?token={signature}")).unwrap().status, 200);
    app.visitor().ask("GET", &format!("/p/a.txt?token={signature}x")).unwrap();
    app.visitor().ask("GET", &format!("/_/auth/ui?token={refresh}&{token}")).unwrap();
    app.auth("refresh", &json!({ "refresh_token": refresh, "x": code })).unwrap();
    app.auth("login", &json!({ "email": "ada@example.org", "password": 123_456_789 })).unwrap();
    assert!(query(&client, &json!({ "limit": 500 })).len() > 8);
    for file in files(&steading.ready().data_dir, "/logs/") {
        let log = std::fs::read_to_string(&file).unwrap();
        for secret in [token.as_str(), &refresh, &signature, &code, "123456789"] {
            assert!(!log.contains(secret), "{secret} is in {}", file.display());
        }
    }
}

#[test]
fn failed_log_ins_are_found_as_what_they_are_without_who_it_was() {
    let place = Place::new("kept-out").unwrap();
    let auth = json!({ "methods": ["password"], "mfa": "optional" });
    place.output("app_apply", &json!({ "manifest": { "auth": auth } })).unwrap();
    let app = App::new(&place.url);
    app.sign_up("ada@example.org", "correct horse battery").unwrap();
    let wrong = json!({ "email": "ada@example.org", "password": "a wrong password" });
    let refused = app.auth("login", &wrong).unwrap();
    assert_eq!(refused.status, 401);
    let second = json!({ "ticket": "mt_nothing", "code": "000000" });
    assert_eq!(app.auth("mfa/verify", &second).unwrap().status, 401);
    // What is not even asked for rightly is no log-in.
    assert_eq!(app.auth("login", &json!({ "email": 1 })).unwrap().status, 400);
    let found = query(&place.client, &json!({ "text": "log-in", "level": "warn" }));
    let told: Vec<_> =
        found.iter().map(|it| [&it["source"], &it["message"], &it["fields"]["code"]]).collect();
    let failed =
        |way: &str| [json!("auth"), json!(format!("a log-in by {way} failed")), json!("unauthenticated")];
    let (second, password) = (failed("second factor"), failed("password"));
    assert_eq!(told, [second.each_ref(), password.each_ref()]);
    assert_eq!(found[1]["request_id"], refused.body["request_id"]);
    // A time or an id of a request may hold any of these digits by chance.
    for entry in &found {
        let text = json!([entry["message"], entry["fields"]]).to_string();
        for who in ["ada", "a wrong password", "000000"] {
            assert!(!text.contains(who), "{text}");
        }
    }
}
