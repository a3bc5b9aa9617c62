//! Events of tables: noted with the change itself, whatever the values are and whoever writes, and by nobody else.

use std::sync::Arc;
use std::time::Duration;

use kernel::Timestamp;
use serde_json::{Value, json};

use super::fixture::Fixture;
use super::turns::within_waits;
use crate::database::{Durability, Error, Mode, Refusal, Role};
use crate::events::{Events, Fate, Lane, Settled};
use crate::releases::Manifest;
use crate::rows::TableModel;

pub(super) async fn listening(tables: &[&str]) -> Fixture {
    let fixture = Fixture::new().await;
    for table in tables {
        fixture.execute(table, &[]).await.unwrap();
    }
    fixture
}

/// Has the function `f` listen to these.
pub(super) async fn listen(fixture: &Fixture, events: &Value) -> Result<(), Error> {
    listen_with(fixture, events, &json!({})).await
}

/// The same in a release with this manifest.
async fn listen_with(fixture: &Fixture, events: &Value, manifest: &Value) -> Result<(), Error> {
    let functions = json!({ "f": { "settings": { "events": events } } }).to_string().replace('\'', "''");
    let mut db = fixture.databases.writer(&fixture.env).await?;
    db.begin(Durability::Normal).await?;
    for sql in [
        format!(
            "INSERT OR REPLACE INTO _steading_release (number, manifest, created_at, functions) VALUES (1, '{manifest}', 0, '{functions}')"
        ),
        "INSERT OR REPLACE INTO _steading_state (key, value) VALUES ('release', '1')".to_owned(),
    ] {
        db.run(Role::Platform, &sql, &[]).await?;
    }
    let laid = db.lay_events().await;
    match laid {
        Ok(()) => db.commit().await,
        Err(error) => db.rollback().await.and(Err(error)),
    }
}

pub(super) fn lane(on: &str, about: &str) -> Lane {
    Lane { function: "f".to_owned(), on: on.to_owned(), about: about.to_owned() }
}

/// What waits there, taken out.
pub(super) async fn told(fixture: &Fixture, lane: &Lane) -> Vec<Value> {
    told_as(fixture, lane, None).await
}

/// The same, as a table of the release.
async fn told_as(fixture: &Fixture, lane: &Lane, table: Option<&TableModel>) -> Vec<Value> {
    let events = Events::new(Arc::new(fixture.databases.clone()));
    let mut all = Vec::new();
    loop {
        let next = events.next(&fixture.env, lane).await.unwrap();
        if next.is_empty() {
            return all;
        }
        for event in next {
            let mut body: Value = serde_json::from_str(&event.body(lane, table)).unwrap();
            for name in ["id", "on", "table", "bucket"] {
                body.as_object_mut().unwrap().remove(name);
            }
            all.push(body);
            events.settle(&fixture.env, lane, &[event.settled(Fate::Over)]).await.unwrap();
        }
    }
}

pub(super) fn on_rows(table: &str) -> Value {
    json!([{ "on": "rows", "table": table }])
}

