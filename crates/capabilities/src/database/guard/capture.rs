//! What a connection that writes tells of its transactions: which rows they change, and what those were before.
//!
//! The engine calls before each row changes (<https://www.sqlite.org/c3ref/preupdate_count.html>) and after each commit,
//! when others can see it (<https://www.sqlite.org/c3ref/wal_hook.html>). While nobody watches, it calls nothing.

use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libsqlite3_sys as sys;
use serde_json::{Value, json};

use super::super::feed::{Before, Changed, Feed, ROWS, ROWS_BYTES, Table, Watched, size};
use super::noting::{self, Noting};

/// After how many pages in the log they are moved to the file, as the engine does by itself.
const CHECKPOINT: c_int = 1_000;

/// What the connection's data of ours is called.
const NAME: &CStr = c"steading.capture";

/// What is told of the transaction that is open. Owned by the connection, which drops it when it is closed.
struct Capture {
    feed: Arc<Feed>,
    open: Mutex<Open>,
    noting: Arc<Noting>,
}

impl Drop for Capture {
    /// Whoever wanted to commit may have gone away meanwhile: the engine has come to its end with it all the same.
    fn drop(&mut self) {
        self.noting.committed();
    }
}

#[derive(Default)]
struct Open {
    installed: bool,
    tables: Arc<Watched>,
    changes: Vec<(Arc<str>, Changed)>,
    /// The rows that are told of; each once.
    told: HashSet<(Arc<str>, String)>,
    /// The tables of which no single rows are told.
    much: HashSet<Arc<str>>,
    bytes: usize,
}

/// Gives the connection what it needs to tell `feed`, and its triggers what they need.
///
/// # Errors
/// Where the engine has no memory.
pub(in crate::database) fn attach(db: NonNull<sys::sqlite3>, feed: Arc<Feed>) -> Result<Arc<Noting>, c_int> {
    let noting = Noting::new(Arc::clone(&feed));
    let capture = Capture { feed, open: Mutex::default(), noting: Arc::clone(&noting) };
    let capture = Box::into_raw(Box::new(capture));
    // SAFETY: the handle is locked or this thread's alone; the name is a C string that lives for ever; the engine calls
    // the destructor once, when the connection is closed or where this fails, with the pointer it was given
    // (https://www.sqlite.org/c3ref/get_clientdata.html).
    let code =
        unsafe { sys::sqlite3_set_clientdata(db.as_ptr(), NAME.as_ptr(), capture.cast(), Some(destroy)) };
    if code != sys::SQLITE_OK {
        return Err(code);
    }
    noting::attach(db, &noting).map(|()| noting)
}

/// What `attach` has given the connection.
fn of<'a>(db: NonNull<sys::sqlite3>) -> Option<&'a Capture> {
    // SAFETY: the handle is locked or this thread's alone; what comes back is null or what `attach` has given, which
    // lives as long as the connection is open, and longer than what is done with it here.
    unsafe { sys::sqlite3_get_clientdata(db.as_ptr(), NAME.as_ptr()).cast::<Capture>().as_ref() }
}

/// To be called before each statement. Begins to tell where somebody watches, and forgets what was rolled back.
pub(in crate::database) fn before_statement(db: NonNull<sys::sqlite3>) {
    if let Some(capture) = of(db) {
        capture.ready(db);
    }
}

