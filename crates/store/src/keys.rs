//! Keys: who they are for and what they carry, never the key itself.

use std::str::FromStr;

use kernel::{EnvId, KeyId, Networks, Scope, Scopes, TenantId, Timestamp};
use sqlx::any::AnyRow;

use crate::connection::Write;
use crate::news::OPERATOR_KEYS;
use crate::rows::{hex, parsed, parsed_or_null, text, time, time_or_null};
use crate::runs::networks;
use crate::{Result, Store, TenantState};

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Who runs the platform.
    Operator,
    /// A tenant.
    Tenant,
    /// A member of a tenant, who is told of no key: they sign in.
    Member,
}

impl KeyKind {
    const ALL: [KeyKind; 3] = [KeyKind::Operator, KeyKind::Tenant, KeyKind::Member];

    const fn as_str(self) -> &'static str {
        match self {
            KeyKind::Operator => "operator",
            KeyKind::Tenant => "tenant",
            KeyKind::Member => "member",
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
    /// Where it is good; anywhere, where nothing is said.
    pub cidrs: Option<Networks>,
    /// The key that takes its place, if one does.
    pub rotated_to: Option<KeyId>,
    /// The first of the keys that took each other's place: itself, where it took none's. What is a key's goes on with these.
    pub lineage: KeyId,
    /// Whether its tenant is not active, so that it opens nothing.
    pub suspended: bool,
}

impl Key {
    /// Whether it opens anything at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.suspended && self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
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
        let done = insert(&mut write, key, hash).await?;
        write.commit().await?;
        Ok(done)
    }

    /// Adds a key with the SHA-256 of its secret in place of `old`, a live one that has no successor yet and ends by
    /// `ends`. `false` where that is not so (any more), or the new one's environment is not a ready one of its tenant.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn rotate(&self, old: KeyId, ends: Timestamp, key: &Key, hash: &[u8; 32]) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        write.tell(&old.to_string()).await?;
        let done = sqlx::query(
            "UPDATE keys SET rotated_to = $2, expires = CASE WHEN expires < $3 THEN expires ELSE $3 END \
             WHERE id = $1 AND kind = 'tenant' AND revoked IS NULL AND rotated_to IS NULL \
             AND (expires IS NULL OR expires > $4)",
        )
        .bind(old.to_string())
        .bind(key.id.to_string())
        .bind(ends.as_micros())
        .bind(key.created.as_micros())
        .execute(write.connection())
        .await?;
        if done.rows_affected() != 1 || !insert(&mut write, key, hash).await? {
            return Ok(false);
        }
        sqlx::query("UPDATE runs SET ends = $2 WHERE root = $1 AND ends > $2 AND revoked IS NULL")
            .bind(old.to_string())
            .bind(ends.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(true)
    }

    /// The key whose secret has this SHA-256, live or not.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn by_hash(&self, hash: &[u8; 32]) -> Result<Option<Key>> {
        let row = sqlx::query(
            "SELECT id, tenant, env, kind, name, scopes, created, expires, revoked, last_used, cidrs, rotated_to, lineage, \
             (SELECT state FROM tenants WHERE tenants.id = keys.tenant) AS tenant_state FROM keys WHERE hash = $1",
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
            "SELECT id, tenant, env, kind, name, scopes, created, expires, revoked, last_used, cidrs, rotated_to, lineage, \
             (SELECT state FROM tenants WHERE tenants.id = keys.tenant) AS tenant_state FROM keys WHERE id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(self.0.reader())
        .await?;
        row.as_ref().map(key).transpose()
    }

    /// The last made of the keys that live at `now` and took each other's place, of which this one was the first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn living(&self, lineage: KeyId, now: Timestamp) -> Result<Option<Key>> {
        let row = sqlx::query(
            "SELECT id, tenant, env, kind, name, scopes, created, expires, revoked, last_used, cidrs, rotated_to, lineage, \
             (SELECT state FROM tenants WHERE tenants.id = keys.tenant) AS tenant_state FROM keys WHERE (id = $1 OR lineage = $1) AND revoked IS NULL AND (expires IS NULL OR expires > $2) \
             ORDER BY id DESC LIMIT 1",
        )
        .bind(lineage.to_string())
        .bind(now.as_micros())
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
            "SELECT id, tenant, env, kind, name, scopes, created, expires, revoked, last_used, cidrs, rotated_to, lineage, \
             (SELECT state FROM tenants WHERE tenants.id = keys.tenant) AS tenant_state FROM keys WHERE tenant = $1 AND kind = 'tenant' AND id > $2 AND ($3 IS NULL OR env = $3) \
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

