//! The schema of an environment's database, as the engine tells it.

use kernel::BlobHash;
use serde::Serialize;
use serde_json::Value;

use super::connection::Connection;
use super::effects::Shape;
use super::error::Error;
use super::policy::{Role, is_platform, is_search};
use super::template;

/// Everything an environment's database is made of, but the platform's own tables.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schema {
    /// The tables, by name.
    pub tables: Vec<Table>,
    /// The views, by name.
    pub views: Vec<Named>,
    /// SHA-256 over the schema's SQL without its spacing: equal for equal schemas.
    pub fingerprint: String,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns in order, hidden and generated ones too.
    pub columns: Vec<Column>,
    /// Its indexes, those of UNIQUE and PRIMARY KEY too.
    pub indexes: Vec<Index>,
    /// Its triggers.
    pub triggers: Vec<Named>,
    /// Its references to other tables.
    pub foreign_keys: Vec<ForeignKey>,
    /// Whether the engine enforces the columns' types.
    pub strict: bool,
    /// Its rows; where only an impression is wanted, counted up to [`COUNTED`].
    pub rows: u64,
    /// The statement that created it.
    pub sql: String,
    /// The statement that created its full-text index, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its declared type, empty where there is none.
    pub kind: String,
    /// Whether it refuses NULL.
    pub not_null: bool,
    /// The SQL of its default.
    pub default: Option<String>,
    /// Its place in the primary key, from 1; 0 where it is not part of it.
    pub primary_key: u32,
    /// Whether it is computed, and cannot be written.
    pub generated: bool,
}

/// One index.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Whether it refuses equal rows.
    pub unique: bool,
    /// Whether it covers only some rows.
    pub partial: bool,
    /// Its columns; `None` for an expression.
    pub columns: Vec<Option<String>>,
    /// The statement that created it; none for the index of a constraint.
    pub sql: Option<String>,
}

/// A reference to another table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForeignKey {
    /// The columns that refer.
    pub columns: Vec<String>,
    /// The table referred to.
    pub table: String,
    /// The columns referred to; `None` for its primary key.
    pub references: Vec<Option<String>>,
    /// `CASCADE`, `SET NULL`, `SET DEFAULT`, `RESTRICT` or `NO ACTION`.
    pub on_delete: String,
    /// As `on_delete`.
    pub on_update: String,
}

/// A view or a trigger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The statement that created it.
    pub sql: String,
}

/// Up to how many rows of a table are counted where only an impression is wanted.
pub const COUNTED: u64 = 100_000;

/// How far rows are counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counting {
    /// To the last one, however long it takes.
    All,
    /// Up to [`COUNTED`].
    Impression,
}

/// Reads the schema on `connection`, as its transaction sees it.
pub(super) async fn read(connection: &mut Connection, counting: Counting) -> Result<Schema, Error> {
    let mut schema =
        Schema { tables: Vec::new(), views: Vec::new(), fingerprint: fingerprint(connection).await? };
    let objects = ask(
        connection,
        "SELECT type, name, sql FROM sqlite_schema WHERE type IN ('table', 'view') \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
        &[],
    )
    .await?;
    for object in objects {
        let [kind, name, sql] = object.as_slice() else { continue };
        let (name, sql) = (text(name), text(sql));
        if is_platform(&name) || is_search(&name) {
            continue;
        }
        if text(kind) == "view" {
            schema.views.push(Named { name, sql });
        } else {
            schema.tables.push(table(connection, name, sql, counting).await?);
        }
    }
    Ok(schema)
}

