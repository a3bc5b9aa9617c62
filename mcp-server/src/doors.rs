//! What the two doors share: the registry, the platform behind it, and the gate before it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use kernel::{Code, Error, Result};
use serde_json::Value;
use tool::{Call, Host, Registry};

use crate::gate::Gate;
use crate::guard::Guard;

/// The largest request body, in bytes, where nothing else is configured.
pub const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What the two doors share.
pub struct Doors<P> {
    /// Every tool.
    pub registry: Arc<Registry<P>>,
    /// What the tools work on.
    pub platform: Arc<P>,
    /// Who checks credentials.
    pub gate: Arc<dyn Gate>,
    /// Which hosts and origins pass.
    pub guard: Guard,
    /// The largest request body, in bytes.
    pub body_limit: usize,
}

impl<P: Host> Doors<P> {
    /// The doors to `registry`, on loopback, with the usual limit for bodies.
    #[must_use]
    pub fn new(registry: Arc<Registry<P>>, platform: Arc<P>, gate: Arc<dyn Gate>) -> Self {
        Self { registry, platform, gate, guard: Guard::loopback(), body_limit: BODY_LIMIT }
    }

    /// Calls a tool, whichever door the call came in by.
    pub(crate) async fn call(&self, call: Call) -> Result<Value> {
        let (id, caller) = (call.id, Arc::clone(&call.caller));
        let doc = self.registry.doc(&call.tool)?;
        let (name, homeless) = (doc.name, doc.in_environment && caller.env.is_none());
        let running = AssertUnwindSafe(self.registry.call(&self.platform, call)).catch_unwind();
        let outcome = running.await.unwrap_or_else(|_| {
            tracing::error!(call.id = %id, tool.name = name, "a tool panicked");
            Err(Error::internal("a tool panicked"))
        });
        match outcome {
            // The proof of an environment is asked for before the input is looked at: without one, this is
            // the only thing that can be invalid.
            Err(e) if homeless && e.code() == Code::InvalidInput => Err(self.gate.missing_env(&caller).await),
            outcome => outcome,
        }
    }
}