#[tokio::test]
async fn each_change_is_told_of_once_in_order_with_the_row_before_and_after() {
    let fixture =
        listening(&["CREATE TABLE todo (id INTEGER PRIMARY KEY, title TEXT, updated_at TEXT) STRICT"]).await;
    let touch = "CREATE TRIGGER todo_touch_updated_at AFTER UPDATE ON todo FOR EACH ROW WHEN NEW.updated_at IS OLD.updated_at \
        BEGIN UPDATE todo SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE id = NEW.id; END";
    fixture.execute(touch, &[]).await.unwrap();
    listen(&fixture, &on_rows("TODO")).await.unwrap();
    fixture.execute("INSERT INTO todo VALUES (1, 'a', 'then'), (2, 'b', 'then')", &[]).await.unwrap();
    fixture.execute("UPDATE todo SET title = 'c' WHERE id = 2", &[]).await.unwrap();
    let touched = fixture.rows("SELECT updated_at FROM todo WHERE id = 2").await;
    fixture.execute("UPDATE todo SET title = title", &[]).await.unwrap();
    fixture.execute("DELETE FROM todo", &[]).await.unwrap();
    let now = fixture.rows("SELECT count(*) FROM todo").await;
    assert_eq!(now, [[json!(0)]]);
    let told = told(&fixture, &lane("rows", "TODO")).await;
    let said: Vec<_> = told
        .iter()
        .map(|it| (it["do"].as_str().unwrap(), &it["row"]["title"], &it["old"]["title"]))
        .collect();
    let (a, b, c) = (json!("a"), json!("b"), json!("c"));
    let none = Value::Null;
    assert_eq!(
        said,
        [
            ("create", &a, &none),
            ("create", &b, &none),
            ("update", &c, &b),
            ("delete", &none, &a),
            ("delete", &none, &c)
        ]
    );
    // The time of the change is what the row has afterwards.
    assert_eq!(told[2]["old"]["updated_at"], "then");
    assert_eq!(told[2]["row"]["updated_at"], touched[0][0]);
}

#[tokio::test]
async fn every_value_comes_as_it_is_or_is_said_to_be_left_out() {
    let fixture =
        listening(&["CREATE TABLE \"odd 'n\"\" {t}\" (id INTEGER PRIMARY KEY, \"a'b\"\"c\" ANY) STRICT"])
            .await;
    listen(&fixture, &on_rows("odd 'n\" {t}")).await.unwrap();
    let insert = "INSERT INTO \"odd 'n\"\" {t}\" (\"a'b\"\"c\") VALUES (?1)";
    let values = [
        json!(null),
        json!(0),
        json!(i64::MIN),
        json!(1.5),
        json!(""),
        json!("'); DROP TABLE x; --"),
        json!("{\"hex\":\"00\"}"),
        json!("\"\\\u{1}\u{2028}\u{1f33e}"),
        json!({ "base64": "AAH/" }),
        json!({ "base64": "" }),
    ];
    for value in &values {
        fixture.execute(insert, std::slice::from_ref(value)).await.unwrap();
    }
    for sql in ["1e999", "-1e999", "CAST(x'ff41' AS TEXT)", "zeroblob(65537)", "printf('%.65537c', 'x')"] {
        fixture.execute(&insert.replace("?1", sql), &[]).await.unwrap();
    }
    let told = told(&fixture, &lane("rows", "odd 'n\" {t}")).await;
    let came: Vec<_> = told.iter().map(|it| it["row"]["a'b\"c"].clone()).collect();
    assert_eq!(came[..values.len()], values);
    assert_eq!(
        came[values.len()..],
        [json!(null), json!(null), json!("\u{fffd}A"), json!(null), json!(null)]
    );
    let omitted: Vec<_> = told.iter().map(|it| it["omitted"].clone()).collect();
    assert_eq!(omitted[omitted.len() - 3..], [json!(null), json!(["row.a'b\"c"]), json!(["row.a'b\"c"])]);
}

#[tokio::test]
async fn wide_and_heavy_rows_fit() {
    let columns: Vec<_> = (0..199).map(|n| format!("c{n} TEXT")).collect();
    let fixture =
        listening(&[&format!("CREATE TABLE wide (id INTEGER PRIMARY KEY, {})", columns.join(", "))]).await;
    listen(&fixture, &on_rows("wide")).await.unwrap();
    fixture.execute("INSERT INTO wide (c0, c198) VALUES ('first', 'last')", &[]).await.unwrap();
    let heavy: Vec<_> = (0..10).map(|n| format!("c{n} = printf('%.60000c', 'x')")).collect();
    fixture.execute(&format!("UPDATE wide SET {}", heavy.join(", ")), &[]).await.unwrap();
    let told = told(&fixture, &lane("rows", "wide")).await;
    assert_eq!((&told[0]["row"]["c0"], &told[0]["row"]["c198"]), (&json!("first"), &json!("last")));
    assert_eq!(told[0]["row"].as_object().unwrap().len(), 200);
    assert!(told[1].to_string().len() <= 260 << 10, "{}", told[1].to_string().len());
    assert_eq!(told[1]["omitted"].as_array().unwrap().len(), 8);
    assert_eq!(told[1]["old"]["c0"], "first");
}

