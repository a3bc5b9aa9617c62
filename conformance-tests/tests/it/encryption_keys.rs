//! Keys that values are sealed with, from outside: rotations that die half-way, and planted values that are shown nowhere.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::{Client, Postgres, Steading, eventually, finish, require};

use crate::assault_secrets::{files, holds};
use crate::assault_tenants::mcp;

const VALUE: &str = "qT8/value+of a \"secret\"-6mB";
/// It is nowhere but where the platform keeps it.
const KEPT: &str = "kD2-value-that-nobody-says-7wY";
const PATIENCE: Duration = Duration::from_secs(60);

fn rotate(client: &Client) -> Value {
    let answer = client.request("POST", "/v1/encryption-keys/rotate").send().unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.text());
    answer.json().unwrap()
}

fn keys(client: &Client) -> Value {
    let answer = client.request("GET", "/v1/encryption-keys").send().unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.text());
    answer.json().unwrap()
}

#[test]
fn a_planted_value_is_shown_by_nothing_whoever_says_it() {
    let mut steading = require(Steading::launch().env("STEADING_LOG_LEVEL", "trace").start());
    let client = steading.client();
    for (name, value) in [("SAID", VALUE), ("KEPT", KEPT)] {
        client.output("secret_set", &json!({ "name": name, "value": value })).unwrap();
    }
    let table = json!({
        "secrets": ["SAID", "KEPT"],
        "database": { "tables": { "notes": { "columns": { "title": "text!" } } } },
    });
    client.output("app_apply", &json!({ "manifest": table })).unwrap();
    // The app itself has written it down, as it is and in other spellings.
    let encoded = STANDARD.encode(format!("user:{VALUE}"));
    let percent = "qT8%2Fvalue%2Bof%20a%20%22secret%22-6mB";
    let json_text = json!({ "key": VALUE }).to_string();
    for text in [VALUE, &encoded, percent, &json_text] {
        let insert = json!({ "sql": "INSERT INTO notes (title) VALUES (?)", "params": [text] });
        client.output("db_execute", &insert).unwrap();
    }
    let select = json!({ "sql": "SELECT title, 7 AS n FROM notes ORDER BY id" });
    let found = client.output("db_query", &select).unwrap();
    assert_eq!(found["rows"][0], json!(["***", 7]), "{found}");
    assert_eq!(found["rows"].as_array().unwrap().len(), 4);
    let mut answers = vec![found.to_string()];
    answers.push(mcp(&client, "/mcp", "db_query", &select).send().unwrap().text().unwrap().to_owned());
    let wrong = format!("SELECT * FROM \"{}\"", VALUE.replace('"', ""));
    answers.push(client.call("db_query", &json!({ "sql": wrong })).unwrap().body.to_string());
    let wrong = json!({ "sql": "SELECT * FROM notes WHERE title = json(?)", "params": [VALUE] });
    answers.push(client.call("db_query", &wrong).unwrap().body.to_string());
    for _ in 0..2 {
        let again = client.request("POST", "/v1/tools/db_execute").header("idempotency-key", "again");
        let insert = "INSERT INTO notes (title) VALUES (?) RETURNING title";
        let told = again.json(&json!({ "sql": insert, "params": [VALUE] })).send().unwrap();
        answers.push(told.text().unwrap().to_owned());
    }
    rotate(&client);
    for path in ["/v1/encryption-keys", "/v1/audit", "/v1/audit/export", "/v1/usage", "/metrics", "/v1/tools"]
    {
        let answer = client.request("GET", path).send().unwrap();
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.text());
        answers.push(answer.text().unwrap().to_owned());
    }
    for tool in ["app_describe", "logs_query"] {
        answers.push(client.output(tool, &json!({})).unwrap().to_string());
    }
    let quoted = json!(VALUE).to_string();
    let spellings = [VALUE, &quoted[1..quoted.len() - 1], &encoded[8..encoded.len() - 4], percent, KEPT];
    for answer in &answers {
        for spelling in spellings {
            assert!(!answer.contains(spelling), "{spelling} in {answer}");
        }
    }
    // What the platform keeps, and what it hands out to be kept elsewhere.
    let archive = client.request("GET", "/v1/envs/default/export").send().unwrap();
    assert_eq!(archive.status, 200);
    assert!(!holds(&archive.body, KEPT));
    assert!(steading.stop().is_some_and(|status| status.success()));
    let mut all = files(&steading.ready().data_dir);
    all.push(steading.log_file());
    for file in all {
        assert!(!holds(&fs::read(&file).unwrap(), KEPT), "{}", file.display());
    }
    let log = fs::read(steading.log_file()).unwrap();
    assert!(!holds(&log, VALUE), "what an app has in its own rows is in no log");
}

