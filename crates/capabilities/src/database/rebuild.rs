//! A database made anew from another's schema, and from its rows where they are wanted.
//!
//! The other may have been made by anybody: nothing of its file is taken over. Its schema's statements run again under
//! the guard, and its rows are read one by one.

use std::path::Path;

use kernel::EnvId;
use serde_json::Value;

use super::connection::{Connection, Kind};
use super::copy::{Loose, make_servable, unwatched};
use super::error::Error;
use super::fate::{Fate, fate};
use super::policy::{Role, is_platform, is_search};
use super::schema::{self, quoted};
use super::search::{fill_search, read_search};
use super::template::{self, APPLICATION, LAYOUT, RELEASE, RELEASES_BEFORE, TABLES};
use super::{Databases, guard};

/// Which rows come along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Along {
    /// The app's data, with its users.
    Data,
    /// The shape alone: tables, releases, migrations.
    Shape,
}

/// Who has made the database that another is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// This platform.
    Us,
    /// Anybody: each of its pages is looked at first.
    Anybody,
}

/// One entry of a schema.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

/// Brings releases along that knew no functions.
const RELEASES_OVER: &str = "INSERT INTO main._steading_release (number, manifest, site, created_at, note) \
     SELECT number, manifest, site, created_at, note FROM beside._steading_release";

impl Databases {
    /// Makes a database at `to` that is like the one at `from`, whoever made that.
    ///
    /// # Errors
    /// `Damaged` where the file is not what it says it is, `Newer`; what the guard holds against its schema; a row
    /// that its table does not take.
    pub(crate) async fn rebuild(
        &self,
        env: EnvId,
        from: &Path,
        to: &Path,
        maker: Maker,
        along: Along,
    ) -> Result<(), Error> {
        let template = self.template.get_or_try_init(template::prepare).await?;
        tokio::fs::write(to, template).await.map_err(Error::File)?;
        let limits = self.environments.shared_limits();
        let mut connection = Connection::open(env, to, Kind::Writer, &limits, unwatched()).await?;
        connection.whole(|handle| guard::attach(handle, from)).await?;
        let mut loose = Loose(connection);
        let rebuilt = rebuild(env, &mut loose, maker, along).await;
        loose.close().await;
        rebuilt?;
        make_servable(env, to).await
    }
}

async fn rebuild(env: EnvId, db: &mut Loose, maker: Maker, along: Along) -> Result<(), Error> {
    for sql in ["PRAGMA synchronous = OFF", "PRAGMA foreign_keys = OFF", "PRAGMA cell_size_check = ON"] {
        db.run(sql, &[]).await?;
    }
    let first = |rows: Vec<Vec<Value>>| rows.into_iter().flatten().next().unwrap_or_default();
    if first(db.rows("PRAGMA beside.application_id").await?).as_i64() != Some(APPLICATION) {
        return Err(Error::Damaged(env));
    }
    if first(db.rows("PRAGMA beside.user_version").await?).as_i64().is_none_or(|version| version > LAYOUT) {
        return Err(Error::Newer(env));
    }
    if maker == Maker::Anybody
        && first(db.rows("PRAGMA beside.integrity_check(1)").await?).as_str() != Some("ok")
    {
        return Err(Error::Damaged(env));
    }
    let objects = objects(db, "beside").await?;
    let (ours, theirs): (Vec<Object>, Vec<Object>) =
        objects.into_iter().partition(|it| is_platform(&it.name) || is_platform(&it.table));
    let goes = |table: &str| match fate(table) {
        Fate::Shape => true,
        Fate::Data | Fate::People(_) => along == Along::Data,
        Fate::Here | Fate::Now | Fate::Passing => false,
    };
    // What is left behind may be of an earlier layout, or of nobody's making.
    let is_ours = |it: &Object| {
        let before = std::iter::once(&(RELEASE, RELEASES_BEFORE));
        TABLES.iter().chain(before).any(|(name, sql)| it.name == *name && it.sql == *sql)
    };
    if ours.iter().any(|it| goes(&it.table) && !is_ours(it)) {
        return Err(Error::Damaged(env));
    }
    db.run("BEGIN IMMEDIATE", &[]).await?;
    for (kind, tables_first) in [("table", true), ("index", false), ("view", false), ("trigger", false)] {
        for object in theirs.iter().filter(|object| object.kind == kind) {
            let limit = db.0.limits().migration;
            if is_search(&object.name) {
                searched(env, db, object, along).await?;
                continue;
            }
            db.0.run(Role::Migrator, &object.sql, &[], limit).await?;
            if tables_first && along == Along::Data {
                rows(db, &object.name).await?;
            }
        }
    }
    for object in ours.iter().filter(|object| object.kind == "table" && goes(&object.name)) {
        match object.sql.as_str() {
            RELEASES_BEFORE => db.run(RELEASES_OVER, &[]).await.map(drop)?,
            _ => rows(db, &object.name).await?,
        }
    }
    counters(db, along).await?;
    // What ran is what was there: no statement was another than its entry said.
    let mut made = self::objects(db, "main").await?;
    made.retain(|it| !is_platform(&it.name) && !is_platform(&it.table));
    if made != theirs {
        return Err(Error::Damaged(env));
    }
    schema::sealed(&mut db.0).await?;
    let broken = "SELECT \"table\", count(*) FROM pragma_foreign_key_check GROUP BY 1 ORDER BY 1";
    if let Some(row) = db.rows(broken).await?.first() {
        let (table, rows) = (row[0].as_str().unwrap_or_default(), row[1].as_u64().unwrap_or_default());
        return Err(Error::MigrationBreaksReferences { table: table.to_owned(), rows });
    }
    db.run("COMMIT", &[]).await.map(drop)
}

