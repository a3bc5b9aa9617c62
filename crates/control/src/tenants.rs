//! Tenants.

use kernel::{Code, Error, Result, Slug, TenantId, Timestamp};
use store::{Store, Tenant};

use crate::environments::check_text;

const MAX_NAME: usize = 100;
const MAX_PAGE: u32 = 100;

/// The tenants. Making and listing them needs `tenant:admin`, shown by a proof of the tenant level.
pub struct Tenants {
    pub(crate) store: Store,
}

impl Tenants {
    /// Makes a tenant.
    ///
    /// # Errors
    /// `conflict` where the slug is taken; `invalid_input` naming the field.
    pub async fn create(&self, _: &kernel::Tenant, slug: Slug, name: Option<String>) -> Result<Tenant> {
        check_text("/name", "name", name.as_deref(), MAX_NAME)?;
        let name = name.unwrap_or_else(|| slug.to_string());
        let tenant = Tenant { id: TenantId::new(), slug, name, created: Timestamp::now() };
        if !self.store.tenants().insert(&tenant).await? {
            let message = format!("the slug {:?} is taken", tenant.slug.as_str());
            return Err(Error::new(Code::Conflict, message).field("/slug"));
        }
        Ok(tenant)
    }

    /// At most `limit` (1 to 100) tenants made after `after`, oldest first.
    ///
    /// # Errors
    /// `invalid_input` where the limit is out of range.
    pub async fn list(&self, _: &kernel::Tenant, after: Option<TenantId>, limit: u32) -> Result<Vec<Tenant>> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit must be 1 to {MAX_PAGE}")));
        }
        Ok(self.store.tenants().list(after, limit).await?)
    }
}
