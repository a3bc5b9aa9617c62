//! Control-plane tables, one repository per aggregate, one SQL text for SQLite and Postgres.
//!
//! `$1` placeholders, TEXT ids, BIGINT times (microseconds) and booleans, binary values as lower-case
//! hexadecimal or base64 text: the same statement runs on both engines. A guard that must hold is written into
//! the statement that changes the row, never only read before it.

mod certificates;
mod connection;
mod demands;
mod domains;
mod egress;
mod environments;
mod error;
mod keys;
mod migrations;
mod of_env;
mod records;
mod replays;
mod rows;
mod secrets;
mod served;
mod settings;
mod signing_keys;
mod spent;
mod tenants;
mod workspaces;

pub use certificates::{CertificateRow, CertificateSource, Certificates, NewCertificate};
pub use connection::{Location, Store};
pub use demands::Demands;
pub use domains::{Claimed, DomainClaim, Domains, ProvenFor};
pub use egress::Egress;
pub use environments::{EnvState, Environment, EnvironmentFilter, Environments, Insertion};
pub use error::{Error, Result};
pub use keys::{Key, KeyKind, Keys};
pub use records::{Call, Records, Usage};
pub use replays::{Claim, ClaimKey, Replays};
pub use secrets::{SealedSecret, SecretRow, Secrets};
pub use served::Served;
pub use settings::Settings;
pub use signing_keys::{SigningKeyRow, SigningKeys};
pub use spent::Spent;
pub use tenants::{Tenant, Tenants};
pub use workspaces::{Ended, Kept, Most, Workspace, WorkspaceSnapshot, Workspaces};
