//! A whole environment as a file: elsewhere it is the same app, and nothing that anybody sends is taken for one.

use std::process::Output;

use conformance_tests::{App, Place};
use serde_json::{Value, json};
use testkit::{Client, Steading, require};

fn manifest() -> Value {
    json!({
        "auth": { "methods": ["anonymous", "password"] },
        "database": {
            "tables": { "notes": { "columns": { "text": "text!", "n": "int = 3" }, "access": "private" } },
            "migrations": [{ "name": "side", "sql": "CREATE TABLE side (n INTEGER PRIMARY KEY, x BLOB)" }],
        },
        "site": {
            "files": { "index.html": "<title>App</title>", "a/b.html": "below" },
            "headers": { "/*": { "x-app": "yes" } },
        },
    })
}

fn export(client: &Client, slug: &str) -> Vec<u8> {
    let answer = client.request("GET", &format!("/v1/envs/{slug}/export")).send().unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-tar")));
    answer.body
}

fn import(client: &Client, slug: &str, archive: &[u8]) -> (u16, Value) {
    let request = client.request("POST", &format!("/v1/envs/{slug}/import")).body(archive);
    let answer = request.send().unwrap();
    (answer.status, answer.json().unwrap())
}

/// Everything of the app that is the same wherever it is.
fn state(client: &Client, app: &App) -> Value {
    let described = client.output("app_describe", &json!({})).unwrap();
    let described =
        ["release", "releases", "tables", "site", "migrations"].map(|part| described[part].clone());
    let rows = |table: &str| {
        let sql = format!("SELECT rowid, * FROM {table} ORDER BY rowid");
        client.output("db_query", &json!({ "sql": sql })).unwrap()
    };
    let page = |path: &str| {
        let page = app.visitor().ask("GET", path).unwrap();
        json!([page.status, page.body, page.header("x-app"), page.header("x-release")])
    };
    let users = client.output("auth_users", &json!({})).unwrap()["users"].clone();
    json!([described, rows("notes"), rows("side"), page("/"), page("/a/b"), users])
}

