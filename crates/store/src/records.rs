//! Rows of calls, and usage, summed by hour.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use kernel::{BlobHash, CallId, EnvId, KeyId, TenantId, Timestamp};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use crate::audit::{self, NewEntry, Signer};
use crate::rows::{number, parsed, parsed_or_null, text, text_or_null, time};
use crate::{Result, Store};

/// Rows written by one statement. SQLite looks each parameter up by its name, which in a wide statement costs by
/// the square of their number.
const CHUNK: usize = 8;
const HOUR_US: i64 = 3_600_000_000;

static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insertion(1));
static INSERT_CHUNK: LazyLock<String> = LazyLock::new(|| insertion(CHUNK));

/// One call's row. It holds no arguments and no results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The call.
    pub id: CallId,
    /// When it began.
    pub at: Timestamp,
    /// The tenant it was for.
    pub tenant: TenantId,
    /// The environment it was for, where it had one.
    pub env: Option<EnvId>,
    /// The kind of party that called.
    pub principal: Cow<'static, str>,
    /// The credential, by its name.
    pub credential: KeyId,
    /// The door.
    pub surface: Cow<'static, str>,
    /// The tool.
    pub tool: Cow<'static, str>,
    /// The tool's risk class.
    pub effect: Cow<'static, str>,
    /// The error's code, where it failed.
    pub error: Option<Cow<'static, str>>,
    /// How long it ran.
    pub took: Duration,
    /// SHA-256 of the input.
    pub input_digest: BlobHash,
}

/// What was used of one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The tool.
    pub tool: String,
    /// Calls.
    pub calls: i64,
    /// Calls that failed.
    pub errors: i64,
    /// Time spent in them, in microseconds.
    pub took_us: i64,
}

/// Rows of calls, and usage.
pub struct Records<'a>(pub(crate) &'a Store);

impl Records<'_> {
    /// Writes the rows of `calls`, adds them to the usage, and `acts` to the chains of their tenants, all in one
    /// transaction. Gives the tenants whose chains somebody else has changed.
    ///
    /// # Errors
    /// Where the database fails; then none is written.
    pub async fn append(
        &self,
        calls: &[Call],
        acts: &[NewEntry],
        signer: &dyn Signer,
    ) -> Result<Vec<TenantId>> {
        let mut write = self.0.begin_write().await?;
        let changed = audit::append(write.connection(), acts, signer).await?;
        let (chunks, rest) = calls.as_chunks::<CHUNK>();
        for chunk in chunks {
            insert(write.connection(), &INSERT_CHUNK, chunk).await?;
        }
        for call in rest {
            insert(write.connection(), &INSERT_ONE, std::slice::from_ref(call)).await?;
        }
        for ((tenant, env, hour, tool), sum) in sums(calls) {
            sqlx::query(
                "INSERT INTO usage (tenant, env, hour, tool, calls, errors, took_us) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, env, hour, tool) DO UPDATE SET \
                 calls = usage.calls + excluded.calls, errors = usage.errors + excluded.errors, \
                 took_us = usage.took_us + excluded.took_us",
            )
            .bind(tenant.to_string())
            .bind(env.map(|env| env.to_string()).unwrap_or_default())
            .bind(hour)
            .bind(tool)
            .bind(sum.calls)
            .bind(sum.errors)
            .bind(sum.took_us)
            .execute(write.connection())
            .await?;
        }
        write.commit().await?;
        Ok(changed)
    }

    /// Those of these calls that are on record.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn known(&self, ids: &[CallId]) -> Result<BTreeSet<CallId>> {
        let mut known = BTreeSet::new();
        for ids in ids.chunks(50) {
            let places: Vec<String> = (1..=ids.len()).map(|at| format!("${at}")).collect();
            let sql = format!("SELECT id FROM calls WHERE id IN ({})", places.join(", "));
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for id in ids {
                query = query.bind(id.to_string());
            }
            for row in query.fetch_all(self.0.reader()).await? {
                known.insert(parsed(&row, "id")?);
            }
        }
        Ok(known)
    }

    /// At most `limit` of the tenant's calls made before `before`, latest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn calls(&self, tenant: TenantId, before: Option<CallId>, limit: u32) -> Result<Vec<Call>> {
        let rows = sqlx::query(
            "SELECT id, at, tenant, env, principal, credential, surface, tool, effect, error, took_us, \
             input_digest FROM calls WHERE tenant = $1 AND ($2 IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        )
        .bind(tenant.to_string())
        .bind(before.map(|id| id.to_string()))
        .bind(i64::from(limit))
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(call).collect()
    }

    /// What a tenant, or one of its environments, used from the hour of `since` on, by tool.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn usage(&self, tenant: TenantId, env: Option<EnvId>, since: Timestamp) -> Result<Vec<Usage>> {
        let rows = sqlx::query(
            "SELECT tool, CAST(SUM(calls) AS BIGINT) AS calls, CAST(SUM(errors) AS BIGINT) AS errors, \
             CAST(SUM(took_us) AS BIGINT) AS took_us FROM usage \
             WHERE tenant = $1 AND ($2 IS NULL OR env = $2) AND hour >= $3 GROUP BY tool ORDER BY tool",
        )
        .bind(tenant.to_string())
        .bind(env.map(|env| env.to_string()))
        .bind(hour_of(since))
        .fetch_all(self.0.reader())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Usage {
                    tool: text(row, "tool")?,
                    calls: number(row, "calls")?,
                    errors: number(row, "errors")?,
                    took_us: number(row, "took_us")?,
                })
            })
            .collect()
    }

    /// Removes at most `limit` rows of calls of one risk class from before `before`; gives how many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, effect: &str, before: Timestamp, limit: u32) -> Result<u64> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "DELETE FROM calls WHERE id IN \
             (SELECT id FROM calls WHERE at < $1 AND effect = $2 ORDER BY at LIMIT $3)",
        )
        .bind(before.as_micros())
        .bind(effect)
        .bind(i64::from(limit))
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected())
    }
}

