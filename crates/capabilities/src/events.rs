//! Events that functions are told of: what waits, in order, and what becomes of it. They are noted in the transaction that
//! they are of; this takes them out again, one function's and one table's at a time.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kernel::{Env, Result, Timestamp};
use serde_json::{Map, Value, json};

use crate::database::{self, Databases, Durability, Role};
use crate::rows::{TableModel, Type};

/// How many bytes of events wait at most in an environment, each half a kilobyte more than its rows: then the oldest go of
/// those of whom most wait. No lane has more, ever.
pub const MOST: i64 = 64 << 20;

/// How many bytes of rows a function is told with one.
const BYTES: usize = 256 << 10;

/// How many are read at a time, and how many bytes of rows they have together, unless one alone has more.
const PAGE: i64 = 8;
const PAGE_BYTES: i64 = 256 << 10;

/// What waits in the databases of environments.
#[derive(Clone)]
pub struct Events(Arc<Databases>);

/// The events of one table, one bucket, or the app's users, for one function. Each is told after the one before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The function.
    pub function: String,
    /// `rows`, `files` or `auth`.
    pub on: String,
    /// The table or the bucket.
    pub about: String,
}

/// One that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place among the others that wait.
    pub seq: i64,
    /// Its id: the same each time that it is told.
    pub id: String,
    /// What has happened.
    pub did: String,
    /// How many times functions had set each other off until it.
    pub depth: u8,
    /// When.
    pub at: String,
    /// How often it was told in vain.
    pub attempt: i64,
    /// When it is told next.
    pub due: Timestamp,
    new: Option<Map<String, Value>>,
    old: Option<Map<String, Value>>,
}

/// One of which it is to be noted what has come of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    seq: i64,
    id: String,
    attempt: i64,
    fate: Fate,
}

/// What has come of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It goes: it was told, or nobody listens any more.
    Over,
    /// It was told in vain, and is told again.
    Again {
        /// When.
        due: Timestamp,
        /// What has failed.
        why: String,
    },
    /// It was told in vain, and is not told again.
    GivenUp {
        /// What has failed.
        why: String,
    },
}

/// Whether an environment has something for its functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Functions of its live release listen.
    pub listens: bool,
    /// Something waits.
    pub waits: bool,
}

pub(crate) const STANDING: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' \
    AND name LIKE '\\_steading\\_event\\_%' ESCAPE '\\'), \
    EXISTS (SELECT 1 FROM _steading_event WHERE attempt >= 0)";

/// The lane after this one, and how much waits there. Of each lane the first and the last are looked at, however many wait.
pub(crate) const LANE: &str = "SELECT l.function, l.source, l.about, \
    (SELECT upto FROM _steading_event WHERE function = l.function AND source = l.source AND about = l.about \
    AND attempt >= 0 ORDER BY seq DESC LIMIT 1) - \
    (SELECT upto - weight FROM _steading_event WHERE function = l.function AND source = l.source \
    AND about = l.about AND attempt >= 0 ORDER BY seq LIMIT 1) FROM \
    (SELECT function, source, about FROM _steading_event WHERE attempt >= 0 \
    AND (function, source, about) > (?1, ?2, ?3) ORDER BY function, source, about LIMIT 1) l";

/// The first of a lane, and those after it as long as all of them together are no more than they may be.
const NEXT: &str = "SELECT seq, id, did, depth, at, attempt, due, CAST(new AS BLOB), CAST(old AS BLOB) \
    FROM _steading_event WHERE seq IN (SELECT seq FROM (SELECT seq, size, sum(size) OVER (ORDER BY seq) AS until \
    FROM (SELECT seq, coalesce(octet_length(new), 0) + coalesce(octet_length(old), 0) AS size FROM _steading_event \
    WHERE function = ?1 AND source = ?2 AND about = ?3 AND attempt >= 0 ORDER BY seq LIMIT ?4)) \
    WHERE until <= ?5 OR until = size) ORDER BY seq";

const DONE: &str = "DELETE FROM _steading_event WHERE seq = ?1 AND id = ?2";

const AGAIN: &str =
    "UPDATE _steading_event SET attempt = ?3, due = ?4, failed = ?5 WHERE seq = ?1 AND id = ?2";

/// Of each function the last is kept, for whoever looks after the app.
const GIVEN_UP: &str = "UPDATE _steading_event SET attempt = -1, failed = ?3, new = NULL, old = NULL \
    WHERE seq = ?1 AND id = ?2";
pub(crate) const BEFORE: &str = "DELETE FROM _steading_event WHERE function = ?1 AND attempt < 0 \
    AND NOT (seq = ?2 AND id = ?3)";

pub(crate) const TRIM: &str = "DELETE FROM _steading_event WHERE function = ?1 AND source = ?2 AND about = ?3 \
    AND attempt >= 0 AND upto <= ?4 + (SELECT upto - weight FROM _steading_event WHERE function = ?1 \
    AND source = ?2 AND about = ?3 AND attempt >= 0 ORDER BY seq LIMIT 1)";

