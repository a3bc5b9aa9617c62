//! What a credential may do: a closed list of scopes, and sets of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// One permission. Its text form is `<area>:<verb>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[repr(u8)]
        pub enum Scope { $($(#[$doc])* $name,)+ }

        impl Scope {
            /// Every scope, in the order of their declaration.
            pub const ALL: &'static [Scope] = &[$(Scope::$name,)+];

            /// The text form, `db:read` for example.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Scope::$name => $text,)+ }
            }
        }
    };
}

scopes! {
    /// See what an environment holds, and plan changes.
    AppRead = "app:read",
    /// Apply a manifest, roll back.
    AppWrite = "app:write",
    /// Read rows and the schema.
    DbRead = "db:read",
    /// Change rows and the schema.
    DbWrite = "db:write",
    /// See an app's users.
    AuthRead = "auth:read",
    /// Change an app's users.
    AuthWrite = "auth:write",
    /// Read files, whatever their bucket's rules say.
    StorageRead = "storage:read",
    /// Store and remove files, whatever their bucket's rules say.
    StorageWrite = "storage:write",
    /// Deploy functions, which read and change all rows and files.
    FunctionWrite = "function:write",
    /// Ask functions, whoever else may.
    FunctionInvoke = "function:invoke",
    /// Deploy sites.
    SiteWrite = "site:write",
    /// Write (never read) secrets.
    SecretWrite = "secret:write",
    /// Read an environment's logs.
    LogsRead = "logs:read",
    /// Remove single resources of an environment.
    ResourceDelete = "resource:delete",
    /// Run code in sandboxes, and work on their files. No credential has it that does not ask for it.
    SandboxUse = "sandbox:use",
    /// List the tenant's environments.
    EnvRead = "env:read",
    /// Create environments.
    EnvWrite = "env:write",
    /// Delete environments.
    EnvDelete = "env:delete",
    /// Make, list and revoke keys and credentials.
    KeyAdmin = "key:admin",
    /// Create and list tenants: the operator's.
    TenantAdmin = "tenant:admin",
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scope")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for Scope {
    type Error = UnknownScope;

    fn try_from(text: String) -> Result<Self, UnknownScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> String {
        scope.as_str().to_owned()
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes(u64);

impl Scopes {
    /// The set without members.
    pub const NONE: Scopes = Scopes(0);

    /// Every scope there is: the operator's set.
    #[must_use]
    pub const fn all() -> Self {
        Self((1 << Scope::ALL.len()) - 1)
    }

    /// What a key bound to one environment may carry: everything but the tenant's and the operator's own.
    #[must_use]
    pub fn of_environment() -> Self {
        use Scope::{
            AppRead, AppWrite, AuthRead, AuthWrite, DbRead, DbWrite, FunctionInvoke, FunctionWrite, LogsRead,
            ResourceDelete, SandboxUse, SecretWrite, SiteWrite, StorageRead, StorageWrite,
        };
        [
            AppRead,
            AppWrite,
            AuthRead,
            AuthWrite,
            DbRead,
            DbWrite,
            StorageRead,
            StorageWrite,
            FunctionWrite,
            FunctionInvoke,
            SiteWrite,
            SecretWrite,
            LogsRead,
            ResourceDelete,
            SandboxUse,
        ]
        .into_iter()
        .collect()
    }

    /// What a tenant's key may carry: everything but the operator's own.
    #[must_use]
    pub fn of_tenant() -> Self {
        Scope::ALL.iter().copied().filter(|s| *s != Scope::TenantAdmin).collect()
    }

    /// Whether `scope` is a member.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// The members of both sets.
    #[must_use]
    pub const fn intersection(self, other: Scopes) -> Scopes {
        Scopes(self.0 & other.0)
    }

    /// The set without one.
    #[must_use]
    pub const fn without(self, scope: Scope) -> Scopes {
        Scopes(self.0 & !(1 << scope as u8))
    }

    /// The first of `wanted` that is not a member.
    #[must_use]
    pub fn missing(self, wanted: &[Scope]) -> Option<Scope> {
        wanted.iter().copied().find(|scope| !self.contains(*scope))
    }

    /// The members, in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Scopes(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        scopes.into_iter().collect()
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.iter().collect()
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::as_str)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_it_was_given_and_no_more() {
        let set: Scopes = [Scope::DbRead, Scope::AppRead].into_iter().collect();
        assert!(set.contains(Scope::DbRead) && !set.contains(Scope::DbWrite));
        assert_eq!(set.missing(&[Scope::DbRead, Scope::DbWrite]), Some(Scope::DbWrite));
        assert_eq!(Scopes::all().iter().count(), Scope::ALL.len());
    }

    #[test]
    fn no_environment_key_reaches_the_tenant_and_no_tenant_key_the_platform() {
        let beyond_environment =
            [Scope::EnvRead, Scope::EnvWrite, Scope::EnvDelete, Scope::KeyAdmin, Scope::TenantAdmin];
        for scope in beyond_environment {
            assert!(!Scopes::of_environment().contains(scope), "{scope}");
        }
        assert!(!Scopes::of_tenant().contains(Scope::TenantAdmin));
    }

    #[test]
    fn every_scope_reads_back_from_its_text() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(*scope));
        }
        assert!("db:everything".parse::<Scope>().is_err());
    }
}
