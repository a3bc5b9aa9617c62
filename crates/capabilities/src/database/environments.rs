//! Which environments' databases are open: a bounded number, the least used closed first, idle ones after seconds.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use kernel::EnvId;
use tokio::sync::{
    Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore,
};
use tokio::time::timeout_at;

use super::allowances::{Allowances, Allowed};
use super::connection::{Connection, Kind};
use super::error::Error;
use super::events::Noted;
use super::feed::Feed;
use super::feeds::Feeds;
use super::limits::Limits;
use super::list_turns::{Client, ListTurn, ListTurns};
use super::watch::Stop;
use crate::quotas::{Quota, Quotas};

/// The open environments of one process.
pub(super) struct Environments {
    root: PathBuf,
    allowances: Allowances,
    open: Mutex<HashMap<EnvId, Arc<Slot>>>,
    /// Those that are removed and not opened again.
    removed: Mutex<HashSet<EnvId>>,
    feeds: Feeds,
    room: Arc<Semaphore>,
    returned: Arc<Notify>,
    sweeping: AtomicBool,
}

/// One open environment: its connections, lent out one by one.
struct Slot {
    /// Held by the one whose turn it is to write, on whichever of the two connections; or by everybody who makes a
    /// change of the data plane by itself, which the connection queues. Who comes first goes first.
    writers: Arc<RwLock<Writers>>,
    readers: Arc<Semaphore>,
    /// For who may read for long: one reader fewer, so that a row by its id does not wait for slow lists.
    lists: ListTurns,
    spare: Mutex<Spare>,
    used: Mutex<Instant>,
    allowed: Allowed,
    _room: OwnedSemaphorePermit,
    // Dropped after the room is free again.
    _wake: Wake,
}

/// The connections that write.
#[derive(Default)]
struct Writers {
    sql: Option<Connection>,
    rows: Option<Connection>,
}

impl Writers {
    fn of(&mut self, kind: Kind) -> &mut Option<Connection> {
        if kind == Kind::RowsWriter { &mut self.rows } else { &mut self.sql }
    }
}

/// The connections that read and are not on loan.
#[derive(Default)]
struct Spare {
    sql: Vec<Connection>,
    rows: Vec<Connection>,
}

impl Spare {
    fn of(&mut self, kind: Kind) -> &mut Vec<Connection> {
        if kind == Kind::RowsReader { &mut self.rows } else { &mut self.sql }
    }

    fn others(&mut self, kind: Kind) -> &mut Vec<Connection> {
        if kind == Kind::RowsReader { &mut self.sql } else { &mut self.rows }
    }
}

