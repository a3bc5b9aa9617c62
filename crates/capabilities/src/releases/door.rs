//! What every manifest has to hold, whoever brings it: one that is applied, and one that comes with an archive.

use kernel::{Error, Result};

use super::manifest::Manifest;
use super::title;
use crate::domains::{DomainName, Reserved};
use crate::functions::{self, Kind, variables};
use crate::schedules;

/// How long the name of a secret may be.
const SECRET: usize = 64;

impl Manifest {
    /// The manifest in the form in which it is kept, where each part holds by itself; or the first thing that is wrong, with
    /// its place.
    pub(super) fn formed(mut self) -> Result<Self> {
        self.name.as_deref().map_or(Ok(()), title::check)?;
        if let Some(auth) = self.auth.take() {
            self.auth = Some(auth.checked().map_err(|e| e.under("/auth"))?);
        }
        self.backups.iter().try_for_each(|it| it.check().map_err(|e| e.under("/backups")))?;
        self.lifecycle.iter().try_for_each(|it| it.check().map_err(|e| e.under("/lifecycle")))?;
        self.code_formed()?;
        self.variables.iter().try_for_each(|it| variables::check(it).map_err(|e| e.under("/variables")))?;
        self.schedules.iter().try_for_each(|it| schedules::check(it).map_err(|e| e.under("/schedules")))?;
        for (i, name) in self.secrets.iter().flatten().enumerate() {
            if !is_secret(name) {
                return Err(Error::invalid(format!("/secrets/{i}"), "this is not the name of a secret"));
            }
        }
        Ok(self)
    }

    /// Refuses functions and services that cannot be.
    fn code_formed(&self) -> Result<()> {
        let (functions, services) = (self.functions.iter().flatten(), self.services.iter().flatten());
        let of_functions = functions.clone().map(|(_, spec)| spec.files.len());
        let files: Vec<usize> =
            of_functions.chain(services.clone().map(|(_, spec)| spec.files.len())).collect();
        functions::bounded(files.into_iter())?;
        for (name, spec) in functions {
            let checked = spec.settings().check(Kind::Function);
            checked.map_err(|e| e.under(&format!("/functions/{name}")))?;
        }
        for (name, spec) in services {
            let checked = spec.serving().check().and_then(|()| spec.settings().check(Kind::Service));
            checked.map_err(|e| e.under(&format!("/services/{name}")))?;
        }
        Ok(())
    }

    /// Refuses what no release of ours keeps.
    pub(super) fn kept(&self) -> Result<()> {
        let formed = self.clone().formed()?;
        if formed.auth != self.auth {
            return Err(Error::invalid("/auth", "addresses are not written as they are kept"));
        }
        if self.site.is_some() {
            return Err(Error::invalid("/site", "a site is kept beside the manifest"));
        }
        if self.functions.is_some() {
            return Err(Error::invalid("/functions", "functions are kept beside the manifest"));
        }
        if self.services.is_some() {
            return Err(Error::invalid("/services", "services are kept beside the manifest"));
        }
        for (i, text) in self.domains.iter().flatten().enumerate() {
            let at = format!("/domains/{i}");
            let name = DomainName::read(text, &Reserved::default()).map_err(|e| e.field(&at))?;
            if name.as_str() != text {
                return Err(Error::invalid(at, "a domain is not written as domains are kept"));
            }
        }
        Ok(())
    }
}

/// Whether a secret may be called so.
pub(crate) fn is_secret(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=SECRET).contains(&name.len())
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(is_plain)
}
