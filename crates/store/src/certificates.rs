//! Certificates with their sealed keys, when they are due, and the accounts they are ordered by.

use kernel::{EnvId, TenantId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::rows::{number, parsed_or_null, text, text_or_null, time_or_null};
use crate::{Result, Store};

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateSource {
    /// Ordered by ACME.
    Acme,
    /// Given by whoever has the domain.
    Own,
}

impl CertificateSource {
    const fn as_str(self) -> &'static str {
        match self {
            CertificateSource::Acme => "acme",
            CertificateSource::Own => "own",
        }
    }
}

/// What is known of a name's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// The host.
    pub name: String,
    /// The environment; none where it is the platform's own.
    pub env: Option<EnvId>,
    /// The chain as PEM, once there is one.
    pub chain: Option<String>,
    /// Its key, sealed.
    pub sealed: Option<String>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it is to be ordered (again).
    pub due: Option<Timestamp>,
    /// How many orders have failed since the last that did not.
    pub failures: i64,
    /// Why the last one failed.
    pub error: Option<String>,
}

/// A certificate to keep.
#[derive(Debug, Clone, Copy)]
pub struct NewCertificate<'a> {
    /// The chain as PEM.
    pub chain: &'a str,
    /// Its key, sealed.
    pub sealed: &'a str,
    /// When it ends.
    pub expires: Timestamp,
    /// When it is to be renewed; never where there is none.
    pub due: Option<Timestamp>,
}

/// The certificates.
pub struct Certificates<'a>(pub(crate) &'a Store);

