//! The audit log from outside: what is in it, that it is verified offline, and that whoever changes it is found out.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use testkit::{Client, Steading, require};

const PLANTED: &str = "planted-Zq81-secret";

fn done(client: &Client, method: &str, path: &str, body: &Value) -> Value {
    let answer = client.request(method, path).json(body).send().unwrap();
    let told = answer.json().unwrap_or_default();
    assert!([200, 201].contains(&answer.status), "{method} {path}: {told:#}");
    told
}

fn entries(client: &Client) -> Vec<Value> {
    let mut all = client.request("GET", "/v1/audit").send().unwrap().json().unwrap()["entries"]
        .as_array()
        .unwrap()
        .clone();
    all.reverse();
    all
}

fn run(server: &Steading, arguments: &[&str]) -> Output {
    server.command(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

fn sql(data: &Path, statement: &str) {
    let done = Command::new("sqlite3").arg(data.join("control.db")).arg(statement).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
}

/// What is done by whom, of which a part is refused.
fn acts(server: &Steading) {
    let operator = server.client();
    let input = json!({ "name": "PAY_KEY", "value": PLANTED });
    operator.output("secret_set", &input).unwrap();
    let wide = operator.clone().without_env();
    let key = done(&wide, "POST", "/v1/keys", &json!({ "name": "ci", "scopes": ["app:read", "db:write"] }));
    let ci = operator.clone().with_key(key["key"].as_str().unwrap());
    let refused = ci.request("POST", "/v1/tools/secret_set").json(&input).send().unwrap();
    assert_eq!(refused.status, 403);
    let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    done(&wide, "DELETE", &path, &json!({}));
}

#[test]
fn each_act_says_who_with_what_from_where_about_what_and_how_it_ended() {
    let server = require(Steading::start());
    acts(&server);
    let wide = server.client().without_env();
    let all = entries(&wide);
    let of = |act: &str| all.iter().filter(|it| it["act"] == act).collect::<Vec<_>>();
    let (set, made, revoked) = (of("secret_set"), of("keys.create"), of("keys.revoke"));
    assert_eq!((set.len(), made.len(), revoked.len()), (2, 1, 1), "{all:#?}");
    let key = &made[0]["about"]["made"];
    assert_eq!((&made[0]["who"], &made[0]["about"]["name"]), (&json!("operator"), &json!("ci")));
    assert_eq!((&set[0]["who"], &set[0]["outcome"]), (&json!("operator"), &json!("ok")));
    assert_eq!((&set[1]["who"], &set[1]["outcome"]), (&json!("key"), &json!("forbidden")));
    assert_eq!((&set[1]["credential"], &revoked[0]["about"]["credential"]), (key, key));
    for entry in &all {
        assert_eq!(entry["from"], "127.0.0.1", "{entry}");
        assert_eq!(entry["door"], "http", "{entry}");
        assert!(entry["hash"].as_str().is_some_and(|hash| hash.len() == 64), "{entry}");
    }
    assert_eq!(set[0]["about"], json!({ "name": "PAY_KEY", "value": "<19 bytes>" }));
    let export = wide.request("GET", "/v1/audit/export").send().unwrap().text().unwrap().to_owned();
    assert!(!export.contains(PLANTED) && export.contains("PAY_KEY"), "{export}");
    // Reads are no acts.
    assert!(of("audit.list").is_empty() && !export.contains("app_describe"));
    // In words, for people.
    let listed = text(&run(&server, &["audit", "list", "--limit", "2"]));
    assert!(listed.contains("keys.revoke") && !listed.contains("keys.create"), "{listed}");
}

#[test]
fn what_was_used_is_told_to_agents_and_by_route_and_command() {
    let server = require(Steading::start());
    let client = server.client();
    for at in 0..3 {
        client.output("db_query", &json!({ "sql": format!("SELECT {at}") })).unwrap();
    }
    let wrong = json!({ "sql": "SELECT FROM" });
    assert_eq!(client.request("POST", "/v1/tools/db_query").json(&wrong).send().unwrap().status, 400);
    let of = |used: &Value| {
        let calls = used["calls"].as_array().unwrap();
        let found = calls.iter().find(|it| it["tool"] == "db_query").unwrap_or_else(|| panic!("{used}"));
        (found["calls"].as_u64().unwrap(), found["errors"].as_u64().unwrap())
    };
    let told = client.output("usage_query", &json!({ "since": "2h" })).unwrap();
    assert_eq!(of(&told), (4, 1));
    assert_eq!(told["limits"][0]["of"], "key");
    let wide = client.clone().without_env();
    for path in ["/v1/usage", "/v1/usage?env=default&since=1h"] {
        assert_eq!(of(&wide.request("GET", path).send().unwrap().json().unwrap()), (4, 1), "{path}");
    }
    assert_eq!(wide.request("GET", "/v1/usage?since=never").send().unwrap().status, 400);
    let later = wide.request("GET", "/v1/usage?since=2999-01-01T00:00:00Z").send().unwrap().json().unwrap();
    assert_eq!(later["calls"], json!([]));
    let words = text(&run(&server, &["usage"]));
    assert!(words.lines().any(|line| line.starts_with("db_query ") && line.contains(" 4 ")), "{words}");
}

#[test]
fn the_operators_key_is_replaced_and_what_stood_on_it_ends() {
    let server = require(Steading::start());
    let wide = server.client().without_env();
    let minted = done(
        &wide,
        "POST",
        "/v1/credentials",
        &json!({ "env": "default", "scopes": ["app:read"], "expires_in": 600 }),
    );
    let minted = server.client().with_key(minted["token"].as_str().unwrap());
    let key = done(&wide, "POST", "/v1/keys", &json!({ "name": "ci" }));
    let tenants = server.client().with_key(key["key"].as_str().unwrap());
    let ask = |client: &Client| {
        client.request("POST", "/v1/tools/app_describe").json(&json!({})).send().unwrap().status
    };
    assert_eq!([ask(&minted), ask(&tenants), ask(&server.client())], [200, 200, 200]);
    let path = "/v1/keys/operator/rotate";
    let refused =
        |client: &Client, body: &Value| client.request("POST", path).json(body).send().unwrap().status;
    assert_eq!(refused(&tenants.clone().without_env(), &json!({})), 403);
    assert_eq!(refused(&wide, &json!({ "overlap_s": 60 })), 400);
    let new = done(&wide, "POST", path, &json!({}));
    let new = new["key"].as_str().unwrap();
    assert_eq!([ask(&minted), ask(&tenants), ask(&server.client())], [401, 200, 401]);
    assert_eq!(ask(&server.client().with_key(new)), 200);
    let file = std::fs::read_to_string(server.ready().data_dir.join("operator.key")).unwrap();
    assert_eq!(file.trim(), new);
}

#[test]
fn a_log_is_its_tenants_and_for_whoever_manages_its_keys() {
    let server = require(Steading::start());
    let wide = server.client().without_env();
    let other = done(&wide, "POST", "/v1/tenants", &json!({ "slug": "other" }));
    let key = wide.request("POST", "/v1/keys").header("steading-tenant", "other");
    let key = key.json(&json!({ "name": "admin", "scopes": ["key:admin"] })).send().unwrap().json().unwrap();
    let admin = wide.clone().with_key(key["key"].as_str().unwrap());
    let theirs = entries(&admin);
    assert_eq!(
        theirs.iter().map(|it| it["act"].clone()).collect::<Vec<_>>(),
        [json!("tenants.create"), json!("keys.create")]
    );
    assert_eq!(theirs[0]["tenant"], other["tenant"], "{theirs:#?}");
    assert!(entries(&wide).iter().all(|it| it["tenant"] != other["tenant"]));
    for input in [json!({ "name": "n", "scopes": ["app:read"] }), json!({ "name": "n", "env": "default" })] {
        let key = done(&wide, "POST", "/v1/keys", &input);
        let narrow = wide.clone().with_key(key["key"].as_str().unwrap());
        for path in ["/v1/audit", "/v1/audit/export", "/v1/audit/key"] {
            assert_eq!(narrow.request("GET", path).send().unwrap().status, 403, "{path} {input}");
        }
    }
}

#[test]
fn an_exported_log_is_verified_without_the_platform_and_no_change_of_it_passes() {
    let mut server = require(Steading::start());
    acts(&server);
    let place = tempfile::TempDir::new().unwrap();
    let file = place.path().join("log.ndjson");
    let name = file.to_str().unwrap();
    let exported = run(&server, &["audit", "export", name]);
    assert!(exported.status.success(), "{}", text(&exported));
    let key = text(&run(&server, &["audit", "key"])).trim().to_owned();
    server.stop();
    let verify = |key: &str| run(&server, &["audit", "verify", name, "--key", key]);
    let whole = verify(&key);
    assert!(whole.status.success() && text(&whole).contains("entries 1 to 4"), "{}", text(&whole));
    let stranger = "a".repeat(64);
    assert!(text(&verify(&stranger)).contains("another key"), "{}", text(&verify(&stranger)));
    let log = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let changes = [
        log.replacen("\"forbidden\"", "\"ok\"", 1),
        log.replacen("127.0.0.1", "127.0.0.2", 1),
        [&lines[..2], &lines[3..]].concat().join("\n"),
        lines[..lines.len() - 1].join("\n"),
    ];
    for change in changes {
        std::fs::write(&file, &change).unwrap();
        let found = verify(&key);
        assert!(!found.status.success() && text(&found).contains("not what was written"), "{}", text(&found));
    }
}

#[test]
fn who_changes_the_control_database_is_found_out() {
    let mut server = require(Steading::start());
    acts(&server);
    let data = server.ready().data_dir.clone();
    let file = data.join("audit-checkpoints.ndjson");
    let kept = file.to_str().unwrap();
    let verify = |server: &Steading| text(&run(server, &["audit", "verify", "--checkpoints", kept]));
    let whole = text(&run(&server, &["audit", "verify"]));
    assert!(whole.contains("whole: entries 1 to 4"), "{whole}");
    // A checkpoint is made when the platform stops, and kept beside the database.
    server.stop();
    let checkpoint = std::fs::read_to_string(&file).unwrap();
    assert!(checkpoint.contains("\"seq\":4"), "{checkpoint}");
    // An act less, and an end that was once signed; all that the database says fits.
    let copy = "CREATE TABLE old AS SELECT * FROM audit_heads";
    sql(&data, copy);
    let server = server.restart().unwrap();
    server.client().output("secret_set", &json!({ "name": "MORE", "value": PLANTED })).unwrap();
    let mut server = server;
    server.stop();
    let back = "DELETE FROM audit WHERE seq > 4; DELETE FROM audit_marks WHERE seq > 4; \
         UPDATE audit_heads SET (seq, hash, at, signature, checked, checked_at) = \
         (SELECT seq, hash, at, signature, 4, checked_at FROM old WHERE old.tenant = audit_heads.tenant); \
         DROP TABLE old";
    sql(&data, back);
    let server = server.restart().unwrap();
    let found = verify(&server);
    assert!(found.contains("there is an entry 5") && found.contains("cut off"), "{found}");
    // An entry that is changed, and the hashes made to fit: without the key the end does not.
    sql(&data, "UPDATE audit SET body = replace(body, 'forbidden', 'ok')");
    let found = verify(&server);
    assert!(found.contains("does not fit"), "{found}");
    sql(&data, "UPDATE audit_heads SET hash = 'abc'");
    // The platform goes on, and says for ever what it has found.
    server.client().output("secret_set", &json!({ "name": "LAST", "value": PLANTED })).unwrap();
    let all = entries(&server.client().without_env());
    let acts: Vec<&str> = all.iter().rev().take(2).map(|it| it["act"].as_str().unwrap()).collect();
    assert_eq!(acts, ["secret_set", "audit.broken"]);
    assert!(server.log().contains("the audit log was changed by somebody else"), "{}", server.log());
}

#[test]
fn an_act_that_was_answered_is_on_record_after_a_kill() {
    let mut server = require(Steading::start());
    for round in 0..3 {
        let client = server.client();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let client = client.clone();
                std::thread::spawn(move || {
                    let mut answered = Vec::new();
                    for number in 0..1_000 {
                        let name = format!("R{round}_{writer}_{number}");
                        let input = json!({ "name": name, "value": PLANTED });
                        let Ok(answer) = client.request("POST", "/v1/tools/secret_set").json(&input).send()
                        else {
                            break;
                        };
                        assert_eq!(answer.status, 200);
                        answered.push(name);
                    }
                    answered
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(700));
        server.kill();
        let answered: Vec<String> = writers.into_iter().flat_map(|it| it.join().unwrap()).collect();
        assert!(!answered.is_empty(), "it was killed before anything was done");
        server = server.restart().unwrap();
        let export = server
            .client()
            .without_env()
            .request("GET", "/v1/audit/export")
            .send()
            .unwrap()
            .text()
            .unwrap()
            .to_owned();
        for name in answered {
            assert!(export.contains(&format!("\"{name}\"")), "{name} is missing");
        }
        let found = run(&server, &["audit", "verify"]);
        assert!(found.status.success(), "{}", text(&found));
    }
}
