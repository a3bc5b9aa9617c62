//! Where the sandboxes of all tenants may go, and those of some.

use std::collections::BTreeMap;

use kernel::TenantId;
use sandbox::egress::{Pattern, Policy};

/// Hosts that sandboxes may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Those of all tenants.
    pub all: Vec<Pattern>,
    /// Hosts that those of these tenants may ask beside them.
    pub of: BTreeMap<TenantId, Vec<Pattern>>,
}

impl Allowed {
    /// `policy`, and these hosts of a tenant.
    pub(crate) fn policy(&self, policy: &Policy, tenant: TenantId) -> Policy {
        let own = self.of.get(&tenant).into_iter().flatten();
        let allow = policy.allow.iter().chain(&self.all).chain(own).cloned().collect();
        Policy { allow, ..policy.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_the_hosts_of_all_and_its_own_and_no_other_tenants() {
        let [one, other] = [TenantId::new(), TenantId::new()];
        let of = |text: &str| vec![text.parse::<Pattern>().unwrap()];
        let allowed = Allowed {
            all: of("all.test"),
            of: BTreeMap::from([(one, of("one.test")), (other, of("other.test"))]),
        };
        let reached = |tenant, host: &str| {
            let target = format!("{host}:443").parse().unwrap();
            allowed.policy(&Policy::default(), tenant).allows(&target)
        };
        assert_eq!(
            ["all.test", "one.test", "other.test"].map(|host| reached(one, host)),
            [true, true, false]
        );
        assert_eq!(["all.test", "one.test"].map(|host| reached(TenantId::new(), host)), [true, false]);
    }
}
