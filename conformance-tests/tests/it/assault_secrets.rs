//! Secrets that were used in every way there is, looked for in every place they must not be.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Steading, require};

use crate::assault_tenants::mcp;

const VALUE: &str = "xK7-value-of-a-secret-9qZ";
const OTHER_VALUE: &str = "pW3-value-that-was-refused-2rT";
const BIG_VALUE: &str = "hJ5-value-that-was-too-large-8sU";
const CLI_VALUE: &str = "nR4-value-from-a-command-line-5vX";
const WRONG_KEY: &str = "stead_key_dGhpcyBpcyBub3QgYSBrZXkgb2YgYW55Ym9keTE";

/// Every file below `directory`.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

pub fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn no_secret_is_in_an_answer_a_log_a_file_or_the_process_list() {
    let mut steading = require(Steading::launch().env("STEADING_LOG_LEVEL", "trace").start());
    let operator = steading.ready().key.clone();
    let client = steading.client();
    let mut answers: Vec<String> = Vec::new();
    let mut call = |tool: &str, input: Value| {
        answers.push(client.call(tool, &input).unwrap().body.to_string());
        let by_mcp = mcp(&client, "/mcp", tool, &input).header("idempotency-key", tool).send().unwrap();
        answers.push(by_mcp.text().unwrap().to_owned());
        let again = client.request("POST", &format!("/v1/tools/{tool}")).header("idempotency-key", "again");
        answers.push(again.json(&input).send().unwrap().text().unwrap().to_owned());
    };
    // Set, set again, refused for its name, for its size, for a field beside it, and for its type.
    call("secret_set", json!({ "name": "TOKEN", "value": VALUE }));
    call("secret_set", json!({ "name": "not a name", "value": OTHER_VALUE }));
    call("secret_set", json!({ "name": "TOKEN", "value": OTHER_VALUE, "more": OTHER_VALUE }));
    call("secret_set", json!({ "name": "TOKEN", "value": { "inner": OTHER_VALUE } }));
    call("secret_set", json!({ "name": "TOKEN", "value": [OTHER_VALUE] }));
    call("secret_set", json!({ "name": "TOKEN", "valeu": OTHER_VALUE }));
    call("secret_set", json!({ "name": "BIG", "value": BIG_VALUE.repeat(40_000) }));
    // Asked for in every way.
    call("app_describe", json!({}));
    call("logs_query", json!({ "level": "debug" }));
    call("db_query", json!({ "sql": "SELECT * FROM sqlite_master" }));
    call("db_query", json!({ "sql": "SELECT * FROM _steading_state" }));
    call(
        "app_apply",
        json!({ "manifest": { "secrets": ["TOKEN"], "site": { "files": { "index.html": "x" } } } }),
    );
    call("resource_delete", json!({ "kind": "secret", "name": "TOKEN", "dry_run": true }));
    // Broken bodies that hold one.
    for body in [format!("{{\"name\":\"T\",\"value\":\"{OTHER_VALUE}"), OTHER_VALUE.to_owned()] {
        let request =
            client.request("POST", "/v1/tools/secret_set").header("content-type", "application/json");
        answers.push(request.body(body).send().unwrap().text().unwrap().to_owned());
    }
    // Keys: one that is made (and asked for again by its idempotency key), one that works, one that does not.
    let make = || {
        let request = client.request("POST", "/v1/keys").header("idempotency-key", "one");
        request.json(&json!({ "name": "made" })).send().unwrap().json().unwrap()
    };
    let made = make()["key"].as_str().unwrap().to_owned();
    let _ = make();
    let keys = client.request("GET", "/v1/keys").send().unwrap();
    answers.push(keys.text().unwrap().to_owned());
    for key in [made.as_str(), WRONG_KEY] {
        let other = client.clone().with_key(key);
        answers.push(other.call("app_describe", &json!({})).unwrap().body.to_string());
        answers
            .push(mcp(&other, "/mcp", "app_describe", &json!({})).send().unwrap().text().unwrap().to_owned());
        let query = format!("/v1/tools?key={key}");
        answers.push(client.request("GET", &query).send().unwrap().text().unwrap().to_owned());
    }
    // By the command line, which takes values from its input alone.
    let directory = testkit::temporary().unwrap();
    let input = directory.path().join("input");
    fs::write(&input, CLI_VALUE).unwrap();
    for name in ["FROM_CLI", "not a name"] {
        let mut set = steading.command(&["secret", "set", name, "--json", "--log-level", "trace"]);
        set.stdin(fs::File::open(&input).unwrap());
        let told = testkit::finish(set, std::time::Duration::from_secs(20)).unwrap();
        assert_eq!(told.success(), name == "FROM_CLI", "{} {}", told.stdout, told.stderr);
        answers.push(format!("{}{}", told.stdout, told.stderr));
    }
    let names = client.output("app_describe", &json!({})).unwrap()["secrets"].clone();
    assert_eq!(names, json!(["FROM_CLI", "TOKEN"]));

    let secrets = [VALUE, OTHER_VALUE, BIG_VALUE, CLI_VALUE, operator.as_str(), made.as_str(), WRONG_KEY];
    for answer in &answers {
        for secret in secrets {
            assert!(
                !answer.contains(secret),
                "{secret} in the answer {}",
                &answer[..answer.len().min(2_000)]
            );
        }
    }
    for name in ["cmdline", "environ"] {
        let shown = fs::read(format!("/proc/{}/{name}", steading.id())).unwrap();
        for secret in secrets {
            assert!(!holds(&shown, secret), "{secret} in the process's {name}");
        }
    }
    let check = |steading: &Steading, when: &str| {
        let data = steading.ready().data_dir.clone();
        let mut found = files(&data);
        found.push(steading.log_file());
        assert!(fs::metadata(steading.log_file()).unwrap().len() > 1_000, "a trace is long");
        for file in found {
            let bytes = fs::read(&file).unwrap();
            for secret in secrets {
                // A URL is the caller's to keep secrets out of, and a log of requests has paths and no queries.
                let own = file.ends_with("operator.key") && secret == operator;
                assert!(own || !holds(&bytes, secret), "{secret} in {} {when}", file.display());
            }
        }
    };
    check(&steading, "while it runs");
    assert!(steading.stop().is_some_and(|status| status.success()));
    check(&steading, "after its end");
}