#[tokio::test]
async fn what_is_rolled_back_is_no_event_and_neither_is_what_a_migration_does() {
    let fixture = listening(&["CREATE TABLE todo (id INTEGER PRIMARY KEY, title TEXT UNIQUE)"]).await;
    listen(&fixture, &on_rows("todo")).await.unwrap();
    let twice = fixture.execute("INSERT INTO todo (title) VALUES ('a'), ('a')", &[]).await;
    assert!(matches!(twice, Err(Error::Duplicate(_))), "{twice:?}");
    let mut db = fixture.databases.writer(&fixture.env).await.unwrap();
    db.begin(Durability::Normal).await.unwrap();
    db.run(Role::Writer, "INSERT INTO todo (title) VALUES ('b')", &[]).await.unwrap();
    db.rollback().await.unwrap();
    drop(db);
    let sql = "INSERT INTO todo (title) VALUES ('c'); ALTER TABLE todo RENAME COLUMN title TO name; \
               ALTER TABLE todo DROP COLUMN name2; ";
    let added = "ALTER TABLE todo ADD COLUMN name2 TEXT";
    fixture.execute(added, &[]).await.unwrap();
    fixture.execute("INSERT INTO todo (name2) VALUES ('with the new column')", &[]).await.unwrap();
    fixture.migrate("m", sql, Mode::Apply).await.unwrap();
    fixture.migrate("rows alone", "UPDATE todo SET name = 'd' WHERE id = 1", Mode::Apply).await.unwrap();
    fixture.migrate("tried", "DROP TABLE todo", Mode::DryRun).await.unwrap();
    let dropped = fixture.migrate("gone", "DROP TABLE todo", Mode::Apply).await;
    assert!(matches!(dropped, Err(Error::Listened { .. })), "{dropped:?}");
    fixture.execute("INSERT INTO todo (name) VALUES ('e')", &[]).await.unwrap();
    let told = told(&fixture, &lane("rows", "todo")).await;
    let rows: Vec<_> = told.iter().map(|it| it["row"].clone()).collect();
    assert_eq!(
        rows,
        [json!({ "id": 1, "title": null, "name2": "with the new column" }), json!({ "id": 3, "name": "e" })]
    );
}

#[tokio::test]
async fn no_caller_writes_events_or_takes_their_triggers_away() {
    let fixture = listening(&["CREATE TABLE todo (id INTEGER PRIMARY KEY, title TEXT)"]).await;
    listen(&fixture, &on_rows("todo")).await.unwrap();
    for sql in [
        "INSERT INTO _steading_event (function, source, about, did, depth) VALUES ('f', 'rows', 'todo', 'create', 0)",
        "DROP TRIGGER _steading_event_f_0_create",
        "CREATE TRIGGER _steading_event_x AFTER INSERT ON todo BEGIN SELECT 1; END",
        "CREATE TRIGGER t AFTER INSERT ON todo BEGIN INSERT INTO _STEADING_EVENT (function) VALUES ('f'); END",
        "CREATE TRIGGER t AFTER INSERT ON todo BEGIN INSERT INTO todo (title) SELECT * FROM \
         (WITH \"_steading_event_x\" AS (SELECT email FROM _steading_user) SELECT * FROM \"_steading_event_x\"); END",
        "WITH _steading_event_x AS (SELECT email FROM _steading_user) SELECT * FROM _steading_event_x",
        "CREATE VIEW v AS SELECT * FROM _steading_event",
    ] {
        let refused = [
            fixture.execute(sql, &[]).await.map(drop),
            fixture.query(sql).await.map(drop),
            fixture.migrate("m", sql, Mode::Apply).await.map(drop),
        ];
        for refused in refused {
            let inner = match refused {
                Err(Error::Script { source, .. }) => *source,
                Err(error) => error,
                Ok(()) => panic!("{sql}"),
            };
            assert!(
                matches!(inner, Error::Refused(Refusal::Platform(_) | Refusal::Function(_))),
                "{sql}: {inner:?}"
            );
        }
    }
    for sql in ["steading_depth()", "steading_row(9, NULL, '[]')"] {
        let refused = fixture.execute(&format!("INSERT INTO todo (title) VALUES ({sql})"), &[]).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::Function(_)))), "{sql}: {refused:?}");
    }
    fixture.execute("INSERT INTO todo (title) VALUES ('a')", &[]).await.unwrap();
    assert_eq!(told(&fixture, &lane("rows", "todo")).await.len(), 1);
}