#[test]
fn an_export_imported_elsewhere_is_the_same_app() {
    let place = Place::new("moving").unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let app = App::new(&place.url);
    let alice = app.sign_up("alice@example.org", "correct horse battery").unwrap();
    alice.create("notes", &json!({ "text": "mine" })).unwrap();
    place.output("db_execute", &json!({ "sql": "INSERT INTO side VALUES (40, x'00ff')" })).unwrap();
    place.output("secret_set", &json!({ "name": "TOKEN", "value": "not in the archive" })).unwrap();
    let operator = place.steading.client().without_env();
    let archive = export(&operator, &place.slug);
    for secret in ["not in the archive", &alice.session.as_ref().unwrap().refresh] {
        assert!(!archive.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
    }

    let elsewhere = require(Steading::start());
    let there = elsewhere.client().without_env();
    let (status, made) = import(&there, "moved", &archive);
    assert_eq!((status, &made["release"], &made["secrets"]), (201, &json!(1), &json!(["TOKEN"])), "{made}");
    assert_eq!(made["effects"], json!([]));
    let (client, moved) = (elsewhere.client().in_env("moved"), App::new(made["url"].as_str().unwrap()));
    assert_eq!(state(&client, &moved), state(&place.client, &app));
    // Who was signed in there is not here, and signs in here with the same password.
    let refresh = json!({ "refresh_token": alice.session.as_ref().unwrap().refresh });
    assert_eq!(moved.auth("refresh", &refresh).unwrap().status, 401);
    let alice = moved.login("alice@example.org", "correct horse battery").unwrap();
    assert_eq!(alice.list("notes", &[]).unwrap().body["rows"].as_array().unwrap().len(), 1);
    alice.create("notes", &json!({ "text": "here" })).unwrap();
    client.output("app_apply", &json!({ "manifest": { "name": "goes on" } })).unwrap();
    client.output("app_rollback", &json!({ "release": 1 })).unwrap();

    // A slug that is taken, and one that is none.
    assert_eq!(import(&there, "moved", &archive).0, 409);
    assert_eq!(import(&there, "..", &archive).0, 400);
    assert_eq!(import(&there, "no--slug", &archive).0, 400);
}

#[test]
fn an_environment_with_much_in_it_moves_whole_and_tells_which_domains_it_leaves() {
    const ROWS: u32 = 30_000;
    let place = Place::new("moving-much").unwrap();
    let mut manifest = manifest();
    manifest["storage"] = json!({ "buckets": { "box": { "access": "private" } } });
    manifest["domains"] = json!(["much.example.org"]);
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(&place.url);
    let alice = app.sign_up("alice@example.org", "correct horse battery").unwrap();
    let rows = "INSERT INTO notes (owner, text, n) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT ?2) \
                SELECT ?1, 'note ' || i || hex(randomblob(40)), i FROM c";
    place.output("db_execute", &json!({ "sql": rows, "params": [alice.id(), ROWS] })).unwrap();
    let files: Vec<(String, Vec<u8>)> = (0..4u32)
        .map(|n| {
            let bytes = (0..1_500_000u32).map(|at| (at.wrapping_mul(2_654_435_761 + n) >> 13) as u8);
            (format!("/_/files/box/part-{n}.bin"), bytes.collect())
        })
        .collect();
    for (path, bytes) in &files {
        let put = alice.request("PUT", path).header("content-type", "application/octet-stream");
        assert_eq!(put.body(bytes.as_slice()).send().unwrap().status, 201, "{path}");
    }
    let all = |client: &Client| {
        let sql =
            "SELECT count(*), sum(n), sum(length(text)), min(text), max(text), count(DISTINCT id) FROM notes";
        client.output("db_query", &json!({ "sql": sql })).unwrap()["rows"].clone()
    };
    let before = all(&place.client);
    assert_eq!(before[0][0], ROWS);
    let archive = export(&place.steading.client().without_env(), &place.slug);

    let elsewhere = require(Steading::start());
    let (status, made) = import(&elsewhere.client().without_env(), "moved-much", &archive);
    assert_eq!(status, 201, "{made}");
    let left = "domain much.example.org is named and not claimed by this: domain_set does it";
    assert_eq!(made["effects"], json!([left]));
    assert_eq!(all(&elsewhere.client().in_env("moved-much")), before);
    let moved = App::new(made["url"].as_str().unwrap());
    let alice = moved.login("alice@example.org", "correct horse battery").unwrap();
    for (path, bytes) in &files {
        let got = alice.request("GET", path).send().unwrap();
        assert!(got.status == 200 && got.body == *bytes, "{path}: {}", got.status);
    }
    let one = alice.list("notes", &[("where", "n == 29999")]).unwrap();
    assert_eq!(one.body["rows"].as_array().unwrap().len(), 1);
    let claimed = json!({ "domain": "much.example.org" });
    elsewhere.client().in_env("moved-much").output("domain_set", &claimed).unwrap();
}

#[test]
fn what_is_no_archive_makes_no_environment() {
    let place = Place::new("whole").unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let operator = place.steading.client().without_env();
    let archive = export(&operator, &place.slug);
    let mut damaged = archive.clone();
    let at = archive.len() / 2;
    damaged[at] ^= 1;
    for (name, sent) in [
        ("nothing", &[][..]),
        ("text", b"{\"format\": \"steading-environment\"}"),
        ("cut", &archive[..archive.len() / 2]),
        ("damaged", &damaged),
        ("twice", &[&archive[..archive.len() - 1_024], &archive[..]].concat()),
    ] {
        let (status, answer) = import(&operator, "never-there", sent);
        assert_eq!((status, &answer["code"]), (400, &json!("invalid_input")), "{name}: {answer}");
        let shown = operator.request("GET", "/v1/envs/never-there").send().unwrap();
        assert_eq!(shown.status, 404, "{name}");
    }
    assert_eq!(import(&operator, "there-now", &archive).0, 201);
}

#[test]
fn only_who_may_see_and_make_everything_exports_and_imports() {
    let place = Place::new("guarded").unwrap();
    let operator = place.steading.client().without_env();
    let archive = export(&operator, &place.slug);
    let key = |body: Value| {
        let made = operator.request("POST", "/v1/keys").json(&body).send().unwrap().json().unwrap();
        Client::new(&place.steading.ready().url).with_key(made["key"].as_str().unwrap())
    };
    let bound = key(json!({ "name": "bound", "env": place.slug }));
    let reader = key(json!({ "name": "reader", "scopes": ["app:read", "db:read", "auth:read", "env:read"] }));
    let nobody = Client::new(&place.steading.ready().url);
    for (client, status) in [(&bound, 403), (&reader, 403), (&nobody, 401)] {
        let asked = client.request("GET", &format!("/v1/envs/{}/export", place.slug)).send().unwrap();
        assert_eq!(asked.status, status);
        assert_eq!(import(client, "not-made", &archive).0, status);
    }
    assert_eq!(operator.request("GET", "/v1/envs/nowhere/export").send().unwrap().status, 404);
}

#[test]
fn the_command_line_keeps_branches_merges_and_moves() {
    let place = Place::new("cli-time").unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let run = |arguments: &[&str]| -> Output { place.command(arguments).output().unwrap() };
    let json = |arguments: &[&str]| -> Value {
        let output = run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    json(&["env", "snapshot", "--name", "kept"]);
    place.output("db_execute", &json!({ "sql": "INSERT INTO side (n) VALUES (1)" })).unwrap();
    let refused = run(&["env", "restore", "kept"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1 made since are removed"));
    let done = json(&["env", "restore", "kept", "--yes"]);
    assert_eq!(done["restored"], true);
    let made = json(&["env", "branch", "--without-data"]);
    let slug = made["slug"].as_str().unwrap();
    let branch = place.steading.client().in_env(slug);
    branch.output("app_apply", &json!({ "manifest": { "name": "from the branch" } })).unwrap();
    let merged = json(&["env", "merge", slug, "--yes"]);
    assert_eq!(merged["changed"], true);
    let directory = testkit::temporary().unwrap();
    let file = directory.path().join("app.tar");
    let file = file.to_str().unwrap();
    json(&["env", "export", &place.slug, file]);
    assert_eq!(run(&["env", "export", &place.slug, file]).status.code(), Some(5), "it is there already");
    let copy = format!("{}-copy", place.slug);
    assert_eq!(json(&["env", "import", file, &copy])["slug"], json!(copy));
    let copied = place.steading.client().in_env(&copy).output("app_describe", &json!({})).unwrap();
    assert_eq!(copied["name"], "from the branch");
}
