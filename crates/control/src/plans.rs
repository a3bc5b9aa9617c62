//! Plans: bundles of limits by name, and what each tenant and environment has of them, from memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kernel::{Caller, Code, EnvId, Error, Result, TenantId, Timestamp};
use serde_json::Value;
use store::{DEFAULT_PLAN, Plan, PlanRemoval, Planned, Store};
use tokio::sync::Mutex;

use crate::bounds::{Bounds, EnvironmentBounds};
use crate::control::operator;

const MAX_NAME: usize = 40;
/// Plans that there may be.
const MOST: usize = 1_000;

/// The plans. Who has which is in memory, and every gateway hears within a second of what changes.
pub struct Plans {
    store: Store,
    known: RwLock<Known>,
    /// Grows with whatever changes.
    version: AtomicU64,
    /// Whoever reads the database anew does so alone, so that none puts in what another has overtaken.
    reading: Mutex<()>,
}

#[derive(Default)]
struct Known {
    plans: HashMap<String, Bounds>,
    /// Of tenants with more than the default plan, all that holds for them.
    tenants: HashMap<TenantId, Arc<Bounds>>,
    /// Of environments with more than the default plan, what it says alone.
    environments: HashMap<EnvId, String>,
    usual: Arc<Bounds>,
}

impl Known {
    /// All that holds for a tenant.
    fn of(&self, planned: &Planned) -> Result<Arc<Bounds>> {
        let own = read("a tenant", &planned.limits)?;
        let plan = self.plans.get(&planned.plan);
        let plan =
            plan.ok_or_else(|| Error::internal(format!("the plan {:?} is not known", planned.plan)))?;
        Ok(Arc::new(own.or(*plan).or(*self.usual)))
    }

    fn put(&mut self, planned: &Planned) -> Result<()> {
        if planned.plan == DEFAULT_PLAN && planned.limits == "{}" {
            self.tenants.remove(&planned.tenant);
        } else {
            let all = self.of(planned)?;
            self.tenants.insert(planned.tenant, all);
        }
        Ok(())
    }
}

/// What holds for somebody.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// Of the tenant.
    pub tenant: Arc<Bounds>,
    /// Of the environment.
    pub environment: EnvironmentBounds,
}

impl Plans {
    pub(crate) async fn open(store: Store) -> Result<Self> {
        let plans =
            Self { store, known: RwLock::default(), version: AtomicU64::new(1), reading: Mutex::default() };
        plans.reload().await?;
        Ok(plans)
    }

    /// What holds for a tenant and one of its environments: its own limits, and what they do not say as its plan does; for the
    /// environment the smaller one of that and of its own plan.
    #[must_use]
    pub fn of(&self, tenant: TenantId, env: Option<EnvId>) -> Allowed {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let tenant = known.tenants.get(&tenant).unwrap_or(&known.usual);
        let plan = env.and_then(|env| known.environments.get(&env)).and_then(|plan| known.plans.get(plan));
        let environment = match plan {
            Some(plan) => tenant.environment.within(plan.environment),
            None => tenant.environment,
        };
        Allowed { tenant: Arc::clone(tenant), environment }
    }