type Place<'a> = (TenantId, Option<EnvId>, i64, &'a str);

#[derive(Default)]
struct Sum {
    calls: i64,
    errors: i64,
    took_us: i64,
}

/// The calls added up; sorted, so that two writers on Postgres lock rows in the same order.
fn sums(calls: &[Call]) -> BTreeMap<Place<'_>, Sum> {
    let mut sums = BTreeMap::<Place<'_>, Sum>::new();
    for call in calls {
        let sum = sums.entry((call.tenant, call.env, hour_of(call.at), &call.tool)).or_default();
        sum.calls += 1;
        sum.errors += i64::from(call.error.is_some());
        sum.took_us += micros(call.took);
    }
    sums
}

async fn insert(connection: &mut AnyConnection, sql: &'static str, calls: &[Call]) -> Result<()> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for call in calls {
        query = query
            .bind(call.id.to_string())
            .bind(call.at.as_micros())
            .bind(call.tenant.to_string())
            .bind(call.env.map(|env| env.to_string()))
            .bind(&*call.principal)
            .bind(call.credential.to_string())
            .bind(&*call.surface)
            .bind(&*call.tool)
            .bind(&*call.effect)
            .bind(call.error.as_deref())
            .bind(micros(call.took))
            .bind(call.input_digest.to_string());
    }
    query.execute(connection).await?;
    Ok(())
}

fn insertion(rows: usize) -> String {
    let mut sql = String::from(
        "INSERT INTO calls (id, at, tenant, env, principal, credential, surface, tool, effect, error, \
         took_us, input_digest) VALUES ",
    );
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=12 {
            let _ = write!(sql, "{}${}", if column == 1 { "" } else { ", " }, row * 12 + column);
        }
        sql.push(')');
    }
    sql
}

fn hour_of(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(HOUR_US) * HOUR_US
}

fn micros(took: Duration) -> i64 {
    i64::try_from(took.as_micros()).unwrap_or(i64::MAX)
}

fn call(row: &AnyRow) -> Result<Call> {
    let took_us: i64 = row.try_get("took_us")?;
    Ok(Call {
        id: parsed(row, "id")?,
        at: time(row, "at")?,
        tenant: parsed(row, "tenant")?,
        env: parsed_or_null(row, "env")?,
        principal: text(row, "principal")?.into(),
        credential: parsed(row, "credential")?,
        surface: text(row, "surface")?.into(),
        tool: text(row, "tool")?.into(),
        effect: text(row, "effect")?.into(),
        error: text_or_null(row, "error")?.map(Cow::Owned),
        took: Duration::from_micros(took_us.unsigned_abs()),
        input_digest: parsed(row, "input_digest")?,
    })
}
