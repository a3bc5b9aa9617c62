//! Where the apps of environments answer, for the links in mails.

use std::sync::Arc;

use capabilities::mail::{Addresses, At};
use control::Control;
use futures::future::BoxFuture;
use kernel::{Env, Error, Result};
use store::DomainClaim;

use crate::platform::Urls;

/// The addresses by the slugs that the control plane knows.
pub struct AppAddresses {
    /// Knows the slugs.
    pub control: Arc<Control>,
    /// Knows what stands around them.
    pub urls: Urls,
}

impl Addresses for AppAddresses {
    fn url<'a>(&'a self, env: &'a Env, at: At<'a>) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            if let At::Domain(name) = at {
                return Ok(self.urls.domain(name));
            }
            if at == At::Best {
                let claims = self.control.store().domains().list(env.id()).await?;
                let serves = |claim: &&DomainClaim| claim.proven.is_some() && claim.missing.is_none();
                if let Some(claim) = claims.iter().find(serves) {
                    return Ok(self.urls.domain(&claim.name));
                }
            }
            let place = self.control.environments().find(&env.id().to_string()).await?;
            let place = place.ok_or_else(|| Error::not_found(format!("environment \"{}\"", env.id())))?;
            Ok(self.urls.app(&place.slug))
        })
    }
}
