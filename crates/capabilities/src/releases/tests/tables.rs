//! Tables that change their shape while they hold rows.

use super::*;

#[tokio::test]
async fn updated_at_follows_every_update() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text" }))).await.unwrap();
    yard.execute("INSERT INTO todos (title, created_at, updated_at) VALUES ('a', '2020', '2020')").await;
    yard.execute("UPDATE todos SET title = 'b'").await;
    assert_eq!(
        yard.rows("SELECT created_at = '2020', updated_at > '2025' FROM todos").await,
        json!([[1, 1]])
    );
}

#[tokio::test]
async fn a_column_that_begins_an_index_gets_none_of_its_own() {
    let yard = Yard::new().await;
    let mut app = todos(json!({ "title": "text", "list": "ref:lists" }));
    app["database"]["tables"]["lists"] = json!({ "columns": {} });
    app["database"]["tables"]["todos"]["access"] = json!("private");
    let names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql NOT NULL AND tbl_name = 'todos' \
                 ORDER BY name";
    yard.apply(app.clone()).await.unwrap();
    assert_eq!(yard.rows(names).await, json!([["todos.list.idx"], ["todos.owner.idx"]]));
    app["database"]["tables"]["todos"]["indexes"] = json!([["owner", "created_at"], ["title", "list"]]);
    yard.apply(app).await.unwrap();
    let left = [["todos.list.idx"], ["todos.owner.created_at.idx"], ["todos.title.list.idx"]];
    assert_eq!(yard.rows(names).await, json!(left));
}

#[tokio::test]
async fn what_nobody_declared_survives_a_rebuild() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text", "count": "text" }))).await.unwrap();
    yard.execute("ALTER TABLE todos ADD COLUMN extra TEXT DEFAULT 'x'").await;
    yard.execute("CREATE INDEX by_extra ON todos (extra)").await;
    yard.execute("CREATE VIEW titles AS SELECT title FROM todos").await;
    yard.execute("CREATE TABLE log (at TEXT) STRICT").await;
    yard.execute("CREATE TRIGGER note AFTER INSERT ON todos BEGIN INSERT INTO log VALUES ('now'); END").await;
    yard.execute("INSERT INTO todos (title, count, extra) VALUES ('a', '7', 'kept')").await;
    let ids = yard.rows("SELECT id FROM todos").await;
    yard.apply(todos(json!({ "title": "text", "count": "int" }))).await.unwrap();
    assert_eq!(yard.rows("SELECT title, count, extra FROM todos").await, json!([["a", 7, "kept"]]));
    assert_eq!(yard.rows("SELECT id FROM todos").await, ids);
    yard.execute("INSERT INTO todos (title) VALUES ('b')").await;
    assert_eq!(yard.rows("SELECT count(*) FROM log").await, json!([[2]]));
    assert_eq!(yard.rows("SELECT title FROM titles").await, json!([["a"], ["b"]]));
    let kept = "SELECT name FROM sqlite_schema WHERE name IN ('by_extra', 'note') ORDER BY name";
    assert_eq!(yard.rows(kept).await, json!([["by_extra"], ["note"]]));
}

#[tokio::test]
async fn references_hold_through_the_rebuild_of_either_side() {
    let yard = Yard::new().await;
    let lists = |rank: &str, note: &str| {
        json!({ "database": { "tables": {
            "lists": { "columns": { "rank": rank } },
            "todos": { "columns": { "list": { "type": "ref:lists", "required": true, "on_delete": "cascade" }, "note": note } },
        } } })
    };
    yard.apply(lists("text", "text")).await.unwrap();
    yard.execute("INSERT INTO lists (id, rank) VALUES ('l1', '1')").await;
    yard.execute("INSERT INTO todos (list, note) VALUES ('l1', '2')").await;
    yard.apply(lists("int", "int")).await.unwrap();
    assert_eq!(
        yard.rows("SELECT rank, note FROM todos JOIN lists ON lists.id = todos.list").await,
        json!([[1, 2]])
    );
    yard.execute("DELETE FROM lists").await;
    assert_eq!(yard.rows("SELECT count(*) FROM todos").await, json!([[0]]));
}

