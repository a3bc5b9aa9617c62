//! Attacks on the rows of others: by their ids, by filters, by cursors, by batches, and by forged owners.

use anyhow::{Context, ensure};
use conformance_tests::{Attack, Reply, encoded};
use serde_json::{Value, json};

use crate::app_todo::LIST;

/// The path of a row.
fn row(id: &str) -> String {
    format!("/_/db/todos/{id}")
}

const BY_ID: &[Attack] = &[
    Attack {
        name: "read, change and delete a row by its id",
        attempt: |scene| {
            let path = row(scene.target());
            for attacker in scene.attackers() {
                scene.refused(&attacker.ask("GET", &path)?, 404, "not_found")?;
                scene.refused(&attacker.send("PATCH", &path, &json!({ "done": true }))?, 404, "not_found")?;
                scene.refused(&attacker.ask("DELETE", &path)?, 404, "not_found")?;
            }
            Ok(())
        },
    },
    Attack {
        name: "tell a hidden row from none",
        attempt: |scene| {
            let hidden = scene.target();
            let last = if hidden.ends_with('0') { "1" } else { "0" };
            let none = format!("{}{last}", &hidden[..hidden.len() - 1]);
            for attacker in scene.attackers() {
                let requests = |id: &str| -> anyhow::Result<Vec<String>> {
                    let patch = attacker.request("PATCH", &row(id)).json(&json!({ "done": true }));
                    let wrong = attacker.request("PATCH", &row(id)).json(&json!({ "nope": true }));
                    let version = attacker.request("DELETE", &row(id)).header("if-match", "\"x\"");
                    let requests = [
                        attacker.request("GET", &row(id)),
                        patch,
                        wrong,
                        version,
                        attacker.request("HEAD", &row(id)),
                    ];
                    requests.into_iter().map(|request| Ok(told(&Reply::of(request)?, id))).collect()
                };
                let (hidden, none) = (requests(hidden)?, requests(&none)?);
                ensure!(hidden == none, "they differ:\n{hidden:#?}\n{none:#?}");
            }
            Ok(())
        },
    },
    Attack {
        name: "say what is known of a row's version",
        attempt: |scene| {
            let path = row(scene.target());
            let etag = scene.alice.ask("GET", &path)?.header("etag").context("no etag")?.to_owned();
            for attacker in scene.attackers() {
                for (header, value) in
                    [("if-match", etag.as_str()), ("if-match", "*"), ("if-none-match", &etag)]
                {
                    let with = |method| attacker.request(method, &path).header(header, value);
                    scene.refused(&Reply::of(with("GET"))?, 404, "not_found")?;
                    scene.refused(
                        &Reply::of(with("PATCH").json(&json!({ "done": true })))?,
                        404,
                        "not_found",
                    )?;
                    scene.refused(&Reply::of(with("DELETE"))?, 404, "not_found")?;
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "write ids that mean more than one row",
        attempt: |scene| {
            let id = scene.target();
            let tricks = [
                "' OR 1=1 --".to_owned(),
                "\" OR \"\"=\"".to_owned(),
                "*".to_owned(),
                "%".to_owned(),
                "null".to_owned(),
                "0".to_owned(),
                format!("{id},{}", scene.own_id()),
                format!("{id};"),
                format!("{id}\0"),
                format!(" {id}"),
                format!("{}/../{id}", scene.own_id()),
                "x".repeat(4_000),
            ];
            for attacker in scene.attackers() {
                for trick in &tricks {
                    let path = row(&encoded(trick));
                    scene.refused(&attacker.ask("GET", &path)?, 404, "not_found")?;
                    scene.refused(
                        &attacker.send("PATCH", &path, &json!({ "done": true }))?,
                        404,
                        "not_found",
                    )?;
                    scene.refused(&attacker.ask("DELETE", &path)?, 404, "not_found")?;
                }
                for path in [row(&id.to_uppercase()), format!("/_/db/TODOS/{id}")] {
                    scene.refused(&attacker.ask("GET", &path)?, 404, "not_found")?;
                    scene.refused(&attacker.ask("DELETE", &path)?, 404, "not_found")?;
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "write a row that others may read",
        attempt: |scene| {
            let notices = scene.mallory.ask("GET", "/_/db/notices")?;
            let id = notices.body["rows"][0]["id"].as_str().context("no notice")?.to_owned();
            let path = format!("/_/db/notices/{id}");
            for attacker in scene.attackers() {
                attacker.list("notices", &[])?.lists(&[&id])?;
                scene.refused(
                    &attacker.send("PATCH", &path, &json!({ "text": "mine" }))?,
                    403,
                    "forbidden",
                )?;
                scene.refused(&attacker.ask("DELETE", &path)?, 403, "forbidden")?;
            }
            Ok(())
        },
    },
];

/// What an answer tells, without what differs from call to call and without the id that was asked for.
fn told(reply: &Reply, id: &str) -> String {
    let per_call = ["date", "x-request-id", "content-length"];
    let headers: Vec<_> =
        reply.headers.iter().filter(|(name, _)| !per_call.contains(&name.as_str())).collect();
    let mut body = reply.body.clone();
    body.as_object_mut().map(|fields| fields.remove("request_id"));
    format!("{} {headers:?} {body}", reply.status).replace(id, "<id>")
}

const OWNERS: &[Attack] = &[
    Attack {
        name: "make a row in another's name",
        attempt: |scene| {
            let alice = scene.alice.id();
            for attacker in scene.attackers() {
                for table in ["todos", "notices"] {
                    let new = json!({ "title": "a gift", "text": "a gift", "owner": alice });
                    let column = if table == "todos" { "text" } else { "title" };
                    let mut new = new.clone();
                    new.as_object_mut().map(|fields| fields.remove(column));
                    let reply = attacker.send("POST", &format!("/_/db/{table}"), &new)?;
                    scene.refused(&reply, 403, "forbidden")?;
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "make a row without a session",
        attempt: |scene| {
            let visitor = scene.app.visitor();
            for owner in [None, Some(json!(scene.alice.id())), Some(Value::Null)] {
                let mut new = json!({ "title": "of nobody" });
                if let Some(owner) = owner {
                    new["owner"] = owner;
                }
                scene.refused(&visitor.send("POST", "/_/db/todos", &new)?, 403, "forbidden")?;
            }
            Ok(())
        },
    },
    Attack {
        name: "give a row away",
        attempt: |scene| {
            let path = row(scene.own_id());
            let patch = json!({ "title": "a gift", "owner": scene.alice.id() });
            scene.refused(&scene.mallory.send("PATCH", &path, &patch)?, 403, "forbidden")?;
            let left = scene.mallory.send("PATCH", &path, &json!({ "owner": null }))?;
            scene.tells_nothing(&left)?;
            ensure!([400, 403].contains(&left.status), "a row without an owner: {left:?}");
            let own = scene.mallory.ask("GET", &path)?;
            ensure!(own.body == scene.own, "not as it was: {own:?}");
            Ok(())
        },
    },
    Attack {
        name: "write an owner in other forms",
        attempt: |scene| {
            let alice = scene.alice.id();
            let forms = [
                json!({ "title": "x", "owner": [alice] }),
                json!({ "title": "x", "owner": { "id": alice } }),
                json!({ "title": "x", "owner": { "$ne": null } }),
                json!({ "title": "x", "owner": 1 }),
                json!({ "title": "x", "owner": true }),
                json!({ "title": "x", "OWNER": alice }),
                json!({ "title": "x", "owner": format!("{alice} ") }),
                json!({ "title": "x", "owner": format!("{alice}\0") }),
                json!({ "title": "x", "owner": alice.to_uppercase() }),
                json!({ "title": "x", "owner": "" }),
                json!({ "title": "x", "\"owner\"": alice }),
                json!({ "title": "x", "todos.owner": alice }),
                json!({ "title": "x", "owner, done": alice }),
            ];
            let twice = format!(r#"{{"title":"x","owner":"{}","owner":"{alice}"}}"#, scene.mallory.id());
            let both = format!(r#"{{"title":"x","owner":"{}","Owner":"{alice}"}}"#, scene.mallory.id());
            let bodies = forms.iter().map(Value::to_string).chain([twice, both]);
            for body in bodies {
                for (method, path) in [("POST", "/_/db/todos".to_owned()), ("PATCH", row(scene.own_id()))] {
                    let request = scene.mallory.request(method, &path);
                    let request = request.header("content-type", "application/json").body(body.as_str());
                    let reply = Reply::of(request)?;
                    scene.tells_nothing(&reply)?;
                    ensure!([400, 403].contains(&reply.status), "{method} {body}: {reply:?}");
                }
            }
            let own = scene.mallory.ask("GET", &row(scene.own_id()))?;
            ensure!(own.body == scene.own, "not as it was: {own:?}");
            scene.mallory.list("todos", &[])?.lists(&[scene.own_id()])
        },
    },
    Attack {
        name: "set what the app sets by itself",
        attempt: |scene| {
            for field in ["id", "created_at", "updated_at", "rowid", "_rowid_", "oid", "ID", "Created_At"] {
                let value = if field == "id" { scene.target() } else { "2001-01-01T00:00:00Z" };
                let body = json!({ "title": "x", field: value });
                let made = scene.mallory.send("POST", "/_/db/todos", &body)?;
                scene.refused(&made, 400, "invalid_input").with_context(|| field)?;
                let changed = scene.mallory.send("PATCH", &row(scene.own_id()), &body)?;
                scene.refused(&changed, 400, "invalid_input").with_context(|| field)?;
            }
            Ok(())
        },
    },
];

const BATCHES: &[Attack] = &[
    Attack {
        name: "do in a batch what alone is refused",
        attempt: |scene| {
            let (id, alice) = (scene.target(), scene.alice.id());
            let notice = scene.mallory.ask("GET", "/_/db/notices")?.body["rows"][0]["id"].clone();
            let attempts = [
                (json!({ "do": "get", "on": "todos", "id": id }), 404),
                (json!({ "do": "update", "on": "todos", "id": id, "new": { "done": true } }), 404),
                (
                    json!({ "do": "update", "on": "todos", "id": id, "new": { "done": true }, "if_match": "*" }),
                    404,
                ),
                (json!({ "do": "delete", "on": "todos", "id": id }), 404),
                (json!({ "do": "delete", "on": "TODOS", "id": id }), 404),
                (json!({ "do": "update", "on": "notices", "id": notice, "new": { "text": "mine" } }), 403),
                (json!({ "do": "delete", "on": "notices", "id": notice }), 403),
                (json!({ "do": "create", "on": "todos", "new": { "title": "x", "owner": alice } }), 403),
                (json!({ "do": "create", "on": "drawer", "new": { "text": "x" } }), 403),
                (json!({ "do": "create", "on": "_steading_release", "new": { "text": "x" } }), 404),
                (json!({ "do": "get", "on": "sqlite_master", "id": "1" }), 404),
            ];
            let mine = json!({ "do": "create", "on": "todos", "new": { "title": "goes with the rest" } });
            let own =
                json!({ "do": "update", "on": "todos", "id": scene.own_id(), "new": { "title": "changed" } });
            for (operation, status) in attempts {
                let body = json!({ "operations": [mine, own, operation, mine] });
                let reply = scene.mallory.send("POST", "/_/batch", &body)?;
                let code = if status == 404 { "not_found" } else { "forbidden" };
                scene.refused(&reply, status, code).with_context(|| operation.to_string())?;
                let field = reply.body["field"].as_str().unwrap_or_default();
                ensure!(field.starts_with("/operations/2"), "which one? {reply:?}");
                // Without a session the first is refused already, where the whole can be read at all.
                let reply = scene.app.visitor().send("POST", "/_/batch", &body)?;
                scene.tells_nothing(&reply)?;
                ensure!([403, 404].contains(&reply.status), "{operation}: {reply:?}");
                let alone = json!({ "operations": [operation] });
                scene.refused(&scene.app.visitor().send("POST", "/_/batch", &alone)?, status, code)?;
            }
            // Nothing of those batches is there.
            let rows = scene.mallory.list("todos", &[])?;
            rows.lists(&[scene.own_id()])?;
            ensure!(rows.body["rows"][0] == scene.own, "not as it was: {rows:?}");
            Ok(())
        },
    },
    Attack {
        name: "send batches that are none",
        attempt: |scene| {
            let get = json!({ "do": "get", "on": "todos", "id": scene.own_id() });
            let bodies = [
                json!({}),
                json!([]),
                json!({ "operations": {} }),
                json!({ "operations": [get], "as": scene.alice.id() }),
                json!({ "operations": [{ "do": "list", "on": "todos" }] }),
                json!({ "operations": [{ "do": "sql", "on": "todos", "sql": "DELETE FROM todos" }] }),
                json!({ "operations": [{ "do": "DELETE", "on": "todos", "id": scene.target() }] }),
                json!({ "operations": [{ "do": "delete", "on": "todos" }] }),
                json!({ "operations": [{ "do": "delete", "on": "todos", "id": [scene.target()] }] }),
                json!({ "operations": [{ "do": "delete", "on": "todos", "where": "true" }] }),
                json!({ "operations": [{ "do": "get", "on": "todos", "id": scene.own_id(), "as": scene.alice.id() }] }),
                json!({ "operations": vec![get; 51] }),
            ];
            for body in bodies {
                let reply = scene.mallory.send("POST", "/_/batch", &body)?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| body.to_string())?;
            }
            Ok(())
        },
    },
];

#[test]
fn rows_of_others_are_out_of_reach_by_their_ids() {
    LIST.withstands(BY_ID).unwrap();
}

#[test]
fn no_row_gets_another_owner_than_who_made_it() {
    LIST.withstands(OWNERS).unwrap();
}

#[test]
fn a_batch_does_no_more_than_its_operations_alone() {
    LIST.withstands(BATCHES).unwrap();
}

#[test]
fn an_attack_that_gets_through_is_told() {
    let harmless = Attack { name: "nothing", attempt: |_| Ok(()) };
    let leak = Attack {
        name: "a leak",
        attempt: |scene| scene.tells_nothing(&scene.alice.ask("GET", &row(scene.target()))?),
    };
    let harm = Attack {
        name: "a change",
        attempt: |scene| {
            scene.alice.ask("DELETE", &row(scene.target()))?;
            Ok(())
        },
    };
    let told = format!("{:#}", LIST.withstands(&[harmless, leak, harm]).unwrap_err());
    assert!(told.starts_with("2 of 3 got through:\na leak: LEAK"), "{told}");
    assert!(told.contains("\na change: rows have changed"), "{told}");
}