impl Events {
    /// Those in `databases`.
    #[must_use]
    pub fn new(databases: Arc<Databases>) -> Self {
        Self(databases)
    }

    /// Whether there is something to look after.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn standing(&self, env: &Env) -> Result<Standing> {
        let rows = self.0.platform_query(env, STANDING, &[]).await?;
        let is = |at: usize| rows.first().and_then(|row| row.get(at)?.as_i64()) == Some(1);
        Ok(Standing { listens: is(0), waits: is(1) })
    }

    /// Those in which something waits.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn lanes(&self, env: &Env) -> Result<Vec<Lane>> {
        Ok(self.weighed(env).await?.into_iter().map(|(lane, _)| lane).collect())
    }

    /// The same, and how many bytes wait in each.
    async fn weighed(&self, env: &Env) -> Result<Vec<(Lane, i64)>> {
        let mut all: Vec<(Lane, i64)> = Vec::new();
        loop {
            let after = all.last().map(|(lane, _)| [&lane.function, &lane.on, &lane.about]);
            let after = after.map_or([json!(""), json!(""), json!("")], |it| it.map(|text| json!(text)));
            let rows = self.0.platform_query(env, LANE, &after).await?;
            let Some(row) = rows.first() else { return Ok(all) };
            let lane = Lane { function: text(row, 0), on: text(row, 1), about: text(row, 2) };
            all.push((lane, row.get(3).and_then(Value::as_i64).unwrap_or_default()));
        }
    }

    /// The next of a lane, in order.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn next(&self, env: &Env, lane: &Lane) -> Result<Vec<Event>> {
        let Lane { function, on, about } = lane;
        let params = [json!(function), json!(on), json!(about), json!(PAGE), json!(PAGE_BYTES)];
        let rows = self.0.platform_query(env, NEXT, &params).await?;
        let number = |row: &[Value], at: usize| row.get(at).and_then(Value::as_i64).unwrap_or_default();
        let event = |row: &Vec<Value>| Event {
            seq: number(row, 0),
            id: text(row, 1),
            did: text(row, 2),
            depth: u8::try_from(number(row, 3)).unwrap_or(u8::MAX),
            at: text(row, 4),
            attempt: number(row, 5),
            due: Timestamp::from_micros(number(row, 6)),
            new: object(row.get(7)),
            old: object(row.get(8)),
        };
        Ok(rows.iter().map(event).collect())
    }

    /// Notes what has come of events of a lane, of all or of none; to be called again where it is not known whether it was.
    ///
    /// # Errors
    /// The environment's database cannot be written.
    pub async fn settle(&self, env: &Env, lane: &Lane, settled: &[Settled]) -> Result<()> {
        let mut statements = Vec::new();
        for Settled { seq, id, attempt, fate } in settled {
            let (seq, id) = (json!(seq), json!(id));
            match fate {
                Fate::Over => statements.push((DONE, vec![seq, id])),
                Fate::Again { due, why } => {
                    let due = json!(due.as_micros());
                    statements.push((AGAIN, vec![seq, id, json!(attempt + 1), due, json!(why)]));
                }
                Fate::GivenUp { why } => {
                    statements.push((BEFORE, vec![json!(lane.function), seq.clone(), id.clone()]));
                    statements.push((GIVEN_UP, vec![seq, id, json!(why)]));
                }
            }
        }
        if statements.is_empty() { Ok(()) } else { self.write(env, &statements).await.map(drop) }
    }

    /// Takes the oldest away of the lanes in which most waits, where there is too much. Tells how many that were.
    ///
    /// # Errors
    /// The environment's database cannot be written.
    pub async fn trim(&self, env: &Env) -> Result<Vec<(Lane, u64)>> {
        let pages = self.0.platform_query(env, "PRAGMA page_count", &[]).await?;
        let pages = pages.first().and_then(|row| row.first()?.as_i64()).unwrap_or_default();
        // Most databases are smaller than what may wait.
        if pages.saturating_mul(4_096) < MOST {
            return Ok(Vec::new());
        }
        let lanes = self.weighed(env).await?;
        let weights: Vec<i64> = lanes.iter().map(|(_, weight)| *weight).collect();
        let mut gone = Vec::new();
        if weights.iter().sum::<i64>() < MOST {
            return Ok(gone);
        }
        // More than has to go, lest it be done for each that comes.
        let level = level(weights, MOST / 8 * 7);
        for (lane, weight) in lanes.into_iter().filter(|(_, weight)| *weight > level) {
            let row = vec![json!(lane.function), json!(lane.on), json!(lane.about), json!(weight - level)];
            let count = self.write(env, &[(TRIM, row)]).await?;
            gone.push((lane, count));
        }
        Ok(gone)
    }

    async fn write(&self, env: &Env, statements: &[(&str, Vec<Value>)]) -> Result<u64> {
        let mut db = self.0.writer(env).await?;
        db.begin(Durability::Normal).await?;
        let mut changed = 0;
        for (sql, params) in statements {
            // Dropped with the transaction open, it rolls back.
            changed = db.run(Role::Platform, sql, params).await?.changed;
        }
        db.commit().await?;
        Ok(changed)
    }
}