#[tokio::test]
async fn a_table_made_by_sql_is_taken_over_with_its_rows() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (id INTEGER PRIMARY KEY, title TEXT UNIQUE, done BOOLEAN)").await;
    yard.execute("INSERT INTO todos (title, done) VALUES ('a', 1)").await;
    let applied = yard.apply(todos(json!({ "title": "text!", "done": "bool = false" }))).await.unwrap();
    assert!(applied.changed);
    assert_eq!(
        yard.rows("SELECT id, title, done, created_at IS NOT NULL FROM todos").await,
        json!([["1", "a", 1, 1]])
    );
    let cancel = CancellationToken::new();
    let doubled = yard.databases.execute(&yard.env, "INSERT INTO todos (title) VALUES ('a')", &[], &cancel);
    assert_eq!(Error::from(doubled.await.unwrap_err()).code(), Code::Conflict, "it stays unique");
    assert!(!yard.apply(todos(json!({ "title": "text!", "done": "bool = false" }))).await.unwrap().changed);
}

#[tokio::test]
async fn a_table_that_already_is_what_a_manifest_wants_is_taken_over() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (title TEXT) STRICT").await;
    yard.execute("INSERT INTO todos (title) VALUES ('a')").await;
    let applied = yard.apply(todos(json!({ "title": "text" }))).await.unwrap();
    assert_eq!((applied.release, applied.changed), (1, true));
    assert_eq!(yard.rows("SELECT title, id IS NOT NULL FROM todos").await, json!([["a", 1]]));
}

#[tokio::test]
async fn values_that_a_declared_type_does_not_hold_are_not_lost_unsaid() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (count INTEGER, weight REAL, extra TEXT)").await;
    yard.execute("INSERT INTO todos (count, weight) VALUES ('many', 1), (1.5, 'heavy'), (7, 2.5)").await;
    let refused = yard.apply(todos(json!({ "count": "int", "weight": "real" }))).await.unwrap_err();
    let losses = "this would lose data: column todos.count: 2 of 3 values cannot become int and are lost; \
                  column todos.weight: 1 of 3 values cannot become real and are lost";
    assert_eq!(refused.message(), losses);
}

#[tokio::test]
async fn a_number_too_long_for_a_real_is_a_loss() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "count": "int" }))).await.unwrap();
    yard.execute("INSERT INTO todos (count) VALUES (9007199254740993), (2)").await;
    let refused = yard.apply(todos(json!({ "count": "real" }))).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "this would lose data: column todos.count: 1 of 2 values cannot become real and are lost"
    );
}

#[tokio::test]
async fn names_that_join_to_the_same_text_do_not_collide() {
    let yard = Yard::new().await;
    let applied = yard
        .apply(json!({ "database": { "tables": {
        "project": { "columns": { "member_role": "text" }, "indexes": ["member_role"] },
        "project_member": { "columns": { "role": "text" }, "indexes": ["role"] },
    } } }))
        .await
        .unwrap();
    assert!(applied.changed);
}

#[tokio::test]
async fn a_table_is_written_in_another_case() {
    let yard = Yard::new().await;
    let named = |name: &str| json!({ "database": { "tables": { name: { "columns": { "title": "text" }, "indexes": ["title"] } } } });
    yard.apply(named("Todos")).await.unwrap();
    yard.execute("INSERT INTO todos (title) VALUES ('a')").await;
    let applied = yard.apply(named("todos")).await.unwrap();
    assert!(applied.changed, "{applied:?}");
    assert_eq!(yard.rows("SELECT title FROM todos").await, json!([["a"]]));
}

#[tokio::test]
async fn defaults_of_foreign_columns_survive_a_rebuild() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (title TEXT, a TEXT DEFAULT \"x\", b TEXT DEFAULT y, c INT DEFAULT -1, d NUMERIC DEFAULT 1.5, e TEXT DEFAULT CURRENT_TIMESTAMP, f TEXT DEFAULT ('p' || 'q'), g BOOLEAN DEFAULT true, h TEXT DEFAULT 'it''s', i BLOB DEFAULT x'01')").await;
    yard.execute("INSERT INTO todos (title, d) VALUES ('a', 2.5)").await;
    yard.apply(todos(json!({ "title": "text!" }))).await.unwrap();
    yard.execute("INSERT INTO todos (title) VALUES ('b')").await;
    assert_eq!(
        yard.rows("SELECT a, b, c, 1.5, f, g, h, typeof(i), d FROM todos").await,
        json!([
            ["x", "y", -1, 1.5, "pq", 1, "it's", "blob", 2.5],
            ["x", "y", -1, 1.5, "pq", 1, "it's", "blob", 1.5]
        ])
    );
}

