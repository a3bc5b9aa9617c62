//! Whose a host is, for the certificates.

use std::sync::Arc;

use capabilities::domains::{Owner, Owners};
use control::{Control, Place};
use edge::{HostKind, Hosts};
use futures::future::BoxFuture;
use kernel::{Env, Result};

/// The hosts of this installation and of its environments.
pub struct HostOwners {
    /// The hosts.
    pub hosts: Arc<Hosts>,
    /// Who knows the environments.
    pub control: Arc<Control>,
}

impl Owners for HostOwners {
    fn owner<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Owner>>> {
        Box::pin(async move {
            let environments = self.control.environments();
            let proof = |place: Place| Env::for_upkeep(place.tenant, place.env);
            Ok(match self.hosts.named(host) {
                HostKind::Platform => Some(Owner::Platform),
                HostKind::App(slug) => environments.find(slug.as_str()).await?.map(proof).map(Owner::App),
                HostKind::Preview { slug, .. } => {
                    environments.find(slug.as_str()).await?.map(proof).map(Owner::Preview)
                }
                HostKind::Domain(name) => {
                    let found = environments.at_domain(&name).await?;
                    found.map(|found| Owner::Domain(proof(found.place)))
                }
                // No certificate is ordered for a label that anybody can make up: the preview domain has a wildcard one.
                HostKind::Sandbox(_) | HostKind::Unknown => None,
            })
        })
    }
}
