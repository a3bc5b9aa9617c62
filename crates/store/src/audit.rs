//! The chain of acts of each tenant: every entry holds the hash of all before it, and the end is signed.

use std::collections::BTreeMap;
use std::fmt;

use kernel::{BlobHash, EnvId, TenantId, Timestamp};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use crate::rows::{number, parsed, text, time};
use crate::{Error, Result, Store};

/// Chains that get a checkpoint in one round, and in one transaction.
const CHAINS: i64 = 1_000;
const AT_ONCE: usize = 20;

/// The act that is noted where a chain was found to be changed.
const BROKEN: &str = "audit.broken";

/// An act on its way into its tenant's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Whose chain.
    pub tenant: TenantId,
    /// When the act began.
    pub at: Timestamp,
    /// The environment it was for, where it had one.
    pub env: Option<EnvId>,
    /// The act as a JSON object that is not empty, without its number.
    pub body: String,
}

/// One entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1 on.
    pub seq: i64,
    /// The act, as the JSON object that is hashed.
    pub body: String,
    /// SHA-256 of the hash before and of the body: see [`link`].
    pub hash: String,
}

/// What a mark says of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// It ends here now.
    Head,
    /// It has come this far.
    Checkpoint,
    /// What is up to here was removed, as it was kept long enough.
    Start,
}

impl MarkKind {
    /// The name in what is signed and written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Checkpoint => "checkpoint",
            Self::Start => "start",
        }
    }
}

/// What is signed of a chain. Its text form is what the signature is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What it says.
    pub kind: MarkKind,
    /// Whose chain.
    pub tenant: TenantId,
    /// The number of the entry.
    pub seq: i64,
    /// The entry's hash.
    pub hash: String,
    /// When it was signed.
    pub at: Timestamp,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, tenant, seq, hash, at } = self;
        write!(f, "steading audit 1 {} {tenant} {seq} {hash} {}", kind.as_str(), at.as_micros())
    }
}

/// A mark and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What is signed.
    pub mark: Mark,
    /// The signature, as text.
    pub signature: String,
}

/// Signs marks, and knows its own signatures.
pub trait Signer: Send + Sync {
    /// The signature of a mark.
    fn sign(&self, mark: &Mark) -> String;
    /// Whether this signature of the mark is ours.
    fn holds(&self, signed: &Signed) -> bool;
}

/// The hash of an entry: SHA-256 of the hash before it in hexadecimal, a line feed, and its body.
#[must_use]
pub fn link(before: &str, body: &str) -> String {
    BlobHash::of(&[before.as_bytes(), b"\n", body.as_bytes()].concat()).to_string()
}

/// What stands before a tenant's first entry.
#[must_use]
pub fn beginning(tenant: TenantId) -> String {
    BlobHash::of(format!("steading audit 1 {tenant}").as_bytes()).to_string()
}

/// The chains.
pub struct Audit<'a>(pub(crate) &'a Store);

