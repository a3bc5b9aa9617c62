//! Where sandboxes may go, as a setting: those of all tenants, or of one.

use hands::Allowed;
use sandbox::egress::Pattern;

use super::value::{Kind, Value};

impl Value for Allowed {
    const KIND: Kind = Kind::List;

    fn read(text: &str) -> Result<Self, String> {
        let mut allowed = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            // No host has such a sign.
            let (tenant, host) = match part.split_once('=') {
                Some((tenant, host)) => (Some(tenant.trim()), host.trim()),
                None => (None, part),
            };
            let pattern: Pattern = host.parse().map_err(|e| format!("is wrong: {e}"))?;
            match tenant {
                None => allowed.all.push(pattern),
                Some(tenant) => {
                    let id = tenant.parse().map_err(|_| {
                        format!("is wrong: {tenant:?} is no tenant's id: write \"<its id>=example.com\"")
                    })?;
                    allowed.of.entry(id).or_default().push(pattern);
                }
            }
        }
        Ok(allowed)
    }

    fn show(&self) -> String {
        let all = self.all.iter().map(ToString::to_string);
        let of =
            self.of.iter().flat_map(|(tenant, hosts)| hosts.iter().map(move |it| format!("{tenant}={it}")));
        all.chain(of).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use kernel::TenantId;

    use super::*;

    #[test]
    fn hosts_are_read_as_they_are_shown_and_what_is_none_is_named() {
        let tenant = TenantId::new();
        let read = Allowed::read(&format!("*.a.test, {tenant}=b.test:22,{tenant} = c.test")).unwrap();
        assert_eq!(read.show(), format!("*.a.test,{tenant}=b.test:22,{tenant}=c.test"));
        assert_eq!((read.all.len(), read.of[&tenant].len()), (1, 2));
        assert_eq!(Allowed::read("").unwrap(), Allowed::default());
        for (wrong, named) in [("a b", "a b"), ("acme=a.test", "acme"), (&*format!("{tenant}="), "\"\"")] {
            let said = Allowed::read(wrong).unwrap_err();
            assert!(said.contains(named), "{said}");
        }
    }
}
