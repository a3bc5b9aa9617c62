//! The audit logs of tenants: read, given away, and checked from time to time.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use kernel::{Caller, Code, EnvId, Error, Proof as _, Result, Scope, Tenant, TenantId, Timestamp};
use store::{AuditEntry, AuditMark, AuditSigner as _, MarkKind, SignedMark};

use crate::Control;
use crate::audit::{mark_line, title};

/// How often a checkpoint is made of a log that grows.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Entries that are read at once when a log is given away.
const PAGE: u32 = 1_000;

/// How large the file of checkpoints becomes.
const FILE: u64 = 16 << 20;

/// Logs of which old entries are removed in one round, and how long that and checkpoints at the end may take.
const OLD: u32 = 100;
const WORK: Duration = Duration::from_secs(5);

/// The audit logs.
pub struct AuditLog<'a>(pub(crate) &'a Control);

/// How far a log has been given away.
#[derive(Debug)]
pub struct AuditExport {
    tenant: TenantId,
    head: SignedMark,
    checkpoints: std::vec::IntoIter<SignedMark>,
    next: Option<SignedMark>,
    seq: i64,
    begun: bool,
    over: bool,
}

impl AuditLog<'_> {
    /// The public key that logs are verified with.
    ///
    /// # Errors
    /// `forbidden` without the scope.
    pub fn key(&self, caller: &Caller) -> Result<String> {
        Tenant::authorize(caller, &[Scope::KeyAdmin])?;
        Ok(self.0.audit_key.public())
    }

    /// At most `limit` entries before number `before`, latest first, of one environment where one is named.
    ///
    /// # Errors
    /// `forbidden` without the scope.
    pub async fn list(
        &self,
        caller: &Caller,
        env: Option<EnvId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>> {
        let proof = Tenant::authorize(caller, &[Scope::KeyAdmin])?;
        self.0.ledger().flush(proof.id()).await?;
        Ok(self.0.store.audit().before(proof.id(), env, before, limit).await?)
    }

    /// Begins to give away the whole log of the caller's tenant.
    ///
    /// # Errors
    /// `forbidden` without the scope, and where the database fails.
    pub async fn export(&self, caller: &Caller) -> Result<AuditExport> {
        let tenant = Tenant::authorize(caller, &[Scope::KeyAdmin])?.id();
        self.0.ledger().flush(tenant).await?;
        let audit = self.0.store.audit();
        let head = match audit.head(tenant).await? {
            // One that somebody has changed is given as it is, and fits nothing.
            Some(head) => head,
            None if audit.after(tenant, 0, 1).await?.is_empty() => self.none(tenant),
            None => {
                return Err(Error::new(Code::Conflict, "the signed end of the audit log is gone")
                    .hint("somebody has changed the control database: find out who can write to it"));
            }
        };
        let mut checkpoints = audit.marks(tenant, MarkKind::Checkpoint, 0).await?.into_iter();
        let next = checkpoints.next();
        Ok(AuditExport { tenant, head, checkpoints, next, seq: 0, begun: false, over: false })
    }

    /// The next lines of a log that is given away, each with its end, up to the entry that was the last when that began;
    /// [`crate::audit::Verification`] takes them.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn more(&self, export: &mut AuditExport) -> Result<Option<String>> {
        if export.over { Ok(None) } else { self.piece(export).await.map(Some) }
    }

    /// The end of a log without entries.
    fn none(&self, tenant: TenantId) -> SignedMark {
        let hash = store::audit_beginning(tenant);
        let mark = AuditMark { kind: MarkKind::Head, tenant, seq: 0, hash, at: Timestamp::now() };
        SignedMark { signature: self.0.audit_key.sign(&mark), mark }
    }

    async fn piece(&self, reading: &mut AuditExport) -> Result<String> {
        let (audit, mut text) = (self.0.store.audit(), String::new());
        let last = reading.head.mark.seq;
        let entries = audit.after(reading.tenant, reading.seq, PAGE).await?;
        if !reading.begun {
            reading.begun = true;
            push(&mut text, &title(reading.tenant, &self.0.audit_key));
            let starts = audit.marks(reading.tenant, MarkKind::Start, 0).await?;
            let first = entries.first().map(|entry| entry.seq - 1);
            if let Some(start) = starts.into_iter().find(|it| Some(it.mark.seq) == first) {
                reading.seq = start.mark.seq;
                push(&mut text, &mark_line(&start));
            }
        }
        if entries.first().is_some_and(|entry| entry.seq != reading.seq + 1) {
            let message = "old entries were removed while the log was read";
            return Err(Error::new(Code::Conflict, message)
                .hint("export it again; where it is always so, somebody has changed the log"));
        }
        for entry in entries.iter().take_while(|entry| entry.seq <= last) {
            reading.seq = entry.seq;
            push(&mut text, &entry.body);
            while let Some(next) = reading.next.take_if(|next| next.mark.seq <= entry.seq) {
                if next.mark.seq == entry.seq {
                    push(&mut text, &mark_line(&next));
                }
                reading.next = reading.checkpoints.next();
            }
        }
        if entries.len() < PAGE as usize || reading.seq >= last {
            reading.over = true;
            push(&mut text, &mark_line(&reading.head));
        }
        Ok(text)
    }

    /// Old entries go, and logs that have grown get a checkpoint.
    pub(crate) async fn upkeep(&self, now: Timestamp) -> Result<()> {
        let removed = self.remove_old(now.minus(self.0.config.keep_changes)).await;
        self.checkpoint(now.minus(EVERY)).await?;
        removed
    }

    async fn remove_old(&self, before: Timestamp) -> Result<()> {
        let (audit, began) = (self.0.store.audit(), Instant::now());
        for tenant in audit.old(before, OLD).await? {
            loop {
                match audit.purge(&*self.0.audit_key, tenant, before, PAGE).await {
                    Ok(Some(0)) => break,
                    Ok(Some(_)) if began.elapsed() < WORK => {}
                    Ok(Some(_)) => return Ok(()),
                    Ok(None) => {
                        tracing::error!(%tenant, "the audit log was changed by somebody else: its old entries stay");
                        break;
                    }
                    // One that cannot be looked at stands in no other's way.
                    Err(error) => {
                        let error = Error::from(error).chain();
                        tracing::error!(%tenant, error, "old entries of the audit log cannot be removed");
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The last checkpoints of this gateway's life.
    pub(crate) async fn close(&self) {
        let began = Instant::now();
        loop {
            match self.checkpoint(Timestamp::now()).await {
                Ok(made) if made > 0 && began.elapsed() < WORK => {}
                Ok(_) => return,
                Err(error) => {
                    return tracing::warn!(
                        error = error.chain(),
                        "no checkpoint could be made of the audit logs"
                    );
                }
            }
        }
    }

    /// Makes checkpoints, and says how many.
    async fn checkpoint(&self, since: Timestamp) -> Result<usize> {
        let (made, changed) = self.0.store.audit().checkpoint(&*self.0.audit_key, since).await?;
        if changed > 0 {
            tracing::error!(
                logs = changed,
                "the ends of audit logs were changed by somebody else: they get no checkpoint"
            );
        }
        if made.is_empty() {
            return Ok(0);
        }
        let count = made.len();
        let (path, lines) = (self.0.checkpoints.clone(), made.iter().map(mark_line).collect::<Vec<_>>());
        let kept = tokio::task::spawn_blocking(move || keep(&path, &lines)).await.map_err(Error::internal)?;
        kept.map_err(|error| {
            Error::internal(format!("the checkpoints of audit logs cannot be written: {error}"))
        })?;
        Ok(count)
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// Adds lines to the file of checkpoints. One that has become large is kept beside it, and the next begins.
fn keep(path: &Path, lines: &[String]) -> io::Result<()> {
    let open = || OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let mut file = open()?;
    let length = file.metadata()?.len();
    if length > FILE {
        std::fs::rename(path, path.with_extension("ndjson.1"))?;
        file = open()?;
    } else if length > 0 {
        let mut last = [0];
        file.read_exact_at(&mut last, length - 1)?;
        // Whoever wrote it last may have died in the middle.
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    file.write_all((lines.join("\n") + "\n").as_bytes())?;
    file.sync_data()
}
