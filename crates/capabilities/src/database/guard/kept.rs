//! A connection that keeps its statements compiled, on a thread of its own: one question, one answer.

use std::ffi::{c_char, c_int};
use std::ptr::{NonNull, null, null_mut};
use std::sync::mpsc;
use std::thread::JoinHandle;

use libsqlite3_sys as sys;
use serde_json::Value;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::oneshot;

use super::super::error::Error;
use super::super::rows::Rows;
use super::super::values;
use super::{capture, text};

/// How many compiled statements are kept, the least used dropped first.
const KEPT: usize = 32;

/// A connection whose every statement is run here. Nobody else has the driver's connection, whose own thread waits.
pub(in crate::database) struct Kept {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    driver: Option<SqliteConnection>,
    in_transaction: bool,
}

/// Why a statement did not run.
pub(in crate::database) enum Failed {
    /// The engine says no: its extended result code and its message.
    Engine { code: c_int, message: String },
    /// It is not one statement with these values.
    Statement(Error),
    /// The thread has ended.
    Gone,
}

struct Job {
    sql: String,
    params: Vec<Value>,
    most: usize,
    answer: oneshot::Sender<(Result<Rows, Failed>, bool)>,
}

impl Kept {
    /// Takes over a connection that has been hardened and has its role.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub async fn new(mut driver: SqliteConnection) -> Result<Self, Error> {
        let db = Handle(driver.lock_handle().await.map_err(Error::Engine)?.as_raw_handle());
        let (jobs, waiting) = mpsc::channel::<Job>();
        let work = move || {
            let mut statements = Statements { db, compiled: Vec::new(), uses: 0 };
            for Job { sql, params, most, answer } in waiting {
                let result = statements.run(&sql, &params, most);
                // SAFETY: the connection is open until this thread has ended.
                let open = unsafe { sys::sqlite3_get_autocommit(statements.db.0.as_ptr()) == 0 };
                let _ = answer.send((result, open));
            }
        };
        let thread = std::thread::Builder::new().name("rows".to_owned()).spawn(work).map_err(Error::File)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), driver: Some(driver), in_transaction: false })
    }

    /// Runs one statement and collects its rows, until they are more than `most` bytes.
    pub async fn run(&mut self, sql: String, params: Vec<Value>, most: usize) -> Result<Rows, Failed> {
        let (answer, answered) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(Failed::Gone)?;
        jobs.send(Job { sql, params, most, answer }).map_err(|_| Failed::Gone)?;
        let (result, open) = answered.await.map_err(|_| Failed::Gone)?;
        self.in_transaction = open;
        result
    }

    /// Whether a transaction was open after the last statement.
    pub const fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Closes the connection, after what runs on it. Whoever waits for this may go away: the order stays.
    pub async fn close(mut self) -> Result<(), sqlx::Error> {
        let ended = tokio::task::spawn_blocking(move || {
            self.end();
            self.driver.take()
        });
        match ended.await {
            Ok(Some(driver)) => driver.close().await,
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Waits for the thread, which ends after what it runs.
    fn end(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Kept {
    /// The thread ends before the driver closes what it works with.
    fn drop(&mut self) {
        self.end();
    }
}

/// The engine's connection.
struct Handle(NonNull<sys::sqlite3>);

// SAFETY: the one thread that gets it is alone in using it: the driver's own waits for commands that never come
// (`Kept` owns the driver's connection and sends none) until this thread has ended, and the engine lets a connection
// move between threads (https://www.sqlite.org/threadsafe.html).
unsafe impl Send for Handle {}

struct Statements {
    db: Handle,
    compiled: Vec<Compiled>,
    uses: u64,
}

struct Compiled {
    sql: Box<str>,
    raw: NonNull<sys::sqlite3_stmt>,
    used: u64,
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: made by `compile` on this thread, whose connection is open; not used after this.
        unsafe { sys::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

impl Statements {
    fn run(&mut self, sql: &str, params: &[Value], most: usize) -> Result<Rows, Failed> {
        capture::before_statement(self.db.0);
        let raw = self.compiled(sql)?;
        let result = self.bind(raw, params).and_then(|()| self.collect(raw, most));
        // SAFETY: the statement is alive; afterwards it holds no pointer to `params`. What a reset answers is the error
        // that the step has told already.
        unsafe {
            sys::sqlite3_reset(raw);
            sys::sqlite3_clear_bindings(raw);
        }
        result
    }

    /// The statement, compiled now or before.
    fn compiled(&mut self, sql: &str) -> Result<*mut sys::sqlite3_stmt, Failed> {
        self.uses += 1;
        if let Some(known) = self.compiled.iter_mut().find(|known| *known.sql == *sql) {
            known.used = self.uses;
            return Ok(known.raw.as_ptr());
        }
        let raw = self.compile(sql)?;
        if self.compiled.len() >= KEPT
            && let Some(least) = (0..self.compiled.len()).min_by_key(|at| self.compiled[*at].used)
        {
            self.compiled.swap_remove(least);
        }
        self.compiled.push(Compiled { sql: sql.into(), raw, used: self.uses });
        Ok(raw.as_ptr())
    }

    fn compile(&self, sql: &str) -> Result<NonNull<sys::sqlite3_stmt>, Failed> {
        let start = sql.as_ptr().cast::<c_char>();
        let length = c_int::try_from(sql.len()).map_err(|_| Failed::Statement(Error::Several))?;
        let (mut raw, mut tail) = (null_mut(), null());
        let flags = sys::SQLITE_PREPARE_PERSISTENT;
        // SAFETY: the connection is open, the text has that length, both out-pointers are valid for writes.
        let code =
            unsafe { sys::sqlite3_prepare_v3(self.db.0.as_ptr(), start, length, flags, &mut raw, &mut tail) };
        if code != sys::SQLITE_OK {
            return Err(self.failed(code));
        }
        let statement = NonNull::new(raw).ok_or(Failed::Statement(Error::Empty))?;
        // SAFETY: with a statement compiled, the tail points into the text or at its end.
        let end = unsafe { tail.offset_from(start) };
        if usize::try_from(end).is_ok_and(|end| end == sql.len()) {
            return Ok(statement);
        }
        // SAFETY: it was made above, and nothing else holds it.
        unsafe { sys::sqlite3_finalize(raw) };
        Err(Failed::Statement(Error::Several))
    }

    fn bind(&self, raw: *mut sys::sqlite3_stmt, params: &[Value]) -> Result<(), Failed> {
        // SAFETY: the statement is alive.
        let count = unsafe { sys::sqlite3_bind_parameter_count(raw) };
        let expected = usize::try_from(count).unwrap_or_default();
        if expected != params.len() {
            let given = params.len();
            return Err(Failed::Statement(Error::ParameterCount { expected, given }));
        }
        for (index, (place, value)) in (1..=count).zip(params).enumerate() {
            let wrong = |why| Failed::Statement(Error::Parameter { index, why });
            // SAFETY: the statement is alive and has that parameter. A text is not copied: `params` outlives the
            // binding, which ends before `run` returns. Bytes are copied.
            let code = unsafe {
                match value {
                    Value::Null => sys::sqlite3_bind_null(raw, place),
                    Value::Bool(value) => sys::sqlite3_bind_int64(raw, place, i64::from(*value)),
                    Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                        (Some(integer), _) => sys::sqlite3_bind_int64(raw, place, integer),
                        (None, Some(real)) if !number.is_u64() => sys::sqlite3_bind_double(raw, place, real),
                        _ => return Err(wrong("is larger than a 64-bit signed integer")),
                    },
                    Value::String(text) => {
                        let (start, length) = (text.as_ptr().cast(), text.len() as u64);
                        let utf8 = sys::SQLITE_UTF8 as u8;
                        sys::sqlite3_bind_text64(raw, place, start, length, sys::SQLITE_STATIC(), utf8)
                    }
                    Value::Object(object) => {
                        let bytes = values::blob(object).map_err(wrong)?;
                        let (start, length) = (bytes.as_ptr().cast(), bytes.len() as u64);
                        sys::sqlite3_bind_blob64(raw, place, start, length, sys::SQLITE_TRANSIENT())
                    }
                    Value::Array(_) => return Err(wrong("is an array")),
                }
            };
            if code != sys::SQLITE_OK {
                return Err(self.failed(code));
            }
        }
        Ok(())
    }

    fn collect(&self, raw: *mut sys::sqlite3_stmt, most: usize) -> Result<Rows, Failed> {
        // SAFETY: the statement is alive.
        let width = unsafe { sys::sqlite3_column_count(raw) };
        let mut rows = Rows::new(usize::try_from(width).unwrap_or_default());
        loop {
            // SAFETY: the statement is alive, and the connection is this thread's alone.
            match unsafe { sys::sqlite3_step(raw) } {
                sys::SQLITE_DONE => return Ok(rows),
                sys::SQLITE_ROW if rows.bytes() > most => {
                    rows.cut();
                    return Ok(rows);
                }
                sys::SQLITE_ROW => {
                    for column in 0..width {
                        // SAFETY: the statement is at a row, which has that column.
                        unsafe { cell(raw, column, &mut rows) };
                    }
                }
                code => return Err(self.failed(code)),
            }
        }
    }

    fn failed(&self, code: c_int) -> Failed {
        // SAFETY: the connection is open, and the message is copied before the next call on it.
        let message = unsafe { text(sys::sqlite3_errmsg(self.db.0.as_ptr())) };
        Failed::Engine { code, message: message.unwrap_or_default() }
    }
}

/// Copies one column of the current row.
///
/// # Safety
/// The statement is alive, at a row, and has that column.
unsafe fn cell(raw: *mut sys::sqlite3_stmt, column: c_int, rows: &mut Rows) {
    // SAFETY: the caller's promise. The bytes stay where they are until the next call on the statement, and their
    // length is asked for after the pointer, as the engine wants it
    // (https://www.sqlite.org/c3ref/column_blob.html).
    unsafe {
        let bytes = |start: *const u8| {
            let length = usize::try_from(sys::sqlite3_column_bytes(raw, column)).unwrap_or_default();
            if start.is_null() { &[][..] } else { std::slice::from_raw_parts(start, length) }
        };
        match sys::sqlite3_column_type(raw, column) {
            sys::SQLITE_INTEGER => rows.int(sys::sqlite3_column_int64(raw, column)),
            sys::SQLITE_FLOAT => rows.real(sys::sqlite3_column_double(raw, column)),
            sys::SQLITE_TEXT => rows.text(bytes(sys::sqlite3_column_text(raw, column))),
            sys::SQLITE_BLOB => rows.blob(bytes(sys::sqlite3_column_blob(raw, column).cast())),
            _ => rows.null(),
        }
    }
}
