//! Attacks on the SQL guard: by every door, with what they must leave untouched looked at after each.

use expect_test::{expect, expect_file};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixture::{Fixture, told};
use crate::database::rows::RunRows as _;
use crate::database::{Durability, Limits, Mode, Role};

/// An app with some data, and something of the platform's to steal or spoil.
async fn app() -> Fixture {
    let fixture = Fixture::new().await;
    fixture
        .migrate(
            "init",
            "CREATE TABLE todo (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, done INTEGER) STRICT;
             INSERT INTO todo (title) VALUES ('one'), ('two');
             CREATE VIEW open AS SELECT * FROM todo WHERE done IS NULL;
             CREATE INDEX todo_title ON todo (title);",
            Mode::Apply,
        )
        .await
        .unwrap();
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    writer.begin(Durability::Full).await.unwrap();
    writer
        .run(Role::Platform, "INSERT INTO _steading_state VALUES ('canary', 'untouched')", &[])
        .await
        .unwrap();
    writer.commit().await.unwrap();
    fixture
}

/// What no caller may change: the platform's tables, their definitions, the other files.
async fn guarded(fixture: &Fixture) -> Vec<Vec<Value>> {
    assert_eq!(fixture.stray_files(), Vec::<String>::new());
    let mut all = fixture.platform("SELECT key, value FROM _steading_state").await;
    all.extend(fixture.platform("SELECT count(*) FROM _steading_release").await);
    all.extend(fixture.platform("SELECT count(*) FROM _steading_plan").await);
    all.extend(
        fixture
            .platform(
                "SELECT type, name, sql FROM sqlite_schema WHERE lower(name) LIKE '\\_steading%' ESCAPE '\\' \
                 OR lower(tbl_name) LIKE '\\_steading%' ESCAPE '\\' ORDER BY name",
            )
            .await,
    );
    all
}

/// Tries `sql` by every door and says what each answers.
async fn tried(sql: &str) -> String {
    let fixture = app().await;
    let before = guarded(&fixture).await;
    let mut answers = String::new();
    let query = told(fixture.query(sql).await);
    assert_eq!(guarded(&fixture).await, before, "query: {sql}");
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(2)]], "query: {sql}");
    let execute = told(fixture.execute(sql, &[]).await);
    assert_eq!(guarded(&fixture).await, before, "execute: {sql}");
    let migrate = told(fixture.migrate("attack", sql, Mode::DryRun).await);
    assert_eq!(guarded(&fixture).await, before, "dry run: {sql}");
    let _ = fixture.migrate("attack", sql, Mode::Apply).await;
    assert_eq!(guarded(&fixture).await, before, "migrate: {sql}");
    let (rows, turn) = tried_as_data_plane(sql).await;
    let doors =
        [("query", query), ("execute", execute), ("migrate", migrate), ("rows", rows), ("turn", turn)];
    for (door, answer) in doors {
        let answer = answer.replace("invalid_input /sql: ", "refused: ");
        answers.push_str(&format!("  {door:8}{answer}\n"));
    }
    answers
}

/// Tries `sql` as if the data plane had put it together so: between other statements, and on its own connections.
async fn tried_as_data_plane(sql: &str) -> (String, String) {
    let fixture = app().await;
    let before = guarded(&fixture).await;
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    writer.begin(Durability::Normal).await.unwrap();
    let rows = told(writer.run(Role::Rows, sql, &[]).await);
    let _ = writer.commit().await;
    drop(writer);
    assert_eq!(guarded(&fixture).await, before, "rows: {sql}");
    let schema = fixture.databases.schema(&fixture.env).await.unwrap().fingerprint;
    let _ = fixture.databases.read_rows(&fixture.env, sql.to_owned(), Vec::new(), usize::MAX).await;
    assert_eq!(guarded(&fixture).await, before, "read: {sql}");
    let mut writer = fixture.databases.rows_writer(&fixture.env, 0).await.unwrap();
    writer.begin().await.unwrap();
    let turn = told(writer.run(sql.to_owned(), Vec::new()).await);
    let _ = writer.commit().await;
    assert_eq!(guarded(&fixture).await, before, "turn: {sql}");
    assert_eq!(fixture.databases.schema(&fixture.env).await.unwrap().fingerprint, schema, "turn: {sql}");
    (rows, turn)
}

