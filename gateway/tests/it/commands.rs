//! Commands against a platform that answers as told.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::platform::{Answer, err, out, run, stand_in, steading};

fn against(dir: &Path, url: &str, args: &[&str]) -> Command {
    let mut command = steading(dir);
    command.args(args).env("STEADING_URL", url).env("STEADING_KEY", "sk_test");
    command
}

#[test]
fn a_call_carries_the_credential_and_the_choices() {
    let dir = tempfile::tempdir().unwrap();
    let (url, requests) = stand_in(|_| Answer::json(200, &json!({ "rows": [[1]] })));
    let args = ["call", "db_query", r#"{"sql":"SELECT 1"}"#, "--env", "shop", "--tenant", "ten_1", "--json"];
    let output = against(dir.path(), &url, &args).output().unwrap();
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), "{\"rows\":[[1]]}\n"));
    let request = requests.recv().unwrap();
    assert_eq!(request.line, "POST /v1/tools/db_query");
    assert_eq!(request.json(), json!({ "sql": "SELECT 1" }));
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    assert_eq!(header("authorization"), Some("Bearer sk_test"));
    assert_eq!((header("steading-env"), header("steading-tenant")), (Some("shop"), Some("ten_1")));
}

#[test]
fn input_comes_from_a_file_or_from_stdin_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input.json"), "{\"from\":\"file\"}").unwrap();
    let (url, requests) = stand_in(|_| Answer::json(200, &json!({})));
    against(dir.path(), &url, &["call", "echo", "@input.json"]).output().unwrap();
    assert_eq!(requests.recv().unwrap().json(), json!({ "from": "file" }));
    let mut child = against(dir.path(), &url, &["call", "echo", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"from\":\"stdin\"}").unwrap();
    child.wait().unwrap();
    assert_eq!(requests.recv().unwrap().json(), json!({ "from": "stdin" }));
}

#[test]
fn every_code_has_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let table = [
        (400, "invalid_input", 2),
        (401, "unauthenticated", 3),
        (403, "forbidden", 3),
        (404, "not_found", 4),
        (409, "conflict", 5),
        (413, "too_large", 2),
        (429, "rate_limited", 6),
        (429, "quota_exceeded", 6),
        (402, "budget_exceeded", 6),
        (503, "unavailable", 7),
        (504, "timeout", 7),
        (500, "internal", 1),
    ];
    for (status, code, exit) in table {
        let (url, _requests) = stand_in(move |_| Answer::problem(status, code));
        let human = against(dir.path(), &url, &["call", "x"]).output().unwrap();
        assert_eq!(human.status.code(), Some(exit), "{code}");
        assert_eq!((out(&human).as_str(), err(&human).as_str()), ("", "error: no\n  at: /x\n  hint: do\n"));
        let machine = against(dir.path(), &url, &["call", "x", "--json"]).output().unwrap();
        assert_eq!(machine.status.code(), Some(exit), "{code}");
        let problem: Value = serde_json::from_str(&out(&machine)).unwrap();
        assert_eq!((&problem["code"], err(&machine).as_str()), (&json!(code), ""));
    }
}

#[test]
fn what_is_wrong_before_a_call_has_its_exit_code_too() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _requests) = stand_in(|_| Answer::json(200, &json!({})));
    let exit = |args: &[&str]| against(dir.path(), &url, args).output().unwrap().status.code();
    assert_eq!(exit(&["call", "x", "{not json"]), Some(2));
    assert_eq!(exit(&["call", "x", "@missing"]), Some(2));
    assert_eq!(exit(&["plan", "missing"]), Some(2));
    let silent = against(dir.path(), "http://127.0.0.1:1", &["call", "x"]).output().unwrap();
    assert_eq!(silent.status.code(), Some(7), "{}", err(&silent));
    let keyless = steading(dir.path()).args(["call", "x"]).env("STEADING_URL", &url).output().unwrap();
    assert_eq!(keyless.status.code(), Some(3), "{}", err(&keyless));
    let (other, _requests) = stand_in(|_| Answer {
        status: 502,
        content_type: "text/html",
        headers: &[],
        body: "<h1>Bad gateway</h1>".to_owned(),
    });
    assert_eq!(against(dir.path(), &other, &["call", "x"]).output().unwrap().status.code(), Some(7));
}

