//! Events of an app's tables, files and users, for the functions that listen: triggers note each in the transaction that it
//! is of, so that none is lost and none comes of what was rolled back. An app whose functions listen to nothing has none.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kernel::EnvId;
use serde_json::Value;
use tokio::sync::Notify;

use super::connection::{Connection, Outcome};
use super::error::Error;
use super::policy::{Role, is_platform, is_search};
use super::schema::{self, quoted};
use crate::events::MOST;
use crate::functions::{Did, EventSpec, On};
use crate::releases::{DatabaseSpec, Manifest, NOW};
use crate::rows::{ColumnModel, TableModel};

/// How many bytes of rows are noted with one event: of one row, or of both together.
const ROWS: usize = 256 << 10;

/// What an event weighs beside its rows, in bytes.
const OWN: usize = 512;

/// How many bytes the names of a table's columns have at most; those that come after are not told.
const NAMES: usize = 32 << 10;

/// Columns that are put together by one call: the engine takes a hundred arguments.
const TOGETHER: usize = 97;

/// Who listens in the live release, unless this is a copy in which nobody does, and the release's manifest.
const LISTENING: &str = "SELECT f.key, json_extract(f.value, '$.settings.events'), r.manifest \
    FROM _steading_release r, json_each(r.functions) f \
    WHERE r.number = (SELECT CAST(value AS INTEGER) FROM _steading_state WHERE key = 'release') \
    AND json_extract(f.value, '$.settings.events') IS NOT NULL \
    AND NOT EXISTS (SELECT 1 FROM _steading_state WHERE key = 'events' AND value = 'held') ORDER BY f.key";

const LAID: &str = "SELECT name FROM sqlite_schema WHERE type = 'trigger' \
    AND name LIKE '\\_steading\\_event\\_%' ESCAPE '\\'";

const FILE: &str = "json_object('id', @.id, 'bucket', @.bucket, 'path', @.path, 'size', @.size, \
    'content_type', @.content_type, 'etag', @.etag, 'owner', @.owner, 'metadata', json(@.metadata), \
    'created_at', @.created_at, 'updated_at', @.updated_at)";

const USER: &str = "json_object('id', @.id, 'email', @.email, 'role', @.role, 'claims', json(@.claims))";

const SESSION: &str = "json_object('id', NEW.user, 'method', NEW.method)";

/// Environments of which events were committed.
#[derive(Default)]
pub struct Noted {
    envs: Mutex<HashSet<EnvId>>,
    rang: Notify,
}

impl Noted {
    pub(super) fn ring(&self, env: EnvId) {
        self.envs().insert(env);
        self.rang.notify_one();
    }

    /// Comes when there are some; each is told once.
    pub async fn heard(&self) -> HashSet<EnvId> {
        loop {
            let rang = self.rang.notified();
            let envs = std::mem::take(&mut *self.envs());
            if !envs.is_empty() {
                return envs;
            }
            rang.await;
        }
    }

