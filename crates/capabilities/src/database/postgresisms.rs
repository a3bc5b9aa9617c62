//! What to write instead of the Postgres that is written by habit; asked only after the engine has refused it.

/// A mark in the text, lower case, and what to write.
const HABITS: &[(&str, &str)] = &[
    ("create extension", "this is SQLite and has no extensions: leave the statement out"),
    ("information_schema", "this is SQLite: SELECT name, sql FROM sqlite_schema, or PRAGMA table_info(…)"),
    ("pg_catalog", "this is SQLite: SELECT name, sql FROM sqlite_schema, or PRAGMA table_info(…)"),
    ("pg_tables", "this is SQLite: SELECT name FROM sqlite_schema WHERE type = 'table'"),
    ("create type", "this is SQLite: write the values as CHECK (column IN ('a', 'b'))"),
    ("create schema", "this is SQLite: the environment is the schema, use plain table names"),
    ("create sequence", "this is SQLite: INTEGER PRIMARY KEY counts by itself"),
    ("create or replace", "this is SQLite: DROP … IF EXISTS first, then CREATE"),
    ("create function", "this is SQLite: functions are deployed with function_deploy, not written in SQL"),
    ("create materialized", "this is SQLite: use a VIEW, or a table that triggers keep"),
    ("on conflict on constraint", "this is SQLite: name the columns, ON CONFLICT (column) DO …"),
    (
        "alter column",
        "this is SQLite: create a new table, copy the rows, drop the old one and rename, in one db_migrate",
    ),
    (
        "add constraint",
        "this is SQLite: constraints are written in CREATE TABLE; use CREATE UNIQUE INDEX for uniqueness",
    ),
    (
        "drop constraint",
        "this is SQLite: create a new table without it, copy the rows, drop the old one and rename",
    ),
    (
        "add column if not exists",
        "this is SQLite: ADD COLUMN has no IF NOT EXISTS; look with PRAGMA table_info(…)",
    ),
    ("truncate", "this is SQLite: DELETE FROM table"),
    ("gen_random_uuid", "this is SQLite: lower(hex(randomblob(16))) makes a random id"),
    ("uuid_generate_v4", "this is SQLite: lower(hex(randomblob(16))) makes a random id"),
    ("bigserial", "this is SQLite: INTEGER PRIMARY KEY counts by itself"),
    ("serial", "this is SQLite: INTEGER PRIMARY KEY counts by itself"),
    ("ilike", "this is SQLite: LIKE ignores the case of a to z already"),
    ("similar to", "this is SQLite: use LIKE or GLOB"),
    ("to_char", "this is SQLite: strftime('%Y-%m-%d', column)"),
    ("to_timestamp", "this is SQLite: datetime(seconds, 'unixepoch')"),
    ("date_trunc", "this is SQLite: strftime('%Y-%m-01', column), or date(column, 'start of month')"),
    ("extract(", "this is SQLite: CAST(strftime('%Y', column) AS INTEGER)"),
    ("now()", "this is SQLite: CURRENT_TIMESTAMP, or unixepoch() for seconds"),
    ("interval", "this is SQLite: datetime('now', '-7 days')"),
    ("array_agg", "this is SQLite: json_group_array(column)"),
    ("jsonb_agg", "this is SQLite: json_group_array(column)"),
    ("json_agg", "this is SQLite: json_group_array(column)"),
    ("jsonb_build_object", "this is SQLite: json_object('key', value)"),
    ("json_build_object", "this is SQLite: json_object('key', value)"),
    ("jsonb_array_elements", "this is SQLite: FROM json_each(column)"),
    (
        "generate_series",
        "this is SQLite: WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)",
    ),
    ("unnest(", "this is SQLite: FROM json_each(?1), with a JSON array as the parameter"),
    ("any(", "this is SQLite: column IN (SELECT value FROM json_each(?1))"),
    ("@>", "this is SQLite: compare json_extract(column, '$.key'), or EXISTS over json_each(column)"),
    ("#>", "this is SQLite: json_extract(column, '$.a.b')"),
    ("string_to_array", "this is SQLite: keep lists as JSON and read them with json_each"),
    ("for update", "this is SQLite: leave FOR UPDATE out, a statement that writes is alone already"),
    ("distinct on", "this is SQLite: GROUP BY the column and take min() or max() of another"),
    ("lateral", "this is SQLite: use a correlated subquery"),
    ("enable row level security", "access rules are part of the manifest, not of SQL"),
    ("create policy", "access rules are part of the manifest, not of SQL"),
    ("grant ", "access rules are part of the manifest, not of SQL"),
    ("::", "this is SQLite: CAST(value AS type) instead of value::type"),
];

/// Types that STRICT tables do not know.
const STRICT: &str = "STRICT tables know INTEGER, REAL, TEXT, BLOB and ANY: text of any length is TEXT, a boolean \
     is INTEGER with 0 and 1, a time is TEXT, JSON is TEXT";

/// Quoted with double quotes, a text is taken for the name of a column.
const QUOTES: &str = "texts stand in single quotes; double quotes are for names";

/// What to write instead, given the statement and the engine's words about it.
pub(super) fn hint(sql: &str, message: &str) -> Option<&'static str> {
    if message.contains("unknown datatype") {
        let serial = sql.to_ascii_lowercase().contains("serial");
        return Some(if serial { "this is SQLite: INTEGER PRIMARY KEY counts by itself" } else { STRICT });
    }
    if message.contains("should this be a string literal") {
        return Some(QUOTES);
    }
    let plain = plain(sql);
    HABITS.iter().find(|(mark, _)| stands(&plain, mark)).map(|(_, instead)| *instead)
}

/// Whether `mark` stands in the text by itself, not as a part of a longer word.
fn stands(plain: &str, mark: &str) -> bool {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    plain.match_indices(mark).any(|(at, found)| {
        let before = word(plain[..at].chars().next_back()) && word(mark.chars().next());
        let after = word(plain[at + found.len()..].chars().next()) && word(mark.chars().next_back());
        !before && !after
    })
}

/// The text in lower case with single blanks, and without what stands in single quotes.
fn plain(sql: &str) -> String {
    let mut plain = String::with_capacity(sql.len());
    let mut quoted = false;
    for c in sql.chars() {
        if c == '\'' {
            quoted = !quoted;
        }
        if quoted {
            continue;
        }
        if !c.is_whitespace() {
            plain.push(c.to_ascii_lowercase());
        } else if !plain.ends_with(' ') {
            plain.push(' ');
        }
    }
    plain
}
