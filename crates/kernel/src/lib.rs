//! The words of Steading: typed ids, scopes, callers, proofs and errors. No IO.

mod caller;
mod error;
mod held;
mod id;
mod limit;
mod meter;
mod network;
mod proof;
mod reach;
mod role;
mod scope;
mod secret;
mod slug;
mod time;

pub use caller::{Caller, Consent, Principal, Surface};
pub use error::{Code, Error, Next, Result};
pub use held::Held;
pub use id::{
    BlobHash, BudgetId, CallId, EnvId, IdError, KeyId, MemberId, ModelCallId, NodeId, PlaceId, PlanId, RunId,
    SandboxId, SessionId, SnapshotId, TenantId, UserId, WorkspaceId, WorkspaceSnapshotId,
};
pub use limit::{LimitInfo, LimitScope};
pub use meter::{Meter, Metering};
pub use network::Networks;
pub use proof::{Env, Proof, Tenant};
pub use reach::is_public;
pub use role::{Role, UnknownRole};
pub use scope::{Scope, Scopes};
pub use secret::Secret;
pub use slug::Slug;
pub use time::Timestamp;
