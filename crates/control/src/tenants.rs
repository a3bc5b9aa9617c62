//! Tenants: made, found, suspended, and deleted with time to think again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kernel::{Code, EnvId, Error, Result, Slug, TenantId, Timestamp};
use serde_json::Value;
use store::{Environment, Settling, Store, Tenant, TenantFilter, TenantState};

use crate::bounds::Bounds;
use crate::credentials::Credentials;
use crate::data_keys::DataKeys;
use crate::environments::{MAX_EXTERNAL_ID, MAX_NAME, check_tags, check_text, suffixed};
use crate::names::Names;
use crate::plans::Plans;
use crate::remembered::Remembered;

const MAX_PAGE: u32 = 100;
/// So many are removed for good at once.
const REMOVED: u32 = 100;
/// Tries for a slug that is made.
const TRIES: u32 = 5;

/// What a tenant is to be. Everything may be left out.
#[derive(Debug, Clone, Default)]
pub struct NewTenant {
    /// Its short name, unique on the platform; one is made where it is not given.
    pub slug: Option<Slug>,
    /// Its name for people, at most 100 characters; the slug where it is not given.
    pub name: Option<String>,
    /// What the operator's own system calls it, at most 255 characters: the same one is the same tenant.
    pub external_id: Option<String>,
    /// Its tags, at most 20.
    pub tags: BTreeMap<String, String>,
    /// The name of its plan; `default` where it is not given.
    pub plan: Option<String>,
    /// What is its own of its limits, as [`crate::Bounds`] are written.
    pub limits: Option<Value>,
}

/// What is to be different of a tenant.
#[derive(Debug, Clone, Default)]
pub struct TenantChange {
    /// Its name for people.
    pub name: Option<String>,
    /// Its tags, all of them.
    pub tags: Option<BTreeMap<String, String>>,
    /// The name of its plan.
    pub plan: Option<String>,
    /// What is its own of its limits, all of it, as [`crate::Bounds`] are written.
    pub limits: Option<Value>,
}

/// The tenants. Whatever is done with them needs `tenant:admin`, shown by a proof of the tenant level.
pub struct Tenants {
    pub(crate) store: Store,
    pub(crate) names: Arc<Names>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) slugs: Arc<Remembered<String, TenantId>>,
    pub(crate) data_keys: Arc<DataKeys>,
    /// How long a deleted one can be restored.
    pub(crate) grace: Duration,
    /// The operator's key is in it.
    pub(crate) default: TenantId,
    pub(crate) plans: Arc<Plans>,
}

impl Tenants {
    /// Makes a tenant, or finds the one with the same external id; tells whether it is new.
    ///
    /// # Errors
    /// `conflict` where the slug is taken, or the one with that external id is deleted; `invalid_input` naming the field.
    pub async fn create(&self, _: &kernel::Tenant, new: NewTenant) -> Result<(Tenant, bool)> {
        check_text("/name", "name", new.name.as_deref(), MAX_NAME)?;
        check_text("/external_id", "external id", new.external_id.as_deref(), MAX_EXTERNAL_ID)?;
        check_tags(&new.tags, "a tenant")?;
        if let Some(plan) = &new.plan {
            self.plans.check(plan)?;
        }
        let own = new.limits.as_ref().map(|limits| Bounds::read(limits, "/limits")).transpose()?;
        let own = own.unwrap_or_default().to_json().to_string();
        let base = new.slug.clone().or_else(|| new.name.as_deref().and_then(Slug::from_name));
        let mut slug = match &base {
            Some(base) => base.clone(),
            None => suffixed(None, "tenant")?,
        };
        for _ in 0..TRIES {
            let name = new.name.clone().unwrap_or_else(|| slug.to_string());
            let row = Tenant::new(slug.clone(), name, TenantId::new(), Timestamp::now());
            let (external_id, tags) = (new.external_id.clone(), new.tags.clone());
            let plan = new.plan.clone().unwrap_or_else(|| row.plan.clone());
            let row = Tenant { external_id, tags, plan, limits: own.clone(), ..row };
            match self.store.tenants().insert(&row).await? {
                Settling::Made => {
                    self.plans.learn_tenant(row.id).await?;
                    return Ok((row, true));
                }
                Settling::NoPlan => return Err(self.plans.gone(&row.plan)),
                Settling::Same(found) if found.state == TenantState::Deleted => {
                    let message =
                        format!("the tenant {:?} with this external id is deleted", found.slug.as_str());
                    return Err(Error::new(Code::Conflict, message)
                        .field("/external_id")
                        .hint("restore it, or give another external id"));
                }
                Settling::Same(found) => return Ok((*found, false)),
                Settling::SlugTaken if new.slug.is_none() => slug = suffixed(base.as_ref(), "tenant")?,
                Settling::SlugTaken => break,
            }
        }
        Err(Error::new(Code::Conflict, format!("the slug {:?} is taken", slug.as_str()))
            .field("/slug")
            .hint("choose another, or leave it out and one is made"))
    }

