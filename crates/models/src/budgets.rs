//! Budgets: who sets which, and how much of each is left.

use kernel::{BudgetId, Caller, Code, Env, EnvId, Error, Proof, Result, Scope, Tenant, TenantId, Timestamp};
use store::{Budget, Limit, Period, Setter, Standing, Store, Unit};

/// The largest amount, which every JSON reader keeps whole.
const LARGEST: u64 = 1 << 53;

/// Budgets on one page.
pub const PAGE: u32 = 100;

/// A budget that is to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBudget {
    /// The environment that it bounds; the whole tenant, where there is none.
    pub env: Option<EnvId>,
    /// What it counts.
    pub unit: Unit,
    /// How long it lasts.
    pub period: Period,
    /// The most that may be spent.
    pub most: u64,
}

/// Budgets of tenants and of their environments. The operator sets any; a tenant's keys with `key:admin` set further ones of
/// its environments, never above its own, and never in the place of the operator's: all of them have to have room.
pub struct Budgets<'a> {
    pub(crate) store: &'a Store,
    /// What every environment has on a day, in tokens.
    pub(crate) usual: u64,
}

impl Budgets<'_> {
    /// Sets a budget, in the place of one that the same party has set for the same environment, unit and period.
    ///
    /// # Errors
    /// `forbidden` for who may not, `not_found` for an environment that is another's, `invalid_input` for an amount above the
    /// tenant's own.
    pub async fn set(&self, caller: &Caller, new: NewBudget) -> Result<Standing> {
        let (tenant, setter) = setter(caller)?;
        let env = new.env.or(caller.env);
        check(new.most)?;
        if setter == Setter::Tenant {
            if env.is_none() {
                return Err(Error::new(Code::Forbidden, "a tenant's own budget is its operator's to set")
                    .hint("set one of an environment, with env"));
            }
            self.below_own(tenant, &new).await?;
        }
        let NewBudget { unit, period, most, .. } = new;
        let (id, updated) = (BudgetId::new(), Timestamp::now());
        let budget = Budget { id, tenant, env, unit, period, setter, most, updated };
        let set = self.store.budgets().set(&budget).await?;
        let set = set.ok_or_else(|| match env {
            Some(env) => Error::not_found(format!("environment \"{env}\"")).field("/env"),
            None => Error::not_found("such tenant"),
        })?;
        self.standing(set).await
    }

    /// Has a budget be of another amount.
    ///
    /// # Errors
    /// As for [`Budgets::set`]; `not_found` where the tenant has no such budget.
    pub async fn change(&self, caller: &Caller, id: BudgetId, most: u64) -> Result<Standing> {
        let (budget, _) = self.own(caller, id).await?;
        let Budget { env, unit, period, .. } = budget;
        let caller = Caller { env: None, ..caller.clone() };
        self.set(&caller, NewBudget { env, unit, period, most }).await
    }

    /// Removes a budget. What is spent by then is not forgotten: another one for the same counts it too.
    ///
    /// # Errors
    /// `forbidden` for who may not, `not_found` where the tenant has no such budget.
    pub async fn remove(&self, caller: &Caller, id: BudgetId) -> Result<()> {
        let (budget, tenant) = self.own(caller, id).await?;
        match self.store.budgets().remove(tenant, budget.id).await? {
            true => Ok(()),
            false => Err(missing(id)),
        }
    }

    /// One budget of the caller's tenant, or one that bounds the caller's environment where it has one.
    ///
    /// # Errors
    /// `forbidden` without `env:read`, or `app:read` in an environment; `not_found` where there is none.
    pub async fn show(&self, caller: &Caller, id: BudgetId) -> Result<Standing> {
        let tenant = match caller.env {
            Some(_) => Env::authorize(caller, &[Scope::AppRead])?.tenant(),
            None => Tenant::authorize(caller, &[Scope::EnvRead])?.id(),
        };
        let found = self.store.budgets().get(tenant, id).await?;
        let bounds = |it: &Budget| caller.env.is_none() || it.env.is_none() || it.env == caller.env;
        self.standing(found.filter(bounds).ok_or_else(|| missing(id))?).await
    }

    /// Those of the caller's tenant and its environments that follow `after`, at most a page; or all that bounds the caller's
    /// environment where it has one, also what every environment has.
    ///
    /// # Errors
    /// As for [`Budgets::show`].
    pub async fn list(&self, caller: &Caller, after: Option<BudgetId>) -> Result<Vec<Standing>> {
        if caller.env.is_some() {
            let env = Env::authorize(caller, &[Scope::AppRead])?;
            return of_env(self.store, &env, self.usual, Timestamp::now()).await;
        }
        let tenant = Tenant::authorize(caller, &[Scope::EnvRead])?;
        let mut shown = Vec::new();
        for budget in self.store.budgets().list(tenant.id(), after, PAGE).await? {
            shown.push(self.standing(budget).await?);
        }
        Ok(shown)
    }

    async fn standing(&self, budget: Budget) -> Result<Standing> {
        Ok(self.store.budgets().standing(Limit::Set(budget), Timestamp::now()).await?)
    }

    /// A budget that the caller may change.
    async fn own(&self, caller: &Caller, id: BudgetId) -> Result<(Budget, TenantId)> {
        let (tenant, setter) = setter(caller)?;
        let budget = self.store.budgets().get(tenant, id).await?.ok_or_else(|| missing(id))?;
        if budget.setter != setter && setter == Setter::Tenant {
            return Err(Error::new(
                Code::Forbidden,
                format!("the platform's operator has set the budget {id}"),
            )
            .hint("ask who runs the platform"));
        }
        if budget.setter != setter {
            return Err(Error::new(Code::Conflict, format!("the tenant has set the budget {id} itself"))
                .hint("set one for the same environment beside it: the lower one counts"));
        }
        Ok((budget, tenant))
    }

    /// No environment is given more of what the tenant has itself for as long or longer.
    async fn below_own(&self, tenant: TenantId, new: &NewBudget) -> Result<()> {
        let bounds = |it: &&Budget| it.env.is_none() && it.unit == new.unit && it.period >= new.period;
        let own = self.store.budgets().of_tenant(tenant).await?;
        match own.iter().filter(bounds).min_by_key(|it| it.most) {
            Some(own) if new.most > own.most => Err(Error::invalid(
                "/most",
                format!("the tenant has {} {} itself for a {} ({})", own.most, own.unit, own.period, own.id),
            )
            .hint("set no more than that, or ask who runs the platform to raise it")),
            _ => Ok(()),
        }
    }
}

/// All that bounds an environment.
pub(crate) async fn of_env(store: &Store, env: &Env, usual: u64, at: Timestamp) -> Result<Vec<Standing>> {
    Ok(store.budgets().bounding(env.tenant(), env.id(), usual, at).await?)
}

/// For which tenant a caller may set budgets, and as whom.
fn setter(caller: &Caller) -> Result<(TenantId, Setter)> {
    if !caller.principal.is_root() {
        return Err(Error::new(Code::Forbidden, "a minted token cannot set budgets"));
    }
    if let Ok(tenant) = Tenant::authorize(caller, &[Scope::TenantAdmin]) {
        return Ok((tenant.id(), Setter::Operator));
    }
    Ok((Tenant::authorize(caller, &[Scope::KeyAdmin])?.id(), Setter::Tenant))
}

fn check(most: u64) -> Result<()> {
    if most > LARGEST {
        return Err(Error::invalid("/most", format!("a budget is at most {LARGEST}")));
    }
    Ok(())
}

fn missing(id: BudgetId) -> Error {
    Error::not_found(format!("budget \"{id}\""))
}
