//! What the database of an environment does, on the real engine.

use std::time::{Duration, Instant};

use expect_test::expect;
use kernel::{Env, EnvId, TenantId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, told};
use super::{Durability, Effect, Error, Format, Limits, Load, Mode, OnConflict, Query, Role};

const TODO: &str =
    "CREATE TABLE todo (id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, done INTEGER) STRICT";

async fn with_todo() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.execute(TODO, &[]).await.unwrap();
    fixture
}

async fn fill(fixture: &Fixture, rows: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1) \
               INSERT INTO todo (id, title) SELECT i, 'title ' || i FROM n";
    fixture.execute(sql, &[json!(rows)]).await.unwrap();
}

#[tokio::test]
async fn every_kind_of_value_goes_in_and_comes_out() {
    let fixture = Fixture::new().await;
    fixture.execute("CREATE TABLE v (a, b, c, d, e, f)", &[]).await.unwrap();
    let values = [
        json!(null),
        json!(true),
        json!(-9_223_372_036_854_775_808_i64),
        json!(1.5),
        json!("ü '; DROP"),
        json!({"base64": "AP8="}),
    ];
    let inserted = fixture.execute("INSERT INTO v VALUES (?1, $2, ?3, $4, ?5, ?6)", &values).await.unwrap();
    assert_eq!((inserted.changed, inserted.rows.len()), (1, 0));
    assert_eq!(
        fixture.rows("SELECT *, 9e999, x'', CAST(x'ff' AS TEXT) FROM v").await,
        [[
            json!(null),
            json!(1),
            json!(i64::MIN),
            json!(1.5),
            json!("ü '; DROP"),
            json!({"base64": "AP8="}),
            json!("inf"),
            json!({"base64": ""}),
            json!({"base64": "/w=="}),
        ]]
    );
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_named() {
    let fixture = with_todo().await;
    let run = async |sql: &str, params: &[Value]| told(fixture.execute(sql, params).await);
    let answers = [
        run("SELECT ?1, ?2", &[json!(1)]).await,
        run("SELECT 1", &[json!(1)]).await,
        run("SELECT ?3", &[json!(1), json!(2), json!(3)]).await,
        run("SELECT $2, $1, ?2", &[json!(1), json!(2)]).await,
        run("SELECT :name", &[json!(1)]).await,
        run("SELECT $2, ?", &[json!(1), json!(2)]).await,
        run("SELECT ?, ?", &[json!(1), json!([1])]).await,
        run("SELECT ?", &[json!({"a": 1})]).await,
        run("SELECT ?", &[json!({"base64": "*"})]).await,
        run("SELECT ?", &[json!(u64::MAX)]).await,
    ];
    expect![[r#"
        invalid_input /params: the statement has 2 parameters and 1 values were given
        invalid_input /params: the statement has 0 parameters and 1 values were given
        ok
        ok
        invalid_input /sql: the parameter :name has no number
        invalid_input /sql: the statement mixes bare ? and numbered parameters
        invalid_input /params/1: the value is an array: pass its JSON text, or one parameter for each element
        invalid_input /params/0: the value is an object: pass its JSON text, or a blob as {"base64": "…"}
        invalid_input /params/0: the value is not valid base64
        invalid_input /params/0: the value is larger than a 64-bit signed integer"#]]
    .assert_eq(&answers.join("\n"));
}

#[tokio::test]
async fn a_violated_constraint_names_its_column() {
    let fixture = with_todo().await;
    fixture
        .execute("CREATE TABLE step (todo INTEGER REFERENCES todo (id), n INTEGER CHECK (n > 0)) STRICT", &[])
        .await
        .unwrap();
    fill(&fixture, 1).await;
    fixture.execute("INSERT INTO step VALUES (1, 1)", &[]).await.unwrap();
    let mut answers = String::new();
    for sql in [
        "INSERT INTO todo (title) VALUES ('title 1')",
        "INSERT INTO todo (id, title) VALUES (1, 'x')",
        "INSERT INTO todo (title) VALUES (NULL)",
        "INSERT INTO todo (title, done) VALUES ('x', 'yes')",
        "INSERT INTO step VALUES (7, 1)",
        "INSERT INTO step VALUES (1, 0)",
        "DELETE FROM todo",
    ] {
        answers.push_str(&format!("{sql}\n  {}\n", told(fixture.execute(sql, &[]).await)));
    }
    expect![[r#"
        INSERT INTO todo (title) VALUES ('title 1')
          conflict /sql: a row with the same todo.title is already there
        INSERT INTO todo (id, title) VALUES (1, 'x')
          conflict /sql: a row with the same todo.id is already there
        INSERT INTO todo (title) VALUES (NULL)
          invalid_input /sql: todo.title needs a value
        INSERT INTO todo (title, done) VALUES ('x', 'yes')
          invalid_input /sql: cannot store TEXT value in INTEGER column todo.done
        INSERT INTO step VALUES (7, 1)
          conflict /sql: a foreign key would point at a row that is not there
        INSERT INTO step VALUES (1, 0)
          invalid_input /sql: the check n > 0 does not hold
        DELETE FROM todo
          conflict /sql: a foreign key would point at a row that is not there
    "#]]
    .assert_eq(&answers);
}

#[tokio::test]
async fn execute_adds_to_the_schema_and_leaves_removal_to_migrations() {
    let fixture = with_todo().await;
    for sql in [
        "CREATE TABLE IF NOT EXISTS tag (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT)",
        "CREATE INDEX tag_name ON tag (lower(name))",
        "ALTER TABLE todo ADD COLUMN due TEXT DEFAULT 'never'",
        "CREATE VIEW names AS SELECT name FROM tag",
        "CREATE TRIGGER t AFTER INSERT ON todo BEGIN INSERT INTO tag (name) VALUES (new.title); END",
        "CREATE TABLE made AS SELECT * FROM todo",
    ] {
        assert_eq!(fixture.execute(sql, &[]).await.unwrap().changed, 0, "{sql}");
    }
    let inserted = fixture
        .execute("INSERT INTO todo (title) VALUES ('a'), ('b') RETURNING id, title, due", &[])
        .await
        .unwrap();
    assert_eq!(inserted.columns, ["id", "title", "due"]);
    assert_eq!(
        inserted.rows,
        [[json!(1), json!("a"), json!("never")], [json!(2), json!("b"), json!("never")]]
    );
    assert_eq!(inserted.changed, 2);
    assert_eq!(fixture.rows("SELECT * FROM names").await, [[json!("a")], [json!("b")]]);
    for sql in [
        "DROP TABLE tag",
        "DROP INDEX tag_name",
        "DROP VIEW names",
        "DROP TRIGGER t",
        "ALTER TABLE todo DROP COLUMN done",
        "ALTER TABLE todo RENAME TO task",
        "ALTER TABLE todo RENAME COLUMN title TO name",
    ] {
        let error = kernel::Error::from(fixture.execute(sql, &[]).await.unwrap_err());
        assert_eq!(error.message(), "this statement drops or renames a part of the schema", "{sql}");
        assert!(error.advice().unwrap().starts_with("use db_migrate"), "{sql}");
    }
}

#[tokio::test]
async fn what_returning_gives_is_never_cut() {
    let fixture = with_todo().await;
    fill(&fixture, 2_000).await;
    expect![
        "too_large /sql: the rows that RETURNING gives are too many for one result, and nothing was changed"
    ]
    .assert_eq(&told(fixture.execute("UPDATE todo SET done = 1 RETURNING *", &[]).await));
    assert_eq!(fixture.rows("SELECT count(*) FROM todo WHERE done = 1").await, [[json!(0)]]);
}

#[tokio::test]
async fn cursors_page_over_everything_exactly_once() {
    let fixture = with_todo().await;
    fill(&fixture, 2_345).await;
    for (limit, budget) in [(None, 0), (Some(1_000), 100_000), (Some(7), 100), (Some(4_000_000_000), 700)] {
        let mut query = Query {
            sql: "SELECT id FROM todo WHERE id > $1 ORDER BY id".to_owned(),
            params: vec![json!(0)],
            limit,
            cursor: None,
            budget,
        };
        let mut seen = Vec::new();
        loop {
            let page = fixture
                .databases
                .query(&fixture.env, query.clone(), &CancellationToken::new())
                .await
                .unwrap();
            assert!(!page.rows.is_empty() && page.rows.len() <= 1_000);
            seen.extend(page.rows.iter().map(|row| row[0].as_u64().unwrap()));
            query.cursor = page.cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, (1..=2_345).collect::<Vec<_>>(), "{limit:?} {budget}");
    }
    let page = fixture.query("SELECT id FROM todo ORDER BY id LIMIT 100").await.unwrap();
    assert_eq!((page.rows.len(), page.cursor), (100, None));
}

#[tokio::test]
async fn a_cursor_serves_its_own_statement_alone() {
    let fixture = with_todo().await;
    fill(&fixture, 200).await;
    let cursor = fixture.query("SELECT id FROM todo").await.unwrap().cursor;
    for (sql, params, cursor) in [
        ("SELECT id FROM todo ", vec![], cursor.clone()),
        ("SELECT id FROM todo", vec![json!(1)], cursor.clone()),
        ("SELECT id FROM todo", vec![], Some("nonsense".to_owned())),
        ("SELECT id FROM todo", vec![], Some(String::new())),
    ] {
        let query = Query { sql: sql.to_owned(), params, cursor, ..Query::default() };
        let answer = fixture.databases.query(&fixture.env, query, &CancellationToken::new()).await;
        assert!(matches!(answer, Err(Error::Cursor)), "{sql}");
    }
}

#[tokio::test]
async fn a_row_wider_than_a_result_is_an_error_that_says_what_to_do() {
    let fixture = Fixture::new().await;
    let error =
        kernel::Error::from(fixture.query("SELECT 1 AS id, hex(zeroblob(10000)) AS body").await.unwrap_err());
    expect!["row 1 is about 6669 tokens, most of them in the column body, and a result may be 3500"]
        .assert_eq(error.message());
    assert!(error.advice().unwrap().contains("substr("));
}

#[tokio::test]
async fn habits_from_postgres_are_answered_with_what_to_write() {
    let fixture = with_todo().await;
    let mut answers = String::new();
    for sql in [
        "CREATE TABLE a (id SERIAL PRIMARY KEY) STRICT",
        "CREATE TABLE a (id INTEGER PRIMARY KEY, name VARCHAR(20)) STRICT",
        "CREATE TABLE a (id INTEGER PRIMARY KEY, done BOOLEAN DEFAULT false) STRICT",
        "SELECT now()",
        "SELECT * FROM todo WHERE title ILIKE 'a%'",
        "SELECT id::text FROM todo",
        "TRUNCATE TABLE todo",
        "SELECT gen_random_uuid()",
        "SELECT uuid_generate_v4()",
        "SELECT table_name FROM information_schema.tables",
        "SELECT * FROM todo WHERE title @> '{}'",
        "SELECT now() - INTERVAL '7 days'",
        "ALTER TABLE todo ALTER COLUMN title TYPE text",
        "CREATE EXTENSION IF NOT EXISTS pgcrypto",
        "INSERT INTO todo (title) VALUES ('a') ON CONFLICT ON CONSTRAINT u DO NOTHING",
        "SELECT * FROM todo WHERE title = \"a\"",
        "SELECT nonsense FROM todo",
    ] {
        let error = kernel::Error::from(fixture.execute(sql, &[]).await.unwrap_err());
        assert_eq!(error.pointer(), Some("/sql"));
        answers.push_str(&format!("{sql}\n  {}\n  {}\n", error.message(), error.advice().unwrap_or("-")));
    }
    expect![[r#"
        CREATE TABLE a (id SERIAL PRIMARY KEY) STRICT
          unknown datatype for a.id: "SERIAL"
          this is SQLite: INTEGER PRIMARY KEY counts by itself
        CREATE TABLE a (id INTEGER PRIMARY KEY, name VARCHAR(20)) STRICT
          unknown datatype for a.name: "VARCHAR(20)"
          STRICT tables know INTEGER, REAL, TEXT, BLOB and ANY: text of any length is TEXT, a boolean is INTEGER with 0 and 1, a time is TEXT, JSON is TEXT
        CREATE TABLE a (id INTEGER PRIMARY KEY, done BOOLEAN DEFAULT false) STRICT
          unknown datatype for a.done: "BOOLEAN"
          STRICT tables know INTEGER, REAL, TEXT, BLOB and ANY: text of any length is TEXT, a boolean is INTEGER with 0 and 1, a time is TEXT, JSON is TEXT
        SELECT now()
          no such function: now (at byte 7)
          this is SQLite: CURRENT_TIMESTAMP, or unixepoch() for seconds
        SELECT * FROM todo WHERE title ILIKE 'a%'
          near "ILIKE": syntax error (at byte 31)
          this is SQLite: LIKE ignores the case of a to z already
        SELECT id::text FROM todo
          unrecognized token: ":" (at byte 9)
          this is SQLite: CAST(value AS type) instead of value::type
        TRUNCATE TABLE todo
          near "TRUNCATE": syntax error (at byte 0)
          this is SQLite: DELETE FROM table
        SELECT gen_random_uuid()
          no such function: gen_random_uuid (at byte 7)
          this is SQLite: lower(hex(randomblob(16))) makes a random id
        SELECT uuid_generate_v4()
          no such function: uuid_generate_v4 (at byte 7)
          this is SQLite: lower(hex(randomblob(16))) makes a random id
        SELECT table_name FROM information_schema.tables
          no such table: information_schema.tables
          this is SQLite: SELECT name, sql FROM sqlite_schema, or PRAGMA table_info(…)
        SELECT * FROM todo WHERE title @> '{}'
          unrecognized token: "@" (at byte 31)
          this is SQLite: compare json_extract(column, '$.key'), or EXISTS over json_each(column)
        SELECT now() - INTERVAL '7 days'
          no such column: INTERVAL (at byte 15)
          this is SQLite: CURRENT_TIMESTAMP, or unixepoch() for seconds
        ALTER TABLE todo ALTER COLUMN title TYPE text
          near "ALTER": syntax error (at byte 17)
          this is SQLite: create a new table, copy the rows, drop the old one and rename, in one db_migrate
        CREATE EXTENSION IF NOT EXISTS pgcrypto
          near "EXTENSION": syntax error (at byte 7)
          this is SQLite and has no extensions: leave the statement out
        INSERT INTO todo (title) VALUES ('a') ON CONFLICT ON CONSTRAINT u DO NOTHING
          near "ON": syntax error (at byte 50)
          this is SQLite: name the columns, ON CONFLICT (column) DO …
        SELECT * FROM todo WHERE title = "a"
          no such column: "a" - should this be a string literal in single-quotes? (at byte 33)
          texts stand in single quotes; double quotes are for names
        SELECT nonsense FROM todo
          no such column: nonsense (at byte 7)
          -
    "#]].assert_eq(&answers);
    // Words that only look like a habit are left alone.
    let error =
        kernel::Error::from(fixture.query("SELECT x FROM todo WHERE title = 'now()::'").await.unwrap_err());
    assert_eq!(error.advice(), None);
}

#[tokio::test]
async fn a_migration_is_applied_once_and_its_content_is_held_to() {
    let fixture = Fixture::new().await;
    let script = format!("{TODO};\nINSERT INTO todo (title) VALUES ('a'), ('b'); -- done\n");
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
    let empty = Fixture::new().await.databases;
    drop(empty);
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

fn load(format: Format, text: &str, on_conflict: OnConflict) -> Load {
    Load { table: "item".to_owned(), format, text: text.to_owned(), on_conflict }
}

async fn with_item() -> Fixture {
    let fixture = Fixture::new().await;
    let sql = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL, sold BOOLEAN, data BLOB, \
               tags TEXT, twice AS (id * 2))";
    fixture.execute(sql, &[]).await.unwrap();
    fixture
}

#[tokio::test]
async fn all_formats_load_the_same_rows() {
    let rows = [
        vec![
            json!(1),
            json!("a, \"b\""),
            json!(1.5),
            json!(1),
            json!({"base64": "AP8="}),
            json!("[1,2]"),
            json!(2),
        ],
        vec![json!(2), json!(""), json!(null), json!(0), json!(null), json!(null), json!(4)],
    ];
    for (format, text) in [
        (
            Format::Csv,
            "\u{feff}id,name,price,sold,data,tags\r\n1,\"a, \"\"b\"\"\",1.5,TRUE,AP8=,\"[1,2]\"\r\n2,,,false,,\r\n",
        ),
        (
            Format::Json,
            r#"[{"id": 1, "name": "a, \"b\"", "price": 1.5, "sold": true, "data": {"base64": "AP8="}, "tags": [1, 2]},
                {"id": "2", "NAME": "", "sold": "false"}]"#,
        ),
        (
            Format::Ndjson,
            "{\"id\": 1, \"name\": \"a, \\\"b\\\"\", \"price\": 1.5, \"sold\": 1, \"data\": {\"base64\": \"AP8=\"}, \"tags\": \"[1,2]\"}\n\n{\"id\": 2.0, \"name\": \"\", \"sold\": false}\n",
        ),
    ] {
        let fixture = with_item().await;
        let loaded = fixture
            .databases
            .load(&fixture.env, &load(format, text, OnConflict::Fail), &CancellationToken::new())
            .await
            .unwrap();
        assert_eq!((loaded.loaded, loaded.skipped), (2, 0), "{format:?}");
        assert_eq!(fixture.rows("SELECT * FROM item ORDER BY id").await, rows, "{format:?}");
    }
}

#[tokio::test]
async fn a_bad_row_is_named_and_nothing_is_loaded() {
    let fixture = with_item().await;
    let mut answers = String::new();
    for (format, text) in [
        (Format::Csv, "id,name\n1,a\nx,b\n"),
        (Format::Csv, "id,name\n1,a\n2\n"),
        (Format::Csv, "id,colour\n1,a\n"),
        (Format::Csv, ""),
        (Format::Csv, "id,name\n1,a\n1,b\n"),
        (Format::Csv, "id,name,sold\n1,a,perhaps\n"),
        (Format::Csv, "id,twice\n1,4\n"),
        (Format::Json, "[{\"id\": 1, \"name\": \"a\"}, {\"id\": 1.5, \"name\": \"a\"}]"),
        (Format::Json, "[{\"id\": 1, \"name\": \"a\"}, 7]"),
        (Format::Json, "{\"id\": 1}"),
        (Format::Ndjson, "{\"id\": 1, \"name\": \"a\"}\n{\"id\": 2, \"name\": null}\n"),
        (Format::Ndjson, "{\"id\": 1, \"name\": \"a\"}\n{\"id\": \n"),
        (Format::Ndjson, "{\"id\": 1, \"name\": \"a\", \"data\": \"plain\"}\n"),
    ] {
        let load = load(format, text, OnConflict::Fail);
        let answer = fixture.databases.load(&fixture.env, &load, &CancellationToken::new()).await;
        answers.push_str(&format!("{}\n", told(answer)));
        assert_eq!(fixture.rows("SELECT count(*) FROM item").await, [[json!(0)]]);
    }
    for table in ["nowhere", "_steading_state", "sqlite_schema"] {
        let load = Load { table: table.to_owned(), ..load(Format::Csv, "name\na\n", OnConflict::Fail) };
        let answer = fixture.databases.load(&fixture.env, &load, &CancellationToken::new()).await;
        answers.push_str(&format!("{}\n", told(answer)));
    }
    expect![[r#"
        invalid_input /text: line 3, column id: "x" is not a whole number
        invalid_input /text: line 3: 1 fields, and the first line names 2
        invalid_input /text: line 2, column colour: item has no such column
        invalid_input /text: the data is not valid CSV: the first line must name the columns
        invalid_input /text: line 3: a row with the same item.id is already there
        invalid_input /text: line 2, column sold: "perhaps" is not true or false
        invalid_input /text: line 2, column twice: is computed and cannot be given
        invalid_input /text: line 2, column id: 1.5 is not a whole number
        invalid_input /text: line 2: an object is expected
        invalid_input /text: the data is not valid JSON: an array of objects is expected: invalid type: map, expected a sequence at line 1 column 0
        invalid_input /text: line 2: item.name needs a value
        invalid_input /text: line 2: not valid JSON: EOF while parsing a value at line 1 column 7
        invalid_input /text: line 1, column data: "plain" is not base64
        not_found /table: there is no table nowhere
        invalid_input /sql: _steading_state belongs to the platform
        invalid_input /text: line 2: table sqlite_master may not be modified
    "#]].assert_eq(&answers);
}

#[tokio::test]
async fn rows_that_are_there_are_left_or_updated_as_asked() {
    let fixture = with_item().await;
    let run = async |text: &str, on_conflict| {
        let load = load(Format::Csv, text, on_conflict);
        fixture.databases.load(&fixture.env, &load, &CancellationToken::new()).await.unwrap()
    };
    run("id,name,price\n1,a,1\n", OnConflict::Fail).await;
    let skipped = run("id,name\n1,b\n2,c\n", OnConflict::Skip).await;
    assert_eq!((skipped.loaded, skipped.skipped), (1, 1));
    let updated = run("id,name\n2,d\n3,e\n", OnConflict::Update).await;
    assert_eq!((updated.loaded, updated.skipped), (2, 0));
    assert_eq!(
        fixture.rows("SELECT id, name, price FROM item ORDER BY id").await,
        [
            [json!(1), json!("a"), json!(1.0)],
            [json!(2), json!("d"), Value::Null],
            [json!(3), json!("e"), Value::Null]
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_see_whole_transactions_while_one_writes() {
    let fixture = with_todo().await;
    let writes = async {
        for round in 0..40 {
            let sql = "INSERT INTO todo (title) VALUES (?1 || 'a'), (?1 || 'b')";
            fixture.execute(sql, &[json!(round.to_string())]).await.unwrap();
        }
    };
    let reads = async {
        let readers = (0..8).map(|_| async {
            for _ in 0..40 {
                let count = fixture.rows("SELECT count(*) FROM todo").await[0][0].as_u64().unwrap();
                assert_eq!(count % 2, 0);
            }
        });
        futures::future::join_all(readers).await;
    };
    futures::future::join(writes, reads).await;
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(80)]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_take_turns_and_one_that_waits_too_long_is_told() {
    let limits = Limits { turn: Duration::from_millis(100), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute(TODO, &[]).await.unwrap();
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    writer.begin(Durability::Normal).await.unwrap();
    writer.run(Role::Writer, "INSERT INTO todo (title) VALUES ('held')", &[]).await.unwrap();
    let error = kernel::Error::from(fixture.execute("DELETE FROM todo", &[]).await.unwrap_err());
    assert_eq!((error.code(), error.retry_after_secs()), (kernel::Code::Unavailable, Some(1)));
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(0)]]);
    drop(writer);
    // The dropped writer's connection closes beside us; its place is free once it has.
    let after = loop {
        match fixture.execute("INSERT INTO todo (title) VALUES ('next')", &[]).await {
            Err(Error::Busy) => {}
            other => break other,
        }
    };
    assert_eq!(after.unwrap().changed, 1);
    assert_eq!(fixture.rows("SELECT title FROM todo").await, [[json!("next")]]);
}

#[tokio::test]
async fn a_writer_keeps_its_transaction_or_says_that_it_is_gone() {
    let fixture = with_todo().await;
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    assert!(matches!(writer.run(Role::Writer, "SELECT 1", &[]).await, Err(Error::Transaction("not open"))));
    assert!(matches!(writer.commit().await, Err(Error::Transaction("not open"))));
    writer.begin(Durability::Full).await.unwrap();
    assert!(matches!(writer.begin(Durability::Full).await, Err(Error::Transaction(_))));
    assert!(matches!(writer.foreign_keys(super::Switch::Off).await, Err(Error::Transaction(_))));
    writer.run(Role::Writer, "INSERT INTO todo (title) VALUES ('a')", &[]).await.unwrap();
    assert!(writer.run(Role::Writer, "INSERT INTO todo (title) VALUES ('a')", &[]).await.is_err());
    assert_eq!(writer.script(Role::Migrator, "CREATE TABLE x (a); CREATE TABLE y (b);").await.unwrap(), 2);
    assert_eq!(writer.schema().await.unwrap().tables.len(), 3);
    writer.rollback().await.unwrap();
    writer.rollback().await.unwrap();
    assert_eq!(writer.schema().await.unwrap().tables.len(), 1);
    writer.begin(Durability::Normal).await.unwrap();
    writer
        .run(Role::Platform, "INSERT INTO _steading_state VALUES (?1, ?2)", &[json!("k"), json!("v")])
        .await
        .unwrap();
    let state = writer.run(Role::Platform, "SELECT * FROM _steading_state", &[]).await.unwrap();
    assert_eq!(state.rows, [[json!("k"), json!("v")]]);
    // An INSERT OR ROLLBACK takes the transaction with it; nothing may run as if it were open.
    writer.run(Role::Writer, "INSERT INTO todo (title) VALUES ('b')", &[]).await.unwrap();
    assert!(
        writer.run(Role::Writer, "INSERT OR ROLLBACK INTO todo (title) VALUES ('b')", &[]).await.is_err()
    );
    assert!(matches!(
        writer.run(Role::Writer, "SELECT 1", &[]).await,
        Err(Error::Transaction("rolled back already"))
    ));
    assert!(matches!(writer.commit().await, Err(Error::Transaction("rolled back already"))));
    writer.rollback().await.unwrap();
    drop(writer);
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(0)]]);
    assert!(fixture.platform("SELECT * FROM _steading_state").await.is_empty());
}

const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_statement_ends_at_once_and_its_connection_serves_on() {
    let limits = Limits { readers: 1, statement: Duration::from_secs(600), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    for _ in 0..3 {
        let cancel = CancellationToken::new();
        let query = Query { sql: ENDLESS.to_owned(), ..Query::default() };
        let work = fixture.databases.query(&fixture.env, query, &cancel);
        let (answer, ()) = futures::future::join(work, async { cancel.cancel() }).await;
        assert!(matches!(answer, Err(Error::Cancelled)), "{answer:?}");
    }
    let cancel = CancellationToken::new();
    let sql = ENDLESS.replace("SELECT count(*)", "INSERT INTO t SELECT count(*)");
    fixture.execute("CREATE TABLE t (n)", &[]).await.unwrap();
    let work = fixture.databases.execute(&fixture.env, &sql, &[], &cancel);
    let (answer, ()) = futures::future::join(work, async { cancel.cancel() }).await;
    assert!(matches!(answer, Err(Error::Cancelled)), "{answer:?}");
    assert_eq!(fixture.rows("SELECT count(*) FROM t").await, [[json!(0)]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_that_goes_away_stops_its_statement() {
    let limits = Limits { readers: 1, statement: Duration::from_secs(600), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let gone = tokio::time::timeout(Duration::from_millis(50), fixture.query(ENDLESS)).await;
    assert!(gone.is_err());
    assert_eq!(fixture.rows("SELECT 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn a_database_at_its_quota_refuses_more_and_goes_on_serving() {
    let limits = Limits { pages: 40, ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute("CREATE TABLE t (a)", &[]).await.unwrap();
    expect!["quota_exceeded: the database has reached its size quota"]
        .assert_eq(&told(fixture.execute("INSERT INTO t VALUES (zeroblob(1000000))", &[]).await));
    assert_eq!(fixture.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap().changed, 1);
    assert_eq!(fixture.rows("SELECT count(*) FROM t").await, [[json!(1)]]);
}

/// How many files below the fixture's directory this process has open.
fn open_files(fixture: &Fixture) -> usize {
    let below = fixture.directory.path().canonicalize().unwrap();
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter(|link| {
            link.as_ref().is_ok_and(|link| link.path().read_link().is_ok_and(|to| to.starts_with(&below)))
        })
        .count()
}

#[tokio::test]
async fn environments_touched_in_turn_keep_few_files_open() {
    let limits = Limits { open: 3, idle: Duration::from_secs(600), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let mut envs = Vec::new();
    for number in 0..20 {
        let env = fixture.another().await;
        let cancel = CancellationToken::new();
        fixture.databases.execute(&env, "CREATE TABLE t (n)", &[], &cancel).await.unwrap();
        fixture
            .databases
            .execute(&env, "INSERT INTO t VALUES (?1)", &[json!(number)], &cancel)
            .await
            .unwrap();
        // Each open environment has at most a writer and two readers, each with file and log, and one index.
        assert!(open_files(&fixture) <= 3 * 7, "{}", open_files(&fixture));
        envs.push(env);
    }
    for (number, env) in envs.iter().enumerate() {
        let query = Query { sql: "SELECT n FROM t".to_owned(), ..Query::default() };
        let page = fixture.databases.query(env, query, &CancellationToken::new()).await.unwrap();
        assert_eq!(page.rows, [[json!(number)]]);
    }
    assert_eq!(fixture.databases.environments.open(), 3);
    fixture.databases.close().await;
    assert_eq!((fixture.databases.environments.open(), open_files(&fixture)), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_environments_than_there_is_room_for_are_served_in_turn() {
    let limits = Limits { open: 2, ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let mut envs = Vec::new();
    for _ in 0..8 {
        envs.push(fixture.another().await);
    }
    let work = envs.iter().map(|env| async {
        for _ in 0..5 {
            let query = Query { sql: "SELECT 1".to_owned(), ..Query::default() };
            fixture.databases.query(env, query, &CancellationToken::new()).await.unwrap();
        }
    });
    futures::future::join_all(work).await;
    assert!(fixture.databases.environments.open() <= 2);
}

#[tokio::test]
async fn idle_environments_are_closed() {
    let limits = Limits { idle: Duration::from_millis(20), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    fixture.execute("CREATE TABLE t (n)", &[]).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while open_files(&fixture) > 0 {
        assert!(Instant::now() < until, "still open");
        tokio::task::yield_now().await;
    }
    // And opens again, with its sweeper.
    assert_eq!(fixture.rows("SELECT count(*) FROM t").await, [[json!(0)]]);
    while open_files(&fixture) > 0 {
        assert!(Instant::now() < until, "still open");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_environment_is_made_once_and_removed_with_its_connections() {
    let fixture = with_todo().await;
    let id = fixture.env.id();
    assert_eq!(
        told(fixture.databases.create(id).await),
        format!("conflict: the environment {id} has a database already")
    );
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(0)]]);
    fixture.databases.remove(id).await.unwrap();
    assert_eq!(open_files(&fixture), 0);
    std::fs::remove_dir_all(fixture.directory.path().join(id.to_string())).unwrap();
    let unknown = format!("not_found: there is no database of the environment {id}");
    assert_eq!(told(fixture.query("SELECT 1").await), unknown);
    let never = Env::for_upkeep(TenantId::new(), EnvId::new());
    let answer = fixture.databases.platform_query(&never, "SELECT 1", &[]).await;
    assert_eq!(told(answer), unknown.replace(&id.to_string(), &never.id().to_string()));
}

#[tokio::test]
async fn damaged_files_are_said_to_be_and_never_opened_as_something_else() {
    let fixture = with_todo().await;
    fill(&fixture, 500).await;
    fixture.databases.remove(fixture.env.id()).await.unwrap();
    let path = fixture.directory.path().join(fixture.env.id().to_string()).join("main.db");
    let whole = std::fs::read(&path).unwrap();
    let damage: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("text", b"this is not a database, whatever its name says".repeat(100)),
        ("header", [&[0_u8; 100], &whole[100..]].concat()),
        ("another's", {
            let mut other = whole.clone();
            other[68..72].fill(0);
            other
        }),
        ("schema", {
            let mut other = whole.clone();
            other[100..4096].fill(0xa5);
            other
        }),
    ];
    let expected = format!("unavailable: the database of the environment {} is damaged", fixture.env.id());
    for (name, bytes) in damage {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(told(fixture.query("SELECT * FROM todo").await), expected, "{name}");
        assert_eq!(told(fixture.execute("DELETE FROM todo", &[]).await), expected, "{name}");
        fixture.databases.remove(fixture.env.id()).await.unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(told(fixture.query("SELECT * FROM todo").await), expected);
    assert!(!path.exists());
    std::fs::write(&path, whole).unwrap();
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(500)]]);
}
