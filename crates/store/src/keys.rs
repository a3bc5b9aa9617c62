//! Keys: who they are for and what they carry, never the key itself.

use std::str::FromStr;

use kernel::{EnvId, KeyId, Scope, Scopes, TenantId, Timestamp};
use sqlx::any::AnyRow;

use crate::rows::{hex, parsed, parsed_or_null, text, time, time_or_null};
use crate::{Result, Store};

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Who runs the platform.
    Operator,
    /// A tenant.
    Tenant,
}

impl KeyKind {
    const ALL: [KeyKind; 2] = [KeyKind::Operator, KeyKind::Tenant];

    const fn as_str(self) -> &'static str {
        match self {
            KeyKind::Operator => "operator",
            KeyKind::Tenant => "tenant",
        }
    }
}

impl FromStr for KeyKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or_else(|| format!("{text:?} is not a kind of key"))
    }
}

/// One key's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Names the key without being it.
    pub id: KeyId,
    /// The tenant it acts for.
    pub tenant: TenantId,
    /// The one environment it is bound to, if it is.
    pub env: Option<EnvId>,
    /// Whose it is.
    pub kind: KeyKind,
    /// Its name for people.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked: Option<Timestamp>,
    /// When it was last used, to about a minute.
    pub last_used: Option<Timestamp>,
}

impl Key {
    /// Whether it opens anything at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }
}

/// The keys.
pub struct Keys<'a>(pub(crate) &'a Store);

impl Keys<'_> {
    /// Adds a key with the SHA-256 of its secret; `false` where its environment is not a ready one of its tenant.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn insert(&self, key: &Key, hash: &[u8; 32]) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let scopes: Vec<&str> = key.scopes.iter().map(Scope::as_str).collect();
        let done = sqlx::query(
            "INSERT INTO keys (id, tenant, env, kind, name, hash, scopes, created, expires) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 WHERE $3 IS NULL OR EXISTS \
             (SELECT 1 FROM environments WHERE id = $3 AND tenant = $2 AND state = 'ready')",
        )
        .bind(key.id.to_string())
        .bind(key.tenant.to_string())
        .bind(key.env.map(|env| env.to_string()))
        .bind(key.kind.as_str())
        .bind(key.name.as_str())
        .bind(hex(hash))
        .bind(scopes.join(" "))
        .bind(key.created.as_micros())
        .bind(key.expires.map(Timestamp::as_micros))
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// The key whose secret has this SHA-256, live or not.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn by_hash(&self, hash: &[u8; 32]) -> Result<Option<Key>> {
        let row = sqlx::query(
            "SELECT id, tenant, env, kind, name, scopes, created, expires, revoked, last_used \
             FROM keys WHERE hash = $1",
        )
        .bind(hex(hash))
        .fetch_optional(self.0.reader())
        .await?;
        row.as_ref().map(key).transpose()
    }

    /// The key with this id, live or not.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, id: KeyId) -> Result<Option<Key>> {
        let row = sqlx::query(
            "SELECT id, tenant, env, kind, name, scopes, created, expires, revoked, last_used \
             FROM keys WHERE id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(self.0.reader())
        .await?;
        row.as_ref().map(key).transpose()
    }

    /// At most `limit` of the tenant's own keys made after `after`, oldest first; those of one environment where
    /// `env` is given.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(
        &self,
        tenant: TenantId,
        env: Option<EnvId>,
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<Key>> {
        let rows = sqlx::query(
            "SELECT id, tenant, env, kind, name, scopes, created, expires, revoked, last_used \
             FROM keys WHERE tenant = $1 AND kind = 'tenant' AND id > $2 AND ($3 IS NULL OR env = $3) \
             ORDER BY id LIMIT $4",
        )
        .bind(tenant.to_string())
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(env.map(|env| env.to_string()))
        .bind(i64::from(limit))
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(key).collect()
    }

    /// Revokes one of the tenant's own keys, of one environment where `env` is given. `false` where there is no
    /// such key; one that was revoked stays so.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn revoke(
        &self,
        tenant: TenantId,
        env: Option<EnvId>,
        id: KeyId,
        now: Timestamp,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "UPDATE keys SET revoked = COALESCE(revoked, $4) \
             WHERE id = $1 AND tenant = $2 AND ($3 IS NULL OR env = $3) AND kind = 'tenant'",
        )
        .bind(id.to_string())
        .bind(tenant.to_string())
        .bind(env.map(|env| env.to_string()))
        .bind(now.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether the platform has an operator's key.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn has_operator(&self) -> Result<bool> {
        let found = sqlx::query("SELECT 1 FROM keys WHERE kind = 'operator' AND revoked IS NULL LIMIT 1")
            .fetch_optional(self.0.reader());
        Ok(found.await?.is_some())
    }

    /// Revokes every operator's key and adds this one, in one step.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn replace_operator(&self, key: &Key, hash: &[u8; 32]) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("UPDATE keys SET revoked = $1 WHERE kind = 'operator' AND revoked IS NULL")
            .bind(key.created.as_micros())
            .execute(write.connection())
            .await?;
        let scopes: Vec<&str> = key.scopes.iter().map(Scope::as_str).collect();
        sqlx::query(
            "INSERT INTO keys (id, tenant, kind, name, hash, scopes, created) \
             VALUES ($1, $2, 'operator', $3, $4, $5, $6)",
        )
        .bind(key.id.to_string())
        .bind(key.tenant.to_string())
        .bind(key.name.as_str())
        .bind(hex(hash))
        .bind(scopes.join(" "))
        .bind(key.created.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// Notes when keys were last used.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn used(&self, keys: &[(KeyId, Timestamp)]) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        for (id, at) in keys {
            sqlx::query(
                "UPDATE keys SET last_used = $2 WHERE id = $1 AND (last_used IS NULL OR last_used < $2)",
            )
            .bind(id.to_string())
            .bind(at.as_micros())
            .execute(write.connection())
            .await?;
        }
        write.commit().await
    }
}

fn key(row: &AnyRow) -> Result<Key> {
    let kind = parsed(row, "kind")?;
    let scopes = match kind {
        // Whatever there was to do when it was made.
        KeyKind::Operator => Scopes::all(),
        // A scope that this program does not know (any more) gives nothing: the set gets smaller, never larger.
        KeyKind::Tenant => {
            let known = |scope: &str| scope.parse::<Scope>().ok();
            text(row, "scopes")?.split_whitespace().filter_map(known).collect()
        }
    };
    Ok(Key {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        env: parsed_or_null(row, "env")?,
        kind,
        name: text(row, "name")?,
        scopes,
        created: time(row, "created")?,
        expires: time_or_null(row, "expires")?,
        revoked: time_or_null(row, "revoked")?,
        last_used: time_or_null(row, "last_used")?,
    })
}
