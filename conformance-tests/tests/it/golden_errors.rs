//! Every error code that can be provoked: its HTTP status, its exit code, its words.

use std::fmt::Write;
use std::time::Duration;

use expect_test::expect_file;
use serde_json::{Value, json};
use testkit::{Answer, Client, Steading, eventually, finish, require};

const LIMIT: Duration = Duration::from_secs(60);

/// A query that does not end by itself.
const ENDLESS: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
/// More rows than the database may hold.
const HUGE: &str = "INSERT INTO big WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 20) \
    SELECT zeroblob(100000) FROM c";

/// One way to provoke an error: a call by somebody in some environment.
struct Provocation {
    what: &'static str,
    key: String,
    env: &'static str,
    tool: &'static str,
    input: Value,
}

/// A server with limits so narrow that a test can reach them.
fn narrow() -> Steading {
    require(
        Steading::launch()
            .env("STEADING_ENVIRONMENTS_STATEMENT_TIMEOUT_MS", "200")
            .env("STEADING_ENVIRONMENTS_MAX_DATABASE_BYTES", "1000000")
            .env("STEADING_MCP_BODY_LIMIT", "100000")
            .start(),
    )
}

fn provocations(steading: &Steading) -> Vec<Provocation> {
    let operator = &steading.ready().key;
    let key = |body: Value| {
        let made = steading.client().request("POST", "/v1/keys").json(&body).send().unwrap();
        made.json().unwrap()
    };
    let reader = key(json!({ "name": "reader", "env": "default", "scopes": ["db:read"] }));
    let reader = reader["key"].as_str().unwrap();
    let gone = key(json!({ "name": "gone" }));
    let revoke = format!("/v1/keys/{}", gone["id"].as_str().unwrap());
    assert_eq!(steading.client().request("DELETE", &revoke).send().unwrap().status, 200);
    let one = |what, key: &str, env, tool, input| Provocation { what, key: key.to_owned(), env, tool, input };
    let by_operator = |what, tool, input| one(what, operator, "default", tool, input);
    vec![
        by_operator("a field of the wrong type", "db_query", json!({ "sql": 1 })),
        by_operator("a field that does not exist", "db_query", json!({ "sql": "SELECT 1", "speed": 9 })),
        by_operator("a missing field", "db_query", json!({})),
        by_operator("a wrong statement", "db_query", json!({ "sql": "SELEC 1" })),
        by_operator("a statement that writes", "db_query", json!({ "sql": "DELETE FROM big" })),
        by_operator("two statements", "db_query", json!({ "sql": "SELECT 1; SELECT 2" })),
        by_operator("a wrong slug", "env_create", json!({ "slug": "No_Slug" })),
        one("a credential that is none", "stead_key_none", "default", "app_describe", json!({})),
        one("a revoked key", gone["key"].as_str().unwrap(), "default", "app_describe", json!({})),
        one("a missing scope", reader, "default", "db_execute", json!({ "sql": "DELETE FROM big" })),
        one("a tool of the tenant", reader, "default", "env_list", json!({})),
        one("a missing environment", operator, "nowhere", "app_describe", json!({})),
        by_operator("a missing tool", "no_such_tool", json!({})),
        by_operator("a missing release", "app_rollback", json!({ "release": 9 })),
        by_operator("a taken slug", "env_create", json!({ "slug": "default" })),
        by_operator("a deletion without its dry run", "env_delete", json!({ "env": "default" })),
        by_operator(
            "a large body",
            "db_query",
            json!({ "sql": format!("SELECT '{}'", "x".repeat(100_000)) }),
        ),
        by_operator("a large result", "db_query", json!({ "sql": "SELECT hex(zeroblob(20000)) AS much" })),
        by_operator("a full database", "db_execute", json!({ "sql": HUGE })),
        one("a damaged database", operator, "damaged", "db_query", json!({ "sql": "SELECT 1" })),
        by_operator("an endless query", "db_query", json!({ "sql": ENDLESS })),
    ]
}

/// A problem, without what differs from run to run.
fn without_ids(steading: &Steading, mut problem: Value, extra: &[&str]) -> Value {
    let id = problem.as_object_mut().unwrap().remove("request_id");
    assert!(id.is_some_and(|id| id.as_str().unwrap().starts_with("req_")), "{problem}");
    let mut text = problem.to_string().replace(&steading.ready().url, "<url>");
    for id in extra {
        text = text.replace(id, "<id>");
    }
    serde_json::from_str(&text).unwrap()
}

fn row(what: &str, answer: &Answer, exit: &str) -> String {
    let problem = &answer.body;
    let code = problem["code"].as_str().unwrap();
    let mut row = format!("{code} {} exit {exit}: {what}\n", answer.status);
    for part in ["message", "field", "hint", "limit", "next"] {
        match &problem[part] {
            Value::Null => {}
            Value::String(text) => writeln!(row, "    {part}: {text}").unwrap(),
            other => writeln!(row, "    {part}: {other}").unwrap(),
        }
    }
    row
}

