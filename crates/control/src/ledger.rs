//! Rows of calls, usage and audit on their way to disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use kernel::{BlobHash, CallId, Code, EnvId, Error, KeyId, Result, TenantId, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use store::{Call, NewAuditEntry, Store};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tool::{Effect, Record};

use crate::AuditKey;

/// Reads that may wait to be written; beyond these the oldest are dropped, and counted.
const MAX_READS: usize = 8_192;
/// Reads that are worth a commit of their own.
const BATCH: usize = 1_024;
/// How long a read may wait.
const DELAY: Duration = Duration::from_millis(250);
/// A key's last use is noted at most this often.
const USE_INTERVAL: Duration = Duration::from_secs(60);
const MAX_USES: usize = 4_096;
/// Acts that are kept until they can be written.
const MAX_HELD: usize = 8_192;
/// How soon that is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// For how long it is tried when the platform stops.
const LAST_TRIES: Duration = Duration::from_secs(5);

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
    /// Records of reads that had no room, and commits that failed, since the start.
    dropped: AtomicU64,
    failures: AtomicU64,
    /// Changes that could not be written yet.
    held: AtomicU64,
}

/// How the records of calls fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Records that are not written yet.
    pub waiting: u64,
    /// Records of reads that were dropped, since the start: they came faster than the disk takes them.
    pub dropped: u64,
    /// How often records could not be written, since the start.
    pub failures: u64,
}

#[derive(Default)]
struct Waiting {
    reads: VecDeque<Call>,
    changes: Vec<Change>,
    /// When the keys were used that calls stand on.
    uses: HashMap<KeyId, Timestamp>,
    /// Who waits, and for which tenant's records.
    promises: Vec<(TenantId, oneshot::Sender<bool>)>,
    dropped: u64,
    closing: bool,
}

/// A call that changes something, for usage and for the audit log.
struct Change {
    call: Call,
    act: NewAuditEntry,
}

impl Ledger {
    /// Starts the writer, which ends by [`Ledger::close`].
    pub(crate) fn start(store: Store, key: Arc<AuditKey>) -> Self {
        let desk = Arc::new(Desk {
            waiting: Mutex::new(Waiting::default()),
            arrived: Notify::new(),
            urgent: Notify::new(),
            dropped: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            held: AtomicU64::new(0),
        });
        let writer = tokio::spawn(write(store, key, Arc::clone(&desk)));
        Self { desk, writer: Mutex::new(Some(writer)) }
    }

