//! What people may in a tenant.

use std::fmt;
use std::str::FromStr;

use crate::{Scope, Scopes};

/// What a member of a tenant is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything, and changes nothing.
    Viewer,
    /// Builds: everything within environments, and makes them.
    Developer,
    /// Everything of the tenant, with its keys, members and budgets.
    Owner,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: &'static [Role] = &[Role::Viewer, Role::Developer, Role::Owner];

    /// The name in the database and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Developer => "developer",
            Role::Owner => "owner",
        }
    }

    /// What it may at most; each role has all of the one below it.
    #[must_use]
    pub fn scopes(self) -> Scopes {
        use Scope::{AppRead, AuthRead, DbRead, EnvDelete, EnvRead, KeyAdmin, LogsRead, StorageRead};
        match self {
            Role::Viewer => [AppRead, DbRead, AuthRead, StorageRead, LogsRead, EnvRead].into_iter().collect(),
            Role::Developer => Scopes::of_tenant().without(KeyAdmin).without(EnvDelete),
            Role::Owner => Scopes::of_tenant(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role: it is owner, developer or viewer")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let found = Self::ALL.iter().copied().find(|role| role.as_str() == text);
        found.ok_or_else(|| UnknownRole(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_all_of_the_one_below_and_none_has_what_is_the_operators() {
        for pair in Role::ALL.windows(2) {
            let (less, more) = (pair[0].scopes(), pair[1].scopes());
            assert_eq!(less.intersection(more), less);
            assert_ne!(less, more);
        }
        assert!(!Role::Owner.scopes().contains(Scope::TenantAdmin));
        assert!(!Role::Developer.scopes().contains(Scope::KeyAdmin));
        assert!(Role::Viewer.scopes().iter().all(|scope| scope.as_str().ends_with(":read")));
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        assert!("admin".parse::<Role>().is_err());
    }
}
