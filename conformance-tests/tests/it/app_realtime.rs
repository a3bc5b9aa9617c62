//! What subscribers are told: everything they may see, in order, and nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conformance_tests::{App, Events, Person, Place};
use serde_json::{Value, json};

fn manifest() -> Value {
    json!({
        "auth": { "methods": ["anonymous", "password"] },
        "database": { "tables": {
            "todos": { "columns": { "title": "text!", "done": "bool = false" }, "access": "private" },
            "posts": {
                "columns": { "title": "text!", "public": "bool = false", "secret": "text" },
                "access": {
                    "list": "row.public == true || row.owner == auth.uid",
                    "get": "row.public == true || row.owner == auth.uid",
                    "create": "new.owner == auth.uid",
                    "update": "row.owner == auth.uid",
                    "delete": "row.owner == auth.uid",
                },
            },
        } },
        "realtime": { "channels": {
            "room:*": { "join": "signed_in", "send": "signed_in" },
            "news": { "join": "public", "send": "auth.role == 'admin'" },
            "own:*": { "join": "row.key == auth.uid", "send": "row.key == auth.uid" },
        } },
    })
}

fn ground(name: &str) -> (Place, App) {
    let place = Place::new(name).unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let app = App::new(&place.url);
    (place, app)
}

/// An event without its place.
fn plain(mut event: Value) -> Value {
    if let Some(event) = event.as_object_mut() {
        event.remove("at");
    }
    event
}

fn id(row: &Value) -> &str {
    row["id"].as_str().unwrap()
}

fn change(person: &Person, table: &str, row: &Value, to: &Value) -> Value {
    let reply = person.send("PATCH", &format!("/_/db/{table}/{}", id(row)), to).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body
}

fn remove(person: &Person, table: &str, row: &Value) {
    let reply = person.ask("DELETE", &format!("/_/db/{table}/{}", id(row))).unwrap();
    assert_eq!(reply.status, 204, "{reply:?}");
}

fn sql(place: &Place, sql: &str, params: &[Value]) {
    place.output("db_execute", &json!({ "sql": sql, "params": params })).unwrap();
}

/// Opens a stream of one table and hears that it is.
fn watching(person: &Person, wanted: &Value) -> Events {
    let mut events = person.subscribed(std::slice::from_ref(wanted), None).unwrap();
    let first = events.event().unwrap();
    assert_eq!((&first["type"], &first["resumed"]), (&json!("subscribed"), &json!(false)), "{first}");
    events
}

#[test]
fn each_is_told_of_the_rows_that_each_may_list_and_of_no_others() {
    let (place, app) = ground("live-rules");
    let (ada, bob, visitor) = (app.stranger().unwrap(), app.stranger().unwrap(), app.visitor());
    let wanted = json!({ "table": "posts", "select": "title,public" });
    let mut of_ada = watching(&ada, &wanted);
    let mut of_bob = watching(&bob, &wanted);
    let mut of_visitor = watching(&visitor, &wanted);

    let row =
        |row: &Value, title: &str, public: bool| json!({ "id": id(row), "title": title, "public": public });
    let told = |kind: &str, row: Value| json!({ "type": kind, "sub": "posts", "table": "posts", "row": row });
    let gone = |row: &Value| told("delete", json!({ "id": id(row) }));

    // What Ada hears is in its place for everybody.
    let post = ada.create("posts", &json!({ "title": "draft", "secret": "s1" })).unwrap();
    assert_eq!(plain(of_ada.event().unwrap()), told("insert", row(&post, "draft", false)));
    change(&ada, "posts", &post, &json!({ "public": true, "secret": "s2" }));
    assert_eq!(plain(of_ada.event().unwrap()), told("update", row(&post, "draft", true)));
    change(&ada, "posts", &post, &json!({ "title": "better" }));
    assert_eq!(plain(of_ada.event().unwrap()), told("update", row(&post, "better", true)));
    // Of a column that is not asked for nothing is told.
    change(&ada, "posts", &post, &json!({ "secret": "s3" }));
    change(&ada, "posts", &post, &json!({ "public": false }));
    assert_eq!(plain(of_ada.event().unwrap()), told("update", row(&post, "better", false)));
    change(&ada, "posts", &post, &json!({ "title": "unseen" }));
    assert_eq!(plain(of_ada.event().unwrap()), told("update", row(&post, "unseen", false)));
    sql(&place, "UPDATE posts SET owner = ?1", &[bob.id().into()]);
    assert_eq!(plain(of_ada.event().unwrap()), gone(&post));
    sql(&place, "UPDATE posts SET title = 'of bob'", &[]);
    let heard = of_bob.until(|event| event["row"]["title"] == "of bob").unwrap();
    let heard: Vec<Value> = heard.into_iter().map(plain).collect();
    assert_eq!(
        heard,
        [
            told("insert", row(&post, "draft", true)),
            told("update", row(&post, "better", true)),
            gone(&post),
            told("insert", row(&post, "unseen", false)),
            told("update", row(&post, "of bob", false)),
        ]
    );
    sql(&place, "DELETE FROM posts", &[]);
    assert_eq!(plain(of_bob.event().unwrap()), gone(&post));
    let last = ada.create("posts", &json!({ "title": "last", "public": true })).unwrap();
    let last = || told("insert", row(&last, "last", true));
    assert_eq!(plain(of_ada.event().unwrap()), last());
    assert_eq!(plain(of_bob.event().unwrap()), last());
    let heard: Vec<Value> = (0..4).map(|_| plain(of_visitor.event().unwrap())).collect();
    assert_eq!(
        heard,
        [
            told("insert", row(&post, "draft", true)),
            told("update", row(&post, "better", true)),
            gone(&post),
            last()
        ]
    );
}

#[test]
fn a_condition_narrows_what_is_told_and_what_leaves_it_is_gone() {
    let (_place, app) = ground("live-where");
    let ada = app.stranger().unwrap();
    let row = ada.create("todos", &json!({ "title": "a" })).unwrap();
    let mut socket = ada.socket().unwrap();
    socket
        .say(&json!({ "type": "subscribe", "sub": "open", "table": "todos", "where": "done == false" }))
        .unwrap();
    assert_eq!(socket.hear().unwrap()["type"], "subscribed");
    change(&ada, "todos", &row, &json!({ "done": true }));
    let gone = json!({ "type": "delete", "sub": "open", "table": "todos", "row": { "id": row["id"] } });
    assert_eq!(plain(socket.hear().unwrap()), gone);
    let back = change(&ada, "todos", &row, &json!({ "done": false }));
    assert_eq!(
        plain(socket.hear().unwrap()),
        json!({ "type": "insert", "sub": "open", "table": "todos", "row": back })
    );
    socket.say(&json!({ "type": "unsubscribe", "sub": "open" })).unwrap();
    assert_eq!(socket.hear().unwrap(), json!({ "type": "unsubscribed", "sub": "open" }));
    remove(&ada, "todos", &row);
    socket.say(&json!({ "type": "ping" })).unwrap();
    assert_eq!(socket.hear().unwrap(), json!({ "type": "pong" }));
}
