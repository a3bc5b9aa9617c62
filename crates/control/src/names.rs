//! Which environment a slug or an id stands for.

use std::time::Duration;

use kernel::{EnvId, Result, Slug, TenantId};
use store::{EnvState, Environment, Store};

use crate::remembered::Remembered;

const CAPACITY: usize = 4_096;
/// Other nodes' changes are seen after this; this node's at once.
const LIFETIME: Duration = Duration::from_secs(10);

/// A ready environment, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The environment.
    pub env: EnvId,
    /// Its slug.
    pub slug: Slug,
    /// Its tenant.
    pub tenant: TenantId,
}

/// Whose a proven domain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainPlace {
    /// The environment.
    pub place: Place,
    /// Whether browsers are told to come by HTTPS only.
    pub hsts: bool,
}

/// An environment that is ready, or would be if its tenant were active.
#[derive(Debug, Clone)]
struct Known {
    place: Place,
    ready: bool,
}

pub(crate) struct Names {
    store: Store,
    known: Remembered<String, Option<Known>>,
    domains: Remembered<String, Option<DomainPlace>>,
}

impl Names {
    pub(crate) fn new(store: Store) -> Self {
        let domains = Remembered::new(CAPACITY, LIFETIME);
        Self { store, known: Remembered::new(CAPACITY, LIFETIME), domains }
    }

    /// The ready environment with this slug or id.
    pub(crate) async fn find(&self, slug_or_id: &str) -> Result<Option<Place>> {
        Ok(self.known(slug_or_id).await?.filter(|known| known.ready).map(|known| known.place))
    }

    /// Whether there is an environment with this slug or id that cannot be used, for its tenant is not active.
    pub(crate) async fn is_suspended(&self, slug_or_id: &str) -> Result<bool> {
        Ok(self.known(slug_or_id).await?.is_some_and(|known| !known.ready))
    }

    async fn known(&self, slug_or_id: &str) -> Result<Option<Known>> {
        let Some(name) = canonical(slug_or_id) else { return Ok(None) };
        if let Some(place) = self.known.get(&name) {
            return Ok(place);
        }
        let asked = self.known.asking();
        let row = self.store.environments().find(&name).await?;
        let is_there = |state| matches!(state, EnvState::Ready | EnvState::Suspended);
        let known = row.filter(|env| is_there(env.state)).map(|env| Known {
            ready: env.state == EnvState::Ready,
            place: Place { env: env.id, slug: env.slug, tenant: env.tenant },
        });
        self.known.keep(asked, name, known.clone());
        Ok(known)
    }

    /// Drops everything.
    pub(crate) fn forget_all(&self) {
        self.known.forget(|_, _| true);
        self.domains.forget(|_, _| true);
    }

    /// To be called after an environment has begun to go.
    pub(crate) fn env_gone(&self, env: EnvId) {
        let id = env.to_string();
        self.known
            .forget(|name, place| *name == id || place.as_ref().is_some_and(|known| known.place.env == env));
        self.domains.forget(|_, at| at.as_ref().is_some_and(|at| at.place.env == env));
    }

    /// To be called after an environment's state has changed.
    pub(crate) fn changed(&self, env: &Environment) {
        let id = env.id.to_string();
        self.known.forget(|name, _| *name == id || *name == env.slug.as_str());
        self.domains.forget(|_, at| at.as_ref().is_some_and(|at| at.place.env == env.id));
    }

    /// The ready environment that a domain is proven for. `name` is in lower case and ASCII.
    pub(crate) async fn at_domain(&self, name: &str) -> Result<Option<DomainPlace>> {
        if let Some(found) = self.domains.get(&name.to_owned()) {
            return Ok(found);
        }
        let asked = self.domains.asking();
        let row = self.store.domains().proven_for(name).await?;
        let found = row.map(|row| DomainPlace {
            place: Place { env: row.env, slug: row.slug, tenant: row.tenant },
            hsts: row.hsts,
        });
        self.domains.keep(asked, name.to_owned(), found.clone());
        Ok(found)
    }

    /// To be called after a domain's row has changed.
    pub(crate) fn domain_changed(&self, domain: &str) {
        self.domains.forget(|name, _| name == domain);
    }
}

/// The one way to write what may be a slug or an id; `None` for what can be neither.
pub(crate) fn canonical(slug_or_id: &str) -> Option<String> {
    match slug_or_id.parse::<EnvId>() {
        Ok(id) => Some(id.to_string()),
        Err(_) => slug_or_id.parse::<Slug>().ok().map(String::from),
    }
}
