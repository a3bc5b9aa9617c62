//! The SQL guard: what sqlx lacks of the engine's own defences, bound by FFI. The only unsafe code of the crate.
//!
//! Every statement is first prepared here, under its role's authorizer, and only then run by sqlx on the same
//! connection, where the authorizer stays set: the engine asks it again whenever it compiles the statement anew.
//! The data plane's connections run their statements here.

#![expect(
    unsafe_code,
    reason = "sqlx binds neither the authorizer nor the limits and switches of the engine"
)]

mod capture;
mod cells;
mod files;
mod kept;
mod noting;
mod statements;

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libsqlite3_sys as sys;
use sqlx::sqlite::LockedSqliteHandle;

use super::feed::Feed;
use super::limits::{FREE, Limits, PAGES, PARAMETERS, Room};
use super::policy::{Action, Refusal, Role, refusal, refused_text};

pub(super) use files::{Broken, attach, read_file, replace};
pub(super) use kept::{Bounds, Failed, Kept, Queue};
pub(super) use noting::Noting;

/// What preparing a statement told.
#[derive(Debug, Default)]
pub(super) struct Statement {
    /// The names of the result's columns; empty where the statement returns no rows.
    pub columns: Vec<String>,
    /// The parameters in order: `None` for a bare `?`, else the name with its sign, `?2` or `$2` or `:a`.
    pub parameters: Vec<Option<String>>,
    /// Where the statement ends in the text, in bytes.
    pub end: usize,
    /// Whether there was nothing but blanks and comments.
    pub empty: bool,
    /// Whether it leaves the database file alone.
    pub read_only: bool,
    /// Whether it changes the schema; then the engine's count of changed rows is an older statement's.
    pub changes_schema: bool,
    /// The table that an `ALTER TABLE` is about.
    pub altered: Option<String>,
}

/// Why a statement could not be prepared.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The guard says no.
    Refused(Refusal),
    /// Compiling it took too long.
    TooSlow,
    /// The engine says no: its extended result code, its message, the byte it points at.
    Engine { code: c_int, message: String, at: Option<usize> },
}

/// What the authorizer has seen while one statement was prepared.
#[derive(Default)]
struct Seen {
    /// After this, compiling is given up.
    deadline: Option<Instant>,
    too_slow: bool,
    refusal: Option<Refusal>,
    changes_schema: bool,
    altered: Option<String>,
}

/// How long a statement may take to compile, which happens on the caller's thread.
pub(super) const COMPILING: Duration = Duration::from_secs(1);

/// The most memory that the engine may have in this process, in bytes. What a statement takes while it runs is
/// watched; while it is compiled the engine asks nobody, and a short text can stand for millions of terms.
const MEMORY: i64 = 384 << 20;

/// The longest value that the platform itself stores, in bytes.
const PLATFORM_LENGTH: c_int = 64 << 20;

