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
    /// Of `there`, the weakest that is good enough for the tenant.
    ///
    /// # Errors
    /// `unavailable`: nothing weaker is taken in its place.
    pub(crate) fn choose(&self, tenant: TenantId, there: &[Isolation]) -> Result<Isolation> {
        let least = self.least(tenant);
        let enough = there.iter().copied().filter(|level| least.is_none_or(|least| *level >= least)).min();
        enough.ok_or_else(|| {
            let name = |level: Option<Isolation>| level.map_or("nothing", Isolation::as_str);
            let (least, most) = (name(least), name(there.iter().copied().max()));
            Error::new(
                Code::Unavailable,
                format!("sandboxes of this tenant must be kept apart by {least} at least, and here they are by {most}"),
            )
            .hint("the operator sees with `steading doctor` what this machine has, and demands it in sandbox.isolation")
        })
    }

    fn least(&self, tenant: TenantId) -> Option<Isolation> {
        self.all.max(self.of.get(&tenant).copied())
    }

    /// Whether sandboxes of somebody must be kept apart like `level`, or by more than anything weaker gives.
    #[must_use]
    pub fn reach(&self, level: Isolation, weaker: Isolation) -> bool {
        self.all.iter().chain(self.of.values()).any(|least| *least > weaker && *least <= level)
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
            let chosen = demands.choose(strict, &[there]).ok();
            assert_eq!(chosen, (there >= Isolation::Gvisor).then_some(there));
            assert_eq!(demands.choose(lax, &[there]).unwrap(), there);
        }
        let both = [Isolation::Gvisor, Isolation::Namespaces];
        assert_eq!(demands.choose(strict, &both).unwrap(), Isolation::Gvisor);
        assert_eq!(demands.choose(lax, &both).unwrap(), Isolation::Namespaces);
        assert!(demands.choose(lax, &[]).is_err());
        assert!(demands.reach(Isolation::Gvisor, Isolation::Namespaces));
        assert!(!Demands::default().reach(Isolation::Gvisor, Isolation::Namespaces));
        let demands = Demands { all: Some(Isolation::Gvisor), of: of(lax, Isolation::Namespaces) };
        let refused = demands.choose(lax, &[Isolation::Namespaces]).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(
            refused.message(),
            "sandboxes of this tenant must be kept apart by gvisor at least, and here they are by namespaces"
        );
    }
}
