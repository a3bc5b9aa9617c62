//! The keys that values are sealed with, wrapped, and which values are sealed by older ones.

use kernel::{TenantId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::connection::Write;
use crate::rows::{parsed, text, time, time_or_null};
use crate::{Result, Store};

/// The setting that names the key-encryption key.
const IN_FORCE: &str = "master_key";

/// A data key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKeyRow {
    /// What sealed values call it.
    pub id: String,
    /// Whose values it seals: a tenant's id, or a word for what is the platform's.
    pub owner: String,
    /// The key-encryption key that it is wrapped under.
    pub kek: String,
    /// The key, wrapped.
    pub wrapped: String,
    /// When it was made.
    pub created: Timestamp,
    /// Since when it seals no more, where it does not.
    pub retired: Option<Timestamp>,
}

/// A sealed value of an environment, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedValue {
    /// The tenant of its environment.
    pub tenant: TenantId,
    /// The environment, or what else its table knows it by first.
    pub of: String,
    /// What its table knows it by then.
    pub name: String,
    /// The kind of a secret; empty for a signing key.
    pub kind: String,
    /// The value, sealed.
    pub sealed: String,
}

/// Which table sealed values of environments lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedIn {
    /// Secrets, by environment and name.
    Secrets,
    /// The keys that sign the tokens of apps' users, by purpose and id.
    SigningKeys,
}

impl SealedIn {
    /// Both.
    pub const ALL: [SealedIn; 2] = [SealedIn::Secrets, SealedIn::SigningKeys];

    const fn older(self) -> &'static str {
        match self {
            SealedIn::Secrets => {
                "SELECT e.tenant, s.env AS of_, s.name AS name, s.kind AS kind, s.sealed AS sealed FROM secrets s \
                 JOIN environments e ON e.id = s.env LEFT JOIN data_keys k ON k.id = s.data_key \
                 WHERE k.current IS NULL AND (s.env > $1 OR (s.env = $1 AND s.name > $2)) \
                 ORDER BY s.env, s.name LIMIT $3"
            }
            SealedIn::SigningKeys => {
                "SELECT e.tenant, s.purpose AS of_, s.id AS name, '' AS kind, s.sealed AS sealed FROM signing_keys s \
                 JOIN environments e ON e.id = s.env LEFT JOIN data_keys k ON k.id = s.data_key \
                 WHERE k.current IS NULL AND s.sealed <> '' \
                 AND (s.purpose > $1 OR (s.purpose = $1 AND s.id > $2)) ORDER BY s.purpose, s.id LIMIT $3"
            }
        }
    }

    const fn reseal(self) -> &'static str {
        match self {
            SealedIn::Secrets => {
                "UPDATE secrets SET sealed = $4, data_key = $5 WHERE env = $1 AND name = $2 AND sealed = $3 \
                 AND EXISTS (SELECT 1 FROM data_keys WHERE id = $5 AND current = 1)"
            }
            SealedIn::SigningKeys => {
                "UPDATE signing_keys SET sealed = $4, data_key = $5 WHERE purpose = $1 AND id = $2 AND sealed = $3 \
                 AND EXISTS (SELECT 1 FROM data_keys WHERE id = $5 AND current = 1)"
            }
        }
    }

    const fn counted(self) -> &'static str {
        match self {
            SealedIn::Secrets => {
                "SELECT COUNT(*) FROM secrets s LEFT JOIN data_keys k ON k.id = s.data_key WHERE k.current IS NULL"
            }
            SealedIn::SigningKeys => {
                "SELECT COUNT(*) FROM signing_keys s LEFT JOIN data_keys k ON k.id = s.data_key \
                 WHERE k.current IS NULL AND s.env IS NOT NULL AND s.sealed <> ''"
            }
        }
    }
}

/// What came of making another key-encryption key the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrapped {
    /// Every data key is under it.
    All,
    /// Somebody has made a data key meanwhile: nothing was done.
    Moved,
    /// Another one is in force than it was thought: nothing was done.
    Other,
}

/// The data keys. One of each owner is current.
pub struct DataKeys<'a>(pub(crate) &'a Store);

