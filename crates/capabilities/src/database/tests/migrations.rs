//! Migrations, their effects, and the schema.

use std::time::{Duration, Instant};

use expect_test::expect;
use serde_json::json;

use super::fixture::{Fixture, told};
use super::{TABLE, fill, with_todo};
use crate::database::{Effect, Error, Mode};

#[tokio::test]
async fn a_migration_is_applied_once_and_its_content_is_held_to() {
    let fixture = Fixture::new().await;
    let script = format!("{TABLE};\nINSERT INTO todo (title) VALUES ('a'), ('b'); -- done\n");
    let planned = fixture.migrate("001", &script, Mode::DryRun).await.unwrap();
    assert_eq!((planned.applied, planned.changed, planned.history.len()), (false, 2, 0));
    assert!(fixture.databases.schema(&fixture.env).await.unwrap().tables.is_empty());
    let applied = fixture.migrate("001", &script, Mode::Apply).await.unwrap();
    assert_eq!((applied.applied, &applied.effects), (true, &planned.effects));
    assert_eq!(applied.history.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["001"]);
    for mode in [Mode::Apply, Mode::DryRun] {
        let again = fixture.migrate("001", &script, mode).await.unwrap();
        assert_eq!((again.applied, again.effects, again.history), (false, vec![], applied.history.clone()));
        expect!["conflict /name: the migration 001 was applied before with other content"]
            .assert_eq(&told(fixture.migrate("001", "SELECT 1", mode).await));
    }
    assert_eq!(fixture.databases.migrations(&fixture.env).await.unwrap(), applied.history);
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(2)]]);
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_and_says_where() {
    let fixture = with_todo().await;
    let before = fixture.databases.schema(&fixture.env).await.unwrap();
    let script = "CREATE TABLE a (x);\nDROP TABLE todo;\nCREATE TABLE b (y;";
    expect![[r#"invalid_input /sql: statement 3: near ";": syntax error (at byte 54)"#]]
        .assert_eq(&told(fixture.migrate("bad", script, Mode::Apply).await));
    assert_eq!(script.len(), 55);
    assert_eq!(fixture.databases.schema(&fixture.env).await.unwrap(), before);
    for name in ["", &"n".repeat(201)] {
        assert!(matches!(fixture.migrate(name, "SELECT 1", Mode::Apply).await, Err(Error::MigrationName)));
    }
}

#[tokio::test]
async fn the_effects_of_a_migration_count_what_is_lost() {
    let fixture = with_todo().await;
    fill(&fixture, 5).await;
    fixture.execute("UPDATE todo SET done = 1 WHERE id < 3", &[]).await.unwrap();
    fixture.execute("CREATE TABLE log (line TEXT)", &[]).await.unwrap();
    fixture.execute("INSERT INTO log VALUES ('x')", &[]).await.unwrap();
    let effects = async |sql: &str| {
        let effects = fixture.migrate("m", sql, Mode::DryRun).await.unwrap().effects;
        let lossy = effects.iter().any(Effect::loses);
        format!("{sql}\n  {} {}\n", if lossy { "loses" } else { "keeps" }, json!(effects))
    };
    let mut answers = String::new();
    for sql in [
        "ALTER TABLE todo DROP COLUMN done",
        "DROP TABLE log",
        "DELETE FROM todo WHERE id > 1",
        "ALTER TABLE todo RENAME TO task; ALTER TABLE task RENAME COLUMN done TO finished",
        "ALTER TABLE todo ADD COLUMN due TEXT; CREATE INDEX by_due ON todo (due)",
        "CREATE TABLE n (id INTEGER PRIMARY KEY, title TEXT NOT NULL, done TEXT) STRICT;
         INSERT INTO n SELECT id, title, done FROM todo WHERE id < 5; DROP TABLE todo; ALTER TABLE n RENAME TO todo",
        "DROP TABLE log; CREATE TABLE log2 (line TEXT)",
        "DROP TABLE log; CREATE TABLE log (line TEXT)",
    ] {
        answers.push_str(&effects(sql).await);
    }
    expect![[r#"
        ALTER TABLE todo DROP COLUMN done
          loses [{"effect":"column_dropped","table":"todo","column":"done","values":2}]
        DROP TABLE log
          loses [{"effect":"table_dropped","table":"log","rows":1}]
        DELETE FROM todo WHERE id > 1
          loses [{"effect":"rows_removed","table":"todo","rows":4}]
        ALTER TABLE todo RENAME TO task; ALTER TABLE task RENAME COLUMN done TO finished
          keeps [{"effect":"table_renamed","from":"todo","to":"task"},{"effect":"column_renamed","table":"task","from":"done","to":"finished"}]
        ALTER TABLE todo ADD COLUMN due TEXT; CREATE INDEX by_due ON todo (due)
          keeps [{"effect":"column_added","table":"todo","column":"due"},{"effect":"object_created","name":"by_due"}]
        CREATE TABLE n (id INTEGER PRIMARY KEY, title TEXT NOT NULL, done TEXT) STRICT;
                 INSERT INTO n SELECT id, title, done FROM todo WHERE id < 5; DROP TABLE todo; ALTER TABLE n RENAME TO todo
          loses [{"effect":"column_retyped","table":"todo","column":"done","from":"INTEGER","to":"TEXT"},{"effect":"rows_removed","table":"todo","rows":1}]
        DROP TABLE log; CREATE TABLE log2 (line TEXT)
          loses [{"effect":"table_dropped","table":"log","rows":1},{"effect":"table_created","table":"log2"}]
        DROP TABLE log; CREATE TABLE log (line TEXT)
          loses [{"effect":"rows_removed","table":"log","rows":1}]
    "#]].assert_eq(&answers);
}

#[tokio::test]
async fn a_referred_to_table_is_rebuilt_without_losing_what_refers_to_it() {
    let fixture = with_todo().await;
    fill(&fixture, 3).await;
    let step = "CREATE TABLE step (todo INTEGER NOT NULL REFERENCES todo (id) ON DELETE CASCADE)";
    fixture.execute(step, &[]).await.unwrap();
    fixture.execute("INSERT INTO step VALUES (1), (2), (3)", &[]).await.unwrap();
    let rebuild = "CREATE TABLE n (id INTEGER PRIMARY KEY, title TEXT NOT NULL);
         INSERT INTO n SELECT id, title FROM todo; DROP TABLE todo; ALTER TABLE n RENAME TO todo";
    fixture.migrate("rebuild", rebuild, Mode::Apply).await.unwrap();
    assert_eq!(
        fixture.rows("SELECT count(*) FROM step JOIN todo ON todo.id = step.todo").await,
        [[json!(3)]]
    );
    expect!["conflict /sql: after this migration 2 rows of step would point at rows that are not there"]
        .assert_eq(&told(fixture.migrate("gone", "DELETE FROM todo WHERE id > 1", Mode::Apply).await));
    // Enforcement is back for the next caller.
    assert!(matches!(fixture.execute("INSERT INTO step VALUES (9)", &[]).await, Err(Error::ForeignKey)));
}

#[tokio::test]
async fn the_schema_is_told_whole_and_without_the_platforms_part() {
    let fixture = with_todo().await;
    for sql in [
        "CREATE TABLE step (todo INTEGER REFERENCES todo (id) ON DELETE CASCADE, twice INTEGER AS (todo * 2))",
        "CREATE UNIQUE INDEX step_todo ON step (todo, abs(todo)) WHERE todo > 0",
        "CREATE TRIGGER t AFTER INSERT ON step BEGIN SELECT 1; END",
        "CREATE VIEW open AS SELECT * FROM todo",
    ] {
        fixture.execute(sql, &[]).await.unwrap();
    }
    let schema = fixture.databases.schema(&fixture.env).await.unwrap();
    let mut shown = serde_json::to_value(&schema).unwrap();
    let fingerprint = shown["fingerprint"].take();
    expect![[r#"
        {
          "tables": [
            {
              "name": "step",
              "columns": [
                {
                  "name": "todo",
                  "kind": "INTEGER",
                  "not_null": false,
                  "default": null,
                  "primary_key": 0,
                  "generated": false
                },
                {
                  "name": "twice",
                  "kind": "INTEGER",
                  "not_null": false,
                  "default": null,
                  "primary_key": 0,
                  "generated": true
                }
              ],
              "indexes": [
                {
                  "name": "step_todo",
                  "unique": true,
                  "partial": true,
                  "columns": [
                    "todo",
                    null
                  ],
                  "sql": "CREATE UNIQUE INDEX step_todo ON step (todo, abs(todo)) WHERE todo > 0"
                }
              ],
              "triggers": [
                {
                  "name": "t",
                  "sql": "CREATE TRIGGER t AFTER INSERT ON step BEGIN SELECT 1; END"
                }
              ],
              "foreign_keys": [
                {
                  "columns": [
                    "todo"
                  ],
                  "table": "todo",
                  "references": [
                    "id"
                  ],
                  "on_delete": "CASCADE",
                  "on_update": "NO ACTION"
                }
              ],
              "strict": false,
              "rows": 0,
              "sql": "CREATE TABLE step (todo INTEGER REFERENCES todo (id) ON DELETE CASCADE, twice INTEGER AS (todo * 2))"
            },
            {
              "name": "todo",
              "columns": [
                {
                  "name": "id",
                  "kind": "INTEGER",
                  "not_null": false,
                  "default": null,
                  "primary_key": 1,
                  "generated": false
                },
                {
                  "name": "title",
                  "kind": "TEXT",
                  "not_null": true,
                  "default": null,
                  "primary_key": 0,
                  "generated": false
                },
                {
                  "name": "done",
                  "kind": "INTEGER",
                  "not_null": false,
                  "default": null,
                  "primary_key": 0,
                  "generated": false
                }
              ],
              "indexes": [
                {
                  "name": "sqlite_autoindex_todo_1",
                  "unique": true,
                  "partial": false,
                  "columns": [
                    "title"
                  ],
                  "sql": null
                }
              ],
              "triggers": [],
              "foreign_keys": [],
              "strict": true,
              "rows": 0,
              "sql": "CREATE TABLE todo (id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, done INTEGER) STRICT"
            }
          ],
          "views": [
            {
              "name": "open",
              "sql": "CREATE VIEW open AS SELECT * FROM todo"
            }
          ],
          "fingerprint": null
        }"#]].assert_eq(&serde_json::to_string_pretty(&shown).unwrap());
    fixture.execute("INSERT INTO todo (title) VALUES ('x')", &[]).await.unwrap();
    let after = fixture.databases.schema(&fixture.env).await.unwrap();
    assert_eq!((json!(after.fingerprint), after.tables[1].rows), (fingerprint, 1));
    fixture.execute("CREATE INDEX i ON todo (done)", &[]).await.unwrap();
    assert_ne!(fixture.databases.schema(&fixture.env).await.unwrap().fingerprint, after.fingerprint);
}

#[tokio::test]
async fn the_fingerprint_sees_past_spacing_and_into_texts() {
    let fingerprint = async |sql: &str| {
        let fixture = Fixture::new().await;
        fixture.execute(sql, &[]).await.unwrap();
        fixture.databases.schema(&fixture.env).await.unwrap().fingerprint
    };
    let plain = fingerprint("CREATE TABLE t (a TEXT DEFAULT 'x y')").await;
    assert_eq!(fingerprint("CREATE  TABLE\n t (a  TEXT\tDEFAULT 'x y')").await, plain);
    assert_ne!(fingerprint("CREATE TABLE t (a TEXT DEFAULT 'x  y')").await, plain);
    assert_ne!(fingerprint("CREATE TABLE t (a TEXT DEFAULT 'x y', b)").await, plain);
}

#[tokio::test]
async fn a_migration_loses_nothing_but_what_was_accepted() {
    let fixture = Fixture::new().await;
    fixture.execute("CREATE TABLE todo (title TEXT) STRICT", &[]).await.unwrap();
    fixture.execute("INSERT INTO todo VALUES ('one')", &[]).await.unwrap();
    let told = fixture.migrate("drop", "DROP TABLE todo", Mode::DryRun).await.unwrap();
    fixture.execute("INSERT INTO todo VALUES ('two')", &[]).await.unwrap();
    let migrate = |accepted: Vec<Effect>| crate::database::Migrate {
        name: "drop".to_owned(),
        sql: "DROP TABLE todo".to_owned(),
        mode: Mode::Apply,
        release: None,
        accepted: Some(accepted),
    };
    let cancel = tokio_util::sync::CancellationToken::new();
    let refused = fixture.databases.migrate(&fixture.env, &migrate(told.effects), &cancel).await;
    assert!(matches!(refused, Err(Error::MoreLost)), "{refused:?}");
    let told = fixture.migrate("drop", "DROP TABLE todo", Mode::DryRun).await.unwrap();
    let applied = fixture.databases.migrate(&fixture.env, &migrate(told.effects), &cancel).await.unwrap();
    assert!(applied.applied);
}

#[tokio::test]
async fn a_migration_is_known_by_its_text_under_another_name() {
    let fixture = Fixture::new().await;
    let sql = "CREATE TABLE seed (n INTEGER) STRICT; INSERT INTO seed VALUES (1)";
    assert!(fixture.migrate("one", sql, Mode::Apply).await.unwrap().applied);
    assert!(!fixture.migrate("two", sql, Mode::Apply).await.unwrap().applied);
    let other = fixture.migrate("one", "DROP TABLE seed", Mode::Apply).await;
    assert!(matches!(other, Err(Error::MigrationChanged(_))), "{other:?}");
}

#[tokio::test]
async fn a_statement_of_a_script_costs_what_it_is_and_not_what_comes_after_it() {
    let fixture = with_todo().await;
    let begun = Instant::now();
    let script = format!("{}/* {} */", "SELECT 1;".repeat(2_000), "x".repeat(900_000));
    let migrated = fixture.migrate("long", &script, Mode::Apply).await.unwrap();
    assert!(migrated.applied);
    // Two gigabytes are looked at for longer.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Each is looked at all the same.
    for sql in ["SELECT 1; CREATE VIEW v AS SELECT * FROM _steading_event; SELECT 2", "SELECT 1; SELECT '\0'"]
    {
        let failed = fixture.migrate("bad", sql, Mode::Apply).await.map(drop);
        assert!(matches!(failed, Err(Error::Script { .. })), "{sql:?}: {failed:?}");
    }
}