#[tokio::test]
async fn cascades_are_events_of_the_rows_that_they_reach() {
    let fixture = listening(&[
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, of INTEGER REFERENCES parent ON DELETE CASCADE)",
        "CREATE TABLE child (id INTEGER PRIMARY KEY, of INTEGER REFERENCES parent ON DELETE CASCADE)",
    ])
    .await;
    listen(&fixture, &json!([
        { "on": "rows", "table": "parent", "do": ["delete"] }, { "on": "rows", "table": "child", "do": ["delete"] }
    ]))
    .await
    .unwrap();
    fixture.execute("INSERT INTO parent VALUES (1, NULL), (2, 1), (3, 2)", &[]).await.unwrap();
    fixture.execute("INSERT INTO child VALUES (1, 3), (2, 1)", &[]).await.unwrap();
    fixture.execute("DELETE FROM parent WHERE id = 1", &[]).await.unwrap();
    assert_eq!(told(&fixture, &lane("rows", "parent")).await.len(), 3);
    assert_eq!(told(&fixture, &lane("rows", "child")).await.len(), 2);
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_what_came_of_events_is_noted_once() {
    let fixture = listening(&["CREATE TABLE todo (id INTEGER PRIMARY KEY, title TEXT) STRICT"]).await;
    listen(&fixture, &on_rows("todo")).await.unwrap();
    let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8) \
        INSERT INTO todo SELECT i, printf('%.*c', 60000, 'x') FROM n";
    fixture.execute(insert, &[]).await.unwrap();
    let (events, lane) = (Events::new(Arc::new(fixture.databases.clone())), lane("rows", "todo"));
    let next = async || events.next(&fixture.env, &lane).await.unwrap();
    let settle = async |settled: &[Settled]| events.settle(&fixture.env, &lane, settled).await.unwrap();
    let page = next().await;
    assert_eq!(page.len(), 4);
    let due = Timestamp::now();
    let again = page[2].settled(Fate::Again { due, why: "no".to_owned() });
    let settled =
        [page[0].settled(Fate::Over), page[1].settled(Fate::GivenUp { why: "no".to_owned() }), again];
    // It may not be known whether it was noted.
    for _ in 0..2 {
        settle(&settled).await;
    }
    let rest = next().await;
    assert_eq!((rest[0].seq, rest[0].attempt, rest[0].due), (page[2].seq, 1, due));
    assert_eq!((rest.len(), rest[1].attempt), (4, 0));
    let kept = fixture.rows("SELECT count(*) FROM todo").await;
    assert_eq!(kept, [[json!(8)]]);
}

