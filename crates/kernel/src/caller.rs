//! Who calls.

use crate::{EnvId, KeyId, RunId, Scopes, TenantId, Timestamp, UserId};

/// What kind of party a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Who runs the platform.
    Operator,
    /// A tenant's key.
    Key,
    /// A run of an agent or a function, by its short-lived token.
    Run(RunId),
    /// An app's end user. Of the data plane only: the tool registry refuses it.
    EndUser(UserId),
    /// Someone without a session on an app's host. Of the data plane only: the tool registry refuses it.
    Visitor,
}

impl Principal {
    /// Whether this party may call tools at all.
    #[must_use]
    pub const fn may_call_tools(&self) -> bool {
        match self {
            Principal::Operator | Principal::Key | Principal::Run(_) => true,
            Principal::EndUser(_) | Principal::Visitor => false,
        }
    }

    /// The kind, for logs and audit rows.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Principal::Operator => "operator",
            Principal::Key => "key",
            Principal::Run(_) => "run",
            Principal::EndUser(_) => "end_user",
            Principal::Visitor => "visitor",
        }
    }
}

/// The door a call came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// MCP, over HTTP or stdio.
    Mcp,
    /// JSON over HTTP.
    Http,
}

impl Surface {
    /// The name in logs and audit rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Surface::Mcp => "mcp",
            Surface::Http => "http",
        }
    }
}

/// A verified caller: made by whoever checked the credential, then only read.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What kind of party.
    pub principal: Principal,
    /// The tenant the credential belongs to, or the one the operator chose.
    pub tenant: TenantId,
    /// The environment the credential is bound to, or the call has chosen.
    pub env: Option<EnvId>,
    /// What the credential carries.
    pub scopes: Scopes,
    /// The door.
    pub surface: Surface,
    /// Which credential, by its name.
    pub credential: KeyId,
    /// When the credential ends, if it does.
    pub expires: Option<Timestamp>,
}
