//! Who opened which session: rmcp lets anybody in who knows a session's id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::{Caller, Code, EnvId, Error, KeyId, Result, TenantId};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

use super::{no_session, wire};

/// How many sessions a tenant may have open at once.
const PER_TENANT: usize = 1_000;

/// A credential in an environment; those that take each other's place are one.
type Opener = (KeyId, Option<EnvId>);

/// Who opened the sessions of each tenant; ended ones stay until their tenant needs the room.
type Openers = HashMap<TenantId, HashMap<String, Opener>>;

/// The owners of the open sessions.
pub(super) struct Owners {
    sessions: Arc<LocalSessionManager>,
    openers: Mutex<Openers>,
}

impl Owners {
    pub(super) fn of(sessions: Arc<LocalSessionManager>) -> Self {
        Self { sessions, openers: Mutex::default() }
    }

    /// Lets in who opened the session, in the environment it was opened in.
    ///
    /// # Errors
    /// `not_found`, whether it is missing or another's.
    pub(super) fn check(&self, session: &str, caller: &Caller) -> Result<()> {
        let openers = self.lock();
        let opener = openers.get(&caller.tenant).and_then(|sessions| sessions.get(session));
        if opener == Some(&(caller.owner, caller.env)) { Ok(()) } else { Err(no_session()) }
    }

    /// Sees whether the tenant may open one more session, where `message` asks for one.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(super) async fn room_for(&self, caller: &Caller, message: &[u8]) -> Result<()> {
        if self.known(caller) < PER_TENANT || !wire::opens_session(message) {
            return Ok(());
        }
        let open = self.sessions.sessions.read().await;
        if let Some(sessions) = self.lock().get_mut(&caller.tenant) {
            sessions.retain(|session, _| open.contains_key(session.as_str()));
        }
        if self.known(caller) < PER_TENANT {
            return Ok(());
        }
        Err(Error::new(Code::QuotaExceeded, format!("the tenant has {PER_TENANT} MCP sessions open"))
            .hint("end sessions with DELETE, or connect with MCP 2026-07-28, which has none"))
    }

    pub(super) fn add(&self, session: &str, caller: &Caller) {
        let opener = (caller.owner, caller.env);
        self.lock().entry(caller.tenant).or_default().insert(session.to_owned(), opener);
    }

    fn known(&self, caller: &Caller) -> usize {
        self.lock().get(&caller.tenant).map_or(0, HashMap::len)
    }

    fn lock(&self) -> MutexGuard<'_, Openers> {
        self.openers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
