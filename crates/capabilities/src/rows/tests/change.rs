//! Creating, reading, changing and deleting one row.

use expect_test::expect;
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_row_comes_back_as_it_was_made_with_all_its_columns_in_order() {
    let field = Field::new(json!({ "things": {
        "columns": {
            "text": "text", "int": "int", "real": "real", "bool": "bool", "json": "json", "blob": "blob",
            "at": "timestamp", "defaulted": "text = plain",
        },
        "access": "private",
    } }))
    .await;
    let user = field.user();
    let given = json!({
        "text": "it's \"quoted\" \u{0} \u{1f600} </script>", "int": i64::MIN, "real": 0.1, "bool": true,
        "json": { "a": [1, null, { "b": "\"" }] }, "blob": { "base64": "AAH/" }, "at": "2026-01-31T12:00:00+01:00",
    });
    let stored = field.rows.create(&user, "things", map(given.clone())).await.unwrap();
    let row: Map<String, Value> = serde_json::from_slice(&stored.json).unwrap();
    let names: Vec<_> = row.keys().cloned().collect();
    assert_eq!(
        names,
        [
            "id",
            "owner",
            "text",
            "int",
            "real",
            "bool",
            "json",
            "blob",
            "at",
            "defaulted",
            "created_at",
            "updated_at"
        ]
    );
    let mut expected = map(given);
    expected["at"] = json!("2026-01-31T11:00:00.000Z");
    for (name, value) in &expected {
        assert_eq!(&row[name], value, "{name}");
    }
    assert_eq!(
        (&row["owner"], &row["defaulted"], &row["created_at"]),
        (&uid(&user), &json!("plain"), &row["updated_at"])
    );
    let got = field.rows.get(&user, "things", &stored.id).await.unwrap();
    assert_eq!(got, stored);
    let types = "SELECT typeof(text), typeof(int), typeof(real), typeof(bool), typeof(json), typeof(blob) FROM things";
    assert_eq!(field.sql(types).await, json!([["text", "integer", "real", "integer", "text", "blob"]]));

    let nulls = json!({ "text": null, "int": null, "real": null, "bool": null, "json": null, "blob": null, "at": null });
    let cleared = field.update(&user, "things", &stored.id, nulls.clone()).await.unwrap();
    for name in map(nulls).keys() {
        assert_eq!(cleared[name], Value::Null, "{name}");
    }
    for value in [json!([]), json!("text"), json!(1.5), json!(false), json!({})] {
        let row = field.update(&user, "things", &stored.id, json!({ "json": value })).await.unwrap();
        assert_eq!(row["json"], value);
    }
    let whole = field.update(&user, "things", &stored.id, json!({ "real": u64::MAX })).await.unwrap();
    assert_eq!(whole["real"], json!(u64::MAX as f64));
}