    fn envs(&self) -> MutexGuard<'_, HashSet<EnvId>> {
        self.envs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the triggers away: what changes until they are laid again is no event.
pub(super) async fn lift(db: &mut Connection) -> Result<(), Error> {
    for row in run(db, LAID, &[]).await?.rows {
        let name = row.first().and_then(Value::as_str).unwrap_or_default();
        run(db, &format!("DROP TRIGGER {}", quoted(name)), &[]).await?;
    }
    Ok(())
}

/// Lays them as the live release wants them.
///
/// # Errors
/// `Listened` where a function listens to a table that is not there.
pub(super) async fn lay(db: &mut Connection) -> Result<(), Error> {
    lift(db).await?;
    let mut tables = None;
    for row in run(db, LISTENING, &[]).await?.rows {
        let text = |at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default();
        let function = text(0);
        let events: Vec<EventSpec> = serde_json::from_str(text(1)).map_err(|e| unreadable(e.into()))?;
        let tables = match &mut tables {
            Some(tables) => tables,
            none @ None => none.insert(models(text(2))?),
        };
        for (at, event) in events.iter().enumerate() {
            let table = tables.iter().find(|it| it.name.eq_ignore_ascii_case(event.about()));
            for (did, trigger) in triggers(db, function, (at, event), table).await? {
                let name = format!("_steading_event_{function}_{at}_{did}");
                let sql = format!("CREATE TRIGGER {} {trigger}", quoted(&name));
                run(db, &sql, &[]).await?;
            }
        }
    }
    Ok(())
}

/// The tables of a manifest, which says what is hidden.
fn models(manifest: &str) -> Result<Vec<TableModel>, Error> {
    let manifest: Manifest = serde_json::from_str(manifest).map_err(|e| unreadable(e.into()))?;
    let tables = manifest.database.as_ref().map(DatabaseSpec::tables).transpose();
    let tables = tables.map_err(|e| unreadable(e.into()))?.unwrap_or_default();
    Ok(tables.iter().map(|table| table.model()).collect())
}

/// What the platform itself has written cannot be read.
fn unreadable(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Engine(sqlx::Error::Decode(error))
}

async fn run(db: &mut Connection, sql: &str, params: &[Value]) -> Result<Outcome, Error> {
    let limit = db.limits().migration;
    db.run(Role::Platform, sql, params, limit).await
}

/// The triggers of one entry, without their names' beginnings; `model` is its table, where the manifest has it.
async fn triggers(
    db: &mut Connection,
    named: &str,
    (at, event): (usize, &EventSpec),
    model: Option<&TableModel>,
) -> Result<Vec<(&'static str, String)>, Error> {
    let about = literal(event.about());
    let (function, source) = (literal(named), literal(event.on.as_str()));
    let of_lane = |upto: &str, order: &str| {
        format!(
            "(SELECT {upto} FROM _steading_event WHERE function = {function} AND source = {source} \
             AND about = {about} AND attempt >= 0 ORDER BY seq {order} LIMIT 1)"
        )
    };
    let (first, last) = (of_lane("upto - weight", "ASC"), of_lane("upto", "DESC"));
    let note = |did: Did, new: &str, old: &str| {
        let did = literal(did.as_str());
        format!(
            "BEGIN INSERT INTO _steading_event (function, source, about, did, depth, weight, upto, new, old) \
             SELECT {function}, {source}, {about}, {did}, steading_depth(), w, w + coalesce({last}, 0), n, o FROM \
             (SELECT n, o, {OWN} + coalesce(octet_length(n), 0) + coalesce(octet_length(o), 0) AS w FROM \
             (SELECT {new} AS n, {old} AS o)) WHERE coalesce({last} - {first}, 0) < {MOST}; END"
        )
    };
    let of = |form: &str, which: &str| form.replace('@', which);
    let table = match event.on {
        On::Rows => Some(Table::read(db, named, (at, event), model).await?),
        On::Files | On::Auth => None,
    };
    let mut all = Vec::new();
    for did in event.told() {
        let (file, user) = (FILE, USER);
        match (did, event.on, &table) {
            (Did::Create, _, Some(it)) => {
                let sql =
                    format!("AFTER INSERT ON {} {}", it.name, note(did, &it.row(Which::Made, ROWS), "NULL"));
                all.push(("create", sql));
            }
            (Did::Update, _, Some(it)) => {
                let (new, old) = (it.row(Which::Changed, ROWS / 2), it.row(Which::Before, ROWS / 2));
                let body = note(did, &new, &old);
                all.push(("update", format!("AFTER UPDATE ON {} WHEN {} {body}", it.name, it.differs())));
            }
            (Did::Delete, _, Some(it)) => {
                let sql = format!(
                    "AFTER DELETE ON {} {}",
                    it.name,
                    note(did, "NULL", &it.row(Which::Before, ROWS))
                );
                all.push(("delete", sql));
            }
            (Did::Upload, _, _) => {
                let (new, old) = (of(file, "NEW"), of(file, "OLD"));
                let first = note(did, &new, "NULL");
                all.push((
                    "upload",
                    format!("AFTER INSERT ON _steading_object WHEN NEW.bucket = {about} {first}"),
                ));
                // A file that was moved is another's in the place that it has come to.
                let moved = "(NEW.bucket, NEW.path) IS NOT (OLD.bucket, OLD.path)";
                let old = format!("iif({moved}, NULL, {old})");
                all.push((
                    "replace",
                    format!(
                        "AFTER UPDATE ON _steading_object WHEN NEW.bucket = {about} AND \
                         ({moved} OR NEW.content IS NOT OLD.content) {}",
                        note(did, &new, &old)
                    ),
                ));
            }
            (Did::Delete, On::Files, _) => {
                let gone = note(did, "NULL", &of(file, "OLD"));
                all.push((
                    "delete",
                    format!("AFTER DELETE ON _steading_object WHEN OLD.bucket = {about} {gone}"),
                ));
                all.push((
                    "leave",
                    format!(
                        "AFTER UPDATE ON _steading_object WHEN OLD.bucket = {about} AND \
                         (NEW.bucket, NEW.path) IS NOT (OLD.bucket, OLD.path) {gone}"
                    ),
                ));
            }
            (Did::Signup, _, _) => {
                let body = note(did, &of(user, "NEW"), "NULL");
                all.push(("signup", format!("AFTER INSERT ON _steading_user {body}")));
            }
            (Did::Delete, _, _) => {
                let body = note(did, "NULL", &of(user, "OLD"));
                all.push(("delete", format!("AFTER DELETE ON _steading_user {body}")));
            }
            (Did::Login, _, _) => {
                let body = note(did, SESSION, "NULL");
                all.push(("login", format!("AFTER INSERT ON _steading_session {body}")));
            }
            (Did::Create | Did::Update, _, None) => {}
        }
    }
    Ok(all)
}

/// A table whose rows are told of.
struct Table {
    name: String,
    /// Those that are told: hidden ones are not, and they are not looked at.
    columns: Vec<String>,
    /// Whether its `updated_at` is written by a trigger, after the change itself.
    touched: bool,
}

/// Which of a trigger's rows.
#[derive(Clone, Copy)]
enum Which {
    Made,
    Changed,
    Before,
}

impl Table {
    async fn read(
        db: &mut Connection,
        function: &str,
        (at, event): (usize, &EventSpec),
        model: Option<&TableModel>,
    ) -> Result<Self, Error> {
        let name = event.about();
        let sql = "SELECT s.name, EXISTS (SELECT 1 FROM sqlite_schema t WHERE t.type = 'trigger' \
                   AND t.name = s.name || '_touch_updated_at' COLLATE NOCASE) FROM sqlite_schema s \
                   WHERE s.type = 'table' AND s.name = ?1 COLLATE NOCASE";
        let found = run(db, sql, &[name.into()]).await?.rows;
        let missing = || Error::Listened { function: function.to_owned(), at, table: name.to_owned() };
        let row = found.first().filter(|_| !is_platform(name) && !is_search(name)).ok_or_else(missing)?;
        let name = row.first().and_then(Value::as_str).unwrap_or_default();
        let mut columns: Vec<_> =
            schema::columns(db, name).await?.into_iter().map(|column| column.name).collect();
        if let Some(model) = model {
            let is_there =
                |wanted: &ColumnModel| columns.iter().any(|name| name.eq_ignore_ascii_case(&wanted.name));
            // A hidden one that is gone may have another name by now: any that the manifest does not know.
            let lost = model.columns.iter().any(|column| column.hidden && !is_there(column));
            columns.retain(|name| model.column(name).map_or(!lost, |column| !column.hidden));
        }
        let mut names = 0;
        columns.retain(|name| {
            names += name.len();
            names <= NAMES
        });
        let touched = row.get(1).and_then(Value::as_i64) == Some(1);
        Ok(Self { name: quoted(name), columns, touched })
    }

