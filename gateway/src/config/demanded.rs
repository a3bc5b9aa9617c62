//! How strongly sandboxes must be kept apart, as a setting: for all tenants, or for one.

use hands::Demands;
use sandbox::runner::Isolation;

use super::value::{Kind, Value};

impl Value for Demands {
    const KIND: Kind = Kind::List;

    fn read(text: &str) -> Result<Self, String> {
        let wrong = |part: &str| {
            let names = Isolation::ALL.map(|level| format!("{:?}", level.as_str())).join(", ");
            format!("must be a list of {names}, for one tenant \"<its id>=gvisor\", and {part:?} is none")
        };
        let mut demands = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (tenant, name) = match part.split_once('=') {
                Some((tenant, name)) => (Some(tenant.trim()), name.trim()),
                None => (None, part),
            };
            let level = Isolation::from_name(name).ok_or_else(|| wrong(part))?;
            match tenant.map(str::parse).transpose().map_err(|_| wrong(part))? {
                None => demands.all = demands.all.max(Some(level)),
                Some(tenant) => {
                    let held = demands.of.entry(tenant).or_insert(level);
                    *held = level.max(*held);
                }
            }
        }
        Ok(demands)
    }

    fn show(&self) -> String {
        let all = self.all.iter().map(|level| level.as_str().to_owned());
        let of = self.of.iter().map(|(tenant, level)| format!("{tenant}={}", level.as_str()));
        all.chain(of).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use kernel::TenantId;

    use super::*;

    #[test]
    fn demands_are_read_as_they_are_shown_and_what_is_none_is_named() {
        let tenant = TenantId::new();
        let read = Demands::read(&format!("gvisor, {tenant}=microvm,{tenant} = gvisor")).unwrap();
        assert_eq!(read, Demands { all: Some(Isolation::Gvisor), of: [(tenant, Isolation::Microvm)].into() });
        assert_eq!(read.show(), format!("gvisor,{tenant}=microvm"));
        assert_eq!(Demands::read("").unwrap(), Demands::default());
        for wrong in ["strong", "acme=gvisor", &format!("{tenant}="), "=gvisor"] {
            let said = Demands::read(wrong).unwrap_err();
            assert!(said.contains(wrong) && said.contains("\"microvm\""), "{said}");
        }
    }
}