    /// Revokes one of the tenant's own keys, of one environment where `env` is given, with all that was minted by it.
    /// `false` where there is no such key; one that was revoked stays so, and nobody is told again.
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
        let found = sqlx::query(
            "SELECT revoked FROM keys \
             WHERE id = $1 AND tenant = $2 AND ($3 IS NULL OR env = $3) AND kind = 'tenant'",
        )
        .bind(id.to_string())
        .bind(tenant.to_string())
        .bind(env.map(|env| env.to_string()))
        .fetch_optional(self.0.reader())
        .await?;
        let Some(found) = found else { return Ok(false) };
        if time_or_null(&found, "revoked")?.is_some() {
            return Ok(true);
        }
        let mut write = self.0.begin_write().await?;
        write.tell(&id.to_string()).await?;
        for ends in [
            "UPDATE keys SET revoked = $2 WHERE id = $1 AND revoked IS NULL",
            "UPDATE runs SET revoked = $2 WHERE root = $1 AND revoked IS NULL",
        ] {
            sqlx::query(ends).bind(id.to_string()).bind(now.as_micros()).execute(write.connection()).await?;
        }
        write.commit().await?;
        Ok(true)
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

    /// Revokes every operator's key and adds this one, in one step. With `old`, only where that is the operator's and live;
    /// `false` where it is not.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn replace_operator(&self, old: Option<KeyId>, key: &Key, hash: &[u8; 32]) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        write.tell(OPERATOR_KEYS).await?;
        if let Some(old) = old {
            let still = sqlx::query(
                "UPDATE keys SET revoked = $2 WHERE id = $1 AND kind = 'operator' AND revoked IS NULL",
            )
            .bind(old.to_string())
            .bind(key.created.as_micros())
            .execute(write.connection())
            .await?;
            if still.rows_affected() != 1 {
                return Ok(false);
            }
        }
        for ends in [
            "UPDATE runs SET revoked = $1 WHERE revoked IS NULL \
             AND root IN (SELECT id FROM keys WHERE kind = 'operator')",
            "UPDATE keys SET revoked = $1 WHERE kind = 'operator' AND revoked IS NULL",
        ] {
            sqlx::query(ends).bind(key.created.as_micros()).execute(write.connection()).await?;
        }
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
        write.commit().await?;
        Ok(true)
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

pub(crate) async fn insert(write: &mut Write, key: &Key, hash: &[u8; 32]) -> Result<bool> {
    let scopes: Vec<&str> = key.scopes.iter().map(Scope::as_str).collect();
    let done = sqlx::query(
        "INSERT INTO keys (id, tenant, env, kind, name, hash, scopes, created, expires, cidrs, lineage) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 WHERE $3 IS NULL OR EXISTS \
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
    .bind(key.cidrs.as_ref().map(|cidrs| cidrs.names().join(" ")))
    .bind(key.lineage.to_string())
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

fn key(row: &AnyRow) -> Result<Key> {
    let kind = parsed(row, "kind")?;
    let scopes = match kind {
        // Whatever there was to do when it was made.
        KeyKind::Operator => Scopes::all(),
        // A scope that this program does not know (any more) gives nothing: the set gets smaller, never larger.
        KeyKind::Tenant | KeyKind::Member => {
            let known = |scope: &str| scope.parse::<Scope>().ok();
            text(row, "scopes")?.split_whitespace().filter_map(known).collect()
        }
    };
    // The operator's are of no one tenant.
    let suspended = kind != KeyKind::Operator && text(row, "tenant_state")? != TenantState::Active.as_str();
    Ok(Key {
        suspended,
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
        cidrs: networks(row, "cidrs")?,
        rotated_to: parsed_or_null(row, "rotated_to")?,
        lineage: parsed_or_null(row, "lineage")?.map_or_else(|| parsed(row, "id"), Ok)?,
    })
}