#[tokio::test]
async fn what_does_not_fit_a_column_is_refused_with_a_pointer_to_it() {
    let field = Field::new(json!({ "things": {
        "columns": {
            "name": "text!", "int": "int", "real": "real", "bool": "bool! = true", "blob": "blob", "at": "timestamp"
        },
        "access": "private",
    } }))
    .await;
    let user = field.user();
    let mut answers = String::new();
    for row in [
        json!({}),
        json!({ "name": null }),
        json!({ "name": 1 }),
        json!({ "name": "a", "Name": "a" }),
        json!({ "name": "a", "int": 1.5 }),
        json!({ "name": "a", "int": u64::MAX }),
        json!({ "name": "a", "int": "1" }),
        json!({ "name": "a", "real": "1" }),
        json!({ "name": "a", "bool": 1 }),
        json!({ "name": "a", "bool": null }),
        json!({ "name": "a", "blob": "AAH/" }),
        json!({ "name": "a", "blob": { "base64": "?" } }),
        json!({ "name": "a", "blob": { "base64": "AA==", "more": 1 } }),
        json!({ "name": "a", "at": "yesterday" }),
        json!({ "name": "a", "at": "9999-12-31T23:59:59-01:00" }),
        json!({ "name": "a", "at": 0 }),
        json!({ "name": "a", "id": "mine" }),
        json!({ "name": "a", "created_at": "2026-01-31T12:00:00Z" }),
        json!({ "name": "a", "updated_at": null }),
        json!({ "name": "a", "no/such~one": 1 }),
        json!({ "name": "a", "rowid": 1 }),
    ] {
        let answer = told(field.create(&user, "things", row.clone()).await);
        answers.push_str(&format!("{row}\n  {answer}\n"));
    }
    expect![[r#"
        {}
          400 invalid_input /name: name is required
        {"name":null}
          400 invalid_input /name: name must have a value
        {"name":1}
          400 invalid_input /name: name must be a text
        {"name":"a","Name":"a"}
          400 invalid_input /Name: things has no column "Name"
        {"name":"a","int":1.5}
          400 invalid_input /int: int must be a whole number of at most 64 bits
        {"name":"a","int":18446744073709551615}
          400 invalid_input /int: int must be a whole number of at most 64 bits
        {"name":"a","int":"1"}
          400 invalid_input /int: int must be a number
        {"name":"a","real":"1"}
          400 invalid_input /real: real must be a number
        {"name":"a","bool":1}
          400 invalid_input /bool: bool must be true or false
        {"name":"a","bool":null}
          400 invalid_input /bool: bool must have a value
        {"name":"a","blob":"AAH/"}
          400 invalid_input /blob: blob must be bytes as {"base64": "…"}
        {"name":"a","blob":{"base64":"?"}}
          400 invalid_input /blob: blob must be bytes as {"base64": "…"}
        {"name":"a","blob":{"base64":"AA==","more":1}}
          400 invalid_input /blob: blob must be bytes as {"base64": "…"}
        {"name":"a","at":"yesterday"}
          400 invalid_input /at: at must be an RFC 3339 time such as "2026-01-31T12:00:00Z"
        {"name":"a","at":"9999-12-31T23:59:59-01:00"}
          400 invalid_input /at: at must be an RFC 3339 time such as "2026-01-31T12:00:00Z"
        {"name":"a","at":0}
          400 invalid_input /at: at must be a time as a text
        {"name":"a","id":"mine"}
          400 invalid_input /id: id is set by the platform
        {"name":"a","created_at":"2026-01-31T12:00:00Z"}
          400 invalid_input /created_at: created_at is set by the platform
        {"name":"a","updated_at":null}
          400 invalid_input /updated_at: updated_at is set by the platform
        {"name":"a","no/such~one":1}
          400 invalid_input /no~1such~0one: things has no column "no/such~one"
        {"name":"a","rowid":1}
          400 invalid_input /rowid: things has no column "rowid"
    "#]]
    .assert_eq(&answers);
    assert_eq!(field.sql("SELECT count(*) FROM things").await, json!([[0]]));
}

#[tokio::test]
async fn an_owner_is_filled_in_and_cannot_be_forged() {
    let field = Field::todos().await;
    let (user, other) = (field.user(), field.user());
    let made = field.create(&user, "todos", json!({ "title": "a", "owner": uid(&user) })).await.unwrap();
    assert_eq!(made["owner"], uid(&user));
    for owner in [uid(&other), json!(null), json!(""), json!("me")] {
        let row = json!({ "title": "b", "owner": owner });
        assert_eq!(
            told(field.create(&user, "todos", row).await),
            "403 forbidden /owner: the owner of a row is who makes it"
        );
        let forged = field.update(&user, "todos", &id(&made), json!({ "owner": owner })).await;
        assert_eq!(told(forged), "403 forbidden /owner: the owner of a row is who makes it");
    }
    assert_eq!(
        told(field.create(&user, "todos", json!({ "title": "b", "owner": 7 })).await),
        "400 invalid_input /owner: owner must be a text"
    );
    let same = field.update(&user, "todos", &id(&made), json!({ "owner": uid(&user), "title": "c" })).await;
    assert_eq!(same.unwrap()["title"], json!("c"));
    assert_eq!(
        told(field.create(&field.visitor(), "todos", json!({ "title": "b" })).await),
        "403 forbidden: the rules of todos do not allow this create"
    );
    assert_eq!(field.sql("SELECT count(*), count(DISTINCT owner) FROM todos").await, json!([[1, 1]]));
}

#[tokio::test]
async fn hidden_is_not_found_and_visible_is_forbidden() {
    let field = Field::todos().await;
    let (user, other, admin) = (field.user(), field.user(), field.admin());
    let todo = id(&field.create(&user, "todos", json!({ "title": "a" })).await.unwrap());
    let list = id(&field.create(&user, "lists", json!({ "name": "a" })).await.unwrap());
    let news = id(&field.create(&admin, "news", json!({ "title": "a" })).await.unwrap());
    let mut table = String::new();
    for (who, guest) in [("visitor", field.visitor()), ("user", user), ("other", other), ("admin", admin)] {
        for (name, row) in [("todos", &todo), ("lists", &list), ("news", &news), ("locked", &todo)] {
            let title = if name == "lists" { "name" } else { "title" };
            let get = told(field.get(&guest, name, row).await);
            let listed = field.column(&guest, name, "id", json!({})).await;
            let update = told(field.update(&guest, name, row, json!({ title: "b" })).await);
            let create = told(field.create(&guest, name, json!({ title: who })).await);
            let short = |text: &str| text.split(' ').next().unwrap().to_owned();
            table.push_str(&format!(
                "{who:8}{name:7}get {} list {} update {} create {}\n",
                short(&get),
                listed.as_array().unwrap().contains(&json!(row)),
                short(&update),
                short(&create)
            ));
        }
    }
    expect![[r#"
        visitor todos  get 404 list false update 404 create 403
        visitor lists  get ok list true update 403 create 403
        visitor news   get ok list true update 403 create 403
        visitor locked get 404 list false update 404 create 403
        user    todos  get ok list true update ok create ok
        user    lists  get ok list true update ok create ok
        user    news   get ok list true update 403 create 403
        user    locked get 404 list false update 404 create 403
        other   todos  get 404 list false update 404 create ok
        other   lists  get ok list true update 403 create ok
        other   news   get ok list true update 403 create 403
        other   locked get 404 list false update 404 create 403
        admin   todos  get 404 list false update 404 create ok
        admin   lists  get ok list true update 403 create ok
        admin   news   get ok list true update ok create ok
        admin   locked get 404 list false update 404 create 403
    "#]]
    .assert_eq(&table);
}

#[tokio::test]
async fn only_whom_the_rules_let_deletes() {
    let field = Field::todos().await;
    let (user, other) = (field.user(), field.user());
    let list = id(&field.create(&user, "lists", json!({ "name": "a" })).await.unwrap());
    let todo = id(&field.create(&user, "todos", json!({ "title": "a", "list": list })).await.unwrap());
    assert_eq!(
        told(field.delete(&other, "todos", &todo).await),
        "404 not_found: there is no such row in todos"
    );
    assert_eq!(
        told(field.delete(&field.visitor(), "todos", &todo).await),
        "404 not_found: there is no such row in todos"
    );
    assert_eq!(
        told(field.delete(&other, "lists", &list).await),
        "403 forbidden: the rules of lists do not allow this delete"
    );
    assert_eq!(told(field.delete(&user, "lists", &list).await), "409 conflict: other rows refer to this row");
    assert_eq!(told(field.delete(&user, "todos", &todo).await), "ok");
    assert_eq!(
        told(field.delete(&user, "todos", &todo).await),
        "404 not_found: there is no such row in todos"
    );
    assert_eq!(told(field.delete(&user, "lists", &list).await), "ok");
    assert_eq!(
        field.sql("SELECT (SELECT count(*) FROM todos), (SELECT count(*) FROM lists)").await,
        json!([[0, 0]])
    );
}

#[tokio::test]
async fn constraints_name_their_columns() {
    let field = Field::todos().await;
    let user = field.user();
    field.create(&user, "lists", json!({ "name": "a" })).await.unwrap();
    let other = id(&field.create(&user, "lists", json!({ "name": "b" })).await.unwrap());
    let same = "409 conflict /name: a row with the same name is already there";
    assert_eq!(told(field.create(&user, "lists", json!({ "name": "a" })).await), same);
    assert_eq!(told(field.update(&user, "lists", &other, json!({ "name": "a" })).await), same);
    let dangling = "409 conflict /list: list refers to a row of lists that is not there";
    assert_eq!(told(field.create(&user, "todos", json!({ "title": "a", "list": "none" })).await), dangling);
    let todo = id(&field.create(&user, "todos", json!({ "title": "a", "list": other })).await.unwrap());
    assert_eq!(told(field.update(&user, "todos", &todo, json!({ "list": "none" })).await), dangling);
    let large = json!({ "title": "x".repeat(2_000_001) });
    assert_eq!(
        told(field.create(&user, "todos", large).await),
        "413 too_large: a value or the whole row is too large"
    );
    assert_eq!(field.sql("SELECT title, list FROM todos").await, json!([["a", other]]));
}

#[tokio::test]
async fn every_change_moves_the_time_and_the_tag() {
    let field = Field::todos().await;
    let user = field.user();
    let made = field.rows.create(&user, "todos", map(json!({ "title": "a" }))).await.unwrap();
    let (mut etag, mut at) = (made.etag.clone(), read(&made)["updated_at"].as_str().unwrap().to_owned());
    for _ in 0..20 {
        let next = field.rows.update(&user, "todos", &made.id, Map::new(), None).await.unwrap();
        let updated_at = read(&next)["updated_at"].as_str().unwrap().to_owned();
        assert!(updated_at > at, "{updated_at} > {at}");
        assert_ne!(next.etag, etag);
        let got = field.rows.get(&user, "todos", &made.id).await.unwrap();
        assert_eq!(got, next, "what a change returns is what is stored");
        (etag, at) = (next.etag, updated_at);
    }
}

#[tokio::test]
async fn a_change_for_another_state_of_the_row_is_not_made() {
    let field = Field::todos().await;
    let (user, other) = (field.user(), field.user());
    let first = field.rows.create(&user, "lists", map(json!({ "name": "a" }))).await.unwrap();
    let update = async |guest: &Guest, id: &str, condition: &str| {
        let row = map(json!({ "name": "b" }));
        field.rows.update(guest, "lists", id, row, Some(IfMatch::parse(condition))).await
    };
    let gone = "412 conflict /if_match: the row has changed since it was read";
    assert_eq!(told(update(&user, &first.id, "\"other\"").await), gone);
    assert_eq!(told(update(&user, &first.id, &format!("W/{}", first.etag)).await), gone);
    assert_eq!(field.sql("SELECT name FROM lists").await, json!([["a"]]));
    // What would be refused anyway is refused as such.
    assert_eq!(
        told(update(&other, &first.id, "\"other\"").await),
        "403 forbidden: the rules of lists do not allow this update"
    );
    assert_eq!(told(update(&user, "none", "*").await), "404 not_found: there is no such row in lists");
    let second = update(&user, &first.id, &format!("\"x\", {}", first.etag)).await.unwrap();
    assert_eq!(told(update(&user, &first.id, &first.etag).await), gone);
    let third = update(&user, &first.id, "*").await.unwrap();
    let delete = async |guest: &Guest, etag: &str| {
        field.rows.delete(guest, "lists", &first.id, Some(IfMatch::parse(etag))).await
    };
    assert_eq!(told(delete(&user, &second.etag).await), gone);
    assert_eq!(
        told(delete(&other, &third.etag).await),
        "403 forbidden: the rules of lists do not allow this delete"
    );
    assert_eq!(told(delete(&user, &third.etag).await), "ok");
    assert_eq!(field.sql("SELECT count(*) FROM lists").await, json!([[0]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_changes_for_one_state_exactly_one_is_made() {
    let field = Field::todos().await;
    let user = field.user();
    let made = field.rows.create(&user, "todos", map(json!({ "title": "a", "rank": 0 }))).await.unwrap();
    let condition = IfMatch::parse(&made.etag);
    let tries = (0..16).map(|rank| {
        let row = map(json!({ "rank": rank }));
        field.rows.update(&user, "todos", &made.id, row, Some(condition.clone()))
    });
    let won = futures::future::join_all(tries).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_table_that_has_changed_meanwhile_is_told_and_used_again_when_it_is_back() {
    let field = Field::todos().await;
    let user = field.user();
    let row = id(&field.create(&user, "todos", json!({ "title": "a", "rank": 7 })).await.unwrap());
    let answers = async || {
        format!(
            "{} | {} | {} | {} | {}",
            told(field.get(&user, "todos", &row).await),
            told(field.list(&user, "todos", json!({})).await),
            told(field.update(&user, "todos", &row, json!({ "rank": 8 })).await),
            told(field.create(&user, "todos", json!({ "title": "b" })).await),
            told(field.batch(&user, json!([{ "do": "get", "on": "todos", "id": row }])).await),
        )
    };
    assert_eq!(answers().await, "ok | ok | ok | ok | ok");
    field.migrate("ALTER TABLE todos RENAME COLUMN rank TO place").await;
    let gone = "503 unavailable: the table todos is not as the release has it";
    let in_batch = "503 unavailable /operations/0: the table todos is not as the release has it";
    assert_eq!(answers().await, format!("{gone} | {gone} | {gone} | {gone} | {in_batch}"));
    field.migrate("ALTER TABLE todos RENAME TO other").await;
    assert_eq!(answers().await, format!("{gone} | {gone} | {gone} | {gone} | {in_batch}"));
    field.migrate("ALTER TABLE other RENAME TO todos; ALTER TABLE todos RENAME COLUMN place TO rank").await;
    assert_eq!(answers().await, "ok | ok | ok | ok | ok");
    // A column more, and another order of columns, are no matter: every statement names its columns.
    field.migrate("ALTER TABLE todos ADD COLUMN secret TEXT DEFAULT 'hidden'").await;
    assert!(field.get(&user, "todos", &row).await.unwrap().get("secret").is_none());
    assert_eq!(
        told(field.list(&user, "todos", json!({ "where": "secret == 'hidden'" })).await).split(' ').next(),
        Some("400")
    );
}

#[tokio::test]
async fn a_row_waits_for_its_turn_while_the_writer_is_held() {
    let field = Field::todos().await;
    let user = field.user();
    field.create(&user, "todos", json!({ "title": "before" })).await.unwrap();
    let writer = field.databases.writer(&field.env).await.unwrap();
    let create = field.create(&user, "todos", json!({ "title": "after" }));
    tokio::pin!(create);
    // Reading goes on meanwhile; the write has not come through by then.
    let read = field.list(&user, "todos", json!({}));
    let listed = tokio::select! {
        biased;
        early = &mut create => panic!("{early:?}"),
        listed = read => listed.unwrap(),
    };
    assert_eq!(listed["rows"].as_array().unwrap().len(), 1);
    drop(writer);
    assert_eq!(create.await.unwrap()["title"], json!("after"));
}

#[tokio::test]
async fn an_immutable_column_keeps_its_value_and_a_hidden_one_is_never_seen() {
    let field = Field::new(json!({ "notes": {
        "columns": {
            "kind": { "type": "text", "required": true, "immutable": true, "check": "kind in ['a', 'b']" },
            "meta": { "type": "json", "immutable": true },
            "text": { "type": "text", "check": "size(text) < 5 && secret != text" },
            "secret": { "type": "text", "hidden": true, "default": "open", "unique": true },
        },
        "access": { "list": "true", "get": "row.secret == 'open'", "create": "true", "update": "true", "delete": "true" },
    } }))
    .await;
    let ada = field.user();
    let refused = field.create(&ada, "notes", json!({ "kind": "c" })).await;
    assert_eq!(told(refused), "400 invalid_input /kind: kind does not meet its check: kind in ['a', 'b']");
    let refused = field.create(&ada, "notes", json!({ "kind": "a", "text": "open" })).await;
    assert_eq!(told(refused), "400 invalid_input /text: text does not meet its check");
    let row =
        field.create(&ada, "notes", json!({ "kind": "a", "meta": { "b": [1], "a": 2.5 } })).await.unwrap();
    let columns: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(columns, ["id", "kind", "meta", "text", "created_at", "updated_at"]);
    let id = id(&row);
    // The same value is no change.
    let same = json!({ "kind": "a", "meta": { "b": [1], "a": 2.5 }, "text": "b" });
    assert_eq!(field.update(&ada, "notes", &id, same).await.unwrap()["text"], json!("b"));
    for (change, at) in [(json!({ "kind": "b" }), "kind"), (json!({ "meta": null, "text": "c" }), "meta")] {
        assert_eq!(
            told(field.update(&ada, "notes", &id, change).await),
            format!("403 forbidden /{at}: {at} keeps the value that the row was made with")
        );
    }
    let unknown = "notes has no column \"secret\"";
    for (outcome, at) in [
        (field.create(&ada, "notes", json!({ "kind": "a", "secret": "x" })).await, "secret"),
        (field.update(&ada, "notes", &id, json!({ "secret": "x" })).await, "secret"),
        (field.list(&ada, "notes", json!({ "select": "secret" })).await, "select"),
        (field.list(&ada, "notes", json!({ "order": "-secret" })).await, "order"),
    ] {
        assert_eq!(told(outcome), format!("400 invalid_input /{at}: {unknown}"));
    }
    let filter = field.list(&ada, "notes", json!({ "where": "secret == 'open'" })).await;
    let advice = format!("{filter:?}");
    assert_eq!(told(filter), "400 invalid_input /where: at byte 0: there is no column \"secret\" in notes");
    assert_eq!(advice.matches("secret").count(), 1, "{advice}");
    assert_eq!(field.list(&ada, "notes", json!({})).await.unwrap()["rows"][0].get("secret"), None);
    let twice = told(field.create(&ada, "notes", json!({ "kind": "a" })).await);
    assert_eq!(twice, "409 conflict: a row with the same values is already there");
    // The app's own server writes it, and is not shown it.
    let server = Guest::new(field.env.clone(), Subject::Service);
    let changed =
        field.update(&server, "notes", &id, json!({ "secret": "shut", "kind": "b" })).await.unwrap();
    assert_eq!((&changed["kind"], changed.get("secret")), (&json!("b"), None));
    assert_eq!(told(field.get(&ada, "notes", &id).await), "404 not_found: there is no such row in notes");
}

#[tokio::test]
async fn a_rule_looks_into_another_table_that_its_user_cannot_read() {
    let field = Field::new(json!({
        "docs": { "columns": { "team": "text!", "title": "text" }, "access": {
            "list": "exists(members, team == row.team && user == auth.uid)",
            "get": "exists(members, team == row.team && user == auth.uid)",
            "create": "exists(members, team == new.team && user == auth.uid)",
            "update": "exists(members, team == row.team && user == auth.uid) && exists(members, team == new.team && user == auth.uid)",
        } },
        "members": { "columns": { "team": "text!", "user": "text!" }, "indexes": [["user", "team"]], "access": "admin_only" },
    }))
    .await;
    let (admin, ada, bob) = (field.admin(), field.user(), field.user());
    for (team, who) in [("red", &ada), ("blue", &bob), ("red", &bob)] {
        field.create(&admin, "members", json!({ "team": team, "user": uid(who) })).await.unwrap();
    }
    let red = field.create(&ada, "docs", json!({ "team": "red" })).await.unwrap();
    let blue = field.create(&bob, "docs", json!({ "team": "blue" })).await.unwrap();
    assert_eq!(
        told(field.create(&ada, "docs", json!({ "team": "blue" })).await),
        "403 forbidden: the rules of docs do not allow this create"
    );
    assert_eq!(field.column(&ada, "docs", "team", json!({})).await, json!(["red"]));
    assert_eq!(field.column(&bob, "docs", "team", json!({})).await, json!(["red", "blue"]));
    assert_eq!(field.column(&field.visitor(), "docs", "team", json!({})).await, json!([]));
    assert_eq!(
        told(field.get(&ada, "docs", &id(&blue)).await),
        "404 not_found: there is no such row in docs"
    );
    let moved = json!({ "team": "blue" });
    assert_eq!(
        told(field.update(&ada, "docs", &id(&red), moved.clone()).await),
        "403 forbidden: the rules of docs do not allow this update"
    );
    assert_eq!(field.update(&bob, "docs", &id(&red), moved).await.unwrap()["team"], json!("blue"));
    let refused = field.list(&bob, "docs", json!({ "where": "exists(members, user != '')" })).await;
    assert_eq!(told(refused), "400 invalid_input /where: at byte 0: exists(…) is for access rules alone");
    assert_eq!(told(field.list(&ada, "members", json!({})).await), "ok");
    assert_eq!(field.column(&ada, "members", "team", json!({})).await, json!([]));
}