#[test]
fn each_error_has_its_status_its_exit_code_and_its_words() {
    let steading = narrow();
    steading.client().output("db_execute", &json!({ "sql": "CREATE TABLE big (b BLOB)" })).unwrap();
    let made = steading.client().output("env_create", &json!({ "slug": "damaged" })).unwrap();
    let damaged = made["env"].as_str().unwrap();
    let file = steading.ready().data_dir.join("envs").join(damaged).join("main.db");
    std::fs::write(file, [0x5a; 8192]).unwrap();
    let home = testkit::temporary().unwrap();
    let mut rows = Vec::new();
    for Provocation { what, key, env, tool, input } in provocations(&steading) {
        let client = steading.client().with_key(&key).in_env(env);
        let mut answer = client.call(tool, &input).unwrap();
        // Larger than an argument may be.
        std::fs::write(home.path().join("input.json"), input.to_string()).unwrap();
        let mut command = steading.command(&["call", tool, "@input.json", "--env", env, "--json"]);
        command.current_dir(home.path()).env("STEADING_KEY", &key);
        let finished = finish(command, LIMIT).unwrap();
        answer.body = without_ids(&steading, answer.body, &[damaged]);
        let said = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{what}: {finished:?}"));
        assert_eq!(answer.body, without_ids(&steading, said, &[damaged]), "{what}: the command line differs");
        assert_eq!(answer.body["status"], answer.status, "{what}");
        let exit = finished.status.and_then(|status| status.code()).unwrap().to_string();
        rows.push(row(what, &answer, &exit));
    }
    rows.push(idempotency_misuse(&steading));
    rows.push(too_many_calls());
    expect_file!["./golden/errors.txt"].assert_eq(&rows.concat());
}

fn idempotency_misuse(steading: &Steading) -> String {
    let create = |slug: &str| {
        let request = steading.client().request("POST", "/v1/tools/env_create");
        let request = request.header("idempotency-key", "once").json(&json!({ "slug": slug }));
        Answer::try_from(request.send().unwrap()).unwrap()
    };
    let first = create("once");
    assert_eq!(first.status, 200);
    assert_eq!(create("once"), first, "a repeat is not the same answer");
    let mut misuse = create("twice");
    misuse.body = without_ids(steading, misuse.body, &[]);
    row("an idempotency key with another body", &misuse, "-")
}

fn too_many_calls() -> String {
    let launch = Steading::launch().env("STEADING_LIMITS_KEY_PER_SECOND", "1");
    let steading = require(launch.env("STEADING_LIMITS_KEY_BURST", "1").start());
    let client: Client = steading.client();
    let limited = eventually(LIMIT, || {
        let request = client.request("POST", "/v1/tools/app_describe").json(&json!({}));
        let response = request.send().unwrap();
        (response.status != 200).then_some(response)
    });
    let limited = limited.unwrap();
    for header in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(limited.header(header).is_some(), "no {header}: {limited:?}");
    }
    let exit = eventually(LIMIT, || {
        let finished = finish(steading.command(&["call", "app_describe"]), LIMIT).unwrap();
        finished.status.and_then(|status| status.code()).filter(|code| *code != 0)
    });
    let mut answer = Answer::try_from(limited).unwrap();
    answer.body = without_ids(&steading, answer.body, &[]);
    row("one call too many", &answer, &exit.unwrap().to_string())
}

#[test]
fn a_platform_that_is_not_there_is_unavailable() {
    let mut steading = require(Steading::start());
    steading.kill();
    let finished = finish(steading.command(&["call", "app_describe", "--json"]), LIMIT).unwrap();
    let problem: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        (finished.status.unwrap().code(), &problem["code"]),
        (Some(7), &json!("unavailable")),
        "{finished:?}"
    );
}

#[test]
fn a_bad_configuration_ends_with_64_before_a_port_is_bound() {
    let steading = conformance_tests::steading();
    for arguments in [&["serve", "--no-such-flag"][..], &["serve", "--listen", "nowhere"]] {
        let home = testkit::temporary().unwrap();
        let mut command = steading.command(arguments);
        command.current_dir(home.path());
        let finished = finish(command, LIMIT).unwrap();
        assert_eq!(finished.status.unwrap().code(), Some(64), "{finished:?}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "{arguments:?} left files");
    }
    let home = testkit::temporary().unwrap();
    std::fs::write(home.path().join("steading.toml"), "lisen = \"127.0.0.1:0\"\n").unwrap();
    let mut command = steading.command(&["serve"]);
    command.current_dir(home.path());
    let finished = finish(command, LIMIT).unwrap();
    assert_eq!(finished.status.unwrap().code(), Some(64), "{finished:?}");
    assert!(finished.stderr.contains("lisen") && finished.stderr.contains("listen"), "{finished:?}");
}
