//! What subscribers are told: everything they may see, in order, and nothing else.

use std::time::{Duration, Instant};

use conformance_tests::{App, Events, Person, Place};
use serde_json::{Value, json};

pub fn manifest() -> Value {
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

pub fn ground(name: &str) -> (Place, App) {
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

/// Inserts rows until one is told by itself: what comes while the tables are looked at anew, or with what is too much, is
/// told by another reset.
pub fn settled<T>(events: &mut Events, insert: impl Fn() -> T) {
    for _ in 0..20 {
        insert();
        let heard = events.until(|event| event["type"] == "insert" || event["type"] == "reset").unwrap();
        if heard.last().unwrap()["type"] == "insert" {
            return;
        }
    }
    panic!("changes are told by nothing but resets");
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
fn of_private_rows_only_their_owners_hear_also_where_they_change_hands() {
    let (place, app) = ground("live-private");
    let (ada, bob, eve) = (app.stranger().unwrap(), app.stranger().unwrap(), app.stranger().unwrap());
    let [mut of_ada, mut of_bob, mut of_eve] =
        [&ada, &bob, &eve].map(|person| watching(person, &json!({ "table": "todos", "select": "title" })));
    let row = ada.create("todos", &json!({ "title": "mine" })).unwrap();
    let told = |kind: &str, row: Value| json!({ "type": kind, "sub": "todos", "table": "todos", "row": row });
    assert_eq!(plain(of_ada.event().unwrap()), told("insert", json!({ "id": id(&row), "title": "mine" })));
    sql(&place, "UPDATE todos SET owner = ?1, title = 'yours'", &[bob.id().into()]);
    assert_eq!(plain(of_ada.event().unwrap()), told("delete", json!({ "id": id(&row) })));
    assert_eq!(plain(of_bob.event().unwrap()), told("insert", json!({ "id": id(&row), "title": "yours" })));
    sql(&place, "UPDATE todos SET owner = NULL", &[]);
    assert_eq!(plain(of_bob.event().unwrap()), told("delete", json!({ "id": id(&row) })));
    remove_all(&place);
    for (person, events) in [(&ada, &mut of_ada), (&bob, &mut of_bob), (&eve, &mut of_eve)] {
        let last = person.create("todos", &json!({ "title": "last" })).unwrap();
        assert_eq!(
            plain(events.event().unwrap()),
            told("insert", json!({ "id": id(&last), "title": "last" }))
        );
    }
}

fn remove_all(place: &Place) {
    sql(place, "DELETE FROM todos", &[]);
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

#[test]
fn batches_statements_and_loads_are_told_and_what_is_undone_is_not() {
    let (place, app) = ground("live-roads");
    let ada = app.stranger().unwrap();
    let mut events = watching(&ada, &json!({ "table": "todos", "select": "title" }));
    let create = |title: &str| json!({ "do": "create", "on": "todos", "new": { "title": title } });
    let refused =
        json!({ "operations": [create("undone"), { "do": "delete", "on": "todos", "id": "nobody's" }] });
    ada.send("POST", "/_/batch", &refused).unwrap().refuses(404, "not_found").unwrap();
    let made = ada.send("POST", "/_/batch", &json!({ "operations": [create("a"), create("b")] })).unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let load = format!("title,owner\nc,{0}\nd,{0}\n", ada.id());
    place.output("db_load", &json!({ "table": "todos", "format": "csv", "text": load })).unwrap();
    let failing =
        "INSERT INTO todos (id, owner, title) SELECT 'x', ?1, value FROM json_each('[\"e\", \"f\"]')";
    let failed = place.client.call("db_execute", &json!({ "sql": failing, "params": [ada.id()] })).unwrap();
    assert!(failed.status != 200, "{failed:?}");
    sql(&place, "INSERT INTO todos (owner, title) VALUES (?1, 'g')", &[ada.id().into()]);
    let heard = events.until(|event| event["row"]["title"] == "g").unwrap();
    let heard: Vec<String> =
        heard.iter().map(|event| format!("{} {}", event["type"], event["row"]["title"])).collect();
    assert_eq!(heard, ["a", "b", "c", "d", "g"].map(|title| format!("\"insert\" \"{title}\"")));
}

#[test]
fn a_change_of_too_many_rows_of_the_schema_or_of_the_rules_says_to_list_again() {
    let (place, app) = ground("live-reset");
    let ada = app.stranger().unwrap();
    let mut events = watching(&ada, &json!({ "table": "todos" }));
    let mut reset = |reason: &str| {
        let heard = events.until(|event| event["type"] == "reset" && event["reason"] == reason).unwrap();
        assert!(heard.iter().all(|event| event["type"] == "reset"), "{heard:?}");
    };
    let many = "INSERT INTO todos (owner, title) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1500) \
                SELECT ?1, i FROM n";
    sql(&place, many, &[ada.id().into()]);
    reset("much");
    let mut stricter = manifest();
    stricter["database"]["tables"]["todos"]["access"] = "admin_only".into();
    place.output("app_apply", &json!({ "manifest": stricter })).unwrap();
    reset("release");
    sql(&place, "UPDATE todos SET title = 'hidden' WHERE id = (SELECT min(id) FROM todos)", &[]);
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    reset("release");
    let mut wider = manifest();
    wider["database"]["tables"]["todos"]["columns"]["note"] = "text".into();
    place.output("app_apply", &json!({ "manifest": wider })).unwrap();
    reset("release");
    settled(&mut events, || ada.create("todos", &json!({ "title": "before" })).unwrap());
    let row = ada.create("todos", &json!({ "title": "seen", "note": "n" })).unwrap();
    let heard = events.until(|event| event["row"]["id"] == row["id"]).unwrap();
    assert_eq!(heard.last().unwrap()["row"], row);
}

#[test]
fn a_stream_ends_at_once_when_its_session_does_and_says_why() {
    let (place, app) = ground("live-end");
    let (ada, bob) = (app.stranger().unwrap(), app.sign_up("bob@example.com", "a garden in june").unwrap());
    let ends = |person: &Person, act: &dyn Fn()| -> Value {
        let mut events = watching(person, &json!({ "table": "todos" }));
        let mut socket = person.socket().unwrap();
        act();
        let start = Instant::now();
        let (before, code, reason) = socket.closed().unwrap();
        // Far less than until the next sign of life.
        assert!(start.elapsed() < Duration::from_secs(10), "after {:?}", start.elapsed());
        assert_eq!((code, &Value::from(reason)), (1008, &before.last().unwrap()["reason"]));
        let end = events.event().unwrap();
        assert_eq!((&end["type"], &end["reason"]), (&json!("end"), &before.last().unwrap()["reason"]));
        assert_eq!(events.next_event().unwrap(), None);
        end["reason"].clone()
    };
    let set = |input: Value| {
        place.output("auth_user_set", &input).unwrap();
    };
    assert_eq!(ends(&bob, &|| set(json!({ "user": bob.id(), "role": "editor" }))), "session_changed");
    let bob = app.login("bob@example.com", "a garden in june").unwrap();
    assert_eq!(ends(&bob, &|| set(json!({ "user": bob.id(), "disabled": true }))), "session_ended");
    let logout = || assert_eq!(ada.send("POST", "/_/auth/logout", &json!({})).unwrap().status, 204);
    assert_eq!(ends(&ada, &logout), "session_ended");
    let refused = ada.events("subscribe=todos", None).err().unwrap().to_string();
    assert!(refused.contains("unauthenticated"), "{refused}");
}

/// What a stream answers that is refused.
fn refused(app: &App, query: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
    let headers: Vec<(&str, String)> =
        headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let Err(reply) = Events::open(app, query, &headers).unwrap() else {
        return (200, String::new(), String::new());
    };
    (reply.status, reply.code().to_owned(), reply.body["field"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_stream_that_cannot_be_is_refused_with_its_place() {
    let (_place, app) = ground("live-wrong");
    let told = |query: &str| {
        let (status, code, field) = refused(&app, query, &[]);
        format!("{status} {code} {field}")
    };
    let wanted = |wanted: Value| format!("subscribe={}", conformance_tests::encoded(&wanted.to_string()));
    for (query, expected) in [
        (String::new(), "400 invalid_input /subscribe"),
        ("subscribe=nothing".to_owned(), "404 not_found /subscribe/table"),
        ("subscribe=_steading_user".to_owned(), "404 not_found /subscribe/table"),
        ("subscribe=todos&subscribe=todos".to_owned(), "409 conflict /subscribe/sub"),
        ("subscribe=todos&token=a".to_owned(), "400 invalid_input "),
        ("subscribe=todos&ticket=a".to_owned(), "401 unauthenticated "),
        ("subscribe=todos&ticket=a&ticket=b".to_owned(), "400 invalid_input /ticket"),
        ("channel=room:1".to_owned(), "403 forbidden /channel"),
        ("channel=nothing".to_owned(), "403 forbidden /channel"),
        (wanted(json!({ "table": "todos", "where": "title = 1" })), "400 invalid_input /subscribe/where"),
        (wanted(json!({ "table": "todos", "where": "true) OR (1" })), "400 invalid_input /subscribe/where"),
        (wanted(json!({ "table": "todos", "select": "id,password" })), "400 invalid_input /subscribe/select"),
        (wanted(json!({ "table": "todos", "limit": 1 })), "400 invalid_input /subscribe/0"),
        (
            format!("subscribe=todos&{}", wanted(json!({ "table": "no", "sub": "b" }))),
            "404 not_found /subscribe/1/table",
        ),
    ] {
        assert_eq!(told(&query), expected, "{query}");
    }
    let fifty: Vec<Value> = (0..51).map(|n| json!({ "table": "todos", "sub": n.to_string() })).collect();
    let refusal = app.visitor().subscribed(&fifty, None).err().unwrap().to_string();
    assert!(refusal.contains("at most 50 subscriptions"), "{refusal}");
    let other = app.request("POST", "/_/realtime").send().unwrap();
    assert_eq!((other.status, other.header("allow")), (405, Some("GET")));
}

#[test]
fn a_ticket_opens_one_stream_for_the_origin_that_got_it() {
    let (_place, app) = ground("live-ticket");
    let ada = app.stranger().unwrap();
    let row = ada.create("todos", &json!({ "title": "a" })).unwrap();
    let own = app.url().to_owned();
    let ticket = |origin: &str| {
        let request = ada.request("POST", "/_/realtime/ticket").header("origin", origin);
        let reply = conformance_tests::Reply::of(request.json(&json!({}))).unwrap();
        assert_eq!((reply.status, &reply.body["expires_in"]), (201, &json!(30)), "{reply:?}");
        reply.body["ticket"].as_str().unwrap().to_owned()
    };
    let query = format!("subscribe=todos&ticket={}", ticket(&own));
    let mut events = Events::open(&app, &query, &[("origin", own.clone())]).unwrap().unwrap();
    assert_eq!(events.event().unwrap()["type"], "subscribed");
    change(&ada, "todos", &row, &json!({ "title": "b" }));
    assert_eq!(events.event().unwrap()["row"]["title"], "b");
    assert_eq!(refused(&app, &query, &[("origin", &own)]).0, 401);
    let unused = format!("subscribe=todos&ticket={}", ticket(&own));
    assert_eq!(refused(&app, &unused, &[("origin", "https://evil.example")]).0, 403);
    assert_eq!(refused(&app, &unused, &[("authorization", &format!("Bearer {}", ada.token()))]).2, "/ticket");
    let (_other_place, other) = ground("live-ticket-other");
    assert_eq!(refused(&other, &unused, &[]).0, 401);
    // What was tried elsewhere is spent.
    assert_eq!(refused(&app, &unused, &[]).0, 401);
}

#[test]
fn rules_that_look_into_other_tables_and_hidden_columns_hold_for_what_is_told() {
    let place = Place::new("live-exists").unwrap();
    let is_member = "exists(members, board == row.board && user == auth.uid)";
    let access = json!({ "list": is_member, "get": is_member, "create": "auth.uid != null" });
    let manifest = json!({
        "auth": { "methods": ["anonymous"] },
        "database": { "tables": {
            "members": { "columns": { "board": "text!", "user": "text!" }, "access": "admin_only" },
            "notes": {
                "columns": { "board": "text!", "text": "text!", "inner": { "type": "text", "hidden": true } },
                "access": access,
            },
        } },
        "realtime": { "channels": {
            "board:*": { "join": "exists(members, board == row.key && user == auth.uid)" },
        } },
    });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(&place.url);
    let (ada, bob) = (app.stranger().unwrap(), app.stranger().unwrap());
    let invite = |person: &Person, board: &str| {
        sql(&place, "INSERT INTO members (board, user) VALUES (?1, ?2)", &[board.into(), person.id().into()]);
    };
    invite(&ada, "a");
    let mut of_ada = watching(&ada, &json!({ "table": "notes" }));
    let mut of_bob = watching(&bob, &json!({ "table": "notes" }));
    let note = "INSERT INTO notes (board, text, inner) VALUES (?1, ?2, 'not told')";
    sql(&place, note, &["a".into(), "of a".into()]);
    let heard = of_ada.event().unwrap();
    assert_eq!((&heard["type"], &heard["row"]["text"]), (&json!("insert"), &json!("of a")), "{heard}");
    assert_eq!(heard["row"].get("inner"), None, "{heard}");
    assert!(!bob.events("channel=board:a", None).is_ok_and(|_| true));

    // Who may see what has changed for everybody who may be a member: they list again.
    invite(&bob, "a");
    let reset = |events: &mut Events| {
        let heard = events.event().unwrap();
        assert_eq!((&heard["type"], &heard["reason"]), (&json!("reset"), &json!("much")), "{heard}");
    };
    reset(&mut of_bob);
    reset(&mut of_ada);
    bob.events("channel=board:a", None).unwrap();
    sql(&place, note, &["a".into(), "for both".into()]);
    assert_eq!(of_bob.event().unwrap()["row"]["text"], "for both");
    assert_eq!(of_ada.event().unwrap()["row"]["text"], "for both");
    sql(&place, "DELETE FROM members WHERE user = ?1", &[bob.id().into()]);
    reset(&mut of_bob);
    reset(&mut of_ada);
    sql(&place, note, &["a".into(), "not for Bob".into()]);
    assert_eq!(of_ada.event().unwrap()["row"]["text"], "not for Bob");
    invite(&bob, "b");
    reset(&mut of_bob);
}

#[test]
fn a_return_to_a_snapshot_says_to_list_again() {
    let (place, app) = ground("live-restore");
    let visitor = app.visitor();
    let ada = app.stranger().unwrap();
    ada.create("posts", &json!({ "title": "kept", "public": true })).unwrap();
    let snapshot = place.output("env_snapshot", &json!({ "name": "before" })).unwrap();
    let mut events = watching(&visitor, &json!({ "table": "posts" }));
    ada.create("posts", &json!({ "title": "lost", "public": true })).unwrap();
    assert_eq!(events.event().unwrap()["row"]["title"], "lost");
    let wanted = json!({ "snapshot": snapshot["snapshot"] });
    let mut dry = wanted.clone();
    dry["dry_run"] = true.into();
    let confirm = place.output("env_restore", &dry).unwrap()["confirm"].clone();
    let mut sure = wanted;
    sure["confirm"] = confirm;
    place.output("env_restore", &sure).unwrap();
    assert_eq!(events.event().unwrap()["type"], "reset");
    settled(&mut events, || sql(&place, "INSERT INTO posts (title, public) VALUES ('after', 1)", &[]));
}
