//! Audit and usage rows on their way to disk.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use kernel::{BlobHash, Code, Error, KeyId, Result, Timestamp};
use store::{Call, Store};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tool::{Effect, Record};

/// Reads that may wait to be written; beyond these the oldest are dropped, and counted.
const MAX_READS: usize = 8_192;
/// Reads that are worth a commit of their own.
const BATCH: usize = 1_024;
/// How long a read may wait.
const DELAY: Duration = Duration::from_millis(250);
/// A key's last use is noted at most this often.
const USE_INTERVAL: Duration = Duration::from_secs(60);
const MAX_USES: usize = 4_096;

/// Keeps the record of each call. Changes that end at the same time share one commit, and each waits for it;
/// reads are written within a quarter of a second, behind the answer.
pub struct Ledger {
    desk: Arc<Desk>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What lies between the calls and the writer.
struct Desk {
    waiting: Mutex<Waiting>,
    /// Something is there.
    arrived: Notify,
    /// It should be written now.
    urgent: Notify,
}

#[derive(Default)]
struct Waiting {
    reads: VecDeque<Call>,
    changes: Vec<Call>,
    /// When the keys were used that calls stand on.
    uses: HashMap<KeyId, Timestamp>,
    promises: Vec<oneshot::Sender<bool>>,
    dropped: u64,
    closing: bool,
}

impl Ledger {
    /// Starts the writer, which ends by [`Ledger::close`].
    pub(crate) fn start(store: Store) -> Self {
        let desk = Arc::new(Desk {
            waiting: Mutex::new(Waiting::default()),
            arrived: Notify::new(),
            urgent: Notify::new(),
        });
        let writer = tokio::spawn(write(store, Arc::clone(&desk)));
        Self { desk, writer: Mutex::new(Some(writer)) }
    }

    /// Writes everything that was recorded before.
    ///
    /// # Errors
    /// `unavailable` where it cannot be written.
    pub async fn flush(&self) -> Result<()> {
        let promise = self.desk.promise(None)?;
        kept(promise).await
    }

    /// Writes everything that was recorded, and takes no more.
    pub(crate) async fn close(&self) {
        self.desk.lock().closing = true;
        self.desk.wake();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer of records ended badly");
        }
    }
}

impl Drop for Ledger {
    /// The writer ends after what is there, even where nobody waits for it.
    fn drop(&mut self) {
        self.desk.lock().closing = true;
        self.desk.wake();
    }
}

impl tool::Ledger for Ledger {
    fn record(&self, record: Record) -> BoxFuture<'_, Result<()>> {
        let effect = record.effect;
        self.desk.used(record.root, record.at);
        let call = row(record);
        if effect == Effect::Read {
            self.desk.put_read(call);
            return Box::pin(std::future::ready(Ok(())));
        }
        let promise = self.desk.promise(Some(call));
        Box::pin(async move { kept(promise?).await })
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the use of a key. Whoever puts the call down wakes the writer.
    fn used(&self, key: KeyId, at: Timestamp) {
        let mut waiting = self.lock();
        let last = waiting.uses.entry(key).or_insert(at);
        *last = at.max(*last);
    }

    fn put_read(&self, call: Call) {
        let mut waiting = self.lock();
        if waiting.reads.len() == MAX_READS || waiting.closing {
            waiting.reads.pop_front();
            waiting.dropped += 1;
        }
        waiting.reads.push_back(call);
        let length = waiting.reads.len();
        drop(waiting);
        match length {
            1 => self.arrived.notify_one(),
            BATCH => self.urgent.notify_one(),
            _ => {}
        }
    }

    /// Puts a change down, and gives what tells when it is on disk with everything before it.
    fn promise(&self, change: Option<Call>) -> Result<oneshot::Receiver<bool>> {
        let (promise, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.closing {
            return Err(Error::new(Code::Unavailable, "the platform is stopping"));
        }
        waiting.changes.extend(change);
        waiting.promises.push(promise);
        drop(waiting);
        self.wake();
        Ok(receiver)
    }

    fn wake(&self) {
        self.arrived.notify_one();
        self.urgent.notify_one();
    }
}

async fn kept(promise: oneshot::Receiver<bool>) -> Result<()> {
    match promise.await {
        Ok(true) => Ok(()),
        // The writer has logged why.
        Ok(false) | Err(_) => Err(Error::new(Code::Unavailable, "the call's record cannot be written").hint(
            "check the space on the server's disk; the call may have taken effect: look before repeating it",
        )),
    }
}

async fn write(store: Store, desk: Arc<Desk>) {
    let mut uses = HashMap::new();
    loop {
        desk.arrived.notified().await;
        // A timeout is the common case: reads alone, that have waited long enough.
        let _ = tokio::time::timeout(DELAY, desk.urgent.notified()).await;
        let (batch, closing) = {
            let mut waiting = desk.lock();
            let closing = waiting.closing;
            (std::mem::replace(&mut *waiting, Waiting { closing, ..Waiting::default() }), closing)
        };
        commit(&store, batch, &mut uses).await;
        if closing {
            return;
        }
    }
}

async fn commit(store: &Store, batch: Waiting, uses: &mut HashMap<KeyId, Timestamp>) {
    let mut calls = batch.changes;
    calls.extend(batch.reads);
    let mut written = true;
    if !calls.is_empty()
        && let Err(error) = store.records().append(&calls).await
    {
        let error = Error::from(error).chain();
        tracing::error!(calls = calls.len(), error, "records of calls cannot be written");
        written = false;
    }
    let used = newly_used(batch.uses, uses);
    if written
        && !used.is_empty()
        && let Err(error) = store.keys().used(&used).await
    {
        tracing::warn!(error = Error::from(error).chain(), "the last use of keys cannot be noted");
    }
    if batch.dropped > 0 {
        tracing::warn!(
            calls = batch.dropped,
            "records of reads were dropped: they came faster than the disk takes them"
        );
    }
    for promise in batch.promises {
        // Who waited may have gone.
        let _ = promise.send(written);
    }
}

/// The keys whose last noted use is a while ago.
fn newly_used(
    now: HashMap<KeyId, Timestamp>,
    uses: &mut HashMap<KeyId, Timestamp>,
) -> Vec<(KeyId, Timestamp)> {
    if uses.len() > MAX_USES {
        uses.clear();
    }
    let mut used = Vec::new();
    for (key, at) in now {
        if uses.get(&key).is_none_or(|noted| noted.plus(USE_INTERVAL) <= at) {
            uses.insert(key, at);
            used.push((key, at));
        }
    }
    // Two writers on Postgres lock rows in the same order.
    used.sort_unstable();
    used
}

fn row(record: Record) -> Call {
    Call {
        id: record.call,
        at: record.at,
        tenant: record.tenant,
        env: record.env,
        principal: record.principal.into(),
        credential: record.credential,
        surface: record.surface.into(),
        tool: record.tool.into(),
        effect: record.effect.as_str().into(),
        error: record.error.map(|code| code.as_str().into()),
        took: record.took,
        input_digest: BlobHash::from_bytes(record.input_digest),
    }
}
