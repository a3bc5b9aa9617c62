//! A connection that keeps its statements compiled, on a thread of its own: one question, one answer.

use std::ffi::{c_char, c_int};
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libsqlite3_sys as sys;
use serde_json::Value;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::super::environments::SharedTurn;
use super::super::error::Error;
use super::super::limits::{FREE, Limits, PAGES, Room};
use super::super::rows::{Cell, Rows};
use super::super::watch::{GRACE, Stop, Watch};
use super::{capture, cells, text};

/// How many compiled statements are kept, the least used dropped first.
const KEPT: usize = 32;

/// How many changes, and for how long, are made before they are committed together.
const TOGETHER: usize = 64;
const TOGETHER_FOR: Duration = Duration::from_millis(5);

/// How long the beginning and the end of a transaction may take.
const COMMITTING: Duration = Duration::from_secs(5);

/// A connection whose every statement is run here. Nobody else has the driver's connection, whose own thread waits.
pub(in crate::database) struct Kept {
    jobs: Option<Mutex<Jobs>>,
    thread: Option<JoinHandle<()>>,
    driver: Option<SqliteConnection>,
    state: Arc<State>,
}

/// Where jobs are sent, numbered in their order.
struct Jobs {
    sent: u64,
    to: mpsc::Sender<Job>,
}

/// What the thread lets others know.
struct State {
    watch: Arc<Watch>,
    /// The number of the last job that it came to.
    at: AtomicU64,
    in_transaction: AtomicBool,
    spoilt: AtomicBool,
}

/// The bounds of one statement.
pub(in crate::database) struct Bounds {
    /// After how many bytes its rows end.
    pub most: usize,
    /// How long it may run.
    pub limit: Duration,
    /// For a change by itself, which waits behind others and is committed with them.
    pub queue: Option<Queue>,
}

/// A place among the changes that wait.
pub(in crate::database) struct Queue {
    /// What keeps everybody else from writing until the change is made.
    pub turn: Arc<SharedTurn>,
    /// When to give up waiting.
    pub until: tokio::time::Instant,
}

/// Why a statement did not run.
pub(in crate::database) enum Failed {
    /// The engine says no: its extended result code, its message, and why it was stopped, if it was.
    Engine { code: c_int, message: String, stop: Option<Stop> },
    /// It is not one statement with these values.
    Statement(Error),
    /// It has not ended in time.
    Slow,
    /// It has not begun in time, and will not.
    Busy,
    /// The thread has ended.
    Gone,
}

struct Job {
    number: u64,
    sql: String,
    params: Vec<Value>,
    most: usize,
    limit: Duration,
    turn: Option<Arc<SharedTurn>>,
    answer: oneshot::Sender<Result<Rows, Failed>>,
}