    fn is_touched(&self, column: &str) -> bool {
        self.touched && column.eq_ignore_ascii_case("updated_at")
    }

    /// The row as JSON of at most so many bytes, put together by as many calls as it takes.
    fn row(&self, which: Which, most: usize) -> String {
        self.columns.chunks(TOGETHER).fold("NULL".to_owned(), |before, columns| {
            let values: Vec<_> = columns.iter().map(|name| self.value(which, name)).collect();
            let names: Vec<_> = columns.iter().map(|name| Value::from(name.as_str()).to_string()).collect();
            let names = literal(&names.join("\n"));
            format!("steading_row({most}, {before}, {names}, {})", values.join(", "))
        })
    }

    fn value(&self, which: Which, name: &str) -> String {
        let (name, is_touched) = (quoted(name), self.is_touched(name));
        match which {
            // Within a statement it is always the same moment, also for the trigger that writes it afterwards.
            Which::Changed if is_touched => format!("iif(NEW.{name} IS OLD.{name}, {NOW}, NEW.{name})"),
            Which::Made | Which::Changed => format!("NEW.{name}"),
            Which::Before => format!("OLD.{name}"),
        }
    }

    /// That a change has changed something, other than when.
    fn differs(&self) -> String {
        let columns = self.columns.iter().filter(|it| !self.is_touched(it)).map(|it| quoted(it));
        let (new, old): (Vec<_>, Vec<_>) = columns
            // A column may take for equal what is not the same.
            .map(|it| (format!("NEW.{it} COLLATE BINARY"), format!("OLD.{it}")))
            .unzip();
        if new.len() == 1 {
            return format!("{} IS NOT {}", new.concat(), old.concat());
        }
        format!("({}) IS NOT ({})", new.join(", "), old.join(", "))
    }
}

/// A text in SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