async fn table(statements: &[&str]) -> String {
    let mut table = String::new();
    for sql in statements {
        table.push_str(&format!(
            "{}\n{}",
            sql.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""),
            tried(sql).await
        ));
    }
    table
}

#[tokio::test]
async fn the_escapes_of_a_plain_connection_are_closed() {
    let statements = [
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'stolen.db'",
        "VACUUM",
        "PRAGMA writable_schema = 1",
        "SELECT '--'; DROP TABLE todo",
        "WITH gone AS (SELECT 1) DELETE FROM todo",
        "EXPLAIN DROP TABLE todo",
        "ALTER TABLE todo DROP COLUMN done",
        "CREATE TRIGGER spy AFTER INSERT ON _steading_state BEGIN DELETE FROM todo; END",
        "SELECT load_extension('/tmp/evil.so')",
        "PRAGMA max_page_count = 4000000000",
        "DETACH main",
        "REINDEX",
        "SELECT length(zeroblob(500000000))",
    ];
    expect_file!["golden/escapes.txt"].assert_eq(&table(&statements).await);
}

#[tokio::test]
async fn hostile_statements_meet_the_guard() {
    let statements = [
        // more than one statement
        "SELECT 1; SELECT 2",
        "SELECT 1;;/* */ -- \n; DELETE FROM todo",
        "SELECT 1; nonsense",
        "SELECT 1 /* ; */ -- ; DROP TABLE todo",
        "",
        "-- nothing",
        // the platform's tables, read
        "SELECT * FROM _steading_state",
        "SELECT value FROM \"_STEADING_state\"",
        "SELECT (SELECT value FROM main._steading_state)",
        "SELECT count(*) FROM [_steading_state]",
        "WITH s AS (SELECT * FROM _steading_state) SELECT * FROM s",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM _steading_state)",
        "CREATE TABLE copy AS SELECT * FROM _steading_state",
        "INSERT INTO todo (title) SELECT value FROM _steading_state",
        "INSERT INTO todo (title) VALUES ('x') RETURNING (SELECT value FROM _steading_state)",
        "CREATE VIEW peek AS SELECT * FROM _steading_state",
        "SELECT * FROM todo ORDER BY (SELECT value FROM _steading_state)",
        // the platform's tables, written
        "INSERT INTO _steading_state VALUES ('a', 'b')",
        "UPDATE _steading_state SET value = 'spoilt'",
        "DELETE FROM _Steading_State",
        "REPLACE INTO main.\"_steading_state\" VALUES ('canary', 'spoilt')",
        "INSERT INTO _steading_migration VALUES ('x', 'y', 'z', 1, 1)",
        "DROP TABLE _steading_state",
        "DROP TABLE IF EXISTS _steading_none",
        "ALTER TABLE _steading_state RENAME TO mine",
        "ALTER TABLE _steading_state ADD COLUMN x TEXT",
        "ALTER TABLE todo RENAME TO _steading_todo",
        "CREATE TABLE _steading_mine (a)",
        "CREATE VIEW _steading_view AS SELECT 1",
        "CREATE TABLE json_each (value)",
        "CREATE VIEW Pragma_table_info AS SELECT 1",
        "CREATE INDEX _steading_index ON todo (title)",
        "CREATE INDEX mine ON _steading_state (value)",
        "CREATE UNIQUE INDEX mine ON _steading_release ((number > 0))",
        "CREATE TRIGGER _steading_trigger AFTER INSERT ON todo BEGIN SELECT 1; END",
        "CREATE TABLE child (r REFERENCES _steading_release (number) ON DELETE RESTRICT)",
        // triggers and views that reach for them later
        "CREATE TRIGGER t AFTER INSERT ON todo BEGIN DELETE FROM _steading_state; END",
        "CREATE TRIGGER t INSTEAD OF INSERT ON open BEGIN UPDATE _steading_state SET value = 'spoilt'; END",
        // temporary objects
        "CREATE TEMP TABLE t (a)",
        "CREATE TEMP TRIGGER t AFTER INSERT ON main.todo BEGIN SELECT 1; END",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE TABLE temp.t (a)",
        // virtual tables
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "CREATE VIRTUAL TABLE f USING fts3tokenize('simple')",
        "CREATE VIRTUAL TABLE r USING rtree(id, a, b)",
        "CREATE VIRTUAL TABLE d USING dbstat",
        "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM sqlite_stmt",
        "SELECT * FROM json_each('[1]')",
        "SELECT * FROM generate_series(1, 10)",
        // pragmas
        "PRAGMA database_list",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA query_only = 0",
        "PRAGMA trusted_schema = 1",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA user_version = 7",
        "PRAGMA user_version",
        "PRAGMA main.table_info(todo)",
        "SELECT file FROM pragma_database_list",
        "SELECT * FROM pragma_function_list",
        "SELECT * FROM pragma_compile_options",
        "SELECT name FROM pragma_table_info('todo')",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA incremental_vacuum",
        "PRAGMA integrity_check",
        // the schema table by hand
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE todo (x)' WHERE name = 'todo'",
        "DELETE FROM sqlite_master",
        "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 2, 'CREATE TABLE x (a)')",
        "DELETE FROM sqlite_sequence",
        "CREATE TABLE sqlite_mine (a)",
        "SELECT name FROM sqlite_temp_schema",
        // transactions
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "RELEASE s",
        // functions
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('out', 'x')",
        "SELECT edit('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT sqlite_compileoption_get(1)",
        "SELECT sqlite_source_id()",
        "SELECT sqlite_rename_table(1,2,3,4,5,6,7)",
        "SELECT sqlite_drop_column(1,2,3)",
        "CREATE INDEX i ON todo (load_extension(title))",
        "CREATE TABLE g (a, b GENERATED ALWAYS AS (readfile(a)))",
        "CREATE TABLE c (a CHECK (load_extension(a) IS NULL))",
        // upkeep
        "ANALYZE",
        "REINDEX todo",
        "EXPLAIN QUERY PLAN SELECT * FROM todo",
        "EXPLAIN DELETE FROM _steading_state",
        "SELECT \"not a column\"",
        "SELECT 1\0; DROP TABLE todo",
    ];
    expect_file!["golden/hostile.txt"].assert_eq(&table(&statements).await);
}