impl Capture {
    fn ready(&self, db: NonNull<sys::sqlite3>) {
        let mut open = self.open();
        let wanted = self.feed.is_watched();
        if !wanted && !open.installed {
            return;
        }
        // SAFETY: the handle is locked or this thread's alone.
        if unsafe { sys::sqlite3_get_autocommit(db.as_ptr()) } == 0 {
            return;
        }
        open.clear();
        if wanted {
            open.tables = self.feed.tables();
        }
        if wanted == open.installed {
            return;
        }
        open.installed = wanted;
        let pointer = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: as above; the callbacks are plain functions, and what they are given lives until the connection is
        // closed, when no statement runs any more.
        unsafe {
            if wanted {
                sys::sqlite3_preupdate_hook(db.as_ptr(), Some(before_change), pointer);
                sys::sqlite3_wal_hook(db.as_ptr(), Some(after_commit), pointer);
            } else {
                sys::sqlite3_preupdate_hook(db.as_ptr(), None, null_mut());
                sys::sqlite3_wal_autocheckpoint(db.as_ptr(), CHECKPOINT);
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn clear(&mut self) {
        if !self.told.is_empty() || !self.much.is_empty() {
            let Open { installed, tables, .. } = std::mem::take(self);
            *self = Open { installed, tables, ..Open::default() };
        }
    }

    /// Adds a row's change. Of several in a transaction the first says what the row was before it.
    fn row(&mut self, table: &Arc<str>, id: String, before: Option<Before>) {
        if self.told.contains(&(Arc::clone(table), id.clone())) {
            return;
        }
        let held = before.as_ref().map_or(0, |before| before.values.iter().map(size).sum());
        self.bytes += id.len() + held;
        if self.told.len() >= ROWS || self.bytes > ROWS_BYTES {
            return self.much(table);
        }
        self.told.insert((Arc::clone(table), id.clone()));
        self.changes.push((Arc::clone(table), Changed::Row { id, before }));
    }

    /// Says no more of the table than that much of it has changed.
    fn much(&mut self, table: &Arc<str>) {
        if self.much.insert(Arc::clone(table)) {
            self.changes.retain(|(of, _)| of != table);
            self.changes.push((Arc::clone(table), Changed::Much));
        }
    }
}

unsafe extern "C" fn destroy(capture: *mut c_void) {
    // SAFETY: the pointer that `attach` made of a box; the engine calls this once.
    drop(unsafe { Box::from_raw(capture.cast::<Capture>()) });
}

unsafe extern "C" fn before_change(
    capture: *mut c_void,
    db: *mut sys::sqlite3,
    operation: c_int,
    _database: *const c_char,
    table: *const c_char,
    _: sys::sqlite3_int64,
    _: sys::sqlite3_int64,
) {
    // SAFETY: the pointer that `ready` gave, which lives as long as the connection; the name is a C string that lives
    // during the call.
    let (capture, name) = unsafe { (&*capture.cast::<Capture>(), CStr::from_ptr(table)) };
    let mut open = capture.open();
    let tables = Arc::clone(&open.tables);
    let Some(table) = name.to_str().ok().and_then(|name| tables.find(name)) else { return };
    // SAFETY: this is the call before a change, of the connection that makes it.
    unsafe { note(&mut open, table, db, operation) };
}

/// # Safety
/// Called within the call before a change of `db`.
unsafe fn note(open: &mut Open, table: &Table, db: *mut sys::sqlite3, operation: c_int) {
    if open.much.contains(&table.name) {
        return;
    }
    // SAFETY: the caller's promise.
    let told = unsafe { rows(table, db, operation) };
    match told {
        Some((before, after)) => {
            for (id, before) in [before, after].into_iter().flatten() {
                open.row(&table.name, id, before);
            }
        }
        None => open.much(&table.name),
    }
}

type Row = Option<(String, Option<Before>)>;

/// The row as it was, and the id it is going to have where that is another; none where it cannot be told.
///
/// # Safety
/// Called within the call before a change of `db`.
unsafe fn rows(table: &Table, db: *mut sys::sqlite3, operation: c_int) -> Option<(Row, Row)> {
    let columns = table.columns.as_ref()?;
    // SAFETY: the caller's promise.
    if usize::try_from(unsafe { sys::sqlite3_preupdate_count(db) }).ok()? != columns.len() {
        return None;
    }
    let at = columns.iter().position(|column| column.eq_ignore_ascii_case("id"))?;
    let id_of = |value: &Value| value.as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let mut old = None;
    if operation != sys::SQLITE_INSERT {
        let count = c_int::try_from(columns.len()).ok()?;
        // SAFETY: the row was there, and the index is below the count.
        let values: Vec<Value> = (0..count)
            .map(|index| unsafe { value(db, index, sys::sqlite3_preupdate_old) })
            .collect::<Option<_>>()?;
        let id = id_of(values.get(at)?)?;
        old = Some((id, Some(Before { columns: Arc::clone(columns), values })));
    }
    let mut new = None;
    if operation != sys::SQLITE_DELETE {
        // SAFETY: the row is going to be there, and the index is below the count.
        let id = unsafe { value(db, c_int::try_from(at).ok()?, sys::sqlite3_preupdate_new) };
        let id = id_of(&id?)?;
        new = old.as_ref().is_none_or(|(before, _)| *before != id).then_some((id, None));
    }
    Some((old, new))
}

type Get = unsafe extern "C" fn(*mut sys::sqlite3, c_int, *mut *mut sys::sqlite3_value) -> c_int;

/// A copy of one of the values.
///
/// # Safety
/// Called within the call before a change of `db`, for a row and a column that there is.
unsafe fn value(db: *mut sys::sqlite3, index: c_int, get: Get) -> Option<Value> {
    let mut found = null_mut();
    // SAFETY: the caller's promise; the value lives during the call before the change, and its length is asked for after
    // its bytes, as the engine wants it.
    unsafe {
        match get(db, index, &mut found) {
            sys::SQLITE_OK if !found.is_null() => {}
            // A column that is computed when it is read: no row holds it.
            sys::SQLITE_RANGE => return Some(Value::Null),
            _ => return None,
        }
        let bytes = |start: *const u8| {
            let length = usize::try_from(sys::sqlite3_value_bytes(found)).unwrap_or_default();
            if start.is_null() { &[][..] } else { std::slice::from_raw_parts(start, length) }
        };
        let blob = |bytes: &[u8]| json!({ "base64": STANDARD.encode(bytes) });
        Some(match sys::sqlite3_value_type(found) {
            sys::SQLITE_INTEGER => sys::sqlite3_value_int64(found).into(),
            sys::SQLITE_FLOAT => sys::sqlite3_value_double(found).into(),
            sys::SQLITE_TEXT => {
                let text = bytes(sys::sqlite3_value_text(found));
                std::str::from_utf8(text).map_or_else(|_| blob(text), Value::from)
            }
            sys::SQLITE_BLOB => blob(bytes(sys::sqlite3_value_blob(found).cast())),
            _ => Value::Null,
        })
    }
}

unsafe extern "C" fn after_commit(
    capture: *mut c_void,
    db: *mut sys::sqlite3,
    database: *const c_char,
    pages: c_int,
) -> c_int {
    // SAFETY: the pointer that `ready` gave, which lives as long as the connection.
    let capture = unsafe { &*capture.cast::<Capture>() };
    let (tables, changes) = {
        let mut open = capture.open();
        let told = (Arc::clone(&open.tables), std::mem::take(&mut open.changes));
        open.clear();
        told
    };
    if !changes.is_empty() {
        capture.feed.publish(&tables, changes);
    }
    if pages >= CHECKPOINT {
        // SAFETY: what the engine does here by itself, with the arguments it gives.
        unsafe { sys::sqlite3_wal_checkpoint(db, database) };
    }
    sys::SQLITE_OK
}
