//! Calls under way, so that `notifications/cancelled` finds them where there is no session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::{CallId, Caller, EnvId, KeyId};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tool::Call;

/// A request as its client names it. Two clients of one credential may use the same id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    credential: KeyId,
    env: Option<EnvId>,
    request: String,
}

impl Name {
    fn new(caller: &Caller, request: &Value) -> Self {
        Self { credential: caller.owner, env: caller.env, request: request.to_string() }
    }
}

/// Calls of one name, which are more than one where two clients use the same id.
type Running = Vec<(CallId, CancellationToken)>;

/// The calls under way.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<HashMap<Name, Running>>>);

impl Calls {
    /// Enters a call until the returned value is dropped.
    pub(super) fn enter(&self, call: &Call, request: &Value) -> Entered {
        let name = Name::new(&call.caller, request);
        self.lock().entry(name.clone()).or_default().push((call.id, call.cancel.clone()));
        Entered { calls: self.clone(), name, id: call.id }
    }

    /// Cancels the call that `request` names. Where two clients of the credential use that id just now, it is
    /// not known whose is meant, and both run on.
    pub(super) fn cancel(&self, caller: &Caller, request: &Value) {
        if let Some([(_, only)]) = self.lock().get(&Name::new(caller, request)).map(Vec::as_slice) {
            only.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way.
pub(super) struct Entered {
    calls: Calls,
    name: Name,
    id: CallId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        let Some(same) = calls.get_mut(&self.name) else { return };
        same.retain(|(id, _)| *id != self.id);
        if same.is_empty() {
            calls.remove(&self.name);
        }
    }
}
