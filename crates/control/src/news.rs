//! How soon this gateway sees what another one has ended: it asks the database they share, and where that does not answer,
//! nothing is taken from memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernel::{Result, TenantId};
use store::{PLAN_OF, PLANS, Store};
use tokio::task::JoinHandle;

use crate::credentials::Credentials;
use crate::names::Names;
use crate::plans::Plans;
use crate::remembered::Remembered;
use crate::ring::Ring;

/// How often it is asked.
const EVERY: Duration = Duration::from_millis(400);
/// How long an answer counts, from when it was asked for. What another gateway has ended opens nothing after that, also
/// where the database cannot be reached.
const COUNTS: Duration = Duration::from_millis(900);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nothing was asked yet.
const NEVER: u64 = 0;
/// Nobody else writes.
const ALONE: u64 = u64::MAX;

/// Whether what is in memory may be used.
pub(crate) struct News {
    began: Instant,
    /// When the last answer was asked for, in microseconds since the beginning; [`NEVER`], or [`ALONE`].
    asked: AtomicU64,
}

/// What has to be forgotten.
pub(crate) struct Memories {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) names: Arc<Names>,
    pub(crate) ring: Arc<Ring>,
    pub(crate) tenants: Arc<Remembered<String, TenantId>>,
    pub(crate) plans: Arc<Plans>,
}

impl News {
    /// Nothing is current until [`News::follow`] has asked, where others write to the database.
    pub(crate) fn new(store: &Store) -> Self {
        let asked = if store.news().is_shared() { NEVER } else { ALONE };
        Self { began: Instant::now(), asked: AtomicU64::new(asked) }
    }

    /// Whether nothing has ended elsewhere that is still in memory here.
    pub(crate) fn is_current(&self) -> bool {
        let asked = self.asked.load(Ordering::SeqCst);
        let age = || (self.began.elapsed().as_micros() as u64).saturating_sub(asked);
        asked == ALONE || (asked != NEVER && age() <= COUNTS.as_micros() as u64)
    }

    /// Asks, until the task is ended; `None` where nobody else writes.
    pub(crate) fn follow(self: &Arc<Self>, store: &Store, memories: Memories) -> Option<JoinHandle<()>> {
        let store = store.clone();
        let this = Arc::clone(self);
        store.news().is_shared().then(|| tokio::spawn(async move { this.run(&store, &memories).await }))
    }

    async fn run(&self, store: &Store, memories: &Memories) {
        let (mut known, mut silent) = (None, false);
        loop {
            let asked = (self.began.elapsed().as_micros() as u64).max(NEVER + 1);
            let answer = tokio::time::timeout(PATIENCE, heard(store, memories, known)).await;
            match answer.unwrap_or_else(|_| Err(kernel::Error::internal("it took too long"))) {
                Ok(number) => {
                    known = Some(number);
                    self.asked.store(asked, Ordering::SeqCst);
                    silent = false;
                }
                Err(error) if !silent => {
                    tracing::warn!(
                        error = error.chain(),
                        "the control database does not answer, every credential is looked up"
                    );
                    silent = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// The number there is, after what it overtakes is forgotten.
async fn heard(store: &Store, memories: &Memories, known: Option<i64>) -> Result<i64> {
    let number = store.news().number().await?;
    if known == Some(number) {
        return Ok(number);
    }
    let ended = match known {
        Some(known) => store.news().between(known, number).await?,
        None => None,
    };
    match ended {
        Some(ended) => {
            for what in &ended {
                memories.forget(what).await?;
            }
        }
        None => memories.forget_all().await?,
    }
    Ok(number)
}

impl Memories {
    /// What stands on a credential or is in an environment; all, for what is neither.
    async fn forget(&self, ended: &str) -> Result<()> {
        if let Some(of) = ended.strip_prefix(PLAN_OF) {
            self.plans.learn(of).await?;
        } else if ended == PLANS {
            self.plans.reload().await?;
        } else if let Ok(credential) = ended.parse() {
            self.credentials.revoked(credential);
        } else if let Ok(env) = ended.parse() {
            self.names.env_gone(env);
            self.credentials.env_gone(env);
        } else {
            self.forget_all().await?;
        }
        Ok(())
    }

    async fn forget_all(&self) -> Result<()> {
        self.names.forget_all();
        self.tenants.forget(|_, _| true);
        self.credentials.forget_all();
        self.plans.reload().await?;
        self.ring.reload().await
    }
}