impl Audit<'_> {
    /// At most `limit` entries after number `after`, in order, with their environment where one is asked for.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn after(&self, tenant: TenantId, after: i64, limit: u32) -> Result<Vec<Entry>> {
        let rows = sqlx::query(
            "SELECT seq, body, hash FROM audit WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(tenant.to_string())
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(entry).collect()
    }

    /// At most `limit` entries before number `before`, latest first, of one environment where one is named.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn before(
        &self,
        tenant: TenantId,
        env: Option<EnvId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>> {
        let rows = sqlx::query(
            "SELECT seq, body, hash FROM audit WHERE tenant = $1 AND seq < $2 AND ($3 IS NULL OR env = $3) \
             ORDER BY seq DESC LIMIT $4",
        )
        .bind(tenant.to_string())
        .bind(before.unwrap_or(i64::MAX))
        .bind(env.map(|env| env.to_string()))
        .bind(i64::from(limit))
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(entry).collect()
    }

    /// Where the chain ends, if it has begun.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn head(&self, tenant: TenantId) -> Result<Option<Signed>> {
        let row = sqlx::query("SELECT tenant, seq, hash, at, signature FROM audit_heads WHERE tenant = $1")
            .bind(tenant.to_string())
            .fetch_optional(self.0.reader())
            .await?;
        row.map(|row| signed(&row, MarkKind::Head)).transpose()
    }

    /// The marks of one kind from number `from` on, in order.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn marks(&self, tenant: TenantId, kind: MarkKind, from: i64) -> Result<Vec<Signed>> {
        let rows = sqlx::query(
            "SELECT tenant, seq, hash, at, signature FROM audit_marks \
             WHERE tenant = $1 AND kind = $2 AND seq >= $3 ORDER BY seq",
        )
        .bind(tenant.to_string())
        .bind(kind.as_str())
        .bind(from)
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(|row| signed(row, kind)).collect()
    }

    /// Makes a checkpoint of chains that have grown since their last one, where that was made before `since`, of so many
    /// chains at most, and gives them, with how many could not be had: they were changed by somebody else. Of several gateways
    /// one makes it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn checkpoint(&self, signer: &dyn Signer, since: Timestamp) -> Result<(Vec<Signed>, usize)> {
        let at = Timestamp::now();
        let grown = sqlx::query(
            "SELECT tenant, seq, hash, at, signature FROM audit_heads \
             WHERE seq <> checked AND (checked_at < $1 OR checked_at > $2) ORDER BY tenant LIMIT $3",
        )
        .bind(since.as_micros())
        .bind(at.as_micros())
        .bind(CHAINS)
        .fetch_all(self.0.reader())
        .await?;
        let heads: Vec<Signed> = grown.iter().filter_map(|row| signed(row, MarkKind::Head).ok()).collect();
        let (mut made, mut changed) = (Vec::new(), grown.len() - heads.len());
        for heads in heads.chunks(AT_ONCE) {
            match self.check(heads, signer, at).await {
                Ok((checked, wrong)) => {
                    made.extend(checked);
                    changed += wrong;
                }
                Err(error) if made.is_empty() => return Err(error),
                // What was made is to be kept elsewhere, too; the others have grown still the next time.
                Err(_) => break,
            }
        }
        Ok((made, changed))
    }

    /// Makes checkpoints of chains that end so, in one transaction.
    async fn check(
        &self,
        heads: &[Signed],
        signer: &dyn Signer,
        at: Timestamp,
    ) -> Result<(Vec<Signed>, usize)> {
        let (mut made, mut changed) = (Vec::new(), 0);
        let mut write = self.0.begin_write().await?;
        for head in heads {
            let moved = sqlx::query(
                "UPDATE audit_heads SET checked = seq, checked_at = $3 WHERE tenant = $1 AND seq = $2 AND checked <> $2",
            )
            .bind(head.mark.tenant.to_string())
            .bind(head.mark.seq)
            .bind(at.as_micros())
            .execute(write.connection())
            .await?;
            if moved.rows_affected() != 1 {
                // It has grown meanwhile, or another gateway was first.
                continue;
            }
            // What is not ours is not made so.
            if !signer.holds(head) {
                changed += 1;
                continue;
            }
            let mark = Mark { kind: MarkKind::Checkpoint, at, ..head.mark.clone() };
            let checkpoint = Signed { signature: signer.sign(&mark), mark };
            keep(write.connection(), &checkpoint).await?;
            made.push(checkpoint);
        }
        write.commit().await?;
        Ok((made, changed))
    }

    /// The tenants whose chains begin with entries from before `before`, at most so many, the oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn old(&self, before: Timestamp, most: u32) -> Result<Vec<TenantId>> {
        let rows = sqlx::query(
            "SELECT audit.tenant AS tenant FROM audit JOIN audit_heads ON audit_heads.tenant = audit.tenant \
             WHERE audit.at < $1 AND audit.seq < audit_heads.seq \
             GROUP BY audit.tenant ORDER BY MIN(audit.at) LIMIT $2",
        )
        .bind(before.as_micros())
        .bind(i64::from(most))
        .fetch_all(self.0.reader())
        .await?;
        // What is no tenant's is nobody's to remove.
        Ok(rows.iter().filter_map(|row| parsed(row, "tenant").ok()).collect())
    }

    /// Removes at most `limit` entries of a chain from before `before`, and signs where it starts now. Its last entry stays,
    /// and so does what says that it was changed, with all behind that. Gives how many are gone; `None` where the chain is
    /// not what was written: nothing of it is signed away.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(
        &self,
        signer: &dyn Signer,
        tenant: TenantId,
        before: Timestamp,
        limit: u32,
    ) -> Result<Option<u64>> {
        let mut write = self.0.begin_write().await?;
        let (_, _, broken) = end(write.connection(), tenant, signer).await?;
        let start = sqlx::query(
            "SELECT tenant, seq, hash, at, signature FROM audit_marks \
             WHERE tenant = $1 AND kind = 'start' ORDER BY seq DESC LIMIT 1",
        )
        .bind(tenant.to_string())
        .fetch_optional(write.connection())
        .await?;
        let start = start.map(|row| signed(&row, MarkKind::Start)).transpose()?;
        if broken.is_some() || start.as_ref().is_some_and(|start| !signer.holds(start)) {
            return Ok(None);
        }
        let (first, mut hash) =
            start.map_or_else(|| (0, beginning(tenant)), |start| (start.mark.seq, start.mark.hash));
        let rows = sqlx::query(
            "SELECT seq, body, hash FROM audit WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(tenant.to_string())
        .bind(first)
        .bind(i64::from(limit) + 1)
        .fetch_all(write.connection())
        .await?;
        // One goes when the one behind it was seen to stand on it.
        let (mut until, mut old) = (None, None);
        for (row, seq) in rows.iter().zip(first + 1..) {
            let entry = entry(row)?;
            if entry.seq != seq || entry.hash != link(&hash, &entry.body) {
                return Ok(None);
            }
            until = old.take().or(until);
            if !is_old(&entry.body, before) {
                break;
            }
            hash.clone_from(&entry.hash);
            old = Some((seq, entry.hash));
        }
        let Some((until, hash)) = until else { return Ok(Some(0)) };
        let mark = Mark { kind: MarkKind::Start, tenant, seq: until, hash, at: Timestamp::now() };
        let start = Signed { signature: signer.sign(&mark), mark };
        for sql in [
            "DELETE FROM audit_marks WHERE tenant = $1 AND seq <= $2",
            "DELETE FROM audit WHERE tenant = $1 AND seq <= $2",
        ] {
            sqlx::query(sql).bind(tenant.to_string()).bind(until).execute(write.connection()).await?;
        }
        keep(write.connection(), &start).await?;
        write.commit().await?;
        Ok(Some((until - first).unsigned_abs()))
    }
}