#[tokio::test]
async fn hidden_columns_are_told_to_nobody() {
    let fixture = listening(&[
        "CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT, secret TEXT, created_at TEXT, updated_at TEXT)",
    ])
    .await;
    let manifest = |secret: &str| {
        let columns = json!({ "name": "text", "secret": { "type": "text", "hidden": secret == "hidden" } });
        json!({ "database": { "tables": { "People": { "columns": columns, "access": "admin_only" } } } })
    };
    let lane = lane("rows", "people");
    listen_with(&fixture, &on_rows("people"), &manifest("shown")).await.unwrap();
    let insert = |id: &str| format!("INSERT INTO people (id, name, secret) VALUES ('{id}', 'n', 's3cret')");
    fixture.execute(&insert("a"), &[]).await.unwrap();
    // What was noted before.
    listen_with(&fixture, &on_rows("people"), &manifest("hidden")).await.unwrap();
    let hidden: Manifest = serde_json::from_value(manifest("hidden")).unwrap();
    let model = hidden.database.unwrap().tables().unwrap()[0].model();
    let before = told_as(&fixture, &lane, Some(&model)).await;
    let row = json!({ "id": "a", "name": "n", "created_at": null, "updated_at": null });
    assert_eq!(before, [json!({ "do": "create", "row": row, "old": null })]);
    // What is noted since, whatever tells it.
    fixture.execute(&insert("b"), &[]).await.unwrap();
    fixture.execute("UPDATE people SET name = 'm', secret = 's3cret too' WHERE id = 'b'", &[]).await.unwrap();
    fixture.execute("UPDATE people SET secret = 's3cret again' WHERE id = 'b'", &[]).await.unwrap();
    fixture.execute("DELETE FROM people WHERE id = 'b'", &[]).await.unwrap();
    // Under another name it is what it was, and so is what is made beside it.
    fixture.execute("ALTER TABLE people ADD COLUMN more TEXT", &[]).await.unwrap();
    fixture.execute(&insert("c"), &[]).await.unwrap();
    let rename = "ALTER TABLE people RENAME COLUMN secret TO open";
    fixture.migrate("renamed", rename, Mode::Apply).await.unwrap();
    fixture.execute("INSERT INTO people (id, open) VALUES ('d', 's3cret')", &[]).await.unwrap();
    let noted = fixture.platform("SELECT new, old FROM _steading_event").await;
    assert!(!json!(noted).to_string().contains("s3cret"), "{noted:?}");
    let told = told(&fixture, &lane).await;
    let said: Vec<_> = told.iter().map(|it| (it["do"].as_str().unwrap(), &it["row"]["name"])).collect();
    let none = Value::Null;
    let expected = [
        ("create", &json!("n")),
        ("update", &json!("m")),
        ("delete", &none),
        ("create", &json!("n")),
        ("create", &none),
    ];
    assert_eq!(said, expected);
    let columns = |at: usize| told[at]["row"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(columns(3), ["id", "name", "created_at", "updated_at", "more"]);
    assert_eq!(columns(4), ["id", "name", "created_at", "updated_at"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_committed_is_heard_of_though_its_writer_has_gone() {
    let fixture = listening(&["CREATE TABLE todo (id INTEGER PRIMARY KEY, waits INTEGER)"]).await;
    listen(&fixture, &on_rows("todo")).await.unwrap();
    let noted = fixture.databases.noted();
    for waits in 0.. {
        let mut db = loop {
            match fixture.databases.writer(&fixture.env).await {
                Err(Error::Busy) => {}
                other => break other.unwrap(),
            }
        };
        db.begin(Durability::Normal).await.unwrap();
        db.run(Role::Writer, &format!("INSERT INTO todo (waits) VALUES ({waits})"), &[]).await.unwrap();
        let committed = within_waits(waits, db.commit()).await;
        drop(db);
        // The next has its turn when the engine has let go of the one before.
        drop(fixture.databases.writer(&fixture.env).await.unwrap());
        let there = fixture.rows(&format!("SELECT 1 FROM todo WHERE waits = {waits}")).await;
        if !there.is_empty() {
            let heard = tokio::time::timeout(Duration::from_secs(20), noted.heard()).await;
            assert_eq!(heard.unwrap(), [fixture.env.id()].into(), "after {waits} waits");
        }
        if committed {
            break;
        }
    }
}
