//! How strongly sandboxes must be kept apart at least.

use std::collections::BTreeMap;

use kernel::{Code, Error, Result, TenantId};
use sandbox::runner::Isolation;

/// The least isolation of all sandboxes, and of those of some tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// Of all; any will do where none is said.
    pub all: Option<Isolation>,
    /// Of these tenants, where it is more than that of all.
    pub of: BTreeMap<TenantId, Isolation>,
}

impl Demands {
    /// Holds that sandboxes which are kept apart like `there` are good enough for the tenant.
    ///
    /// # Errors
    /// `unavailable`: nothing weaker is taken in its place.
    pub(crate) fn hold(&self, tenant: TenantId, there: Isolation) -> Result<()> {
        match self.all.max(self.of.get(&tenant).copied()) {
            Some(least) if there < least => Err(Error::new(
                Code::Unavailable,
                format!(
                    "sandboxes of this tenant must be kept apart by {} at least, and here they are by {}",
                    least.as_str(),
                    there.as_str()
                ),
            )
            .hint("the operator sees with `steading doctor` what this machine has, and demands it in sandbox.isolation")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_demand_holds_and_only_for_whom_it_is_made() {
        let [strict, lax] = [TenantId::new(), TenantId::new()];
        let of = |strict, least| BTreeMap::from([(strict, least)]);
        let demands = Demands { all: None, of: of(strict, Isolation::Gvisor) };
        for there in Isolation::ALL {
            assert_eq!(demands.hold(strict, there).is_ok(), there >= Isolation::Gvisor, "{there:?}");
            assert!(demands.hold(lax, there).is_ok());
        }
        let demands = Demands { all: Some(Isolation::Gvisor), of: of(lax, Isolation::Namespaces) };
        let refused = demands.hold(lax, Isolation::Namespaces).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(
            refused.message(),
            "sandboxes of this tenant must be kept apart by gvisor at least, and here they are by namespaces"
        );
        assert!(demands.hold(lax, Isolation::Microvm).is_ok());
    }
}