#[tokio::test]
async fn a_trigger_that_reaches_for_the_platforms_tables_fails_when_it_is_set_off() {
    let fixture = app().await;
    let trigger = "CREATE TRIGGER t AFTER INSERT ON todo BEGIN DELETE FROM _steading_state; END";
    fixture.execute(trigger, &[]).await.unwrap();
    let before = guarded(&fixture).await;
    let insert = "INSERT INTO todo (title) VALUES ('three')";
    expect!["invalid_input /sql: _steading_state belongs to the platform"]
        .assert_eq(&told(fixture.execute(insert, &[]).await));
    for role in [Role::Writer, Role::Migrator, Role::Rows, Role::Turn, Role::Platform] {
        let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
        writer.begin(Durability::Full).await.unwrap();
        let told = told(writer.run(role, insert, &[]).await);
        assert_eq!(told, "invalid_input /sql: _steading_state belongs to the platform", "{role:?}");
    }
    assert_eq!(guarded(&fixture).await, before);
}

#[tokio::test]
async fn a_renamed_view_or_table_does_not_take_the_platforms_name() {
    let fixture = app().await;
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    writer.begin(Durability::Full).await.unwrap();
    writer.run(Role::Migrator, "ALTER TABLE todo RENAME TO _steading_todo", &[]).await.unwrap();
    expect!["invalid_input /sql: _steading_todo belongs to the platform"]
        .assert_eq(&told(writer.commit().await));
    drop(writer);
    assert_eq!(fixture.rows("SELECT count(*) FROM todo").await, [[json!(2)]]);
}