#[test]
fn the_operator_rotates_keys_and_sees_no_key() {
    let steading = require(Steading::start());
    let client = steading.client();
    client.output("secret_set", &json!({ "name": "A", "value": KEPT })).unwrap();
    let (before, master) = (keys(&client), fs::read(steading.ready().data_dir.join("keys/master")).unwrap());
    let after = rotate(&client);
    assert_ne!(before["key_encryption_key"]["id"], after["key_encryption_key"]["id"]);
    assert_eq!((&after["older_values"], &after["key_encryption_key"]["here"]), (&json!(0), &json!(true)));
    let now = fs::read(steading.ready().data_dir.join("keys/master")).unwrap();
    assert_ne!(master, now);
    for key in [&master, &now] {
        assert!(!after.to_string().contains(&STANDARD.encode(key)));
    }
    assert!(!after.to_string().contains("wrapped"));
    let refused =
        client.request("POST", "/v1/encryption-keys/rotate").json(&json!({ "keep": 1 })).send().unwrap();
    assert_eq!(refused.status, 400);
    let audit = client.request("GET", "/v1/audit").send().unwrap();
    assert!(audit.text().unwrap().contains("encryption_keys.rotate"));
    for arguments in [&["key", "encryption"][..], &["key", "encryption", "--rotate"]] {
        let told = finish(steading.command(arguments), PATIENCE).unwrap();
        assert!(told.success() && told.stdout.contains("Wrapped under"), "{} {}", told.stdout, told.stderr);
    }
    let steading = steading.restart().unwrap();
    assert_eq!(keys(&steading.client())["older_values"], 0);
}

/// Kills rotations after so many different times; says how often the key in force was another one afterwards.
fn killed(mut steading: Steading, rounds: u32) -> u32 {
    let mut others = 0;
    for n in 0..40 {
        let client = steading.client();
        client.output("secret_set", &json!({ "name": format!("A{n}"), "value": KEPT })).unwrap();
    }
    for round in 0..rounds {
        let client = steading.client();
        let before = keys(&client)["key_encryption_key"]["id"].clone();
        let rotating = thread::spawn({
            let client = client.clone();
            move || {
                let began = Instant::now();
                let answered = client.request("POST", "/v1/encryption-keys/rotate").send().is_ok();
                (answered, began.elapsed())
            }
        });
        thread::sleep(Duration::from_micros(u64::from(round) * 1_700 % 60_000));
        steading.kill();
        rotating.join().unwrap();
        steading = steading.restart().unwrap();
        let client = steading.client();
        let after = keys(&client);
        assert_eq!(after["key_encryption_key"]["here"], true);
        others += u32::from(after["key_encryption_key"]["id"] != before);
        assert!(
            !steading.ready().data_dir.join("keys/master.next").exists()
                || after["key_encryption_key"]["id"] == before
        );
        // What opens is sealed anew; what does not stays for ever.
        assert_eq!(rotate(&client)["older_values"], 0, "round {round}");
    }
    others
}

#[test]
fn a_rotation_that_is_killed_leaves_every_value_readable() {
    killed(require(Steading::start()), 12);
}

#[test]
#[ignore = "takes minutes"]
fn soak_many_rotations_that_are_killed_leave_every_value_readable() {
    let others = killed(require(Steading::start()), 300);
    assert!(others > 20 && others < 290, "the moments are not spread: {others}");
}

#[test]
fn a_command_that_fails_stops_the_start_and_is_named() {
    let directory = testkit::temporary().unwrap();
    let (script, data) = (directory.path().join("kms.sh"), directory.path().join("data"));
    let turns = "read -r line; printf '%s\\n' \"$line\" | tr 'A-Za-z' 'N-ZA-Mn-za-m'";
    fs::write(&script, turns).unwrap();
    let words = format!("/bin/sh,{}", script.display());
    let launch = || Steading::launch().data_dir(&data).env("STEADING_KEYS_COMMAND", &words);
    let mut steading = require(launch().start());
    let client = steading.client();
    client.output("secret_set", &json!({ "name": "A", "value": KEPT })).unwrap();
    assert_eq!(rotate(&client)["key_encryption_key"]["id"], "command");
    assert!(!data.join("keys/master").exists());
    let shown = fs::read(format!("/proc/{}/cmdline", steading.id())).unwrap();
    assert!(!holds(&shown, KEPT));
    assert!(steading.stop().is_some_and(|status| status.success()));
    let start = |set: bool| {
        let mut command = std::process::Command::new(require(
            testkit::built_binary().ok_or(testkit::Unavailable::NotBuilt),
        ));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data).env_clear();
        if set {
            command.env("STEADING_KEYS_COMMAND", &words);
        }
        finish(command, PATIENCE).unwrap()
    };
    fs::write(&script, "echo no >&2; exit 7").unwrap();
    for set in [true, false] {
        let told = start(set);
        assert!(!told.success(), "{}", told.stdout);
        assert!(told.stderr.contains("keys.command"), "{}", told.stderr);
    }
    fs::write(&script, turns).unwrap();
    let steading = require(launch().start());
    assert_eq!(rotate(&steading.client())["older_values"], 0);
}

#[test]
fn a_gateway_without_the_key_in_force_says_what_to_bring() {
    let postgres = require(Postgres::start(testkit::Fsync::Off));
    let launch = || Steading::launch().env("STEADING_DATABASE_URL", postgres.url("postgres"));
    let one = require(launch().start());
    let other = conformance_tests::home_beside(&one).unwrap();
    let two = require(launch().data_dir(other.path()).start());
    let (here, there) = (one.client(), two.client());
    rotate(&here);
    let set = json!({ "name": "A", "value": KEPT });
    let refused = there.call("secret_set", &set).unwrap();
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("unavailable")), "{}", refused.body);
    assert!(refused.body["hint"].as_str().unwrap().contains("keys/master"), "{}", refused.body);
    assert_eq!(keys(&there)["key_encryption_key"]["here"], false);
    fs::copy(one.ready().data_dir.join("keys/master"), other.path().join("keys/master")).unwrap();
    let good = eventually(PATIENCE, || (there.call("secret_set", &set).unwrap().status == 200).then_some(()));
    assert!(good.is_some());
    assert_eq!(keys(&there)["key_encryption_key"]["here"], true);
}