/// Whether an entry says itself that it is from before that time, and does not say that somebody has changed the chain.
fn is_old(body: &str, before: Timestamp) -> bool {
    let Ok(body) = serde_json::from_str::<serde_json::Value>(body) else { return false };
    let at = body.get("at").and_then(serde_json::Value::as_str).and_then(Timestamp::parse);
    at.is_some_and(|at| at < before) && body.get("act").is_none_or(|act| act != BROKEN)
}

/// Adds acts to their chains, within a transaction. Chains are locked in one order, each until the transaction's end.
/// Gives the tenants whose chains somebody else has changed.
pub(crate) async fn append(
    connection: &mut AnyConnection,
    entries: &[NewEntry],
    signer: &dyn Signer,
) -> Result<Vec<TenantId>> {
    let mut changed = Vec::new();
    let mut chains = BTreeMap::<TenantId, Vec<&NewEntry>>::new();
    for entry in entries {
        chains.entry(entry.tenant).or_default().push(entry);
    }
    for (tenant, entries) in chains {
        let (mut seq, mut hash, broken) = end(connection, tenant, signer).await?;
        changed.extend(broken.as_ref().map(|_| tenant));
        let notice = broken.map(|found| NewEntry {
            tenant,
            at: Timestamp::now(),
            env: None,
            body: format!(
                r#"{{"tenant":"{tenant}","at":"{}","act":"{BROKEN}","about":{found}}}"#,
                Timestamp::now()
            ),
        });
        for entry in notice.iter().chain(entries) {
            seq = next(seq)?;
            let body = format!(r#"{{"seq":{seq},{}"#, entry.body.strip_prefix('{').unwrap_or(&entry.body));
            hash = link(&hash, &body);
            sqlx::query(
                "INSERT INTO audit (tenant, seq, at, env, body, hash) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(tenant.to_string())
            .bind(seq)
            .bind(entry.at.as_micros())
            .bind(entry.env.map(|env| env.to_string()))
            .bind(body)
            .bind(hash.as_str())
            .execute(&mut *connection)
            .await?;
        }
        let mark = Mark { kind: MarkKind::Head, tenant, seq, hash, at: Timestamp::now() };
        sqlx::query("UPDATE audit_heads SET seq = $2, hash = $3, at = $4, signature = $5 WHERE tenant = $1")
            .bind(tenant.to_string())
            .bind(seq)
            .bind(mark.hash.as_str())
            .bind(mark.at.as_micros())
            .bind(signer.sign(&mark))
            .execute(&mut *connection)
            .await?;
    }
    Ok(changed)
}

/// The number behind this one.
fn next(seq: i64) -> Result<i64> {
    let full = || Error::Unreadable { what: "seq", source: "there is no number behind it".into() };
    seq.checked_add(1).ok_or_else(full)
}

/// Where a chain ends, which is locked from here on: its number and hash, and what does not fit where somebody has
/// changed it. Such a chain goes on, behind an entry that says so for ever: what is done now is to be on record, too.
async fn end(
    connection: &mut AnyConnection,
    tenant: TenantId,
    signer: &dyn Signer,
) -> Result<(i64, String, Option<serde_json::Value>)> {
    let row = sqlx::query(
        "INSERT INTO audit_heads (tenant, seq, hash, at, signature) VALUES ($1, 0, $2, 0, '') \
         ON CONFLICT (tenant) DO UPDATE SET seq = audit_heads.seq RETURNING tenant, seq, hash, at, signature",
    )
    .bind(tenant.to_string())
    .bind(beginning(tenant))
    .fetch_one(&mut *connection)
    .await?;
    let head = signed(&row, MarkKind::Head)?;
    let last = sqlx::query("SELECT seq, body, hash FROM audit WHERE tenant = $1 ORDER BY seq DESC LIMIT 1")
        .bind(tenant.to_string())
        .fetch_optional(&mut *connection)
        .await?
        .map(|row| entry(&row))
        .transpose()?;
    let fresh = head.mark.seq == 0 && head.signature.is_empty() && head.mark.hash == beginning(tenant);
    let fits = match &last {
        None => fresh,
        Some(last) => last.seq == head.mark.seq && last.hash == head.mark.hash && signer.holds(&head),
    };
    if fits {
        return Ok((head.mark.seq, head.mark.hash, None));
    }
    let (seq, hash) = match last {
        Some(last) if last.seq >= head.mark.seq => (last.seq, last.hash),
        _ => (head.mark.seq.max(0), head.mark.hash.clone()),
    };
    let found = serde_json::json!({
        "head": head.mark.seq, "last": seq, "signed": signer.holds(&head),
    });
    Ok((seq, hash, Some(found)))
}

async fn keep(connection: &mut AnyConnection, signed: &Signed) -> Result<()> {
    sqlx::query(
        "INSERT INTO audit_marks (tenant, kind, seq, hash, at, signature) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (tenant, kind, seq) DO UPDATE SET hash = excluded.hash, at = excluded.at, \
         signature = excluded.signature",
    )
    .bind(signed.mark.tenant.to_string())
    .bind(signed.mark.kind.as_str())
    .bind(signed.mark.seq)
    .bind(signed.mark.hash.as_str())
    .bind(signed.mark.at.as_micros())
    .bind(signed.signature.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

fn signed(row: &AnyRow, kind: MarkKind) -> Result<Signed> {
    let mark = Mark {
        kind,
        tenant: parsed(row, "tenant")?,
        seq: number(row, "seq")?,
        hash: text(row, "hash")?,
        at: time(row, "at")?,
    };
    Ok(Signed { mark, signature: text(row, "signature")? })
}

fn entry(row: &AnyRow) -> Result<Entry> {
    Ok(Entry { seq: number(row, "seq")?, body: text(row, "body")?, hash: text(row, "hash")? })
}
