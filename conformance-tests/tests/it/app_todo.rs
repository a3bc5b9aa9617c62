//! The task that most apps begin as: people sign in without telling anything, and each has a list of their own.

use anyhow::ensure;
use conformance_tests::{App, MARK, Person, Task, Usage};
use serde_json::{Value, json};

/// A Todo app with everything beside it that an attacker would look for.
pub const LIST: Task = Task {
    name: "todo",
    manifest,
    verify,
    settle,
    untouchable: "SELECT 'todos' AS what, id, owner, title, done, created_at, updated_at FROM todos
                  WHERE owner IS NOT ?1
                  UNION ALL
                  SELECT 'notices', id, owner, text, NULL, created_at, updated_at FROM notices
                  WHERE owner IS NOT ?1
                  UNION ALL
                  SELECT 'drawer', id, NULL, text, NULL, created_at, updated_at FROM drawer
                  ORDER BY what, id",
};

fn manifest() -> Value {
    json!({
        "name": "Todo",
        "auth": { "methods": ["anonymous", "password"], "origins": ["https://friend.example"] },
        "database": { "tables": {
            "todos": {
                "columns": { "title": "text!", "done": "bool = false", "n": "int" },
                "access": "private",
                "indexes": [["owner", "created_at"]],
            },
            "notices": { "columns": { "text": "text!" }, "access": "public_read" },
            // Nobody was let in: it is shut.
            "drawer": { "columns": { "text": "text!" } },
        } },
        "site": { "files": { "index.html": "<!doctype html><title>Todo</title>" } },
        "tests": [
            { "as": "user", "do": "update", "on": "todos", "expect": "allow", "new": { "done": true } },
            { "as": "other", "do": "get", "on": "todos", "expect": "deny" },
            { "as": "other", "do": "update", "on": "todos", "expect": "deny", "new": { "done": true } },
            { "as": "anonymous", "do": "list", "on": "todos", "expect": "deny" },
            { "as": "anonymous", "do": "list", "on": "notices", "expect": "allow" },
            { "as": "admin", "do": "list", "on": "drawer", "expect": "deny" },
        ],
    })
}

fn settle(person: &Person, usage: Usage) -> anyhow::Result<Vec<Value>> {
    if usage == Usage::Attacker {
        return Ok(vec![person.create("todos", &json!({ "title": "of mallory", "n": 1 }))?]);
    }
    person.create("notices", &json!({ "text": "read by all" }))?;
    (0..5).map(|n| person.create("todos", &json!({ "title": format!("{MARK}: {n}"), "n": n }))).collect()
}

/// One person's day, and another who sees nothing of it.
fn verify(app: &App) -> anyhow::Result<()> {
    let (one, other) = (app.stranger()?, app.stranger()?);
    let row = one.create("todos", &json!({ "title": "milk" }))?;
    let shown = json!([row["owner"], row["title"], row["done"], row["n"]]);
    ensure!(shown == json!([one.id(), "milk", false, null]), "not the row: {row}");
    let id = row["id"].as_str().unwrap_or_default();
    let path = format!("/_/db/todos/{id}");
    one.list("todos", &[])?.lists(&[id])?;
    other.list("todos", &[])?.lists(&[])?;
    app.visitor().list("todos", &[])?.lists(&[])?;
    let got = one.ask("GET", &path)?;
    ensure!((got.status, &got.body) == (200, &row) && got.header("etag").is_some(), "not the row: {got:?}");
    let changed = one.send("PATCH", &path, &json!({ "done": true }))?;
    ensure!(changed.status == 200 && changed.body["done"] == true, "not done: {changed:?}");
    let stale = one.request("PATCH", &path).header("if-match", got.header("etag").unwrap_or_default());
    conformance_tests::Reply::of(stale.json(&json!({ "done": false })))?.refuses(412, "conflict")?;
    // With an address, the same person goes on elsewhere.
    let email = format!("{}@example.com", one.id());
    let credentials = json!({ "email": email, "password": "a word that is long enough" });
    let upgraded = one.send("POST", "/_/auth/signup", &credentials)?;
    ensure!(upgraded.status == 201 && upgraded.body["user"]["id"] == one.id(), "another: {upgraded:?}");
    let again = app.login(&email, "a word that is long enough")?;
    ensure!(again.id() == one.id(), "another than {one:?}: {again:?}");
    again.list("todos", &[("where", "done == true")])?.lists(&[id])?;
    let deleted = again.ask("DELETE", &path)?;
    ensure!((deleted.status, &deleted.body) == (204, &Value::Null), "not deleted: {deleted:?}");
    again.list("todos", &[])?.lists(&[])?;
    Ok(())
}

#[test]
fn the_app_does_what_it_is_for() {
    let (_place, app) = LIST.deploy().unwrap();
    verify(&app).unwrap();
}
