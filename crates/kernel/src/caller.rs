//! Who calls.

use std::net::IpAddr;
use std::sync::Arc;

use crate::{EnvId, Held, KeyId, RunId, Scopes, TenantId, Timestamp, UserId};

/// What kind of party a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Who runs the platform.
    Operator,
    /// A tenant's key.
    Key,
    /// A member of a tenant, who has signed in.
    Member,
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
            Principal::Operator | Principal::Key | Principal::Member | Principal::Run(_) => true,
            Principal::EndUser(_) | Principal::Visitor => false,
        }
    }

    /// Whether what this party shows stands on nothing else: it was not minted.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        matches!(self, Principal::Operator | Principal::Key | Principal::Member)
    }

    /// The kind, for logs and audit rows.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Principal::Operator => "operator",
            Principal::Key => "key",
            Principal::Member => "member",
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
    /// The address of who asks, proxies of ours looked through; none where the call came over no network, as from a
    /// sandbox or from the platform itself.
    pub source: Option<IpAddr>,
    /// Whose what it leaves behind is, such as the workspace of a sandbox: its own, or that of the key whose place it took.
    pub owner: KeyId,
    /// What it is held to beyond its scopes, where it is held to anything.
    pub held: Option<Arc<Held>>,
    /// What the credential stands on, where it was minted: its key, then those between. What it does counts as theirs too.
    pub above: Arc<[KeyId]>,
    /// The address of the platform that was asked, as it was dialled, where it came over the network: a token that was
    /// issued for one address is good there alone.
    pub at: Option<Arc<str>>,
    /// Whether the credential was issued to a client that can ask its user for more.
    pub consent: Consent,
}

/// Whether whoever uses a credential can ask for more than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consent {
    /// It has what it was made with.
    #[default]
    Fixed,
    /// A user has consented to it, and may consent to more.
    Asked,
}

impl Caller {
    /// A caller of a whole tenant, by JSON over HTTP, from nowhere, with a credential that does not end.
    #[must_use]
    pub fn new(principal: Principal, tenant: TenantId, credential: KeyId, scopes: Scopes) -> Self {
        let (env, expires, source, held) = (None, None, None, None);
        let (surface, above) = (Surface::Http, Arc::default());
        let (owner, at, consent) = (credential, None, Consent::Fixed);
        Self {
            principal,
            tenant,
            env,
            scopes,
            surface,
            credential,
            expires,
            source,
            owner,
            held,
            above,
            at,
            consent,
        }
    }

    /// The same, bound to an environment or to none.
    #[must_use]
    pub fn in_env(self, env: Option<EnvId>) -> Self {
        Self { env, ..self }
    }

    /// The same, until the credential ends.
    #[must_use]
    pub fn until(self, expires: Option<Timestamp>) -> Self {
        Self { expires, ..self }
    }

    /// The same, held to tools and values.
    #[must_use]
    pub fn held_to(self, held: Option<Arc<Held>>) -> Self {
        Self { held, ..self }
    }

    /// The same, in the place of a key that was there before.
    #[must_use]
    pub fn in_place_of(self, owner: KeyId) -> Self {
        Self { owner, ..self }
    }

    /// The same, standing on a key and those minted between.
    #[must_use]
    pub fn standing_on(self, above: impl IntoIterator<Item = KeyId>) -> Self {
        Self { above: above.into_iter().collect(), ..self }
    }

    /// The key that it stands on: itself, where it is one.
    #[must_use]
    pub fn root(&self) -> KeyId {
        self.above.first().copied().unwrap_or(self.credential)
    }

    /// The same, issued to a client with its user's consent.
    #[must_use]
    pub fn consented(self) -> Self {
        Self { consent: Consent::Asked, ..self }
    }

    /// The same at an address of the platform.
    #[must_use]
    pub fn at(self, at: Option<Arc<str>>) -> Self {
        Self { at, ..self }
    }

    /// The same by another door, from an address.
    #[must_use]
    pub fn by(self, surface: Surface, source: Option<IpAddr>) -> Self {
        Self { surface, source, ..self }
    }
}