    /// Another number whenever anything has changed: what was learnt before may hold no more.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// All plans, by name, with when each was set.
    ///
    /// # Errors
    /// `forbidden` for all but the operator.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<(String, Bounds, Timestamp)>> {
        operator(caller)?;
        let plans = self.store.plans().list().await?;
        plans
            .into_iter()
            .map(|plan| Ok((read(&plan.name, &plan.limits)?, plan)))
            .map(|read| read.map(|(bounds, plan)| (plan.name, bounds, plan.updated)))
            .collect()
    }

    /// Sets a plan, for all that have it at once.
    ///
    /// # Errors
    /// `forbidden` for all but the operator; `invalid_input` naming the limit.
    pub async fn set(&self, caller: &Caller, name: &str, limits: &Value) -> Result<(Bounds, Timestamp)> {
        operator(caller)?;
        check_name(name, "/plan")?;
        let bounds = Bounds::read(limits, "")?;
        let there = self.store.plans().list().await?;
        if there.len() >= MOST && there.iter().all(|plan| plan.name != name) {
            return Err(Error::new(
                Code::QuotaExceeded,
                format!("there are {MOST} plans, the most that can be"),
            )
            .hint("give a tenant limits of its own instead"));
        }
        let updated = Timestamp::now();
        let plan = Plan { name: name.to_owned(), limits: bounds.to_json().to_string(), updated };
        self.store.plans().set(&plan).await?;
        self.reload().await?;
        Ok((bounds, updated))
    }

    /// Removes a plan that nobody has.
    ///
    /// # Errors
    /// `forbidden` for all but the operator; `not_found`; `conflict` where it is somebody's, or the default one.
    pub async fn remove(&self, caller: &Caller, name: &str) -> Result<()> {
        operator(caller)?;
        if name == DEFAULT_PLAN {
            return Err(Error::new(Code::Conflict, "the plan \"default\" stays")
                .hint("set it to {} to have nothing in it"));
        }
        match self.store.plans().remove(name).await? {
            PlanRemoval::Removed => self.reload().await,
            PlanRemoval::Unknown => {
                Err(Error::not_found(format!("plan {:?}", name.chars().take(64).collect::<String>()))
                    .hint("GET /v1/plans lists them"))
            }
            PlanRemoval::Used(many) => {
                Err(Error::new(Code::Conflict, format!("{many} tenants and environments have this plan"))
                    .hint("give them another one first"))
            }
        }
    }

    /// Gives a tenant a plan, and limits of its own in the place of those it had, each where it is given.
    ///
    /// # Errors
    /// `invalid_input` naming what is wrong.
    pub(crate) async fn give(
        &self,
        tenant: TenantId,
        name: Option<&str>,
        limits: Option<&Value>,
    ) -> Result<()> {
        if let Some(name) = name {
            self.check(name)?;
        }
        let own = limits.map(|limits| Bounds::read(limits, "/limits")).transpose()?;
        let own = own.map(|own| own.to_json().to_string());
        if !self.store.plans().give(tenant, name, own.as_deref()).await? {
            return Err(self.gone(name.unwrap_or_default()));
        }
        self.learn_tenant(tenant).await
    }

    /// The refusal of a plan that was there a moment ago.
    pub(crate) fn gone(&self, name: &str) -> Error {
        Error::invalid("/plan", format!("there is no plan {name:?} any more"))
    }

    /// To be called after a tenant was made or given another plan.
    pub(crate) async fn learn_tenant(&self, tenant: TenantId) -> Result<()> {
        let _alone = self.reading.lock().await;
        let planned = self.store.plans().of_tenant(tenant).await?;
        let unknown = planned.as_ref().is_some_and(|it| !self.knows(&it.plan));
        if unknown {
            return self.read_all().await;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match planned {
            Some(planned) => known.put(&planned)?,
            None => drop(known.tenants.remove(&tenant)),
        }
        drop(known);
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// To be called after an environment was made.
    pub(crate) async fn learn_environment(&self, env: EnvId) -> Result<()> {
        let _alone = self.reading.lock().await;
        let plan = self.store.plans().of_environment(env).await?.filter(|plan| plan != DEFAULT_PLAN);
        if plan.as_ref().is_some_and(|plan| !self.knows(plan)) {
            return self.read_all().await;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match plan {
            Some(plan) => drop(known.environments.insert(env, plan)),
            None => drop(known.environments.remove(&env)),
        }
        drop(known);
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Learns what is told of: a tenant, an environment, or else everything.
    pub(crate) async fn learn(&self, of: &str) -> Result<()> {
        if let Ok(tenant) = of.parse() {
            self.learn_tenant(tenant).await
        } else if let Ok(env) = of.parse() {
            self.learn_environment(env).await
        } else {
            self.reload().await
        }
    }

    /// Reads everything anew.
    pub(crate) async fn reload(&self) -> Result<()> {
        let _alone = self.reading.lock().await;
        self.read_all().await
    }

    /// Holds a plan's name against those that there are.
    pub(crate) fn check(&self, plan: &str) -> Result<()> {
        if self.knows(plan) {
            return Ok(());
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut there: Vec<_> = known.plans.keys().map(String::as_str).collect();
        there.sort_unstable();
        there.truncate(20);
        let name: String = plan.chars().take(64).collect();
        let message = format!("there is no plan {name:?}; there are: {}", there.join(", "));
        Err(Error::invalid("/plan", message))
    }

    fn knows(&self, plan: &str) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).plans.contains_key(plan)
    }

    /// To be called by whoever reads alone.
    async fn read_all(&self) -> Result<()> {
        let plans = self.store.plans();
        // Plans come last: what somebody has was there before.
        let (tenants, environments) = (plans.of_tenants().await?, plans.of_environments().await?);
        let mut known = Known::default();
        for plan in plans.list().await? {
            known.plans.insert(plan.name.clone(), read(&plan.name, &plan.limits)?);
        }
        known.usual = Arc::new(known.plans.get(DEFAULT_PLAN).copied().unwrap_or_default());
        for planned in &tenants {
            known.put(planned)?;
        }
        known.environments = environments.into_iter().collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// What a row says.
fn read(of: &str, limits: &str) -> Result<Bounds> {
    let said = serde_json::from_str(limits).map_err(Error::internal)?;
    Bounds::read(&said, "").map_err(|error| Error::internal(format!("the limits of {of}: {}", error.chain())))
}

/// Holds the name of a plan against what it can be.
fn check_name(name: &str, at: &str) -> Result<()> {
    let fine = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fine) {
        let message = format!("the name of a plan has 1 to {MAX_NAME} of a-z, 0-9 and -");
        return Err(Error::invalid(at.to_owned(), message));
    }
    Ok(())
}
