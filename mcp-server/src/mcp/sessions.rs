//! Who opened which session: rmcp lets anybody in who knows a session's id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::{Caller, Code, EnvId, Error, KeyId, Result, TenantId};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

use super::no_session;

/// How many sessions a tenant may have open at once.
const PER_TENANT: usize = 1_000;

#[derive(PartialEq, Eq)]
struct Owner {
    tenant: TenantId,
    credential: KeyId,
    env: Option<EnvId>,
}

impl Owner {
    fn new(caller: &Caller) -> Self {
        Self { tenant: caller.tenant, credential: caller.credential, env: caller.env }
    }
}

/// The owners of the open sessions.
pub(super) struct Owners {
    sessions: Arc<LocalSessionManager>,
    by_session: Mutex<HashMap<String, Owner>>,
}

impl Owners {
    pub(super) fn of(sessions: Arc<LocalSessionManager>) -> Self {
        Self { sessions, by_session: Mutex::default() }
    }

    /// Lets in who opened the session, in the environment it was opened in.
    ///
    /// # Errors
    /// `not_found`, whether it is missing or another's.
    pub(super) fn check(&self, session: &str, caller: &Caller) -> Result<()> {
        match self.lock().get(session) {
            Some(owner) if *owner == Owner::new(caller) => Ok(()),
            _ => Err(no_session()),
        }
    }

    /// Forgets sessions that have ended, and sees whether the tenant may open one more.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(super) async fn room_for(&self, caller: &Caller) -> Result<()> {
        let open = self.sessions.sessions.read().await;
        let mut owners = self.lock();
        owners.retain(|session, _| open.contains_key(session.as_str()));
        if owners.values().filter(|owner| owner.tenant == caller.tenant).count() < PER_TENANT {
            return Ok(());
        }
        Err(Error::new(Code::QuotaExceeded, format!("the tenant has {PER_TENANT} MCP sessions open"))
            .hint("end sessions with DELETE, or connect with MCP 2026-07-28, which has none"))
    }

    pub(super) fn add(&self, session: &str, caller: &Caller) {
        self.lock().insert(session.to_owned(), Owner::new(caller));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Owner>> {
        self.by_session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