impl DataKeys<'_> {
    /// The name of the key-encryption key in force; `None` before there is one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn in_force(&self) -> Result<Option<String>> {
        self.0.settings().get(IN_FORCE).await
    }

    /// Has `kek` be the one in force where there is none, and gives the one that is.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn first_in_force(&self, kek: &str) -> Result<String> {
        self.0.settings().get_or_set(IN_FORCE, kek).await
    }

    /// The data key of this id.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn find(&self, id: &str) -> Result<Option<DataKeyRow>> {
        let row =
            sqlx::query("SELECT id, owner, kek, wrapped, created, retired FROM data_keys WHERE id = $1")
                .bind(id)
                .fetch_optional(self.0.reader())
                .await?;
        row.as_ref().map(data_key).transpose()
    }

    /// The data key that seals for this owner.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn current(&self, owner: &str) -> Result<Option<DataKeyRow>> {
        let row = sqlx::query(
            "SELECT id, owner, kek, wrapped, created, retired FROM data_keys WHERE owner = $1 AND current = 1",
        )
        .bind(owner)
        .fetch_optional(self.0.reader())
        .await?;
        row.as_ref().map(data_key).transpose()
    }

    /// All of them, by their owners.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn all(&self) -> Result<Vec<DataKeyRow>> {
        let rows = sqlx::query(
            "SELECT id, owner, kek, wrapped, created, retired FROM data_keys ORDER BY owner, created, id",
        )
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(data_key).collect()
    }

    /// Adds a data key where its owner has none that seals, and gives the one that does then. `None` where it is wrapped under
    /// another key-encryption key than the one in force, or its tenant is gone.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get_or_insert(
        &self,
        key: &DataKeyRow,
        tenant: Option<TenantId>,
    ) -> Result<Option<DataKeyRow>> {
        let mut write = self.0.begin_write().await?;
        // Who changes the one in force waits for this row, and this for them.
        if !holds(&mut write, &key.kek, &key.kek).await? {
            return Ok(None);
        }
        let tenant = tenant.map(|tenant| tenant.to_string());
        if let Some(tenant) = &tenant {
            let there = sqlx::query("SELECT 1 FROM tenants WHERE id = $1")
                .bind(tenant.as_str())
                .fetch_optional(write.connection())
                .await?;
            if there.is_none() {
                return Ok(None);
            }
        }
        sqlx::query(
            "INSERT INTO data_keys (id, owner, tenant, kek, wrapped, current, created) \
             VALUES ($1, $2, $3, $4, $5, 1, $6) ON CONFLICT DO NOTHING",
        )
        .bind(key.id.as_str())
        .bind(key.owner.as_str())
        .bind(tenant)
        .bind(key.kek.as_str())
        .bind(key.wrapped.as_str())
        .bind(key.created.as_micros())
        .execute(write.connection())
        .await?;
        let row = sqlx::query(
            "SELECT id, owner, kek, wrapped, created, retired FROM data_keys WHERE owner = $1 AND current = 1",
        )
        .bind(key.owner.as_str())
        .fetch_optional(write.connection())
        .await?;
        write.commit().await?;
        row.as_ref().map(data_key).transpose()
    }

    /// Puts `to` in force in place of `from`, with the data keys wrapped under it, all at once. From here on no data key of a
    /// tenant seals: the next value gets another.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn rewrap(
        &self,
        from: &str,
        to: &str,
        wrapped: &[(String, String)],
        retire: Option<Timestamp>,
    ) -> Result<Rewrapped> {
        let mut write = self.0.begin_write().await?;
        if !holds(&mut write, from, to).await? {
            return Ok(Rewrapped::Other);
        }
        for (id, text) in wrapped {
            sqlx::query("UPDATE data_keys SET kek = $2, wrapped = $3 WHERE id = $1")
                .bind(id.as_str())
                .bind(to)
                .bind(text.as_str())
                .execute(write.connection())
                .await?;
        }
        let there: i64 = sqlx::query("SELECT COUNT(*) FROM data_keys WHERE kek <> $1")
            .bind(to)
            .fetch_one(write.connection())
            .await?
            .try_get(0)?;
        if there > 0 {
            return Ok(Rewrapped::Moved);
        }
        if let Some(now) = retire {
            sqlx::query(
                "UPDATE data_keys SET current = NULL, retired = $1 WHERE tenant IS NOT NULL AND current = 1",
            )
            .bind(now.as_micros())
            .execute(write.connection())
            .await?;
        }
        write.commit().await?;
        Ok(Rewrapped::All)
    }

    /// At most `limit` values after this one that are not sealed by the key that seals, with what their tables know them by.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn older(
        &self,
        table: SealedIn,
        (of, name): (&str, &str),
        limit: u32,
    ) -> Result<Vec<SealedValue>> {
        let rows = sqlx::query(table.older())
            .bind(of)
            .bind(name)
            .bind(i64::from(limit))
            .fetch_all(self.0.reader())
            .await?;
        let value = |row: &AnyRow| {
            Ok(SealedValue {
                tenant: parsed(row, "tenant")?,
                of: text(row, "of_")?,
                name: text(row, "name")?,
                kind: text(row, "kind")?,
                sealed: text(row, "sealed")?,
            })
        };
        rows.iter().map(value).collect()
    }

    /// Puts a value sealed by `data_key` in place of the same one sealed by an older one; `false` where it was changed
    /// meanwhile, or `data_key` seals no more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn reseal(
        &self,
        table: SealedIn,
        value: &SealedValue,
        sealed: &str,
        data_key: &str,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(table.reseal())
            .bind(value.of.as_str())
            .bind(value.name.as_str())
            .bind(value.sealed.as_str())
            .bind(sealed)
            .bind(data_key)
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// How many values are not sealed by the key that seals.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn count_older(&self) -> Result<i64> {
        let mut all = 0;
        for table in SealedIn::ALL {
            let row = sqlx::query(table.counted()).fetch_one(self.0.reader()).await?;
            all += row.try_get::<i64, _>(0)?;
        }
        Ok(all)
    }

    /// Removes the tenants' data keys that seal no more and have sealed nothing that is there; gives how many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self) -> Result<u64> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "DELETE FROM data_keys WHERE tenant IS NOT NULL AND current IS NULL \
             AND NOT EXISTS (SELECT 1 FROM secrets s WHERE s.data_key = data_keys.id) \
             AND NOT EXISTS (SELECT 1 FROM signing_keys s WHERE s.data_key = data_keys.id)",
        )
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected())
    }
}

/// Whether `from` is in force; `to` is from here on, and nobody else changes it before this transaction ends.
async fn holds(write: &mut Write, from: &str, to: &str) -> Result<bool> {
    let done = sqlx::query("UPDATE settings SET value = $2 WHERE name = $3 AND value = $1")
        .bind(from)
        .bind(to)
        .bind(IN_FORCE)
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

fn data_key(row: &AnyRow) -> Result<DataKeyRow> {
    Ok(DataKeyRow {
        id: text(row, "id")?,
        owner: text(row, "owner")?,
        kek: text(row, "kek")?,
        wrapped: text(row, "wrapped")?,
        created: time(row, "created")?,
        retired: time_or_null(row, "retired")?,
    })
}