/// Wakes one caller that waits for room, when it is dropped.
struct Wake(Arc<Notify>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A connection on loan. One that is not given back in a known state is closed, which rolls back what it had
/// open.
pub(super) struct Lease {
    kind: Kind,
    connection: Option<Connection>,
    place: Option<Place>,
    slot: Option<Arc<Slot>>,
    returned: Arc<Notify>,
}

enum Place {
    Reader { _permit: OwnedSemaphorePermit },
    Writer(OwnedRwLockWriteGuard<Writers>),
}

/// The right to make changes of the data plane that are transactions of their own, beside others who do.
pub(super) struct SharedTurn {
    writers: Option<OwnedRwLockReadGuard<Writers>>,
    slot: Option<Arc<Slot>>,
    returned: Arc<Notify>,
}

impl Environments {
    pub fn new(root: PathBuf, limits: Limits, quotas: Option<Arc<dyn Quotas>>) -> Self {
        Self {
            root,
            room: Arc::new(Semaphore::new(limits.open.max(1))),
            allowances: Allowances::new(limits, quotas),
            open: Mutex::default(),
            removed: Mutex::default(),
            feeds: Feeds::default(),
            returned: Arc::default(),
            sweeping: AtomicBool::new(false),
        }
    }

    /// What an environment may have beside what is configured.
    pub async fn quota(&self, env: EnvId) -> Quota {
        self.allowances.quota(env).await
    }

    pub fn limits(&self) -> &Limits {
        self.allowances.usual()
    }

    pub fn shared_limits(&self) -> Arc<Limits> {
        Arc::clone(self.allowances.usual())
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Where the database of `env` is.
    pub fn path(&self, env: EnvId) -> PathBuf {
        self.root.join(env.to_string()).join("main.db")
    }

    /// Who hears of events of functions.
    pub fn noted(&self) -> Arc<Noted> {
        Arc::clone(&self.feeds.noted)
    }

    /// The log of what changes in `env`.
    pub fn feed(&self, env: EnvId) -> Arc<Feed> {
        self.feeds.of(env)
    }

    /// A connection of `env` that reads; `kind` says for whom.
    pub async fn reader(self: &Arc<Self>, env: EnvId, kind: Kind) -> Result<Lease, Error> {
        let until = tokio::time::Instant::now() + self.limits().turn;
        let slot = self.slot(env, until).await?;
        let permit = match Arc::clone(&slot.readers).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => timeout_at(until, Arc::clone(&slot.readers).acquire_owned())
                .await
                .map_err(|_| Error::Busy)?
                .map_err(|_| Error::Unknown(env))?,
        };
        let (spare, surplus) = slot.spare_reader(kind, self.limits().readers);
        if let Some(surplus) = surplus {
            Box::pin(surplus.close()).await;
        }
        self.lend(env, slot, Place::Reader { _permit: permit }, kind, spare).await
    }

    /// The right to have one of the readers of `env` for long, when it is the turn of all these clients.
    pub async fn list_turn(self: &Arc<Self>, env: EnvId, clients: &[Client]) -> Result<ListTurn, Error> {
        let until = tokio::time::Instant::now() + self.limits().turn;
        let slot = self.slot(env, until).await?;
        let turn = timeout_at(until, slot.lists.take(clients)).await;
        turn.map_err(|_| Error::Busy)?.map_err(|_| Error::Unknown(env))
    }

    /// A connection of `env` that writes, when it is this caller's turn; `kind` says for whom.
    pub async fn writer(self: &Arc<Self>, env: EnvId, kind: Kind) -> Result<Lease, Error> {
        let until = tokio::time::Instant::now() + self.limits().turn;
        loop {
            let slot = self.slot(env, until).await?;
            let mut guard = match Arc::clone(&slot.writers).try_write_owned() {
                Ok(guard) => guard,
                Err(_) => timeout_at(until, Arc::clone(&slot.writers).write_owned())
                    .await
                    .map_err(|_| Error::Busy)?,
            };
            let spare = guard.of(kind).take();
            let limits = self.allowances.of(env, &slot.allowed).await;
            let is_sound = spare.as_ref().is_none_or(|it| it.is_sound() && it.is_within(&limits));
            let lease = self.lend(env, slot, Place::Writer(guard), kind, spare).await?;
            if is_sound {
                return Ok(lease);
            }
            // Dropped, it is closed, and the turn is over when it is.
        }
    }

    /// The right to make changes of the data plane in `env` by themselves, when no one else has the turn.
    pub async fn shared_turn(self: &Arc<Self>, env: EnvId) -> Result<SharedTurn, Error> {
        let until = tokio::time::Instant::now() + self.limits().turn;
        loop {
            let slot = self.slot(env, until).await?;
            let writers = match Arc::clone(&slot.writers).try_read_owned() {
                Ok(writers) => writers,
                Err(_) => timeout_at(until, Arc::clone(&slot.writers).read_owned())
                    .await
                    .map_err(|_| Error::Busy)?,
            };
            let limits = self.allowances.of(env, &slot.allowed).await;
            if writers.rows.as_ref().is_some_and(|it| it.is_sound() && it.is_within(&limits)) {
                let returned = Arc::clone(&self.returned);
                return Ok(SharedTurn { writers: Some(writers), slot: Some(slot), returned });
            }
            drop((writers, slot));
            // Nobody has opened it yet, or the one that is there is not to be used any more.
            let opened = timeout_at(until, self.writer(env, Kind::RowsWriter)).await;
            opened.map_err(|_| Error::Busy)??.give_back();
        }
    }

    async fn lend(
        &self,
        env: EnvId,
        slot: Arc<Slot>,
        place: Place,
        kind: Kind,
        spare: Option<Connection>,
    ) -> Result<Lease, Error> {
        let returned = Arc::clone(&self.returned);
        let limits = slot.allowed.limits();
        let mut lease = Lease { kind, connection: spare, place: Some(place), slot: Some(slot), returned };
        if lease.connection.is_none() {
            // Each request has a place for this, and hardly one needs it.
            let path = self.path(env);
            let opened = Box::pin(Connection::open(env, &path, kind, &limits, self.feed(env))).await;
            lease.connection = Some(opened.map_err(|error| self.without_file(env, error))?);
        }
        Ok(lease)
    }

    /// A file that is gone explains the failure better than the engine does.
    fn without_file(&self, env: EnvId, error: Error) -> Error {
        let path = self.path(env);
        match (path.exists(), path.parent().is_some_and(std::path::Path::exists)) {
            (true, _) => error,
            (false, true) => Error::Missing(env),
            (false, false) => Error::Unknown(env),
        }
    }

    /// The open environment, opened where it is not; waits until `until` for room.
    async fn slot(self: &Arc<Self>, env: EnvId, until: tokio::time::Instant) -> Result<Arc<Slot>, Error> {
        loop {
            if lock(&self.removed).contains(&env) {
                return Err(Error::Unknown(env));
            }
            let returned = self.returned.notified();
            if let Some(slot) = lock(&self.open).get(&env) {
                *lock(&slot.used) = Instant::now();
                return Ok(Arc::clone(slot));
            }
            if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
                return Ok(self.insert(env, room));
            }
            let idlest = self.take_idle(Instant::now());
            if let Some(slot) = idlest {
                Box::pin(slot.close()).await;
                continue;
            }
            timeout_at(until, returned).await.map_err(|_| Error::Busy)?;
        }
    }

    fn insert(self: &Arc<Self>, env: EnvId, room: OwnedSemaphorePermit) -> Arc<Slot> {
        let slot = Arc::new(Slot {
            writers: Arc::default(),
            readers: Arc::new(Semaphore::new(self.limits().readers.max(1) as usize)),
            lists: ListTurns::new(self.limits().readers.saturating_sub(1) as usize),
            spare: Mutex::default(),
            used: Mutex::new(Instant::now()),
            allowed: self.allowances.unasked(),
            _room: room,
            _wake: Wake(Arc::clone(&self.returned)),
        });
        // Two callers may get here for the same environment; the second takes what the first has put in.
        let slot = Arc::clone(lock(&self.open).entry(env).or_insert(slot));
        if self.room.available_permits() < self.limits().open / 16
            && let Some(idlest) = self.take_idle(Instant::now())
        {
            // Closing takes its time on the disk; done ahead, the next environment does not wait for it.
            tokio::spawn(async move { idlest.close().await });
        }
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        slot
    }

    /// Takes out the environment that was used least recently, before `before`, and is not in use.
    fn take_idle(&self, before: Instant) -> Option<Arc<Slot>> {
        let mut open = lock(&self.open);
        let (env, _) = open
            .iter()
            // Only this map holds it: every loan holds it too, and new ones begin under this lock.
            .filter(|(_, slot)| Arc::strong_count(slot) == 1)
            .map(|(env, slot)| (*env, *lock(&slot.used)))
            .filter(|(_, used)| *used <= before)
            .min_by_key(|(_, used)| *used)?;
        open.remove(&env)
    }

    /// Closes the database of `env` as [`Environments::close`] does, for ever.
    pub async fn remove(&self, env: EnvId) {
        lock(&self.removed).insert(env);
        self.close(env).await;
        self.feeds.forget(env);
    }

    /// Closes the database of `env`, after what runs on it has ended or the time for a statement is over.
    pub async fn close(&self, env: EnvId) {
        let Some(slot) = lock(&self.open).remove(&env) else { return };
        let until = tokio::time::Instant::now() + self.limits().statement;
        let writer = timeout_at(until, Arc::clone(&slot.writers).write_owned()).await;
        let readers = timeout_at(until, slot.readers.acquire_many(self.limits().readers.max(1))).await;
        drop((writer, readers));
        slot.close().await;
    }

    /// Closes all of them, as [`Environments::close`] does.
    pub async fn close_all(&self) {
        let open: Vec<EnvId> = lock(&self.open).keys().copied().collect();
        for env in open {
            self.close(env).await;
        }
    }

    /// How many connections of `env` are open and not on loan.
    #[cfg(test)]
    pub fn connections(&self, env: EnvId) -> usize {
        let open = lock(&self.open);
        let Some(slot) = open.get(&env) else { return 0 };
        let spare = lock(&slot.spare);
        let writers = slot
            .writers
            .try_read()
            .map_or(0, |it| usize::from(it.sql.is_some()) + usize::from(it.rows.is_some()));
        spare.sql.len() + spare.rows.len() + writers
    }

    /// How many environments are open.
    #[cfg(test)]
    pub fn open(&self) -> usize {
        lock(&self.open).len()
    }
}