async fn table(
    connection: &mut Connection,
    name: String,
    sql: String,
    counting: Counting,
) -> Result<Table, Error> {
    // The pragma that tells it works out the columns of every view, and a view can be made to take for ever.
    let strict =
        sql.rsplit(')').next().is_some_and(|options| options.to_ascii_uppercase().contains("STRICT"));
    let columns = columns(connection, &name).await?;
    let indexes = indexes(connection, &name).await?;
    let of_table = [Value::from(name.as_str())];
    let triggers = ask(
        connection,
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
         AND name NOT LIKE '\\_steading\\_%' ESCAPE '\\' ORDER BY name",
        &of_table,
    )
    .await?
    .iter()
    .map(|row| Named { name: text(&row[0]), sql: text(&row[1]) })
    .collect();
    let foreign_keys = foreign_keys(connection, &of_table).await?;
    let rows = count(connection, &name, counting).await?;
    let search = ask(
        connection,
        "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1 || '.search' COLLATE NOCASE",
        &of_table,
    )
    .await?;
    let search = search.first().map(|row| text(&row[0]));
    Ok(Table { name, columns, indexes, triggers, foreign_keys, strict, rows, sql, search })
}

/// The columns of one table, none where there is no such table.
pub(super) async fn columns(connection: &mut Connection, table: &str) -> Result<Vec<Column>, Error> {
    let rows = ask(
        connection,
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
        &[Value::from(table)],
    )
    .await?;
    Ok(rows
        .iter()
        .map(|row| Column {
            name: text(&row[0]),
            kind: text(&row[1]),
            not_null: row[2].as_i64() == Some(1),
            default: row[3].as_str().map(str::to_owned),
            primary_key: row[4].as_u64().and_then(|place| u32::try_from(place).ok()).unwrap_or_default(),
            generated: row[5].as_i64() != Some(0),
        })
        .collect())
}

/// The names of the app's tables and their columns.
pub(super) async fn shape(connection: &mut Connection) -> Result<Shape, Error> {
    let rows = ask(
        connection,
        "SELECT s.name, c.name FROM sqlite_schema s, pragma_table_xinfo(s.name) c WHERE s.type = 'table' \
         AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND s.name NOT LIKE '\\_steading\\_%' ESCAPE '\\' \
         AND s.name NOT LIKE '%.search%' ORDER BY s.name, c.cid",
        &[],
    )
    .await?;
    let mut shape = Shape::new();
    for row in rows {
        shape.entry(text(&row[0])).or_default().push(text(&row[1]));
    }
    Ok(shape)
}

async fn indexes(connection: &mut Connection, table: &str) -> Result<Vec<Index>, Error> {
    let rows = ask(
        connection,
        "SELECT l.name, l.\"unique\", l.partial, s.sql FROM pragma_index_list(?1) l \
         LEFT JOIN sqlite_schema s ON s.type = 'index' AND s.name = l.name ORDER BY l.name",
        &[Value::from(table)],
    )
    .await?;
    let mut indexes = Vec::with_capacity(rows.len());
    for row in rows {
        let columns = ask(
            connection,
            "SELECT name FROM pragma_index_info(?1) ORDER BY seqno",
            std::slice::from_ref(&row[0]),
        )
        .await?;
        indexes.push(Index {
            name: text(&row[0]),
            unique: row[1].as_i64() == Some(1),
            partial: row[2].as_i64() == Some(1),
            columns: columns.iter().map(|column| column[0].as_str().map(str::to_owned)).collect(),
            sql: row[3].as_str().map(str::to_owned),
        });
    }
    Ok(indexes)
}