impl Certificates<'_> {
    /// The certificate of a name from one source.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, name: &str, source: CertificateSource) -> Result<Option<CertificateRow>> {
        let sql = "SELECT name, env, chain, sealed, expires, due, failures, error FROM certificates \
                   WHERE name = $1 AND source = $2";
        let row = sqlx::query(sql).bind(name).bind(source.as_str()).fetch_optional(self.0.reader()).await?;
        row.as_ref().map(read).transpose()
    }

    /// Asks for a certificate of a name that has none; one that is another's is begun anew. `None` is the platform.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn want(&self, name: &str, env: Option<EnvId>, now: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        let env = env.map(|env| env.to_string()).unwrap_or_default();
        sqlx::query(
            "DELETE FROM certificates WHERE name = $1 AND source = 'acme' AND COALESCE(env, '') <> $2",
        )
        .bind(name)
        .bind(env.as_str())
        .execute(write.connection())
        .await?;
        sqlx::query(
            "INSERT INTO certificates (name, source, env, due, failures, leased) \
             VALUES ($1, 'acme', NULLIF($2, ''), $3, 0, 0) ON CONFLICT DO NOTHING",
        )
        .bind(name)
        .bind(env.as_str())
        .bind(now.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// At most `limit` names whose certificate is due and that nobody is ordering, the longest waiting first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn due(&self, now: Timestamp, limit: i64) -> Result<Vec<String>> {
        let sql = "SELECT name FROM certificates WHERE source = 'acme' AND due <= $1 AND leased <= $1 \
                   ORDER BY due LIMIT $2";
        let rows = sqlx::query(sql).bind(now.as_micros()).bind(limit).fetch_all(self.0.reader()).await?;
        rows.iter().map(|row| text(row, "name")).collect()
    }

    /// Takes the right to order a name's certificate until `until`, where it is due and nobody has it: of many at
    /// once one gets the row.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn lease(
        &self,
        name: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<CertificateRow>> {
        let mut write = self.0.begin_write().await?;
        let rows = sqlx::query(
            "UPDATE certificates SET leased = $3 \
             WHERE name = $1 AND source = 'acme' AND due <= $2 AND leased <= $2 \
             RETURNING name, env, chain, sealed, expires, due, failures, error",
        )
        .bind(name)
        .bind(now.as_micros())
        .bind(until.as_micros())
        .fetch_all(write.connection())
        .await?;
        write.commit().await?;
        rows.first().map(read).transpose()
    }

    /// Keeps what was ordered under a lease, and gives the lease back; `false` where the row went meanwhile.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn ordered(&self, name: &str, env: Option<EnvId>, new: NewCertificate<'_>) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "UPDATE certificates SET chain = $3, sealed = $4, expires = $5, due = $6, failures = 0, error = NULL, \
             leased = 0 WHERE name = $1 AND source = 'acme' AND COALESCE(env, '') = $2",
        )
        .bind(name)
        .bind(env.map(|env| env.to_string()).unwrap_or_default())
        .bind(new.chain)
        .bind(new.sealed)
        .bind(new.expires.as_micros())
        .bind(new.due.map(Timestamp::as_micros))
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes that an order failed and when to try again, and gives the lease back.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn failed(&self, name: &str, error: &str, again: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "UPDATE certificates SET failures = failures + 1, error = $2, due = $3, leased = 0 \
             WHERE name = $1 AND source = 'acme'",
        )
        .bind(name)
        .bind(error)
        .bind(again.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// Keeps a certificate that an environment gave for its domain, where the domain is its own and proven.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn give(&self, name: &str, env: EnvId, new: NewCertificate<'_>) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM certificates WHERE name = $1 AND source = 'own' AND env <> $2")
            .bind(name)
            .bind(env.to_string())
            .execute(write.connection())
            .await?;
        sqlx::query(
            "INSERT INTO certificates (name, source, env, chain, sealed, expires, failures, leased) \
             VALUES ($1, 'own', $2, $3, $4, $5, 0, 0) ON CONFLICT (name, source) DO UPDATE SET \
             chain = excluded.chain, sealed = excluded.sealed, expires = excluded.expires",
        )
        .bind(name)
        .bind(env.to_string())
        .bind(new.chain)
        .bind(new.sealed)
        .bind(new.expires.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// Forgets what a name has from one source.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, name: &str, source: CertificateSource) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM certificates WHERE name = $1 AND source = $2")
            .bind(name)
            .bind(source.as_str())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// How many orders of a tenant were taken since `since`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn orders(&self, tenant: TenantId, since: Timestamp) -> Result<i64> {
        let mut write = self.0.begin_write().await?;
        let made = sqlx::query("SELECT COUNT(*) FROM acme_orders WHERE tenant = $1 AND at >= $2")
            .bind(tenant.to_string())
            .bind(since.as_micros())
            .fetch_one(write.connection())
            .await?
            .try_get(0)?;
        Ok(made)
    }

    /// Counts one order of a tenant; those before `since` go.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn count_order(
        &self,
        tenant: TenantId,
        id: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM acme_orders WHERE tenant = $1 AND at < $2")
            .bind(tenant.to_string())
            .bind(since.as_micros())
            .execute(write.connection())
            .await?;
        sqlx::query("INSERT INTO acme_orders (id, tenant, at) VALUES ($1, $2, $3)")
            .bind(id)
            .bind(tenant.to_string())
            .bind(now.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// The sealed account at an ACME server.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn account(&self, directory: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT sealed FROM acme_accounts WHERE directory = $1")
            .bind(directory)
            .fetch_optional(self.0.reader())
            .await?;
        row.map(|row| text(&row, "sealed")).transpose()
    }

    /// Forgets the account at an ACME server.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn forget_account(&self, directory: &str) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM acme_accounts WHERE directory = $1")
            .bind(directory)
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// Keeps the account at an ACME server, in place of one that does not count there any more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn keep_account(&self, directory: &str, sealed: &str) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "INSERT INTO acme_accounts (directory, sealed) VALUES ($1, $2) \
             ON CONFLICT (directory) DO UPDATE SET sealed = excluded.sealed",
        )
        .bind(directory)
        .bind(sealed)
        .execute(write.connection())
        .await?;
        write.commit().await
    }
}

fn read(row: &AnyRow) -> Result<CertificateRow> {
    Ok(CertificateRow {
        name: text(row, "name")?,
        env: parsed_or_null(row, "env")?,
        chain: text_or_null(row, "chain")?,
        sealed: text_or_null(row, "sealed")?,
        expires: time_or_null(row, "expires")?,
        due: time_or_null(row, "due")?,
        failures: number(row, "failures")?,
        error: text_or_null(row, "error")?,
    })
}
