//! What a running tool knows of its call.

use std::sync::Arc;

use kernel::{CallId, Caller, Env, EnvId, Tenant, TenantId};
use tokio_util::sync::CancellationToken;

use crate::Selection;

/// The context of one call: who, where, until when. Read only, never stored.
pub struct Cx<'a, P, L> {
    pub(crate) platform: &'a Arc<P>,
    pub(crate) proof: L,
    pub(crate) caller: &'a Caller,
    pub(crate) selection: Selection,
    pub(crate) id: CallId,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) progress: &'a Progress,
}

impl<P, L> Cx<'_, P, L> {
    /// The services a tool may ask.
    #[must_use]
    pub fn platform(&self) -> &Arc<P> {
        self.platform
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        self.caller
    }

    /// What the caller's connection is limited to.
    #[must_use]
    pub fn selection(&self) -> Selection {
        self.selection
    }

    /// The id of this call.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Fires when the caller has gone or the deadline has passed.
    #[must_use]
    pub fn cancel(&self) -> &CancellationToken {
        self.cancel
    }

    /// Whether somebody listens to how far the call has come.
    #[must_use]
    pub fn is_listened_to(&self) -> bool {
        self.progress.0.is_some()
    }

    /// Says how far the call has come, to callers who listen.
    pub fn progress(&self, done: u32, total: u32, message: impl Into<String>) {
        self.progress.say(Step { done, total, message: message.into() });
    }
}

impl<P> Cx<'_, P, Env> {
    /// The proof for the environment.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.proof
    }

    /// The environment's id.
    #[must_use]
    pub fn env_id(&self) -> EnvId {
        self.proof.id()
    }
}

impl<P> Cx<'_, P, Tenant> {
    /// The proof for the tenant.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.proof
    }

    /// The tenant's id.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        self.proof.id()
    }
}

/// One step of a long call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
    /// What is going on.
    pub message: String,
}

/// Where steps are said; by default nowhere.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(Step) + Send + Sync>>);

impl Progress {
    /// Says each step to `listener`, which must not block.
    #[must_use]
    pub fn to(listener: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    fn say(&self, step: Step) {
        if let Some(listener) = &self.0 {
            listener(step);
        }
    }
}