async fn foreign_keys(connection: &mut Connection, of_table: &[Value]) -> Result<Vec<ForeignKey>, Error> {
    let rows = ask(
        connection,
        "SELECT id, \"table\", \"from\", \"to\", on_delete, on_update FROM pragma_foreign_key_list(?1) \
         ORDER BY id, seq",
        of_table,
    )
    .await?;
    let mut keys: Vec<(i64, ForeignKey)> = Vec::new();
    for row in rows {
        let id = row[0].as_i64().unwrap_or_default();
        if keys.last().is_none_or(|(last, _)| *last != id) {
            let key = ForeignKey {
                columns: Vec::new(),
                table: text(&row[1]),
                references: Vec::new(),
                on_delete: text(&row[4]),
                on_update: text(&row[5]),
            };
            keys.push((id, key));
        }
        if let Some((_, key)) = keys.last_mut() {
            key.columns.push(text(&row[2]));
            key.references.push(row[3].as_str().map(str::to_owned));
        }
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

async fn count(connection: &mut Connection, table: &str, counting: Counting) -> Result<u64, Error> {
    let table = quoted(table);
    let sql = match counting {
        Counting::All => format!("SELECT count(*) FROM {table}"),
        Counting::Impression => format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {COUNTED})"),
    };
    number(connection, &sql).await
}

/// How many rows of `table` have a value in `column`.
pub(super) async fn count_values(
    connection: &mut Connection,
    table: &str,
    column: &str,
) -> Result<u64, Error> {
    number(connection, &format!("SELECT count({}) FROM {}", quoted(column), quoted(table))).await
}

async fn number(connection: &mut Connection, sql: &str) -> Result<u64, Error> {
    let rows = ask(connection, sql, &[]).await?;
    Ok(rows.first().and_then(|row| row.first()).and_then(Value::as_u64).unwrap_or_default())
}

async fn fingerprint(connection: &mut Connection) -> Result<String, Error> {
    let objects = ask(
        connection,
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_steading\\_%' ESCAPE '\\' \
         ORDER BY type, name",
        &[],
    )
    .await?;
    let mut normal = String::new();
    for object in objects {
        for part in &object {
            normal.push_str(&unspaced(&text(part)));
            normal.push('\n');
        }
    }
    Ok(BlobHash::of(normal.as_bytes()).to_string())
}

/// The text with each run of blanks as one, but for what stands in quotes.
fn unspaced(sql: &str) -> String {
    let mut plain = String::with_capacity(sql.len());
    let mut quote = None;
    for c in sql.trim().chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if matches!(c, '\'' | '"' | '`') => quote = Some(c),
            _ => {}
        }
        if quote.is_some() || !c.is_whitespace() {
            plain.push(c);
        } else if !plain.ends_with(' ') {
            plain.push(' ');
        }
    }
    plain
}

/// Checks, after a change of the schema, that the platform's tables are as they were made and that nothing of
/// the app is tied to them: what the authorizer is not told of, a renamed table or a foreign key.
///
/// # Errors
/// `Refused` naming what is in the way.
pub(super) async fn sealed(connection: &mut Connection) -> Result<(), Error> {
    let ours = ask(
        connection,
        "SELECT name, coalesce(sql, '') FROM sqlite_schema \
         WHERE (name LIKE '\\_steading\\_%' ESCAPE '\\' OR tbl_name LIKE '\\_steading\\_%' ESCAPE '\\') \
         AND name NOT LIKE 'sqlite\\_autoindex\\_\\_steading\\_%' ESCAPE '\\' ORDER BY name",
        &[],
    )
    .await?;
    let expected = template::TABLES;
    if let Some(stray) =
        ours.iter().find(|row| !expected.iter().any(|(n, sql)| text(&row[0]) == *n && text(&row[1]) == *sql))
    {
        return Err(platform(&text(&stray[0])));
    }
    if ours.len() != expected.len() {
        return Err(platform("a table that is missing now"));
    }
    let tied = ask(
        connection,
        "SELECT f.\"table\" FROM sqlite_schema s, pragma_foreign_key_list(s.name) f \
         WHERE s.type = 'table' AND f.\"table\" LIKE '\\_steading\\_%' ESCAPE '\\' LIMIT 1",
        &[],
    )
    .await?;
    tied.first().map_or(Ok(()), |row| Err(platform(&text(&row[0]))))
}

fn platform(name: &str) -> Error {
    Error::Refused(super::policy::Refusal::Platform(name.to_owned()))
}

/// `name` as an identifier in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn ask(connection: &mut Connection, sql: &str, params: &[Value]) -> Result<Vec<Vec<Value>>, Error> {
    let limit = connection.limits().migration;
    Ok(connection.run(Role::Platform, sql, params, limit).await?.rows)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
