//! The audit logs of tenants: read, given away, and checked from time to time.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use kernel::{Caller, EnvId, Error, Proof as _, Result, Scope, Tenant, TenantId, Timestamp};
use serde_json::Value;
use store::{AuditEntry, MarkKind, SignedMark};

use crate::Control;
use crate::audit::{mark_line, title};
use crate::control::PURGE;

/// How often a checkpoint is made of a log that grows.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Entries that are read at once when a log is given away.
const PAGE: u32 = 1_000;

/// The file of checkpoints is made anew, with the last one of each log, when it is larger than this.
const FILE: u64 = 16 << 20;

/// The audit logs.
pub struct AuditLog<'a>(pub(crate) &'a Control);

/// How far a log has been given away.
#[derive(Debug)]
pub struct AuditExport {
    tenant: TenantId,
    head: Option<SignedMark>,
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
        self.0.ledger().flush().await?;
        Ok(self.0.store.audit().before(proof.id(), env, before, limit).await?)
    }

    /// Begins to give away the whole log of the caller's tenant.
    ///
    /// # Errors
    /// `forbidden` without the scope, and where the database fails.
    pub async fn export(&self, caller: &Caller) -> Result<AuditExport> {
        let tenant = Tenant::authorize(caller, &[Scope::KeyAdmin])?.id();
        self.0.ledger().flush().await?;
        let audit = self.0.store.audit();
        let head = audit.head(tenant).await?.filter(|head| head.mark.seq > 0);
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

    async fn piece(&self, reading: &mut AuditExport) -> Result<String> {
        let (audit, mut text) = (self.0.store.audit(), String::new());
        let last = reading.head.as_ref().map_or(0, |head| head.mark.seq);
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
            if let Some(head) = reading.head.take() {
                push(&mut text, &mark_line(&head));
            }
        }
        Ok(text)
    }

    /// Old entries go, and logs that have grown get a checkpoint.
    pub(crate) async fn upkeep(&self, now: Timestamp) -> Result<()> {
        let audit = self.0.store.audit();
        audit.purge(&*self.0.audit_key, now.minus(self.0.config.keep_changes), PURGE).await?;
        self.checkpoint(now.minus(EVERY)).await
    }

    /// The last checkpoints of this gateway's life.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.checkpoint(Timestamp::now()).await {
            tracing::warn!(error = error.chain(), "no checkpoint could be made of the audit logs");
        }
    }

    async fn checkpoint(&self, since: Timestamp) -> Result<()> {
        let made = self.0.store.audit().checkpoint(&*self.0.audit_key, since).await?;
        if made.is_empty() {
            return Ok(());
        }
        let (path, lines) = (self.0.checkpoints.clone(), made.iter().map(mark_line).collect::<Vec<_>>());
        let kept = tokio::task::spawn_blocking(move || keep(&path, &lines)).await.map_err(Error::internal)?;
        kept.map_err(|error| {
            Error::internal(format!("the checkpoints of audit logs cannot be written: {error}"))
        })
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// Adds lines to the file of checkpoints.
fn keep(path: &Path, lines: &[String]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.len() > FILE {
        file = shortened(path)?;
    }
    file.write_all((lines.join("\n") + "\n").as_bytes())?;
    file.sync_data()
}

/// The same file with the last line of each log alone.
fn shortened(path: &Path) -> io::Result<File> {
    let mut last = BTreeMap::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        let tenant = serde_json::from_str::<Value>(&line).ok();
        let tenant = tenant.and_then(|value| Some(value.get("tenant")?.as_str()?.to_owned()));
        // What is no line of ours is kept for whoever looks.
        last.insert(tenant.unwrap_or_else(|| line.clone()), line);
    }
    let half = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    for line in last.values() {
        writeln!(file, "{line}")?;
    }
    file.sync_all()?;
    std::fs::rename(&half, path)?;
    OpenOptions::new().append(true).open(path)
}