impl Kept {
    /// Takes over a connection that has been hardened and has its role; `watch` is asked while a statement runs.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub async fn new(
        mut driver: SqliteConnection,
        watch: Arc<Watch>,
        (limits, room): (Arc<Limits>, Option<Room>),
    ) -> Result<Self, Error> {
        let db = Handle(driver.lock_handle().await.map_err(Error::Engine)?.as_raw_handle());
        let (jobs, waiting) = mpsc::channel::<Job>();
        let state = Arc::new(State {
            watch,
            at: AtomicU64::default(),
            in_transaction: AtomicBool::default(),
            spoilt: AtomicBool::default(),
        });
        let (runtime, shared) = (Runtime::current(), Arc::clone(&state));
        let work = move || {
            let statements = Statements { db, compiled: Vec::new(), uses: 0, limits, room };
            Worker { statements, state: shared, runtime }.work(&waiting);
        };
        let thread = std::thread::Builder::new().name("rows".to_owned()).spawn(work).map_err(Error::File)?;
        let jobs = Some(Mutex::new(Jobs { sent: 0, to: jobs }));
        Ok(Self { jobs, thread: Some(thread), driver: Some(driver), state })
    }

    /// Runs one statement and collects its rows. One whose caller goes away before it has begun is not run.
    pub async fn run(&self, sql: String, params: Vec<Value>, how: Bounds) -> Result<Rows, Failed> {
        let Bounds { most, limit, queue } = how;
        let (answer, mut answered) = oneshot::channel();
        let (turn, until) = queue.map(|queue| (queue.turn, queue.until)).unzip();
        let number = self.send(|number| Job { number, sql, params, most, limit, turn, answer })?;
        if let Some(until) = until {
            match timeout_at(until, &mut answered).await {
                Ok(result) => return result.map_err(|_| Failed::Gone)?,
                // The thread says where it is before it looks who still waits, so that one of us sees the other.
                Err(_) if !self.has_come_to(number) => {
                    answered.close();
                    if !self.has_come_to(number) {
                        return Err(Failed::Busy);
                    }
                    if let Ok(result) = answered.try_recv() {
                        return result;
                    }
                    return Err(Failed::Slow);
                }
                Err(_) => {}
            }
        }
        match tokio::time::timeout(limit.saturating_add(GRACE), answered).await {
            Ok(result) => result.map_err(|_| Failed::Gone)?,
            Err(_) => {
                self.state.watch.abandon();
                Err(Failed::Slow)
            }
        }
    }

    fn send(&self, job: impl FnOnce(u64) -> Job) -> Result<u64, Failed> {
        let jobs = self.jobs.as_ref().ok_or(Failed::Gone)?;
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.sent += 1;
        let number = jobs.sent;
        jobs.to.send(job(number)).map_err(|_| Failed::Gone)?;
        Ok(number)
    }

    fn has_come_to(&self, number: u64) -> bool {
        self.state.at.load(Ordering::SeqCst) >= number
    }

    /// Whether a transaction was open after the last statement.
    pub fn in_transaction(&self) -> bool {
        self.state.in_transaction.load(Ordering::SeqCst)
    }

    /// The next caller is better off with a new connection: the engine does not look whether the schema has changed
    /// before it asks the guard, so that what was refused would stay so.
    pub fn spoil(&self) {
        self.state.spoilt.store(true, Ordering::SeqCst);
    }

    /// Whether the next caller may use it.
    pub fn is_sound(&self) -> bool {
        let runs = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        runs && !self.state.spoilt.load(Ordering::SeqCst)
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
        let Some(thread) = self.thread.take() else { return };
        if thread.thread().id() == std::thread::current().id() {
            // The last turn ended with the runtime, on the thread itself. What it still works with is not closed.
            std::mem::forget(self.driver.take());
            return;
        }
        let _ = thread.join();
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

/// What the thread works with.
struct Worker {
    statements: Statements,
    state: Arc<State>,
    runtime: Runtime,
}

impl Worker {
    fn work(&mut self, waiting: &mpsc::Receiver<Job>) {
        while let Ok(job) = waiting.recv() {
            let next = if job.turn.is_some() { waiting.try_recv().ok() } else { None };
            match next {
                Some(next) => self.together(job, next, waiting),
                None => self.alone(job),
            }
        }
    }

    /// Runs a statement as whatever transaction is open has it: its own, where none is.
    fn alone(&mut self, job: Job) {
        match self.run(&job) {
            Some(result) => self.answer(job, result),
            None => self.release(job.turn),
        }
    }

    /// Makes several changes that wait, and commits them at once: each costs a part of a commit. Who made them hears of
    /// it only then, so that they can be made again by themselves where the transaction fails for one of them. A
    /// statement that fails by itself undoes what it did and nothing else (<https://www.sqlite.org/lang_conflict.html>).
    fn together(&mut self, first: Job, second: Job, waiting: &mpsc::Receiver<Job>) {
        let mut jobs = [first, second].into_iter();
        if self.plain("BEGIN IMMEDIATE").is_err() {
            return jobs.for_each(|job| self.alone(job));
        }
        let until = Instant::now() + TOGETHER_FOR;
        let mut made = Vec::new();
        while let Some(job) = jobs.next().or_else(|| waiting.try_recv().ok()) {
            let Some(result) = self.run(&job) else {
                self.release(job.turn);
                continue;
            };
            if !self.statements.in_transaction() {
                // The engine has undone all of it: this one is why, the others are made again.
                self.answer(job, result);
                break;
            }
            made.push((job, result));
            if jobs.len() == 0 && (made.len() >= TOGETHER || Instant::now() > until) {
                break;
            }
        }
        let is_kept = self.statements.in_transaction() && self.plain("COMMIT").is_ok();
        if is_kept {
            return made.into_iter().for_each(|(job, result)| self.answer(job, result));
        }
        if self.statements.in_transaction() {
            let _ = self.plain("ROLLBACK");
        }
        made.into_iter().for_each(|(job, _)| self.alone(job));
        jobs.for_each(|job| self.alone(job));
    }

    /// Runs a statement within its bounds, unless its caller has gone away.
    fn run(&mut self, job: &Job) -> Option<Result<Rows, Failed>> {
        self.state.at.fetch_max(job.number, Ordering::SeqCst);
        if job.answer.is_closed() {
            return None;
        }
        Some(self.watched(&job.sql, &job.params, job.most, job.limit))
    }

    /// Runs a statement that neither takes nor gives anything.
    fn plain(&mut self, sql: &str) -> Result<(), Failed> {
        self.watched(sql, &[], 0, COMMITTING).map(drop)
    }

    fn watched(&mut self, sql: &str, params: &[Value], most: usize, limit: Duration) -> Result<Rows, Failed> {
        let watch = &self.state.watch;
        watch.begin(limit);
        let result = self.statements.run(sql, params, most);
        watch.end();
        result.map_err(|failed| match failed {
            Failed::Engine { code, message, .. } => Failed::Engine { code, message, stop: watch.stopped() },
            other => other,
        })
    }

    fn answer(&self, job: Job, result: Result<Rows, Failed>) {
        self.state.in_transaction.store(self.statements.in_transaction(), Ordering::SeqCst);
        let Job { turn, answer, .. } = job;
        let _ = answer.send(result);
        self.release(turn);
    }

    /// Ends a turn, elsewhere: with the last hold on an environment its connections close, and this thread cannot wait
    /// for itself.
    fn release(&self, turn: Option<Arc<SharedTurn>>) {
        if let Some(turn) = turn.and_then(Arc::into_inner) {
            self.runtime.spawn(async move { drop(turn) });
        }
    }
}

struct Statements {
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
        // SAFETY: made by `compile` on this thread, whose connection is open; not used after this.
        unsafe { sys::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

impl Statements {
    /// Whether a transaction is open.
    fn in_transaction(&self) -> bool {
        // SAFETY: the connection is open until this thread has ended.
        unsafe { sys::sqlite3_get_autocommit(self.db.0.as_ptr()) == 0 }
    }

    fn run(&mut self, sql: &str, params: &[Value], most: usize) -> Result<Rows, Failed> {
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
            self.number(&room.pragma(&self.limits))?;
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