#[test]
fn a_key_of_a_whole_tenant_works_in_the_default_environment() {
    let dir = tempfile::tempdir().unwrap();
    let (url, requests) = stand_in(|request| match request.headers.get("steading-env") {
        Some(env) => Answer::json(200, &json!({ "env": env })),
        None => Answer::json(
            400,
            &json!({ "code": "invalid_input", "message": "no environment", "hint": "name one in Steading-Env" }),
        ),
    });
    let output = against(dir.path(), &url, &["call", "x", "--json"]).output().unwrap();
    assert_eq!(out(&output), "{\"env\":\"default\"}\n");
    assert_eq!(requests.iter().take(2).count(), 2);
}

#[test]
fn a_secret_goes_from_stdin_to_the_platform_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (url, requests) = stand_in(move |_| {
        // Answers when the test has looked at the running process.
        held.lock().unwrap().recv().unwrap_err();
        Answer::json(200, &json!({ "version": 1 }))
    });
    let mut command = against(dir.path(), &url, &["secret", "set", "STRIPE_KEY", "--log-level", "trace"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hunter2 \n").unwrap();
    for file in ["cmdline", "environ"] {
        let seen = std::fs::read(format!("/proc/{}/{file}", child.id())).unwrap();
        assert!(!String::from_utf8_lossy(&seen).contains("hunter2"), "{file}");
    }
    drop(hold);
    let output = child.wait_with_output().unwrap();
    let request = requests.recv().unwrap();
    assert_eq!(request.json(), json!({ "name": "STRIPE_KEY", "value": "hunter2 " }));
    assert_eq!(out(&output), "STRIPE_KEY is set.\n");
    assert!(!err(&output).contains("hunter2"), "{}", err(&output));
    assert_eq!(run(dir.path(), &["secret", "set", "STRIPE_KEY", "hunter2"]).status.code(), Some(64));
}

/// A platform that has the blobs in `had`, plans a loss and applies what it is given.
fn releases(request: &crate::platform::Request) -> Answer {
    match request.line.as_str() {
        line if line.starts_with("HEAD ") => Answer::problem(404, "not_found"),
        line if line.starts_with("PUT ") => Answer::json(201, &json!({})),
        "POST /v1/tools/app_plan" => Answer::json(
            200,
            &json!({
                "plan_id": "plan_1",
                "changes": [{ "action": "drop", "target": "table todos" }],
                "effects": [{ "kind": "data_loss", "target": "table todos", "message": "3 rows" }],
                "confirm": "c0ffee",
            }),
        ),
        "POST /v1/tools/app_apply" => {
            Answer::json(200, &json!({ "release": 2, "url": "http://default.localhost:1", "changed": true }))
        }
        _ => Answer::json(200, &json!({})),
    }
}

#[test]
fn apply_uploads_the_site_and_loses_nothing_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("public");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("index.html"), "<h1>Hi</h1>").unwrap();
    std::fs::write(site.join("logo.png"), [0xff, 0xd8, 0, 1]).unwrap();
    let manifest = r#"{"name":"shop","site":{"dir":"public","spa":true}}"#;
    std::fs::write(dir.path().join("steading.json"), manifest).unwrap();
    let (url, requests) = stand_in(releases);
    let refused = against(dir.path(), &url, &["apply", "--env", "shop"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    let said = err(&refused);
    assert!(
        said.contains("data loss: table todos: 3 rows") && said.contains("--plan plan_1 --confirm c0ffee"),
        "{said}"
    );
    let lines: Vec<_> = requests.try_iter().map(|request| (request.line.clone(), request.body)).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let name = lines[0].0.strip_prefix("HEAD /v1/blobs/").unwrap();
    assert_eq!((name.len(), &lines[1].0), (64, &format!("PUT /v1/blobs/{name}")));
    let plan: Value = serde_json::from_str(&lines[2].1).unwrap();
    let files = json!({ "index.html": "<h1>Hi</h1>", "logo.png": { "sha256": name } });
    assert_eq!(plan, json!({ "manifest": { "name": "shop", "site": { "spa": true, "files": files } } }));

    let applied = against(dir.path(), &url, &["apply", "--env", "shop", "--yes", "--json"]).output().unwrap();
    assert_eq!(out(&applied), "{\"release\":2,\"url\":\"http://default.localhost:1\",\"changed\":true}\n");
    let last = requests.try_iter().last().unwrap();
    assert_eq!(last.json(), json!({ "plan_id": "plan_1", "confirm": "c0ffee" }));
}

#[test]
fn apply_reads_the_directories_of_functions_without_what_is_not_theirs() {
    let dir = tempfile::tempdir().unwrap();
    for path in
        ["fn/index.ts", "fn/lib/a.ts", "fn/.env", "fn/lib/.cache/x", "fn/node_modules/left-pad/index.js"]
    {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    let write = |functions: Value| {
        let manifest = json!({ "functions": functions }).to_string();
        std::fs::write(dir.path().join("steading.json"), manifest).unwrap();
    };
    write(json!({ "a": { "dir": "fn", "access": "public" }, "b": { "files": { "index.js": "1" } } }));
    let (url, requests) = stand_in(releases);
    against(dir.path(), &url, &["apply", "--env", "shop"]).output().unwrap();
    let plan = requests.try_iter().last().unwrap().json();
    let files = json!({ "index.ts": "x", "lib/a.ts": "x" });
    assert_eq!(
        plan["manifest"]["functions"],
        json!({ "a": { "access": "public", "files": files }, "b": { "files": { "index.js": "1" } } })
    );
    write(json!({ "a": { "dir": "fn", "files": {} } }));
    let refused = against(dir.path(), &url, &["apply", "--env", "shop"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("at: /functions/a"), "{}", err(&refused));
}

#[test]
fn an_environment_is_deleted_only_when_somebody_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let (url, requests) = stand_in(|request| match request.json()["dry_run"] == true {
        true => Answer::json(200, &json!({ "deleted": false, "effects": ["3 tables"], "confirm": "c0ffee" })),
        false => Answer::json(200, &json!({ "deleted": true, "effects": [] })),
    });
    let refused = against(dir.path(), &url, &["env", "delete", "shop"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    assert!(err(&refused).starts_with("3 tables\n"), "{}", err(&refused));
    assert_eq!(requests.try_iter().count(), 1);
    let deleted = against(dir.path(), &url, &["env", "delete", "shop", "--yes"]).output().unwrap();
    assert_eq!(out(&deleted), "Deleted.\n");
    let sent = requests.try_iter().last().unwrap().json();
    assert_eq!(sent, json!({ "env": "shop", "dry_run": false, "confirm": "c0ffee" }));
}

#[test]
fn completions_are_made_for_three_shells() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef steading"), ("fish", "complete -c steading")]
    {
        let output = run(dir.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains(sign), "{shell}");
    }
    assert_eq!(run(dir.path(), &["completions", "powershell"]).status.code(), Some(64));
}

#[test]
fn the_version_is_told_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(out(&run(dir.path(), &["version"])), format!("steading {version}\n"));
    let told: Value = serde_json::from_str(&out(&run(dir.path(), &["version", "--json"]))).unwrap();
    assert_eq!(told["version"], version);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn doctor_finds_what_others_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join(".steading");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("operator.key"), "x").unwrap();
    std::fs::set_permissions(data.join("operator.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = run(dir.path(), &["doctor", "--json", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(7));
    let report: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(report["ok"], false);
    let keys = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "keys").unwrap();
    assert_eq!(
        (&keys["verdict"], &keys["finding"]),
        (&json!("failed"), &json!("others may read operator.key (mode 644)"))
    );
}
