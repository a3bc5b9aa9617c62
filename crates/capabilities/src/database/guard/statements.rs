//! The statements of a connection, compiled once and run again and again.

use std::ffi::{c_char, c_int};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use libsqlite3_sys as sys;
use serde_json::Value;

use super::super::error::Error;
use super::super::limits::{FREE, Limits, PAGES, Room};
use super::super::rows::{Cell, Rows};
use super::kept::Failed;
use super::{capture, cells, text};

/// How many compiled statements are kept, the least used dropped first.
const KEPT: usize = 32;

/// The engine's connection.
pub(super) struct Handle(pub NonNull<sys::sqlite3>);

// SAFETY: whoever has it is alone in using it: the driver's own thread waits for commands that never come (`Kept` owns
// the driver's connection and sends none) until all that have it are gone, and the engine lets a connection move between
// threads (https://www.sqlite.org/threadsafe.html).
unsafe impl Send for Handle {}

// SAFETY: a statement is its connection's, and moves with it.
unsafe impl Send for Compiled {}

/// What runs on a connection. Whoever has it is alone in using that.
pub(super) struct Statements {
    db: Handle,
    compiled: Vec<Compiled>,
    uses: u64,
    limits: Arc<Limits>,
    /// What the engine was told last, where statements of this connection write.
    room: Option<Room>,
}

struct Compiled {
    sql: Box<str>,
    raw: NonNull<sys::sqlite3_stmt>,
    used: u64,
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: made by `compile` of a connection that is open for longer than its statements; not used after this.
        unsafe { sys::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

impl Statements {
    /// Those of a connection that is open for longer; `room` is what the engine was told last, where they write.
    pub fn new(db: Handle, limits: Arc<Limits>, room: Option<Room>) -> Self {
        Self { db, compiled: Vec::new(), uses: 0, limits, room }
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        // SAFETY: the connection is open for longer than its statements.
        unsafe { sys::sqlite3_get_autocommit(self.db.0.as_ptr()) == 0 }
    }

    /// Runs one and collects its rows, until they are more than `most` bytes.
    pub fn run(&mut self, sql: &str, params: &[Value], most: usize) -> Result<Rows, Failed> {
        self.give_room(sql)?;
        capture::before_statement(self.db.0);
        let raw = self.compiled(sql)?;
        // SAFETY: the statement is alive.
        if self.room == Some(Room::Quota) && unsafe { sys::sqlite3_stmt_readonly(raw) } == 0 {
            self.ask_room()?;
        }
        let result = self.bind(raw, params).and_then(|()| self.collect(raw, most));
        // SAFETY: the statement is alive; afterwards it holds no pointer to `params`. What a reset answers is the error
        // that the step has told already.
        unsafe {
            sys::sqlite3_reset(raw);
            sys::sqlite3_clear_bindings(raw);
        }
        result
    }

    /// Lets what removes rows do so in a full database too.
    fn give_room(&mut self, sql: &str) -> Result<(), Failed> {
        let room = Room::of(sql);
        if self.room.is_some_and(|told| told != room) {
            let there = if room == Room::Reserve { self.number(PAGES)? } else { 0 };
            self.number(&room.pragma(&self.limits, there))?;
            self.room = Some(room);
        }
        Ok(())
    }

    /// Leaves the reserve to whom it is for: pages of it that are free again are not for rows.
    fn ask_room(&mut self) -> Result<(), Failed> {
        let most = i64::from(self.limits.pages);
        let pages = self.number(PAGES)?;
        if pages > most && pages - self.number(FREE)? >= most {
            return Err(Failed::Engine { code: sys::SQLITE_FULL, message: String::new(), stop: None });
        }
        Ok(())
    }

    /// What a pragma answers.
    fn number(&mut self, sql: &str) -> Result<i64, Failed> {
        let raw = self.compiled(sql)?;
        let told = self.collect(raw, usize::MAX);
        // SAFETY: the statement is alive.
        unsafe { sys::sqlite3_reset(raw) };
        Ok(match told?.iter().next().map(|row| row.cell(0)) {
            Some(Cell::Int(number)) => number,
            _ => 0,
        })
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
        // SAFETY: the statement is alive, and its bindings end with `run`, which has `params` for longer.
        let bound = unsafe { cells::bind(raw, params) };
        bound.map_err(Failed::Statement).and_then(|code| match code {
            sys::SQLITE_OK => Ok(()),
            code => Err(self.failed(code)),
        })
    }

    fn collect(&self, raw: *mut sys::sqlite3_stmt, most: usize) -> Result<Rows, Failed> {
        // SAFETY: the statement is alive.
        let width = unsafe { sys::sqlite3_column_count(raw) };
        let mut rows = Rows::new(usize::try_from(width).unwrap_or_default());
        loop {
            // SAFETY: the statement is alive, and nobody else uses the connection.
            match unsafe { sys::sqlite3_step(raw) } {
                sys::SQLITE_DONE => return Ok(rows),
                sys::SQLITE_ROW if rows.bytes() > most => {
                    rows.cut();
                    return Ok(rows);
                }
                sys::SQLITE_ROW => {
                    for column in 0..width {
                        // SAFETY: the statement is at a row, which has that column.
                        unsafe { cells::copy(raw, column, &mut rows) };
                    }
                }
                code => return Err(self.failed(code)),
            }
        }
    }

    fn failed(&self, code: c_int) -> Failed {
        // SAFETY: the connection is open, and the message is copied before the next call on it.
        let message = unsafe { text(sys::sqlite3_errmsg(self.db.0.as_ptr())) };
        Failed::Engine { code, message: message.unwrap_or_default(), stop: None }
    }
}