/// Turns on the engine's defences on a new connection. They hold whatever the role.
///
/// # Errors
/// The engine's result code, where it refuses one of them.
pub(super) fn harden(handle: &mut LockedSqliteHandle<'_>) -> Result<(), c_int> {
    let db = handle.as_raw_handle().as_ptr();
    let switches = [
        (sys::SQLITE_DBCONFIG_DEFENSIVE, 1),
        (sys::SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
        (sys::SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
        (sys::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0),
        (sys::SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0),
        (sys::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, 0),
        (sys::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, 0),
        (sys::SQLITE_DBCONFIG_DQS_DDL, 0),
        (sys::SQLITE_DBCONFIG_DQS_DML, 0),
    ];
    for (option, value) in switches {
        // SAFETY: the handle is locked, so no other thread uses it; each of these options takes an int and a
        // pointer to an int that may be null (https://www.sqlite.org/c3ref/c_dbconfig_defensive.html).
        let code = unsafe { sys::sqlite3_db_config(db, option, value as c_int, null_mut::<c_int>()) };
        if code != sys::SQLITE_OK {
            return Err(code);
        }
    }
    // SAFETY: takes a plain number and may be called from any thread at any time.
    unsafe { sys::sqlite3_hard_heap_limit64(MEMORY) };
    let kept = [c"json_each", c"json_tree", c"fts5"];
    let mut kept: [*const c_char; 4] = [kept[0].as_ptr(), kept[1].as_ptr(), kept[2].as_ptr(), null()];
    // SAFETY: the handle is locked, and the list is of C strings and ends with a null pointer.
    let code = unsafe { sys::sqlite3_drop_modules(db, kept.as_mut_ptr()) };
    if code == sys::SQLITE_OK { Ok(()) } else { Err(code) }
}

/// Lets a connection that writes tell `feed` what it changes.
///
/// # Errors
/// The engine's result code, where it has no memory.
pub(super) fn tell(handle: &mut LockedSqliteHandle<'_>, feed: Arc<Feed>) -> Result<Arc<Noting>, c_int> {
    capture::attach(handle.as_raw_handle(), feed)
}

/// Tells the engine how many pages the statements that follow may take. The connection has no role after this.
///
/// # Errors
/// The engine's result code.
pub(super) fn give_room(
    handle: &mut LockedSqliteHandle<'_>,
    limits: &Limits,
    room: Room,
) -> Result<(), c_int> {
    assume(handle, Role::Platform, limits);
    let db = handle.as_raw_handle();
    // SAFETY: the handle is locked, so no other thread uses it.
    unsafe {
        let there = if room == Room::Reserve { number(db, PAGES)? } else { 0 };
        number(db, &room.pragma(limits, there)).map(drop)
    }
}

/// Whether rows have all the pages that are theirs: those of the reserve that are free again are not. The connection
/// has no role after this.
///
/// # Errors
/// The engine's result code.
pub(super) fn is_full(handle: &mut LockedSqliteHandle<'_>, limits: &Limits) -> Result<bool, c_int> {
    let (db, most) = (handle.as_raw_handle(), i64::from(limits.pages));
    assume(handle, Role::Platform, limits);
    // SAFETY: the handle is locked, so no other thread uses it.
    let (pages, free) = unsafe { (number(db, PAGES)?, number(db, FREE)?) };
    Ok(pages > most && pages - free >= most)
}

/// The number that a pragma answers.
///
/// # Safety
/// The connection is open and this thread's alone.
unsafe fn number(db: NonNull<sys::sqlite3>, sql: &str) -> Result<i64, c_int> {
    let (sql, mut raw) = (CString::new(sql).unwrap_or_default(), null_mut());
    // SAFETY: the caller's promise; the text is a C string, the out-pointer is valid, and the statement is used before
    // it is finalized, which is also right for null.
    unsafe {
        let code = sys::sqlite3_prepare_v2(db.as_ptr(), sql.as_ptr(), -1, &mut raw, null_mut());
        let step = if code == sys::SQLITE_OK { sys::sqlite3_step(raw) } else { code };
        let number = if step == sys::SQLITE_ROW { sys::sqlite3_column_int64(raw, 0) } else { 0 };
        sys::sqlite3_finalize(raw);
        if matches!(step, sys::SQLITE_ROW | sys::SQLITE_DONE) { Ok(number) } else { Err(step) }
    }
}

/// Makes `role` the one whose statements the connection runs. Statements prepared before are compiled anew.
pub(super) fn assume(handle: &mut LockedSqliteHandle<'_>, role: Role, limits: &Limits) {
    let db = handle.as_raw_handle();
    let bound = |bytes: usize| c_int::try_from(bytes).unwrap_or(c_int::MAX);
    let length = match role {
        Role::Platform => PLATFORM_LENGTH,
        Role::Reader | Role::Writer | Role::Migrator | Role::Rows | Role::Turn => bound(limits.value_bytes),
    };
    let bounds = [
        (sys::SQLITE_LIMIT_LENGTH, length),
        (sys::SQLITE_LIMIT_SQL_LENGTH, bound(limits.sql_bytes)),
        (sys::SQLITE_LIMIT_COLUMN, 200),
        (sys::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (sys::SQLITE_LIMIT_COMPOUND_SELECT, 100),
        (sys::SQLITE_LIMIT_VDBE_OP, 250_000),
        (sys::SQLITE_LIMIT_FUNCTION_ARG, 100),
        (sys::SQLITE_LIMIT_ATTACHED, 0),
        (sys::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 500),
        (sys::SQLITE_LIMIT_VARIABLE_NUMBER, bound(PARAMETERS)),
        (sys::SQLITE_LIMIT_TRIGGER_DEPTH, 20),
        (sys::SQLITE_LIMIT_WORKER_THREADS, 0),
    ];
    for (limit, value) in bounds {
        // SAFETY: the handle is locked, so no other thread uses it; the call takes plain numbers.
        unsafe { sys::sqlite3_limit(db.as_ptr(), limit, value) };
    }
    authorize(db, role, null_mut());
}

/// Prepares the first statement of `sql` under `role`, which must be the one assumed, and tells what it is.
///
/// # Errors
/// What the guard or the engine holds against it.
pub(super) fn inspect(
    handle: &mut LockedSqliteHandle<'_>,
    role: Role,
    sql: &CStr,
) -> Result<Statement, Rejected> {
    let db = handle.as_raw_handle();
    refresh(db);
    capture::before_statement(db);
    let seen = RefCell::new(Seen { deadline: Instant::now().checked_add(COMPILING), ..Seen::default() });
    authorize(db, role, (&raw const seen).cast_mut().cast());
    let prepared = prepare(db, sql);
    // `seen` ends with this call: the callback must not keep a pointer to it.
    authorize(db, role, null_mut());
    let seen = seen.into_inner();
    // Of a script this is one statement of many: what comes after it is looked at with the next.
    let end = prepared.as_ref().map_or(usize::MAX, |statement| statement.end);
    let text = sql.to_bytes();
    let refused = refused_text(role, text.get(..end).unwrap_or(text));
    match (prepared, refused.or(seen.refusal)) {
        _ if seen.too_slow => Err(Rejected::TooSlow),
        (_, Some(refusal)) => Err(Rejected::Refused(refusal)),
        (Err(rejected), None) => Err(rejected),
        // VACUUM reports nothing before it runs.
        (Ok(statement), None) if role == Role::Reader && !statement.empty && !statement.read_only => {
            Err(Rejected::Refused(Refusal::Change))
        }
        (Ok(statement), None) => {
            Ok(Statement { changes_schema: seen.changes_schema, altered: seen.altered, ..statement })
        }
    }
}

/// Whether `sql` holds no statement, only blanks, comments and semicolons.
pub(super) fn is_blank(handle: &mut LockedSqliteHandle<'_>, role: Role, sql: &str) -> bool {
    let Ok(sql) = CString::new(sql) else { return false };
    inspect(handle, role, &sql).is_ok_and(|statement| statement.empty)
}

/// Whether a transaction is open.
pub(super) fn in_transaction(handle: &mut LockedSqliteHandle<'_>) -> bool {
    // SAFETY: the handle is locked, so no other thread uses it.
    unsafe { sys::sqlite3_get_autocommit(handle.as_raw_handle().as_ptr()) == 0 }
}

/// The engine's memory in use in this process, in bytes.
pub(super) fn memory_used() -> i64 {
    // SAFETY: takes nothing and is safe to call from any thread once the engine is initialized, which opening
    // a connection does.
    unsafe { sys::sqlite3_memory_used() }
}

/// Lets the engine notice that others have changed the schema. It looks when a statement runs, not when it is compiled,
/// and then compiles it anew: a `*` would have other columns than those that the driver has counted.
fn refresh(db: NonNull<sys::sqlite3>) {
    authorize(db, Role::Platform, null_mut());
    let sql = c"SELECT 1 FROM sqlite_schema LIMIT 1";
    let mut raw = null_mut();
    // SAFETY: the handle is locked by the caller; the text lives for ever; finalizing a null pointer does nothing. What
    // goes wrong here goes wrong with the statement itself, which tells it.
    unsafe {
        sys::sqlite3_prepare_v2(db.as_ptr(), sql.as_ptr(), -1, &raw mut raw, null_mut());
        if !raw.is_null() {
            sys::sqlite3_step(raw);
        }
        sys::sqlite3_finalize(raw);
    }
}

fn prepare(db: NonNull<sys::sqlite3>, sql: &CStr) -> Result<Statement, Rejected> {
    let length = sql.to_bytes().len();
    let mut raw = null_mut();
    let mut tail = null();
    // SAFETY: the handle is locked by the caller; the text ends with a zero byte and outlives the call; both
    // out-pointers are valid for writes. A length of -1 reads up to the zero byte.
    let code = unsafe { sys::sqlite3_prepare_v3(db.as_ptr(), sql.as_ptr(), -1, 0, &mut raw, &mut tail) };
    let Some(raw) = NonNull::new(raw) else {
        if code == sys::SQLITE_OK {
            return Ok(Statement { end: length, empty: true, ..Statement::default() });
        }
        return Err(last_error(db, code));
    };
    // SAFETY: with a statement prepared, the tail points into the text or at its end.
    let end = unsafe { tail.offset_from(sql.as_ptr()) };
    let statement = Statement {
        columns: columns(raw),
        parameters: parameters(raw),
        // SAFETY: the statement is valid until its finalization below.
        read_only: unsafe { sys::sqlite3_stmt_readonly(raw.as_ptr()) != 0 },
        end: usize::try_from(end).unwrap_or(length).min(length),
        ..Statement::default()
    };
    // SAFETY: the statement was made above, is not used after this, and nothing else holds it.
    unsafe { sys::sqlite3_finalize(raw.as_ptr()) };
    Ok(statement)
}

fn columns(statement: NonNull<sys::sqlite3_stmt>) -> Vec<String> {
    // SAFETY: the statement is valid until its finalization, after this call.
    let count = unsafe { sys::sqlite3_column_count(statement.as_ptr()) };
    (0..count)
        // SAFETY: as above, and the index is below the count; the text is copied before anything else runs.
        .map(|index| unsafe { text(sys::sqlite3_column_name(statement.as_ptr(), index)) }.unwrap_or_default())
        .collect()
}

fn parameters(statement: NonNull<sys::sqlite3_stmt>) -> Vec<Option<String>> {
    // SAFETY: the statement is valid until its finalization, after this call.
    let count = unsafe { sys::sqlite3_bind_parameter_count(statement.as_ptr()) };
    (1..=count)
        // SAFETY: as above, and the index is in range; the text is copied before anything else runs.
        .map(|index| unsafe { text(sys::sqlite3_bind_parameter_name(statement.as_ptr(), index)) })
        .collect()
}

fn last_error(db: NonNull<sys::sqlite3>, code: c_int) -> Rejected {
    // SAFETY: the handle is locked by the caller, and the message is copied before the next call on it.
    let (message, at) =
        unsafe { (text(sys::sqlite3_errmsg(db.as_ptr())), sys::sqlite3_error_offset(db.as_ptr())) };
    Rejected::Engine { code, message: message.unwrap_or_default(), at: usize::try_from(at).ok() }
}

/// A copy of a C string, `None` for a null pointer.
///
/// # Safety
/// `pointer` is null or points at a C string that stays as it is during the call.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

type Callback = unsafe extern "C" fn(
    *mut c_void,
    c_int,
    *const c_char,
    *const c_char,
    *const c_char,
    *const c_char,
) -> c_int;

fn authorize(db: NonNull<sys::sqlite3>, role: Role, seen: *mut c_void) {
    let callback: Callback = match role {
        Role::Reader => reader,
        Role::Writer => writer,
        Role::Migrator => migrator,
        Role::Rows => rows,
        Role::Turn => turn,
        Role::Platform => platform,
    };
    // SAFETY: the handle is locked by the caller; the callback is a plain function that lives for ever, and
    // `seen` is null or outlives the time it is set for.
    unsafe { sys::sqlite3_set_authorizer(db.as_ptr(), Some(callback), seen) };
}

/// One callback for each role, so that the role is the function and no state can be mixed up.
macro_rules! callbacks {
    ($($name:ident = $role:expr,)+) => {$(
        unsafe extern "C" fn $name(
            seen: *mut c_void,
            code: c_int,
            first: *const c_char,
            second: *const c_char,
            third: *const c_char,
            inside: *const c_char,
        ) -> c_int {
            // SAFETY: the engine passes null or C strings that live during the call, and the pointer that
            // `authorize` was given.
            unsafe { decide($role, seen, code, [first, second, third, inside]) }
        }
    )+};
}

callbacks! {
    reader = Role::Reader,
    writer = Role::Writer,
    migrator = Role::Migrator,
    rows = Role::Rows,
    turn = Role::Turn,
    platform = Role::Platform,
}

/// # Safety
/// The texts are null or C strings that live during the call; `seen` is null or points at a live `Seen`.
unsafe fn decide(role: Role, seen: *mut c_void, code: c_int, texts: [*const c_char; 4]) -> c_int {
    // SAFETY: the caller's promise.
    let [first, second, third, inside] = texts.map(|pointer| unsafe { text(pointer) });
    let action = Action {
        code,
        first: first.as_deref().unwrap_or_default(),
        second: second.as_deref().unwrap_or_default(),
        third: third.as_deref().unwrap_or_default(),
        inside: inside.as_deref(),
    };
    let refusal = refusal(role, &action);
    let mut verdict = if refusal.is_some() { sys::SQLITE_DENY } else { sys::SQLITE_OK };
    // SAFETY: the caller's promise; the cell is borrowed for no longer than this call, which the engine does
    // not nest.
    if let Some(seen) = unsafe { seen.cast::<RefCell<Seen>>().as_ref() }
        && let Ok(mut seen) = seen.try_borrow_mut()
    {
        seen.note(&action, refusal);
        if seen.is_late() {
            verdict = sys::SQLITE_DENY;
        }
    }
    verdict
}

impl Seen {
    fn is_late(&mut self) -> bool {
        self.too_slow |= self.deadline.is_some_and(|deadline| Instant::now() > deadline);
        self.too_slow
    }

    fn note(&mut self, action: &Action<'_>, refusal: Option<Refusal>) {
        if self.refusal.is_none() {
            self.refusal = refusal;
        }
        match action.code {
            sys::SQLITE_ALTER_TABLE => {
                self.changes_schema = true;
                self.altered = Some(action.second.to_owned());
            }
            sys::SQLITE_CREATE_INDEX
            | sys::SQLITE_CREATE_TABLE
            | sys::SQLITE_CREATE_TRIGGER
            | sys::SQLITE_CREATE_VIEW
            | sys::SQLITE_DROP_INDEX
            | sys::SQLITE_DROP_TABLE
            | sys::SQLITE_DROP_TRIGGER
            | sys::SQLITE_DROP_VIEW
            | sys::SQLITE_REINDEX => self.changes_schema = true,
            _ => {}
        }
    }
}