    /// The tenant with this slug or id.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get(&self, _: &kernel::Tenant, slug_or_id: &str) -> Result<Tenant> {
        let missing = || {
            let name: String = slug_or_id.chars().take(64).collect();
            Error::not_found(format!("tenant {name:?}")).hint("GET /v1/tenants lists them")
        };
        self.store.tenants().find(slug_or_id).await?.ok_or_else(missing)
    }

    /// At most `limit` (1 to 100) tenants made after `after`, oldest first.
    ///
    /// # Errors
    /// `invalid_input` where the limit is out of range.
    pub async fn list(
        &self,
        _: &kernel::Tenant,
        filter: &TenantFilter,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<Tenant>> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit must be 1 to {MAX_PAGE}")));
        }
        check_tags(&filter.tags, "a filter")?;
        check_text("/external_id", "external id", filter.external_id.as_deref(), MAX_EXTERNAL_ID)?;
        Ok(self.store.tenants().list(filter, after, limit).await?)
    }

    /// Changes what is said of a tenant.
    ///
    /// # Errors
    /// `not_found`; `invalid_input` naming the field.
    pub async fn change(
        &self,
        proof: &kernel::Tenant,
        slug_or_id: &str,
        change: TenantChange,
    ) -> Result<Tenant> {
        check_text("/name", "name", change.name.as_deref(), MAX_NAME)?;
        if let Some(tags) = &change.tags {
            check_tags(tags, "a tenant")?;
        }
        if let Some(plan) = &change.plan {
            self.plans.check(plan)?;
        }
        let found = self.get(proof, slug_or_id).await?;
        if change.plan.is_some() || change.limits.is_some() {
            self.plans.give(found.id, change.plan.as_deref(), change.limits.as_ref()).await?;
        }
        if change.name.is_some() || change.tags.is_some() {
            self.store.tenants().change(found.id, change.name.as_deref(), change.tags.as_ref()).await?;
        }
        self.get(proof, &found.id.to_string()).await
    }

    /// From here on every credential of the tenant is refused and its apps answer nobody, here at once and on other gateways
    /// within a second. A repeat changes nothing.
    ///
    /// # Errors
    /// `not_found`; `conflict` where it is deleted.
    pub async fn suspend(&self, proof: &kernel::Tenant, slug_or_id: &str) -> Result<Tenant> {
        self.settle(proof, slug_or_id, &[TenantState::Active], TenantState::Suspended).await
    }

    /// Undoes [`Tenants::suspend`].
    ///
    /// # Errors
    /// As that one.
    pub async fn resume(&self, proof: &kernel::Tenant, slug_or_id: &str) -> Result<Tenant> {
        self.settle(proof, slug_or_id, &[TenantState::Suspended], TenantState::Active).await
    }

    /// As [`Tenants::suspend`], and it is removed for good when its time of grace is over; at once with `purge`.
    ///
    /// # Errors
    /// `not_found`; `conflict` for the tenant that the operator's key is in.
    pub async fn delete(&self, proof: &kernel::Tenant, slug_or_id: &str, purge: bool) -> Result<Tenant> {
        let found = self.get(proof, slug_or_id).await?;
        if found.id == self.default {
            return Err(Error::new(Code::Conflict, "the operator's key is in this tenant: it stays"));
        }
        let from = [TenantState::Active, TenantState::Suspended, TenantState::Deleted];
        let to = TenantState::Deleted;
        let from = if purge { &from[..] } else { &from[..2] };
        let grace = if purge { Duration::ZERO } else { self.grace };
        self.settle_until(proof, slug_or_id, from, to, Some(Timestamp::now().plus(grace))).await
    }

    /// Undoes [`Tenants::delete`], as long as it is there. It is active then.
    ///
    /// # Errors
    /// `not_found`; `conflict` where its time is over, and it is being removed.
    pub async fn restore(&self, proof: &kernel::Tenant, slug_or_id: &str) -> Result<Tenant> {
        self.settle(proof, slug_or_id, &[TenantState::Deleted], TenantState::Active).await
    }

    async fn settle(
        &self,
        proof: &kernel::Tenant,
        slug_or_id: &str,
        from: &[TenantState],
        to: TenantState,
    ) -> Result<Tenant> {
        self.settle_until(proof, slug_or_id, from, to, None).await
    }

    async fn settle_until(
        &self,
        proof: &kernel::Tenant,
        slug_or_id: &str,
        from: &[TenantState],
        to: TenantState,
        purge: Option<Timestamp>,
    ) -> Result<Tenant> {
        let mut found = self.get(proof, slug_or_id).await?;
        // Another may change it in the same moment, once.
        for _ in 0..2 {
            let now = Timestamp::now();
            let settles = from.contains(&found.state);
            let settled =
                settles && self.store.tenants().settle(found.id, found.state, to, now, purge).await?;
            if settled {
                self.credentials.forget_all();
                self.names.forget_all();
            }
            found = self.get(proof, &found.id.to_string()).await?;
            if settled || !from.contains(&found.state) {
                break;
            }
        }
        if found.state == to {
            return Ok(found);
        }
        let is_over = found.purge.is_some_and(|purge| purge <= Timestamp::now());
        let hint = match found.state {
            TenantState::Active => "it was changed meanwhile: try again",
            TenantState::Suspended => "resume it",
            TenantState::Deleted if is_over => {
                "it is being removed for good, and cannot be restored any more"
            }
            TenantState::Deleted => "restore it",
        };
        Err(Error::new(Code::Conflict, format!("the tenant is {}", found.state.as_str())).hint(hint))
    }

    /// The deleted tenants whose time of grace is over, at most 100. Their environments are to be removed, then
    /// [`Tenants::remove`] to be called.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn due(&self) -> Result<Vec<Tenant>> {
        Ok(self.store.tenants().due(Timestamp::now(), REMOVED).await?)
    }

    /// At most 100 of the environments of a tenant, those made after `after`, oldest first, and whatever their state. For the
    /// platform's own upkeep.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn environments(&self, tenant: TenantId, after: Option<EnvId>) -> Result<Vec<Environment>> {
        Ok(self.store.environments().of_tenant(tenant, after, MAX_PAGE).await?)
    }

    /// Removes a tenant of [`Tenants::due`] that has no environments any more; `false` where it is none.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, tenant: TenantId) -> Result<bool> {
        let removed = self.store.tenants().remove(tenant, Timestamp::now()).await?;
        if removed {
            self.credentials.forget_all();
            self.names.forget_all();
            self.slugs.forget(|_, id| *id == tenant);
            self.data_keys.drop_tenant(tenant);
        }
        Ok(removed)
    }
}