/// Makes a full-text index again, after its table, which comes before it by its name. The engine makes the tables behind
/// it by itself.
async fn searched(env: EnvId, db: &mut Loose, object: &Object, along: Along) -> Result<(), Error> {
    if !object.name.to_ascii_lowercase().ends_with(".search") {
        return Ok(());
    }
    let Some((table, columns)) = read_search(&object.sql) else { return Err(Error::Damaged(env)) };
    let limit = db.0.limits().migration;
    db.0.run(Role::Platform, &object.sql, &[], limit).await?;
    if along == Along::Data {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        db.run(&fill_search(&table, &columns), &[]).await?;
    }
    Ok(())
}

async fn objects(db: &mut Loose, database: &str) -> Result<Vec<Object>, Error> {
    let sql = format!(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM {database}.sqlite_schema \
         WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    );
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut objects: Vec<Object> = db
        .rows(&sql)
        .await?
        .iter()
        .map(|row| Object {
            kind: text(&row[0]),
            name: text(&row[1]),
            table: text(&row[2]),
            sql: text(&row[3]),
        })
        .collect();
    objects.sort();
    Ok(objects)
}

/// Copies the rows of one table, with the places they have.
async fn rows(db: &mut Loose, table: &str) -> Result<(), Error> {
    let columns = schema::columns(&mut db.0, table).await?;
    let mut names: Vec<String> =
        columns.iter().filter(|column| !column.generated).map(|column| quoted(&column.name)).collect();
    names.extend(place(db, table, &columns.iter().map(|it| it.name.as_str()).collect::<Vec<_>>()).await?);
    let (table, names) = (quoted(table), names.join(", "));
    db.run(&format!("INSERT INTO main.{table} ({names}) SELECT {names} FROM beside.{table}"), &[]).await?;
    Ok(())
}

/// What a row's place in its table is called there, where it has one that no column stands for.
async fn place(db: &mut Loose, table: &str, columns: &[&str]) -> Result<Option<String>, Error> {
    let name = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !columns.iter().any(|column| column.eq_ignore_ascii_case(name)));
    let Some(name) = name else { return Ok(None) };
    let sql = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let found = db.run(sql, &[table.into()]).await?.rows;
    let sql = found.first().and_then(|row| row[0].as_str()).unwrap_or_default();
    let options = sql.rsplit(')').next().unwrap_or_default().to_ascii_uppercase();
    Ok((!options.contains("WITHOUT")).then(|| name.to_owned()))
}

/// Takes over how far the tables have counted that never give a number twice.
async fn counters(db: &mut Loose, along: Along) -> Result<(), Error> {
    let sql = "SELECT count(*) FROM beside.sqlite_schema WHERE name = 'sqlite_sequence'";
    let there = db.rows(sql).await?.first().and_then(|row| row[0].as_i64()) == Some(1);
    if !there || along == Along::Shape {
        return Ok(());
    }
    db.run("DELETE FROM main.sqlite_sequence", &[]).await?;
    db.run("INSERT INTO main.sqlite_sequence (name, seq) SELECT name, seq FROM beside.sqlite_sequence", &[])
        .await?;
    Ok(())
}