impl Slot {
    /// A connection of that kind to lend to the holder of a permit, where one is spare; and one of the other kind
    /// that is closed first, where another would be one too many.
    fn spare_reader(&self, kind: Kind, most: u32) -> (Option<Connection>, Option<Connection>) {
        let mut spare = lock(&self.spare);
        if let Some(connection) = spare.of(kind).pop() {
            return (Some(connection), None);
        }
        let lent = (most.max(1) as usize).saturating_sub(self.readers.available_permits());
        let surplus = lent + spare.others(kind).len() > most.max(1) as usize;
        (None, if surplus { spare.others(kind).pop() } else { None })
    }

    async fn close(&self) {
        let Spare { sql, rows } = std::mem::take(&mut *lock(&self.spare));
        for reader in sql.into_iter().chain(rows) {
            reader.close().await;
        }
        // One that is still on loan is closed when the last loan ends.
        let writers = self.writers.try_write().map(|mut writers| std::mem::take(&mut *writers));
        let Writers { sql, rows } = writers.unwrap_or_default();
        for writer in sql.into_iter().chain(rows) {
            writer.close().await;
        }
    }
}

/// Closes environments that nobody uses, until none is open.
async fn sweep(environments: Weak<Environments>) {
    loop {
        let Some(idle) = environments.upgrade().map(|environments| environments.limits().idle) else {
            return;
        };
        tokio::time::sleep(idle / 2).await;
        let Some(environments) = environments.upgrade() else { return };
        while let Some(before) = Instant::now().checked_sub(idle)
            && let Some(slot) = environments.take_idle(before)
        {
            slot.close().await;
        }
        if lock(&environments.open).is_empty() {
            environments.sweeping.store(false, Ordering::Release);
            // One may have come between the look and the store; its opener saw a sweeper still at work.
            if lock(&environments.open).is_empty() || environments.sweeping.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

impl Lease {
    pub fn connection(&mut self) -> Result<&mut Connection, Error> {
        self.connection.as_mut().ok_or(Error::Transaction("over"))
    }

    /// Gives the connection back where its last work has ended, well or not.
    pub fn settle(self) {
        if self.connection.as_ref().is_some_and(Connection::is_sound) {
            self.give_back();
        }
    }

    /// Gives the connection back for the next caller. Without this it is closed.
    pub fn give_back(mut self) {
        let Some(connection) = self.connection.take() else { return };
        match (&mut self.place, &self.slot) {
            (Some(Place::Writer(guard)), _) => *guard.of(self.kind) = Some(connection),
            (Some(Place::Reader { .. }), Some(slot)) => lock(&slot.spare).of(self.kind).push(connection),
            (_, None) | (None, _) => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (place, slot) = (self.place.take(), self.slot.take());
        if let Some(slot) = &slot {
            *lock(&slot.used) = Instant::now();
        }
        let Some(connection) = self.connection.take() else {
            drop((place, slot));
            self.returned.notify_one();
            return;
        };
        connection.watch().stop(Stop::Cancelled);
        let returned = Arc::clone(&self.returned);
        // The place stays taken until the engine has let go, so that connections stay bounded.
        let closing = async move {
            connection.close().await;
            drop((place, slot));
            returned.notify_one();
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(closing);
        }
    }
}

impl SharedTurn {
    /// The connection that makes the changes.
    pub fn connection(&self) -> Result<&Connection, Error> {
        let writers = self.writers.as_ref().ok_or(Error::Transaction("over"))?;
        writers.rows.as_ref().ok_or(Error::Transaction("over"))
    }
}

impl Drop for SharedTurn {
    fn drop(&mut self) {
        self.writers = None;
        if let Some(slot) = self.slot.take() {
            *lock(&slot.used) = Instant::now();
        }
        self.returned.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
