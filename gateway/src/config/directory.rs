//! The directory that vouches for members of tenants, as settings.

use capabilities::auth::Entry;
use kernel::{Networks, Role, Slug};
use url::{Host, Url};

use super::Error;
use super::value::{Hidden, Kind, Text, Value};

/// The directory that vouches for members of tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Whose word it is; there is no directory where none is set.
    pub issuer: Issuer,
    /// What the platform is called there.
    pub client_id: Text,
    /// What proves that it is the platform.
    pub client_secret: Hidden,
    /// What people call it.
    pub name: Text,
    /// What is asked for besides.
    pub scopes: Names,
    /// The tenant that people enter.
    pub tenant: Text,
    /// The claim that names it instead.
    pub tenant_claim: Text,
    /// The claim that says what people are.
    pub role_claim: Text,
    /// What that makes them.
    pub roles: Roles,
    /// Networks around the platform in which it may be.
    pub private: Networks,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            issuer: Issuer::default(),
            client_id: Text::default(),
            client_secret: Hidden::default(),
            name: Text::default(),
            scopes: Names::default(),
            tenant: Text("default".to_owned()),
            tenant_claim: Text::default(),
            role_claim: Text("groups".to_owned()),
            roles: Roles::default(),
            private: Networks::default(),
        }
    }
}

impl Directory {
    /// Refuses a half of what it takes, and what contradicts itself.
    pub fn check(&self) -> Result<(), Error> {
        let usual = Self::default();
        let (issuer, client_id, roles) = ("directory.issuer", "directory.client_id", "directory.roles");
        let said = [
            (client_id, !self.client_id.0.is_empty()),
            ("directory.client_secret", self.client_secret.0.is_some()),
            ("directory.name (STEADING_DIRECTORY)", !self.name.0.is_empty()),
            ("directory.scopes", !self.scopes.0.is_empty()),
            ("directory.tenant", self.tenant != usual.tenant),
            ("directory.tenant_claim", !self.tenant_claim.0.is_empty()),
            ("directory.role_claim", self.role_claim != usual.role_claim),
            (roles, !self.roles.0.is_empty()),
            ("directory.private", self.private != usual.private),
        ];
        if self.issuer.0.is_none() {
            return match said.into_iter().find(|(_, is_said)| *is_said) {
                Some((key, _)) => Err(Error::Alone { key, needs: issuer }),
                None => Ok(()),
            };
        }
        let needs = [(client_id, self.client_id.0.is_empty()), (roles, self.roles.0.is_empty())];
        if let Some((needs, _)) = needs.into_iter().find(|(_, lacks)| *lacks) {
            return Err(Error::Alone { key: issuer, needs });
        }
        if !self.tenant_claim.0.is_empty() && self.tenant != usual.tenant {
            return Err(Error::Both { one: "directory.tenant", other: "directory.tenant_claim" });
        }
        let wrong = |key, reason| Err(Error::Wrong { key, reason });
        if self.tenant.0.parse::<Slug>().is_err() && self.tenant != usual.tenant {
            return wrong("directory.tenant", "must be the slug of a tenant");
        }
        if self.role_claim.0.is_empty() && self.roles.0.iter().any(|(group, _)| group != EVERYBODY) {
            return wrong("directory.role_claim", "must name a claim, since directory.roles has names");
        }
        let is_plain = |text: &str| text.len() <= 256 && !text.chars().any(char::is_control);
        for (key, text) in [
            (client_id, &self.client_id.0),
            ("directory.name", &self.name.0),
            ("directory.tenant_claim", &self.tenant_claim.0),
            ("directory.role_claim", &self.role_claim.0),
        ] {
            if !is_plain(text) {
                return wrong(key, "must have 256 characters at most, and none that cannot be seen");
            }
        }
        Ok(())
    }

    /// What people call it; its host, where nothing is said.
    #[must_use]
    pub fn shown(&self) -> String {
        match (self.name.0.as_str(), &self.issuer.0) {
            ("", Some(issuer)) => {
                Url::parse(issuer).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
            }
            (name, _) => name.to_owned(),
        }
    }
}

/// Whose word it is: an address, as the directory itself writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuer(pub Option<String>);

/// Whether a host is this machine, or stands beside it: plain HTTP is for these alone.
pub(super) fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_private(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unique_local(),
        None => false,
    }
}

