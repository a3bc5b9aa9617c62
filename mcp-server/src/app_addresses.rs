//! Where the apps of environments answer, for the links in mails.

use std::sync::Arc;

use capabilities::mail::Addresses;
use control::Control;
use futures::future::BoxFuture;
use kernel::{Env, Error, Result};

use crate::platform::Urls;

/// The addresses by the slugs that the control plane knows.
pub struct AppAddresses {
    /// Knows the slugs.
    pub control: Arc<Control>,
    /// Knows what stands around them.
    pub urls: Urls,
}

impl Addresses for AppAddresses {
    fn url<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let place = self.control.environments().find(&env.id().to_string()).await?;
            let place = place.ok_or_else(|| Error::not_found(format!("environment \"{}\"", env.id())))?;
            Ok(self.urls.app(&place.slug))
        })
    }

    fn domain<'a>(&'a self, env: &'a Env, host: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move {
            // Domains are served where apps are, and always over HTTPS.
            let port = self.urls.apps_domain.split_once(':').filter(|_| self.urls.scheme == "https");
            let (name, asked) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
            if asked != port.map(|(_, port)| port) {
                return Ok(None);
            }
            let name = name.to_ascii_lowercase();
            let place = self.control.environments().at_domain(&name).await?;
            Ok(place
                .filter(|at| at.place.env == env.id())
                .map(|_| format!("https://{}", host.to_ascii_lowercase())))
        })
    }
}
