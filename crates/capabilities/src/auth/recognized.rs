//! The access tokens that were verified a moment ago, and whose they are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kernel::{Code, EnvId, Error, Result, Timestamp, UserId};
use quick_cache::sync::Cache;
use tokio_util::sync::CancellationToken;

use super::account::Profile;
use crate::access::Guest;
use crate::rows::Mfa;

/// Whose a token is.
pub(super) struct Known {
    pub guest: Guest,
    pub profile: Profile,
    /// The session it belongs to.
    pub session: String,
    /// When it ends, in seconds since the Unix epoch.
    pub expires: i64,
    /// Whether the session has shown a second factor.
    pub second: bool,
}

impl Known {
    /// Whether the session opens more than its user's own account, where the app says `mfa` of second factors.
    pub fn opens(&self, mfa: Mfa) -> bool {
        self.second || mfa != Mfa::Required
    }

    /// That it does.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn admitted(&self, mfa: Mfa) -> Result<()> {
        if self.opens(mfa) {
            return Ok(());
        }
        Err(Error::new(Code::Forbidden, "this app asks for a second factor, and this session has shown none")
            .hint("set one up: POST /_/auth/mfa/totp"))
    }

    /// Whether it belongs to this session of this environment.
    pub fn is_of_session(&self, env: EnvId, session: &str) -> bool {
        self.guest.env().id() == env && self.session == session
    }

    /// Whether it belongs to this user of this environment.
    pub fn is_of_user(&self, env: EnvId, user: UserId) -> bool {
        self.guest.env().id() == env && self.profile.id == user
    }
}

/// A bounded memory of tokens by their hash, that never tells what a change has overtaken.
pub(super) struct Recognized {
    known: Cache<[u8; 32], Arc<Entry>>,
    /// Counts changes, so that what was read before one is not kept after it.
    changes: AtomicU64,
    holds: Mutex<Vec<Weak<Hold>>>,
}

/// Somebody who is told when a change overtakes what is known of a token.
pub(super) struct Hold {
    pub known: Arc<Known>,
    pub overtaken: CancellationToken,
}

struct Entry {
    known: Arc<Known>,
    /// Set when nothing had changed after it was in place: from then on a change finds it and drops it.
    settled: AtomicBool,
}

/// The moment before the database is asked.
#[derive(Clone, Copy)]
pub(super) struct Asked(u64);

impl Recognized {
    pub fn new(most: usize) -> Self {
        Self { known: Cache::new(most), changes: AtomicU64::new(0), holds: Mutex::default() }
    }

    /// Whose the token with this hash is, where it was of this environment and has not ended.
    pub fn get(&self, env: EnvId, token: &[u8; 32], now: Timestamp) -> Option<Arc<Known>> {
        let entry = self.known.get(token).filter(|entry| entry.settled.load(Ordering::SeqCst))?;
        let known = &entry.known;
        (known.guest.env().id() == env && known.expires > now.as_secs()).then(|| Arc::clone(known))
    }

    /// To be called before the database is asked.
    pub fn asking(&self) -> Asked {
        Asked(self.changes.load(Ordering::SeqCst))
    }

    /// Keeps what the database said, except where something has changed since it was asked.
    pub fn keep(&self, asked: Asked, token: [u8; 32], known: Arc<Known>) {
        let entry = Arc::new(Entry { known, settled: AtomicBool::new(false) });
        self.known.insert(token, Arc::clone(&entry));
        if self.changes.load(Ordering::SeqCst) == asked.0 {
            entry.settled.store(true, Ordering::SeqCst);
        } else {
            self.known.remove(&token);
        }
    }

    /// To be called after a change is on disk: drops the tokens that it overtook.
    pub fn forget(&self, overtaken: impl Fn(&Known) -> bool) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.known.retain(|_, entry| !overtaken(&entry.known));
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|hold| match hold.upgrade() {
            Some(hold) if overtaken(&hold.known) => {
                hold.overtaken.cancel();
                false
            }
            Some(_) => true,
            None => false,
        });
    }

    /// Tells who holds this when a change overtakes `known`. One that was made before is not told: look again.
    pub fn hold(&self, known: Arc<Known>) -> Arc<Hold> {
        let hold = Arc::new(Hold { known, overtaken: CancellationToken::new() });
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if holds.len() == holds.capacity() {
            holds.retain(|hold| hold.strong_count() > 0);
        }
        holds.push(Arc::downgrade(&hold));
        hold
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}