    /// How the records fare.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let desk = &self.desk;
        let waiting = desk.lock();
        let held = desk.held.load(Ordering::Relaxed);
        let waiting = (waiting.reads.len() + waiting.changes.len()) as u64 + held;
        let [dropped, failures] = [&desk.dropped, &desk.failures].map(|it| it.load(Ordering::Relaxed));
        Backlog { waiting, dropped, failures }
    }

    /// Writes everything that was recorded before.
    ///
    /// # Errors
    /// `unavailable` where what is this tenant's cannot be written.
    pub async fn flush(&self, tenant: TenantId) -> Result<()> {
        let promise = self.desk.promise(tenant, None)?;
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
        if effect == Effect::Read {
            self.desk.put_read(row(record));
            return Box::pin(std::future::ready(Ok(())));
        }
        let act = act(&record);
        let promise = self.desk.promise(record.tenant, Some(Change { call: row(record), act }));
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
            self.dropped.fetch_add(1, Ordering::Relaxed);
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
    fn promise(&self, tenant: TenantId, change: Option<Change>) -> Result<oneshot::Receiver<bool>> {
        let (promise, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.closing {
            return Err(Error::new(Code::Unavailable, "the platform is stopping"));
        }
        waiting.promises.push((tenant, promise));
        waiting.changes.extend(change);
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

async fn write(store: Store, key: Arc<AuditKey>, desk: Arc<Desk>) {
    let mut uses = HashMap::new();
    let mut held = Vec::new();
    loop {
        if held.is_empty() {
            desk.arrived.notified().await;
            // A timeout is the common case: reads alone, that have waited long enough.
            let _ = tokio::time::timeout(DELAY, desk.urgent.notified()).await;
        } else {
            // What could not be written is tried again, with or without anything new.
            let _ = tokio::time::timeout(AGAIN, desk.arrived.notified()).await;
        }
        let (batch, closing) = {
            let mut waiting = desk.lock();
            let closing = waiting.closing;
            (std::mem::replace(&mut *waiting, Waiting { closing, ..Waiting::default() }), closing)
        };
        held = commit(&store, &key, batch, held, &mut uses).await;
        desk.held.store(held.len() as u64, Ordering::Relaxed);
        if !held.is_empty() {
            desk.failures.fetch_add(1, Ordering::Relaxed);
        }
        if closing {
            break;
        }
    }
    let began = Instant::now();
    while !held.is_empty() && began.elapsed() < LAST_TRIES {
        tokio::time::sleep(DELAY).await;
        held = commit(&store, &key, Waiting::default(), held, &mut uses).await;
    }
    if !held.is_empty() {
        tracing::error!(acts = held.len(), "acts were done that are on no record: they could not be written");
    }
}

/// Writes what is there, and gives the changes that could not be written: they were done, and are to be on record. `held` are
/// those of which that was so before.
async fn commit(
    store: &Store,
    key: &AuditKey,
    batch: Waiting,
    held: Vec<Change>,
    uses: &mut HashMap<KeyId, Timestamp>,
) -> Vec<Change> {
    let Waiting { reads, changes: new, uses: used, promises, dropped, .. } = batch;
    let reads: Vec<Call> = reads.into();
    let mut changes = unwritten(store, held).await;
    changes.extend(new);
    let mut left = match append(store, key, &changes, &reads).await {
        Ok(()) => Vec::new(),
        // Nothing can be written now.
        Err(store::Error::Unreachable(_)) => changes,
        Err(_) => one_by_one(store, key, changes, &reads).await,
    };
    let used = newly_used(used, uses);
    if left.is_empty()
        && !used.is_empty()
        && let Err(error) = store.keys().used(&used).await
    {
        tracing::warn!(error = Error::from(error).chain(), "the last use of keys cannot be noted");
    }
    if dropped > 0 {
        tracing::warn!(
            calls = dropped,
            "records of reads were dropped: they came faster than the disk takes them"
        );
    }
    let missing: BTreeSet<TenantId> = left.iter().map(|change| change.call.tenant).collect();
    for (tenant, promise) in promises {
        // Who waited may have gone.
        let _ = promise.send(!missing.contains(&tenant));
    }
    let surplus = left.len().saturating_sub(MAX_HELD);
    if surplus > 0 {
        left.sort_by_key(|change| change.call.at);
        tracing::error!(acts = surplus, "acts were done that are on no record: too many wait to be written");
    }
    left.into_iter().skip(surplus).collect()
}

/// Those that are not on record: a commit may have been made though nobody was told so. A call's row and its entry in the
/// audit log are there both, or neither.
async fn unwritten(store: &Store, held: Vec<Change>) -> Vec<Change> {
    if held.is_empty() {
        return held;
    }
    let ids: Vec<CallId> = held.iter().map(|change| change.call.id).collect();
    match store.records().known(&ids).await {
        Ok(known) => held.into_iter().filter(|change| !known.contains(&change.call.id)).collect(),
        // Then nothing can be written, either.
        Err(_) => held,
    }
}

/// The records of each tenant by themselves: one whose log cannot be written keeps nobody else's from it.
async fn one_by_one(store: &Store, key: &AuditKey, changes: Vec<Change>, reads: &[Call]) -> Vec<Change> {
    let mut tenants = BTreeMap::<TenantId, Vec<Change>>::new();
    for change in changes {
        tenants.entry(change.call.tenant).or_default().push(change);
    }
    let mut left = Vec::new();
    for changes in tenants.into_values() {
        if append(store, key, &changes, &[]).await.is_err() {
            left.extend(changes);
        }
    }
    // It has said why. Reads are no acts, and are not waited for.
    let _ = append(store, key, &[], reads).await;
    left
}

async fn append(store: &Store, key: &AuditKey, changes: &[Change], reads: &[Call]) -> store::Result<()> {
    let calls: Vec<Call> = changes.iter().map(|change| &change.call).chain(reads).cloned().collect();
    let acts: Vec<NewAuditEntry> = changes.iter().map(|change| change.act.clone()).collect();
    if calls.is_empty() {
        return Ok(());
    }
    let outcome = store.records().append(&calls, &acts, key).await;
    match &outcome {
        Ok(changed) => {
            for tenant in changed {
                tracing::error!(%tenant, "the audit log was changed by somebody else; an entry says so");
            }
        }
        Err(error) => {
            tracing::error!(calls = calls.len(), %error, "records of calls cannot be written");
        }
    }
    outcome.map(drop)
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

/// The act as the audit log has it. Its number and the hash come with its place in the log.
fn act(record: &Record) -> NewAuditEntry {
    /// In this order, which is the order on disk.
    #[derive(Serialize)]
    struct Act<'a> {
        tenant: TenantId,
        at: Timestamp,
        call: CallId,
        #[serde(skip_serializing_if = "Option::is_none")]
        env: Option<EnvId>,
        who: &'static str,
        credential: KeyId,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<KeyId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<IpAddr>,
        door: &'static str,
        act: &'static str,
        effect: &'static str,
        outcome: &'static str,
        #[serde(skip_serializing_if = "Map::is_empty")]
        about: &'a Map<String, Value>,
    }
    let body = serde_json::to_string(&Act {
        tenant: record.tenant,
        at: record.at,
        call: record.call,
        env: record.env,
        who: record.principal,
        credential: record.credential,
        key: Some(record.root).filter(|root| *root != record.credential),
        from: record.source,
        door: record.surface,
        act: record.tool,
        effect: record.effect.as_str(),
        outcome: record.error.map_or("ok", Code::as_str),
        about: &record.about,
    });
    // Texts, numbers and a map by text always have a form.
    NewAuditEntry { tenant: record.tenant, at: record.at, env: record.env, body: body.unwrap_or_default() }
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
