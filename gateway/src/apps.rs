//! What the edge asks: which environment a slug stands for, and which release answers.

use std::sync::Arc;

use capabilities::releases::Releases;
use control::Control;
use edge::{Admitted, Apps, AtDomain, Served, Which};
use futures::future::BoxFuture;
use kernel::{Code, Env, Error, Meter, Metering as _, Result, Slug};

/// The environments and their releases.
pub struct Residents {
    /// Knows the slugs.
    pub control: Arc<Control>,
    /// Knows the releases.
    pub releases: Arc<Releases>,
}

impl Apps for Residents {
    fn find<'a>(&'a self, slug: &'a Slug) -> BoxFuture<'a, Result<Option<Env>>> {
        Box::pin(async move {
            let environments = self.control.environments();
            let place = environments.find(slug.as_str()).await?;
            if place.is_none() && environments.is_suspended(slug.as_str()).await? {
                return Err(Error::new(Code::Forbidden, "the tenant is suspended"));
            }
            Ok(place.map(|place| Env::for_upkeep(place.tenant, place.env)))
        })
    }

    fn at_domain<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, Result<Option<AtDomain>>> {
        Box::pin(async move {
            let found = self.control.environments().at_domain(domain).await?;
            Ok(found.map(|found| AtDomain {
                env: Env::for_upkeep(found.place.tenant, found.place.env),
                hsts: found.hsts,
            }))
        })
    }

    fn admit(&self, env: &Env) -> Result<Admitted> {
        let visit = self.control.limiter().visit(env.tenant(), env.id())?;
        self.control.metering().count(env.tenant(), env.id(), Meter::Visits, 1);
        Ok(Admitted::of(visit))
    }

    fn release<'a>(&'a self, env: &'a Env, which: Which) -> BoxFuture<'a, Result<Option<Arc<Served>>>> {
        Box::pin(async move {
            match which {
                Which::Live => self.releases.live(env).await,
                Which::Number(release) => self.releases.numbered(env, release).await,
            }
        })
    }
}
