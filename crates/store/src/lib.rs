//! Control-plane tables, one repository per aggregate, one SQL text for SQLite and Postgres.
//!
//! `$1` placeholders, TEXT ids, BIGINT times (microseconds) and booleans, binary values as lower-case
//! hexadecimal or base64 text: the same statement runs on both engines. A guard that must hold is written into
//! the statement that changes the row, never only read before it.

mod audit;
mod budgets;
mod certificates;
mod connection;
mod data_keys;
mod demands;
mod domains;
mod egress;
mod environments;
mod error;
mod keys;
mod listeners;
mod members;
mod metered;
mod migrations;
mod model_calls;
mod news;
mod oauth;
mod of_env;
mod periods;
mod plans;
mod prices;
mod records;
mod replays;
mod rows;
mod runs;
mod schedules;
mod secrets;
mod served;
mod settings;
mod settling;
mod signing_keys;
mod spent;
mod tenants;
mod workspaces;

pub use audit::{
    Audit, Entry as AuditEntry, Mark as AuditMark, MarkKind, NewEntry as NewAuditEntry, Signed as SignedMark,
    Signer as AuditSigner, beginning as audit_beginning, link as audit_link,
};
pub use budgets::{Budget, Budgets, Limit, Setter, Spending, Standing, Unit};
pub use certificates::{CertificateRow, CertificateSource, Certificates, NewCertificate};
pub use connection::{Connections, Location, Store};
pub use data_keys::{DataKeyRow, DataKeys, Rewrapped, SealedIn, SealedValue};
pub use demands::Demands;
pub use domains::{Claimed, DomainClaim, Domains, ProvenFor};
pub use egress::Egress;
pub use environments::{EnvState, Environment, EnvironmentFilter, Environments, Insertion};
pub use error::{Error, Result};
pub use keys::{Key, KeyKind, Keys};
pub use listeners::Listeners;
pub use members::{Joining, Member, MemberKey, Members, Renewal, Renewed, Vouched};
pub use metered::{MeterPrice, Metered, Meters, ModelSum, Sum, hour_of};
pub use model_calls::{Aside, ModelCalls, Reservation, Reserved, Statement};
pub use news::{News, PLAN_OF, PLANS};
pub use oauth::{DeviceState, OAuth, OAuthCode, OAuthDevice, OAuthFamily, OAuthGrant};
pub use periods::{Period, Unknown};
pub use plans::{DEFAULT_PLAN, Plan, PlanRemoval, Planned, Plans};
pub use prices::{Price, Prices};
pub use records::{Call, Records, Usage};
pub use replays::{Claim, ClaimKey, Replays};
pub use runs::{Minting, MostMinted, Run, Runs};
pub use schedules::{Beside, Due, Fired, Firing, ScheduleRow, Schedules};
pub use secrets::{SealedSecret, SecretRow, Secrets};
pub use served::Served;
pub use settings::Settings;
pub use settling::{Settled, Used};
pub use signing_keys::{Kept as KeptSigningKey, SigningKeyRow, SigningKeys, SigningState};
pub use spent::Spent;
pub use tenants::{Settling, Tenant, TenantFilter, TenantState, Tenants};
pub use workspaces::{Ended, Kept, Most, Workspace, WorkspaceSnapshot, Workspaces};
