//! The migrations of a manifest: each runs once, and what it takes with it is said.

use std::collections::BTreeMap;

use kernel::{BlobHash, Code, Error, Result, Timestamp};
use serde_json::{Value, json};

use super::change::{Action, Draft, EffectKind};
use super::manifest::MigrationSpec;
use crate::database::{Role, Writer, quoted};

/// Runs the migrations that have not run, and notes what rows and tables they take with them.
pub(super) async fn run_migrations(
    db: &mut Writer,
    wanted: &[MigrationSpec],
    draft: &mut Draft,
) -> Result<()> {
    let rows = db.run(Role::Platform, "SELECT name, digest FROM _steading_migration", &[]).await?.rows;
    let known: Vec<(String, String)> = rows
        .into_iter()
        .filter_map(|row| Some((row.first()?.as_str()?.to_owned(), row.get(1)?.as_str()?.to_owned())))
        .collect();
    for (i, migration) in wanted.iter().enumerate() {
        let digest = BlobHash::of(migration.sql.as_bytes()).to_string();
        if known.iter().any(|(_, have)| *have == digest) {
            continue;
        }
        if known.iter().any(|(name, _)| *name == migration.name) {
            let message = format!("the migration {:?} has already run with another text", migration.name);
            return Err(Error::new(Code::Conflict, message)
                .field(format!("/migrations/{i}/sql"))
                .hint("what has run stays as it is: add another migration after it"));
        }
        let before = contents(db).await?;
        let ran = db.script(Role::Migrator, &migration.sql).await;
        ran.map_err(|e| Error::from(e).field(format!("/migrations/{i}/sql")))?;
        let after = contents(db).await?;
        let target = format!("migration {}", migration.name);
        for loss in losses(&before, &after) {
            draft.effect(EffectKind::DataLoss, &target, loss);
        }
        let sql = "INSERT INTO _steading_migration (name, digest, sql, applied_at) VALUES (?1, ?2, ?3, ?4)";
        let row =
            [json!(migration.name), json!(digest), json!(migration.sql), json!(Timestamp::now().as_micros())];
        db.run(Role::Platform, sql, &row).await?;
        draft.change(Action::Run, target, None);
    }
    Ok(())
}

/// What a table holds: how many rows, and how many values in each column.
struct Contents {
    rows: u64,
    values: BTreeMap<String, u64>,
}

async fn contents(db: &mut Writer) -> Result<BTreeMap<String, Contents>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, 10) <> '_steading_' \
               AND name NOT LIKE '%.search%' \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut tables = BTreeMap::new();
    for row in db.run(Role::Platform, sql, &[]).await?.rows {
        let Some(table) = row.first().and_then(Value::as_str) else { continue };
        let columns = "SELECT name FROM pragma_table_xinfo(?1)";
        let columns = db.run(Role::Platform, columns, &[table.into()]).await?.rows;
        let columns: Vec<String> =
            columns.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect();
        let counts: String = columns.iter().map(|column| format!(", count({})", quoted(column))).collect();
        let counted = db
            .run(Role::Platform, &format!("SELECT count(*){counts} FROM {}", quoted(table)), &[])
            .await?
            .rows;
        let mut numbers = counted.iter().flatten().map(|n| n.as_u64().unwrap_or_default());
        let rows = numbers.next().unwrap_or_default();
        tables
            .insert(table.to_owned(), Contents { rows, values: columns.into_iter().zip(numbers).collect() });
    }
    Ok(tables)
}

/// What is there before and not after. A column that was renamed cannot be told from one that was dropped.
fn losses(before: &BTreeMap<String, Contents>, after: &BTreeMap<String, Contents>) -> Vec<String> {
    let mut losses = Vec::new();
    for (table, held) in before {
        let Some(left) = after.get(table) else {
            if held.rows > 0 {
                losses.push(format!("table {table} goes, or is renamed, with its {} rows", held.rows));
            }
            continue;
        };
        if left.rows < held.rows {
            losses.push(format!("{} rows of table {table} are deleted", held.rows - left.rows));
        }
        for (column, values) in
            held.values.iter().filter(|(column, n)| **n > 0 && !left.values.contains_key(*column))
        {
            losses.push(format!("column {table}.{column} goes, or is renamed, with its {values} values"));
        }
    }
    losses
}
