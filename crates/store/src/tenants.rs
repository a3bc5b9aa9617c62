//! Tenants.

use kernel::{Slug, TenantId, Timestamp};
use sqlx::any::AnyRow;

use crate::rows::{parsed, text, time};
use crate::{Result, Store};

/// A customer of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its short name, unique on the platform.
    pub slug: Slug,
    /// Its name for people.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
}

/// The tenants.
pub struct Tenants<'a>(pub(crate) &'a Store);

impl Tenants<'_> {
    /// Adds a tenant; `false` where the slug is taken.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn insert(&self, tenant: &Tenant) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "INSERT INTO tenants (id, slug, name, created) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.id.to_string())
        .bind(tenant.slug.as_str())
        .bind(tenant.name.as_str())
        .bind(tenant.created.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// The tenant with this id or slug.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn find(&self, id_or_slug: &str) -> Result<Option<Tenant>> {
        let row = sqlx::query("SELECT id, slug, name, created FROM tenants WHERE id = $1 OR slug = $1")
            .bind(id_or_slug)
            .fetch_optional(self.0.reader())
            .await?;
        row.as_ref().map(tenant).transpose()
    }

    /// At most `limit` tenants made after `after`, oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, after: Option<TenantId>, limit: u32) -> Result<Vec<Tenant>> {
        let rows =
            sqlx::query("SELECT id, slug, name, created FROM tenants WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(after.map(|id| id.to_string()).unwrap_or_default())
                .bind(i64::from(limit))
                .fetch_all(self.0.reader())
                .await?;
        rows.iter().map(tenant).collect()
    }
}

fn tenant(row: &AnyRow) -> Result<Tenant> {
    Ok(Tenant {
        id: parsed(row, "id")?,
        slug: parsed(row, "slug")?,
        name: text(row, "name")?,
        created: time(row, "created")?,
    })
}