impl Event {
    /// That this has come of it.
    #[must_use]
    pub fn settled(&self, fate: Fate) -> Settled {
        Settled { seq: self.seq, id: self.id.clone(), attempt: self.attempt, fate }
    }

    /// What the function is told, as JSON; `table` is that of the rows, where the release has it.
    #[must_use]
    pub fn body(&self, lane: &Lane, table: Option<&TableModel>) -> String {
        let mut omitted = Vec::new();
        let mut told = |name: &str, row: &Option<Map<String, Value>>| {
            let mut row = row.clone()?;
            if lane.on == "rows" {
                // It may have been noted before its column was hidden.
                row.retain(|column, _| table.and_then(|it| it.column(column)).is_none_or(|it| !it.hidden));
                row.iter_mut().for_each(|(column, value)| {
                    if !mend(value, kind(table, column)) {
                        omitted.push(format!("{name}.{column}"));
                    }
                });
            }
            Some(row)
        };
        let (mut row, mut old) = (told("row", &self.new), told("old", &self.old));
        while size(&row) + size(&old) > BYTES {
            let (name, larger) = if size(&old) > size(&row) { ("old", &mut old) } else { ("row", &mut row) };
            let Some(larger) = larger else { break };
            let largest = larger.iter_mut().max_by_key(|(_, value)| value.to_string().len());
            let Some((column, value)) = largest.filter(|(_, value)| !value.is_null()) else { break };
            omitted.push(format!("{name}.{column}"));
            *value = Value::Null;
        }
        let mut body = Map::new();
        body.insert("id".to_owned(), json!(self.id));
        body.insert("on".to_owned(), json!(lane.on));
        match lane.on.as_str() {
            "rows" => drop(body.insert("table".to_owned(), json!(lane.about))),
            "files" => drop(body.insert("bucket".to_owned(), json!(lane.about))),
            _ => {}
        }
        body.insert("do".to_owned(), json!(self.did));
        body.insert("row".to_owned(), row.map_or(Value::Null, Value::Object));
        body.insert("old".to_owned(), old.map_or(Value::Null, Value::Object));
        if !omitted.is_empty() {
            body.insert("omitted".to_owned(), json!(omitted));
        }
        Value::Object(body).to_string()
    }
}

/// How much each may have at most, so that all together have no more than `most`.
fn level(mut weights: Vec<i64>, most: i64) -> i64 {
    weights.sort_unstable();
    let (mut left, mut count) = (most, i64::try_from(weights.len()).unwrap_or(i64::MAX));
    for weight in weights {
        if weight > left / count {
            return left / count;
        }
        (left, count) = (left - weight, count - 1);
    }
    i64::MAX
}

/// Makes of a value what the app's interface makes of it; `false` where it is too large to be there.
fn mend(value: &mut Value, kind: Option<Type>) -> bool {
    match (&*value, kind) {
        (Value::Number(number), Some(Type::Bool)) => *value = json!(number.as_i64() != Some(0)),
        (Value::String(text), Some(Type::Json)) => {
            if let Ok(parsed) = serde_json::from_str(text) {
                *value = parsed;
            }
        }
        (Value::Object(mark), _) => {
            let marked = database::marked(mark);
            let is_there = marked.is_some();
            *value = marked.unwrap_or_default();
            return is_there;
        }
        _ => {}
    }
    true
}

fn kind(table: Option<&TableModel>, column: &str) -> Option<Type> {
    table?.columns.iter().find(|it| it.name.eq_ignore_ascii_case(column)).map(|it| it.kind)
}

fn size(row: &Option<Map<String, Value>>) -> usize {
    row.iter().flatten().map(|(name, value)| name.len() + value.to_string().len()).sum()
}

fn text(row: &[Value], at: usize) -> String {
    row.get(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A row as its trigger has noted it; text that is none is as near to it as can be.
fn object(value: Option<&Value>) -> Option<Map<String, Value>> {
    let noted = value?.get("base64")?.as_str()?;
    serde_json::from_str(&String::from_utf8_lossy(&STANDARD.decode(noted).ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::level;

    #[test]
    fn whoever_has_most_gives_first() {
        for (weights, most, expected) in [
            (vec![], 8, i64::MAX),
            (vec![5, 1, 2], 8, i64::MAX),
            (vec![90, 1, 2], 8, 5),
            (vec![90, 80, 2], 8, 3),
            (vec![90, 80, 70], 9, 3),
        ] {
            assert_eq!(level(weights.clone(), most), expected, "{weights:?}");
        }
    }
}
