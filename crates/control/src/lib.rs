//! The control plane: tenants, environments, credentials, limits, audit, secrets and tokens.
//!
//! [`Control::open`] reads and makes what is on disk; each part then answers by a method of [`Control`]. What a
//! call meets on its way (credentials, names of environments, limits, records of reads) is answered from memory.

mod app_keys;
mod at_once;
pub mod audit;
mod audits;
mod authentication;
mod bounds;
mod config;
mod confirmations;
mod control;
mod credentials;
mod data_key;
mod data_keys;
mod environments;
mod error;
mod key_command;
mod key_encryption;
mod keys;
mod ledger;
mod limits;
mod members;
pub mod metering;
mod names;
mod news;
pub mod oauth;
mod plans;
mod private;
mod remembered;
mod replays;
mod ring;
mod rotation;
mod sealing;
mod secrets;
mod signing;
mod tenants;
mod tokens;
mod vault;
mod visits;

pub use app_keys::AppKeys;
pub use audit::AuditKey;
pub use audits::{AuditExport, AuditLog};
pub use bounds::{Bounds, EnvironmentBounds, TenantBounds};
pub use config::{ControlConfig, RateLimit, RateLimits};
pub use confirmations::{Confirmation, Confirmations};
pub use control::{Bootstrap, CHECKPOINTS as AUDIT_CHECKPOINTS, Control};
pub use credentials::Revocations;
pub use environments::{Created, Environments, Making, NewEnvironment};
pub use error::OpenError;
pub use key_command::CommandFailed as KeyCommandFailed;
pub use keys::{Keys, NewKey, NewKeyMade};
pub use ledger::{Backlog, Ledger};
pub use limits::{Limits, Underway, Visit};
pub use members::{Arrival, Invited, Members, NewMember};
pub use metering::Metering;
pub use names::{DomainPlace, Place};
pub use plans::{Allowed, Plans};
pub use replays::Replays;
pub use ring::Before;
pub use rotation::{DataKeyInfo, EncryptionKeys};
pub use sealing::Sealing;
pub use secrets::{EgressSecret, SecretInfo, SecretKind, Secrets};
pub use store::{
    AuditEntry, Call, EnvState, Environment, EnvironmentFilter, KeptSigningKey, Key, Location, Member, Run,
    Tenant, TenantFilter, TenantState, Usage, Vouched,
};
pub use tenants::{NewTenant, TenantChange, Tenants};
pub use tokens::{Minted, NewToken, Standing, Tokens};
