//! Single statements: values, parameters, constraints, hints.

use expect_test::expect;
use serde_json::{Value, json};

use crate::database::Mode;

use super::fixture::{Fixture, told};
use super::{fill, with_todo};

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
        "SELECT company(title), serial_number FROM todo",
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
        SELECT company(title), serial_number FROM todo
          no such function: company (at byte 7)
          -
    "#]].assert_eq(&answers);
    // Words that only look like a habit are left alone.
    let error =
        kernel::Error::from(fixture.query("SELECT x FROM todo WHERE title = 'now()::'").await.unwrap_err());
    assert_eq!(error.advice(), None);
}

#[tokio::test]
async fn a_statement_that_changes_no_rows_does_not_tell_an_earlier_count() {
    let fixture = Fixture::new().await;
    fixture.execute("CREATE TABLE t (a)", &[]).await.unwrap();
    assert_eq!(fixture.execute("INSERT INTO t VALUES (1), (2)", &[]).await.unwrap().changed, 2);
    for sql in ["SELECT a FROM t", "PRAGMA quick_check", "REINDEX t"] {
        assert_eq!(fixture.execute(sql, &[]).await.unwrap().changed, 0, "{sql}");
    }
}

#[tokio::test]
async fn a_star_has_the_columns_that_another_connection_has_just_added() {
    let fixture = with_todo().await;
    fill(&fixture, 2).await;
    assert_eq!(fixture.query("SELECT * FROM todo").await.unwrap().columns.len(), 3);
    // The connection that reads does not know of it until it looks.
    fixture.migrate("more", "ALTER TABLE todo ADD COLUMN more TEXT", Mode::Apply).await.unwrap();
    let page = fixture.query("SELECT * FROM todo").await.unwrap();
    assert_eq!((page.columns.len(), page.rows.len(), page.rows[0].len()), (4, 2, 4));
}