#[tokio::test]
async fn bombs_end_within_their_bounds() {
    let limits = Limits {
        statement: std::time::Duration::from_millis(300),
        migration: std::time::Duration::from_millis(300),
        ..Limits::default()
    };
    let fixture = Fixture::with(limits).await;
    let bombs = [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n ORDER BY 1",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n ORDER BY i DESC",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT hex(zeroblob(2000000))",
        "SELECT length(printf('%.*c', 100000000, 'x'))",
        "SELECT zeroblob(100000000)",
        "SELECT length(randomblob(1900000) || randomblob(1900000))",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
         SELECT length(group_concat(i)) FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
         SELECT length(json_group_array(i)) FROM n",
        "SELECT replace(hex(zeroblob(500000)), '0', '00000000')",
    ];
    let mut answers = String::new();
    for sql in bombs {
        let shown: String = sql.chars().take(100).collect();
        let answer = match fixture.query(sql).await {
            Ok(page) => format!("{:?}", page.rows),
            refused => told(refused),
        };
        answers.push_str(&format!("{}\n  {answer}\n", shown.trim_end()));
    }
    expect![[r#"
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n
          timeout /sql: the statement ran longer than 0.3 s
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n ORDER BY 1
          timeout /sql: the statement ran longer than 0.3 s
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n ORDER BY i DESC
          timeout /sql: the statement ran longer than 0.3 s
        WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n) SELECT count(*) FROM n
          timeout /sql: the statement ran longer than 0.3 s
        SELECT hex(zeroblob(2000000))
          too_large /sql: a text, blob or row is over the limit of the database
        SELECT length(printf('%.*c', 100000000, 'x'))
          [[Null]]
        SELECT zeroblob(100000000)
          too_large /sql: a text, blob or row is over the limit of the database
        SELECT length(randomblob(1900000) || randomblob(1900000))
          too_large /sql: a text, blob or row is over the limit of the database
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT length(group_concat(i)) FROM
          timeout /sql: the statement ran longer than 0.3 s
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT length(json_group_array(i)) F
          timeout /sql: the statement ran longer than 0.3 s
        SELECT replace(hex(zeroblob(500000)), '0', '00000000')
          too_large /sql: a text, blob or row is over the limit of the database
    "#]]
    .assert_eq(&answers);
    // Nothing of it stays: the connection serves the next caller.
    assert_eq!(fixture.rows("SELECT 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn a_sort_of_more_than_memory_is_stopped_and_spills_to_no_file() {
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000) \
               SELECT count(*) FROM (SELECT printf('%010000d', i) AS wide FROM n ORDER BY wide LIMIT -1 OFFSET 1)";
    // Beside others it may be that they have taken the memory.
    let refusals = [
        "too_large /sql: the statement needs too much memory",
        "unavailable: too much memory is needed at this moment",
    ];
    let refused = told(fixture.query(sql).await);
    assert!(refusals.contains(&refused.as_str()), "{refused}");
    assert_eq!(fixture.rows("SELECT 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn texts_of_monstrous_shape_are_refused_and_not_followed() {
    let fixture = app().await;
    let nested = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    let sum = format!("SELECT 1{}", " + 1".repeat(5_000));
    let compound = vec!["SELECT 1"; 600].join(" UNION ALL ");
    let wide = format!("SELECT {}", vec!["1"; 3_000].join(", "));
    let arguments = format!("SELECT max({})", vec!["1"; 500].join(", "));
    let parameters = "SELECT ?32000";
    let joins =
        format!("SELECT 1 FROM {}", (0..70).map(|i| format!("todo t{i}")).collect::<Vec<_>>().join(", "));
    let mut answers = String::new();
    for sql in [&nested, &sum, &compound, &wide, &arguments, parameters, &joins] {
        answers.push_str(&format!("{}\n", told(fixture.query(sql).await)));
    }
    expect![[r#"
        ok
        invalid_input /sql: Expression tree is too large (maximum depth 200)
        invalid_input /sql: too many terms in compound SELECT
        invalid_input /sql: too many columns in result set
        invalid_input /sql: too many arguments on function max (at byte 7)
        invalid_input /sql: variable number must be between ?1 and ?1000 (at byte 7)
        invalid_input /sql: at most 64 tables in a join
    "#]]
    .assert_eq(&answers);
}

#[tokio::test]
async fn views_that_double_at_each_level_do_not_hold_the_engine() {
    let limits = Limits { statement: std::time::Duration::from_millis(500), ..Limits::default() };
    let fixture = Fixture::with(limits).await;
    let mut script = String::from("CREATE VIEW v0 AS SELECT 1 AS a;");
    for level in 1..40 {
        let below = level - 1;
        script.push_str(&format!(
            "CREATE VIEW v{level} AS SELECT a FROM v{below} UNION ALL SELECT a FROM v{below};"
        ));
    }
    fixture.migrate("views", &script, Mode::Apply).await.unwrap();
    let started = std::time::Instant::now();
    assert_ne!(told(fixture.query("SELECT count(*) FROM v39").await), "ok");
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

fn fragments() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "SELECT",
        "DELETE FROM",
        "UPDATE",
        "INSERT INTO",
        "REPLACE INTO",
        "DROP TABLE",
        "DROP VIEW",
        "ALTER TABLE",
        "RENAME TO",
        "ADD COLUMN x",
        "CREATE TABLE",
        "CREATE VIEW",
        "CREATE TRIGGER t AFTER INSERT ON",
        "BEGIN",
        "END",
        "AS",
        "FROM",
        "WHERE 1",
        "SET value = 'spoilt'",
        "VALUES ('a', 'b')",
        "DEFAULT VALUES",
        "_steading_state",
        "\"_STEADING_STATE\"",
        "main._steading_state",
        "[_steading_plan]",
        "todo",
        "open",
        "sqlite_schema",
        "(SELECT value FROM _steading_state)",
        "*",
        ";",
        "--\n",
        "/*",
        "*/",
        "'",
        "(",
        ")",
        ",",
        "ATTACH 'stray.db' AS s",
        "VACUUM INTO 'stray.db'",
        "PRAGMA writable_schema = 1",
        "COMMIT",
        "ROLLBACK",
        "RETURNING *",
        "ON CONFLICT DO NOTHING",
        "WITH c AS (SELECT 1)",
        "EXPLAIN",
        "UNION ALL",
        "copy",
        "REFERENCES _steading_state",
        "(a",
        "title)",
        "1",
        "randomblob(9)",
    ]);
    prop::collection::vec(words, 1..12).prop_map(|words| words.join(" "))
}

#[test]
fn random_mixes_never_reach_the_platforms_tables_or_another_file() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = runtime.block_on(app());
    let before = runtime.block_on(guarded(&fixture));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&fragments(), |sql| {
            runtime.block_on(async {
                let _ = fixture.query(&sql).await;
                let _ = fixture.execute(&sql, &[]).await;
                let _ = fixture.migrate(&sql, &sql, Mode::DryRun).await;
                let mut writer = fixture.databases.rows_writer(&fixture.env, 0).await.unwrap();
                let _ = writer.run(sql.clone(), Vec::new()).await;
                let _ = writer.rollback().await;
                prop_assert_eq!(&guarded(&fixture).await, &before, "{}", sql);
                Ok(())
            })
        })
        .unwrap();
}

#[tokio::test]
async fn a_trigger_does_not_read_the_platforms_tables_in_its_name() {
    let fixture = app().await;
    for sql in [
        "CREATE TABLE loot (value)",
        "CREATE TRIGGER t AFTER INSERT ON todo BEGIN INSERT INTO loot SELECT value FROM _steading_state; END",
        "CREATE VIEW peek AS SELECT * FROM _steading_state",
    ] {
        fixture.execute(sql, &[]).await.unwrap();
    }
    let mut writer = fixture.databases.writer(&fixture.env).await.unwrap();
    writer.begin(Durability::Full).await.unwrap();
    for sql in ["INSERT INTO todo (title) VALUES ('x')", "SELECT * FROM peek"] {
        let told = told(writer.run(Role::Platform, sql, &[]).await);
        assert_eq!(told, "invalid_input /sql: _steading_state belongs to the platform", "{sql}");
    }
}
