//! What a return to a snapshot would take away, and what it would bring back.

use kernel::{Env, Result};
use serde_json::Value;

use super::restore::live_beside;
use super::{Snapshot, Snapshots};
use crate::database::{Loose, people, quoted};

/// The platform's tables whose rows are an app's own, and what they are called.
const OURS: &[(&str, &str)] = &[("_steading_user", "users"), ("_steading_object", "files")];

impl Snapshots {
    /// What a return to `snapshot` would take away, and what it would bring back, in words; the app has the secrets that are
    /// `set`.
    ///
    /// # Errors
    /// The databases cannot be read.
    pub async fn losses(&self, env: &Env, snapshot: &Snapshot, set: &[String]) -> Result<Vec<String>> {
        let turn = self.0.turn(env.id()).await;
        let (past, _open) = self.0.open(env.id(), snapshot).await?;
        drop(turn);
        let mut both = self.0.databases.beside(env.id(), &past.join("main.db")).await?;
        let compared = compare(&mut both, snapshot).await;
        let live = live_beside(&mut both).await;
        both.close().await;
        let (mut losses, named) = compared?;
        losses.extend(self.0.releases.brought_back(env, live?).await?.words(set));
        for name in self.0.releases.unclaimed(env, named).await? {
            losses.push(format!("domain {name} is named again and not claimed by this: domain_set does it"));
        }
        losses.push(format!("everything is again as it was at {}", snapshot.created_at));
        Ok(losses)
    }
}

/// The losses in words, and the domains that the release names which comes back.
async fn compare(both: &mut Loose, snapshot: &Snapshot) -> Result<(Vec<String>, Vec<String>)> {
    both.run("BEGIN", &[]).await?;
    let mut words = Vec::new();
    let sql = "SELECT CAST(value AS INTEGER) FROM main._steading_state WHERE key = 'release'";
    let release = both.rows(sql).await?.first().and_then(|row| row[0].as_u64()).unwrap_or_default();
    if release != snapshot.release {
        words.push(match snapshot.release {
            0 => format!("release {release} is not live any more: there was none"),
            before => format!("release {before} is live again in place of {release}"),
        });
    }
    let (now, then) = (tables(both, "main").await?, tables(both, "beside").await?);
    for (name, sql) in &now {
        let called = match OURS.iter().find(|(ours, _)| ours == name) {
            Some((_, called)) => (*called).to_owned(),
            None => format!("table {name}"),
        };
        let Some((_, before)) = then.iter().find(|(other, _)| other == name) else {
            let rows = count(both, &format!("SELECT count(*) FROM main.{}", quoted(name))).await?;
            words.push(format!("{called} is removed with {rows} rows"));
            continue;
        };
        let (lost, undone, back) = match table(both, name, sql, before).await? {
            Some(found) => found,
            None => {
                let rows = |of| format!("SELECT count(*) FROM {of}.{}", quoted(name));
                let (now, then) = (count(both, &rows("main")).await?, count(both, &rows("beside")).await?);
                words.push(format!("{called} gets its earlier columns, and {then} rows in place of {now}"));
                continue;
            }
        };
        let is_people = people().any(|(table, _)| table == name);
        let mut parts = Vec::new();
        for (number, what) in [
            (lost, "made since are removed"),
            // Whoever is a user at both moments stays as now.
            (if is_people { 0 } else { undone }, "changed since are as they were"),
            (
                back,
                if is_people { "removed since are back and can sign in" } else { "removed since are back" },
            ),
        ] {
            if number > 0 {
                parts.push(format!("{number} {what}"));
            }
        }
        if !parts.is_empty() {
            let rows = if called.starts_with("table ") { " rows" } else { "" };
            words.push(format!("{called}:{rows} {}", parts.join(", ")));
        }
    }
    for (name, _) in then.iter().filter(|(name, _)| !now.iter().any(|(other, _)| other == name)) {
        let rows = count(both, &format!("SELECT count(*) FROM beside.{}", quoted(name))).await?;
        words.push(format!("table {name} is back with {rows} rows"));
    }
    let sql = "SELECT j.value FROM beside._steading_release r, json_each(r.manifest, '$.domains') j WHERE r.number = \
               (SELECT CAST(value AS INTEGER) FROM beside._steading_state WHERE key = 'release')";
    let named = both.rows(sql).await?;
    let named = named.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect();
    Ok((words, named))
}

/// The tables of one of the two: the app's, and ours that hold what is the app's.
async fn tables(both: &mut Loose, database: &str) -> Result<Vec<(String, String)>> {
    let sql = format!(
        "SELECT name, coalesce(sql, '') FROM {database}.sqlite_schema WHERE type = 'table' \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '%.search%' ORDER BY name"
    );
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = both.rows(&sql).await?;
    let found = found.iter().map(|row| (text(&row[0]), text(&row[1])));
    let is_app = |name: &str| !name.to_ascii_lowercase().starts_with("_steading_");
    Ok(found.filter(|(name, _)| is_app(name) || OURS.iter().any(|(ours, _)| ours == name)).collect())
}

/// How many rows of a table are new, differ, and are missing, against the past. None where they cannot be compared.
async fn table(both: &mut Loose, name: &str, sql: &str, before: &str) -> Result<Option<(u64, u64, u64)>> {
    let (now, then) = (columns(both, name, "main").await?, columns(both, name, "beside").await?);
    let plain =
        |sql: &str| !sql.rsplit(')').next().unwrap_or_default().to_ascii_uppercase().contains("WITHOUT");
    if now != then || !plain(sql) || !plain(before) {
        return Ok(None);
    }
    let Some(row) =
        ["rowid", "_rowid_", "oid"].into_iter().find(|row| !now.iter().any(|c| c.eq_ignore_ascii_case(row)))
    else {
        return Ok(None);
    };
    let name = quoted(name);
    let side =
        |of: &str| now.iter().map(|column| format!("{of}.{}", quoted(column))).collect::<Vec<_>>().join(", ");
    let missing = |from: &str, other: &str| {
        format!(
            "SELECT count(*) FROM {from}.{name} a LEFT JOIN {other}.{name} b ON b.{row} = a.{row} \
             WHERE b.{row} IS NULL"
        )
    };
    let differ = format!(
        "SELECT count(*) FROM main.{name} a JOIN beside.{name} b ON b.{row} = a.{row} WHERE ({}) IS NOT ({})",
        side("a"),
        side("b")
    );
    Ok(Some((
        count(both, &missing("main", "beside")).await?,
        count(both, &differ).await?,
        count(both, &missing("beside", "main")).await?,
    )))
}

async fn columns(both: &mut Loose, table: &str, database: &str) -> Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_xinfo(?1, ?2) ORDER BY name";
    let found = both.run(sql, &[table.into(), database.into()]).await?;
    Ok(found.rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect())
}

async fn count(both: &mut Loose, sql: &str) -> Result<u64> {
    Ok(both.rows(sql).await?.first().and_then(|row| row.first()?.as_u64()).unwrap_or_default())
}