#[tokio::test]
async fn an_index_on_a_column_that_is_not_there_is_refused() {
    let yard = Yard::new().await;
    let wrong = json!({ "database": { "tables": { "todos": { "columns": { "title": "text" }, "indexes": ["owner"] } } } });
    let refused = yard.apply(wrong).await.unwrap_err();
    assert_eq!(refused.pointer(), Some("/database/tables/todos/indexes/0"), "{refused:?}");
}

#[tokio::test]
async fn an_engine_error_does_not_point_at_sql_nobody_wrote() {
    let yard = Yard::new().await;
    yard.execute("CREATE VIEW todos AS SELECT 1").await;
    let refused = yard.apply(todos(json!({ "title": "text" }))).await.unwrap_err();
    assert_eq!(refused.pointer(), Some("/database/tables/todos"), "{refused:?}");
}

#[tokio::test]
async fn what_changes_beside_the_type_is_said_and_unique_values_need_an_index_only() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text", "parent": "ref:todos" }))).await.unwrap();
    yard.execute("INSERT INTO todos (id, title, parent) VALUES ('1', 'a', NULL), ('2', 'b', '1')").await;
    let unique = json!({ "type": "text", "unique": true });
    let applied = yard.apply(todos(json!({ "title": unique, "parent": "ref:todos" }))).await.unwrap();
    assert_eq!(changes(&applied.changes), ["create index todos.title.key"]);
    assert_eq!(effects(&applied.effects), [""; 0]);
    let cascade = json!({ "type": "ref:todos", "on_delete": "cascade" });
    let applied = yard.apply(todos(json!({ "title": unique, "parent": cascade }))).await.unwrap();
    let said = "alter column todos.parent: ref:todos → ref:todos, on delete cascade";
    assert_eq!(changes(&applied.changes), [said]);
    yard.execute("DELETE FROM todos WHERE id = '1'").await;
    assert_eq!(yard.rows("SELECT count(*) FROM todos").await, json!([[0]]));
}

#[tokio::test]
async fn a_key_that_is_not_the_id_stays_unique_when_its_table_is_taken_over() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (email TEXT PRIMARY KEY, title TEXT)").await;
    yard.execute("CREATE TABLE notes (todo TEXT REFERENCES todos (email)) STRICT").await;
    yard.execute("INSERT INTO todos VALUES ('a@b', 'a')").await;
    yard.execute("INSERT INTO notes VALUES ('a@b')").await;
    yard.apply(todos(json!({ "email": "text!", "title": "text" }))).await.unwrap();
    let cancel = CancellationToken::new();
    let doubled = yard.databases.execute(&yard.env, "INSERT INTO todos (email) VALUES ('a@b')", &[], &cancel);
    assert_eq!(Error::from(doubled.await.unwrap_err()).code(), Code::Conflict);
    assert!(!yard.apply(todos(json!({ "email": "text!", "title": "text" }))).await.unwrap().changed);
}

#[tokio::test]
async fn what_a_table_loses_of_its_sql_when_it_is_taken_over_is_said() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE pairs (a TEXT, b TEXT, PRIMARY KEY (a, b)) STRICT").await;
    yard.execute(
        "CREATE TABLE todos (title TEXT CHECK (title <> ''), check_in TEXT, a TEXT, b TEXT, \
         FOREIGN KEY (a, b) REFERENCES pairs (a, b)) STRICT",
    )
    .await;
    let plan = yard.plan(todos(json!({ "title": "text" }))).await.unwrap();
    assert_eq!(
        changes(&plan.changes),
        [
            "alter table todos: it becomes part of the release",
            "drop checks of table todos: a table of a release does not carry them",
            "drop reference todos.(a, b) to pairs",
        ]
    );
}
