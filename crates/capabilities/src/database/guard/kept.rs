//! A connection that keeps its statements compiled: one question, one answer. What is read in no time is read on the thread
//! of who asks, which costs less than to wake another one; all else runs on a thread of the connection's own.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::super::environments::SharedTurn;
use super::super::error::Error;
use super::super::limits::{Limits, Room};
use super::super::rows::Rows;
use super::super::watch::{GRACE, Stop, Watch};
use super::noting::Noting;
use super::statements::{Handle, Statements};

/// How many changes, and for how long, are made before they are committed together.
const TOGETHER: usize = 64;
const TOGETHER_FOR: Duration = Duration::from_millis(5);

/// How often a statement that reads may be looked at on the thread of who asks, and after how long it was not short. One such
/// may be the machine's doing, which has let another thread run meanwhile. After two among so many, so many of the next ones
/// are for the connection's own thread: they may be of the same kind, or wait for the same disk.
const LOOKS: u32 = 25;
const SHORT: Duration = Duration::from_micros(300);
const AMONG: u32 = 16;
const NEXT: u32 = 32;

/// How long the beginning and the end of a transaction may take.
const COMMITTING: Duration = Duration::from_secs(5);

/// A connection whose every statement is run here. Nobody else has the driver's connection, whose own thread waits.
pub(in crate::database) struct Kept {
    jobs: Option<Mutex<Jobs>>,
    thread: Option<JoinHandle<()>>,
    /// Where it reads alone, for who asks.
    reading: Option<Arc<Mutex<Statements>>>,
    /// How many of the next statements are for the thread.
    next: AtomicU32,
    /// How many short ones it takes until one that was not is forgotten.
    doubt: AtomicU32,
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
    /// How deep functions have set each other off until here.
    pub depth: u8,
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
    depth: u8,
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
        noting: Option<Arc<Noting>>,
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
        let statements = Arc::new(Mutex::new(Statements::new(db, limits, room)));
        let reading = room.is_none().then(|| Arc::clone(&statements));
        let work = move || Worker { statements, noting, state: shared, runtime }.work(&waiting);
        let thread = std::thread::Builder::new().name("rows".to_owned()).spawn(work).map_err(Error::File)?;
        let jobs = Some(Mutex::new(Jobs { sent: 0, to: jobs }));
        let (next, doubt) = (AtomicU32::new(0), AtomicU32::new(0));
        Ok(Self { jobs, thread: Some(thread), reading, next, doubt, driver: Some(driver), state })
    }

    /// Runs one statement and collects its rows. One whose caller goes away before it has begun is not run.
    pub async fn run(&self, sql: String, params: Vec<Value>, how: Bounds) -> Result<Rows, Failed> {
        let Bounds { most, limit, queue, depth } = how;
        if let Some(result) = self.read_here(&sql, &params, most, limit) {
            return result;
        }
        let (answer, mut answered) = oneshot::channel();
        let (turn, until) = queue.map(|queue| (queue.turn, queue.until)).unzip();
        let number = self.send(|number| Job { number, sql, params, most, limit, turn, depth, answer })?;
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

    /// What a short statement reads; none where it is not run to its end here. It changes nothing, so it can run again.
    fn read_here(
        &self,
        sql: &str,
        params: &[Value],
        most: usize,
        limit: Duration,
    ) -> Option<Result<Rows, Failed>> {
        let reading = self.reading.as_ref()?;
        let passed = |next: u32| next.checked_sub(1);
        if self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, passed).is_ok() {
            return None;
        }
        // Somebody who went away may have left a statement that runs.
        let mut statements = reading.try_lock().ok()?;
        let (begun, watch) = (Instant::now(), &self.state.watch);
        watch.begin_with(limit, LOOKS);
        let result = statements.run(sql, params, most);
        watch.end();
        drop(statements);
        let doubt = self.doubt.load(Ordering::Relaxed);
        if begun.elapsed() <= SHORT {
            self.doubt.store(doubt.saturating_sub(1), Ordering::Relaxed);
        } else if doubt == 0 {
            self.doubt.store(AMONG, Ordering::Relaxed);
        } else {
            self.next.store(NEXT, Ordering::Relaxed);
        }
        match told(result, watch) {
            Err(Failed::Engine { stop: Some(Stop::Long), .. }) => None,
            result => Some(result),
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
        // Before the connection, which they are of.
        self.reading = None;
    }
}

impl Drop for Kept {
    /// The thread ends before the driver closes what it works with.
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread works with.
struct Worker {
    statements: Arc<Mutex<Statements>>,
    noting: Option<Arc<Noting>>,
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
            if !self.in_transaction() {
                // The engine has undone all of it: this one is why, the others are made again.
                self.answer(job, result);
                break;
            }
            made.push((job, result));
            if jobs.len() == 0 && (made.len() >= TOGETHER || Instant::now() > until) {
                break;
            }
        }
        let is_kept = self.in_transaction() && self.plain("COMMIT").is_ok();
        if is_kept {
            return made.into_iter().for_each(|(job, result)| self.answer(job, result));
        }
        if self.in_transaction() {
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
        if let Some(noting) = &self.noting {
            noting.at_depth(job.depth);
        }
        Some(self.watched(&job.sql, &job.params, job.most, job.limit))
    }

    /// Runs a statement that neither takes nor gives anything.
    fn plain(&mut self, sql: &str) -> Result<(), Failed> {
        self.watched(sql, &[], 0, COMMITTING).map(drop)
    }

    fn watched(&mut self, sql: &str, params: &[Value], most: usize, limit: Duration) -> Result<Rows, Failed> {
        let mut statements = locked(&self.statements);
        let watch = &self.state.watch;
        watch.begin(limit);
        let result = statements.run(sql, params, most);
        watch.end();
        if let Some(noting) = self.noting.as_ref().filter(|_| !statements.in_transaction()) {
            noting.committed();
        }
        told(result, watch)
    }

    fn in_transaction(&self) -> bool {
        locked(&self.statements).in_transaction()
    }

    fn answer(&self, job: Job, result: Result<Rows, Failed>) {
        self.state.in_transaction.store(self.in_transaction(), Ordering::SeqCst);
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

fn locked(statements: &Mutex<Statements>) -> MutexGuard<'_, Statements> {
    statements.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result, with why the engine was stopped, if it was.
fn told(result: Result<Rows, Failed>, watch: &Watch) -> Result<Rows, Failed> {
    result.map_err(|failed| match failed {
        Failed::Engine { code, message, .. } => Failed::Engine { code, message, stop: watch.stopped() },
        other => other,
    })
}
