//! The words of Steading: typed ids, scopes, callers, proofs and errors. No IO.

mod caller;
mod error;
mod id;
mod network;
mod proof;
mod reach;
mod scope;
mod secret;
mod slug;
mod time;

pub use caller::{Caller, Principal, Surface};
pub use error::{Code, Error, LimitInfo, Next, Result};
pub use id::{
    BlobHash, CallId, EnvId, IdError, KeyId, PlaceId, PlanId, RunId, SandboxId, SessionId, SnapshotId,
    TenantId, UserId, WorkspaceId, WorkspaceSnapshotId,
};
pub use network::Networks;
pub use proof::{Env, Proof, Tenant};
pub use reach::is_public;
pub use scope::{Scope, Scopes};
pub use secret::Secret;
pub use slug::Slug;
pub use time::Timestamp;