impl Value for Issuer {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let is_good = Url::parse(text).is_ok_and(|url| {
            (url.scheme() == "https" || url.scheme() == "http" && is_near(&url))
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if is_good && text.len() <= 300 && !text.contains(char::is_whitespace) {
            return Ok(Self(Some(text.to_owned())));
        }
        Err("must be an address such as \"https://id.example.com/realms/main\"".to_owned())
    }

    fn show(&self) -> String {
        self.0.clone().unwrap_or_default()
    }
}

/// Names without spaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Value for Names {
    const KIND: Kind = Kind::List;

    fn read(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<_> = names.map(str::to_owned).collect();
        let is_name = |name: &String| name.len() <= 256 && name.bytes().all(|byte| byte.is_ascii_graphic());
        if names.iter().all(is_name) {
            return Ok(Self(names));
        }
        Err("must be a list of words such as \"groups\"".to_owned())
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// Stands for everybody whom the directory lets in.
const EVERYBODY: &str = "*";

/// Which role each name in the role claim stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles(pub Vec<(String, Role)>);

impl Roles {
    /// What somebody is of whom the directory says this: the highest of all that match.
    #[must_use]
    pub fn of(&self, entry: &Entry, claim: &str) -> Option<Role> {
        let said = entry.texts(claim);
        let matching = |group: &str| group == EVERYBODY || said.contains(&group);
        self.0.iter().filter(|(group, _)| matching(group)).map(|(_, role)| *role).max()
    }
}

impl Value for Roles {
    const KIND: Kind = Kind::List;

    fn read(text: &str) -> Result<Self, String> {
        let wrong = |part: &str| {
            format!(
                "must be a list such as \"admins=owner\" with owner, developer or viewer, and {part:?} is none"
            )
        };
        let mut roles = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            // A name may have the sign itself.
            let (group, role) = part.rsplit_once('=').ok_or_else(|| wrong(part))?;
            let (group, role) = (group.trim(), role.trim().parse().map_err(|_| wrong(part))?);
            if group.is_empty() {
                return Err(wrong(part));
            }
            roles.push((group.to_owned(), role));
        }
        Ok(Self(roles))
    }

    fn show(&self) -> String {
        self.0.iter().map(|(group, role)| format!("{group}={role}")).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_highest_role_that_matches_counts_and_without_one_nobody_is_anything() {
        let roles = Roles::read("platform-admins=owner, developers=developer,OU=all=viewer").unwrap();
        assert_eq!(Roles::read(&roles.show()), Ok(roles.clone()));
        let of = |roles: &Roles, groups: serde_json::Value| {
            let claims = json!({ "groups": groups }).as_object().cloned().unwrap();
            let entry = Entry { issuer: String::new(), subject: String::new(), email: None, claims };
            roles.of(&entry, "groups")
        };
        for (groups, expected) in [
            (json!(["OU=all", "platform-admins", "developers"]), Some(Role::Owner)),
            (json!("developers"), Some(Role::Developer)),
            (json!(["OU=all"]), Some(Role::Viewer)),
            (json!(["Developers", "developers "]), None),
            (json!(["*"]), None),
            (json!([["developers"]]), None),
            (json!({ "developers": true }), None),
            (json!(null), None),
        ] {
            assert_eq!(of(&roles, groups.clone()), expected, "{groups}");
        }
        let all = Roles::read("*=viewer,developers=developer").unwrap();
        assert_eq!(of(&all, json!(null)), Some(Role::Viewer));
        assert_eq!(of(&all, json!(["developers"])), Some(Role::Developer));
        for wrong in ["developers", "=owner", "a=admin", "a=Owner", "a="] {
            assert!(Roles::read(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_issuer_is_kept_as_it_is_written_and_comes_by_https_but_for_what_is_near() {
        for good in ["https://id.example.com/realms/main/", "http://127.0.0.1:9", "http://10.0.0.1"] {
            assert_eq!(Issuer::read(good).map(|issuer| issuer.show()), Ok(good.to_owned()));
        }
        for wrong in [
            "id.example.com",
            "http://id.example.com",
            "https://u:p@id.example.com",
            "https://id.example.com/?a",
        ] {
            assert!(Issuer::read(wrong).is_err(), "{wrong}");
        }
    }
}
