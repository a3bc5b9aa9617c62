//! The audit log: who signs it, and how anybody verifies it without the platform.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use kernel::{BlobHash, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{AuditMark, AuditSigner, MarkKind, SignedMark, audit_beginning, audit_link};

/// The version of the form in which logs are given away.
const VERSION: u32 = 1;

/// The act that the platform notes where it found a chain changed by somebody else.
const BROKEN: &str = "audit.broken";

/// The platform's key for audit logs (Ed25519, RFC 8032). It is derived from the master key, so that who can only write
/// to the control database can make no other.
pub struct AuditKey(SigningKey);

impl AuditKey {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half, with which a log is verified: 64 hexadecimal digits, which no command line takes for an option.
    #[must_use]
    pub fn public(&self) -> String {
        BlobHash::from_bytes(self.0.verifying_key().to_bytes()).to_string()
    }
}

impl AuditSigner for AuditKey {
    fn sign(&self, mark: &AuditMark) -> String {
        URL_SAFE_NO_PAD.encode(self.0.sign(mark.to_string().as_bytes()).to_bytes())
    }

    fn holds(&self, signed: &SignedMark) -> bool {
        holds(&self.0.verifying_key(), signed)
    }
}

fn holds(key: &VerifyingKey, signed: &SignedMark) -> bool {
    let signature = URL_SAFE_NO_PAD.decode(&signed.signature).ok();
    let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
    signature.is_some_and(|it| key.verify_strict(signed.mark.to_string().as_bytes(), &it).is_ok())
}

/// The first line of a log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Title {
    audit: u32,
    tenant: TenantId,
    key: String,
}

/// A signed mark as a line of a log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    mark: Kind,
    tenant: TenantId,
    seq: i64,
    hash: String,
    at: Timestamp,
    signature: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Head,
    Checkpoint,
    Start,
}

/// The line with which the log of a tenant begins.
#[must_use]
pub fn title(tenant: TenantId, key: &AuditKey) -> String {
    line(&Title { audit: VERSION, tenant, key: key.public() })
}

/// A signed mark as a line of a log, or of a file of checkpoints.
#[must_use]
pub fn mark_line(signed: &SignedMark) -> String {
    let mark = match signed.mark.kind {
        MarkKind::Head => Kind::Head,
        MarkKind::Checkpoint => Kind::Checkpoint,
        MarkKind::Start => Kind::Start,
    };
    let AuditMark { tenant, seq, hash, at, .. } = signed.mark.clone();
    line(&Line { mark, tenant, seq, hash, at, signature: signed.signature.clone() })
}

fn line(value: &impl Serialize) -> String {
    // A struct of texts and numbers has a form.
    serde_json::to_string(value).unwrap_or_default()
}

fn signed(line: Line) -> SignedMark {
    let Line { mark, tenant, seq, hash, at, signature } = line;
    let kind = match mark {
        Kind::Head => MarkKind::Head,
        Kind::Checkpoint => MarkKind::Checkpoint,
        Kind::Start => MarkKind::Start,
    };
    SignedMark { mark: AuditMark { kind, tenant, seq, hash, at }, signature }
}

/// Why a log is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Tampered {
    /// It is something else.
    #[error("line {0} is none of an audit log")]
    NotALog(usize),
    /// It names a key that is not the one that was expected.
    #[error("it is signed with another key than {0}")]
    OtherKey(String),
    /// An entry is not where it belongs.
    #[error("entry {found} stands where entry {expected} belongs: entries are missing, or in another order")]
    Gap {
        /// The number that comes next.
        expected: i64,
        /// The number that is there.
        found: i64,
    },
    /// A mark does not say what the entries say.
    #[error("what was signed of entry {0} does not fit it: it, or one before it, was changed")]
    Changed(i64),
    /// A signature is not of the key.
    #[error("the signature at entry {0} is not the platform's")]
    Forged(i64),
    /// The signed end is missing.
    #[error("it has no signed end behind entry {0}: it was cut off")]
    CutOff(i64),
    /// A checkpoint that is kept elsewhere is of an entry that is not there.
    #[error(
        "a checkpoint says that there is an entry {checkpoint}, and the log ends at {last}: it was cut off"
    )]
    Shortened {
        /// The number in the checkpoint.
        checkpoint: i64,
        /// The last number in the log.
        last: i64,
    },
    /// The platform has found it changed before.
    #[error("entry {0} says that the platform found the log changed by somebody else before it")]
    Broken(i64),
}

/// What a log was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose log it is.
    pub tenant: TenantId,
    /// The key that signed it.
    pub key: String,
    /// The first entry's number.
    pub first: i64,
    /// The last entry's number; smaller than the first where there is none.
    pub last: i64,
    /// When its end was signed.
    pub at: Timestamp,
    /// Checkpoints that it was held against, those kept elsewhere among them.
    pub checkpoints: usize,
}

/// Reads a log line by line.
#[derive(Debug, Default)]
pub struct Verification {
    /// The key that is expected.
    pinned: Option<String>,
    /// Hashes that checkpoints kept elsewhere say, with their signatures.
    kept: BTreeMap<TenantId, Vec<SignedMark>>,
    log: Option<Log>,
    lines: usize,
}

#[derive(Debug)]
struct Log {
    title: Title,
    key: VerifyingKey,
    first: i64,
    seq: i64,
    hash: String,
    head: Option<SignedMark>,
    checkpoints: usize,
    kept: std::vec::IntoIter<SignedMark>,
    next: Option<SignedMark>,
}

impl Verification {
    /// Of a log signed with this key, or with the one that it names where none is given: then it shows only that one
    /// hand has written it.
    #[must_use]
    pub fn new(key: Option<String>) -> Self {
        Self { pinned: key, ..Self::default() }
    }

    /// Holds the log against a checkpoint that was kept elsewhere, too.
    ///
    /// # Errors
    /// Where the line is none.
    pub fn checkpoint(&mut self, line: &str) -> Result<(), Tampered> {
        self.lines += 1;
        let line = serde_json::from_str(line).map_err(|_| Tampered::NotALog(self.lines))?;
        let mark = signed(line);
        self.kept.entry(mark.mark.tenant).or_default().push(mark);
        Ok(())
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// Where it does not fit what came before it.
    pub fn line(&mut self, line: &str) -> Result<(), Tampered> {
        let Some(log) = &mut self.log else {
            self.lines = 1;
            let title: Title = serde_json::from_str(line).map_err(|_| Tampered::NotALog(1))?;
            let key = verifying(&title.key).filter(|_| title.audit == VERSION).ok_or(Tampered::NotALog(1))?;
            if let Some(pinned) = self.pinned.take().filter(|pinned| *pinned != title.key) {
                return Err(Tampered::OtherKey(pinned));
            }
            let mut kept = self.kept.remove(&title.tenant).unwrap_or_default();
            kept.sort_by_key(|it| it.mark.seq);
            let (mut kept, hash) = (kept.into_iter(), audit_beginning(title.tenant));
            let next = kept.next();
            let (first, seq, head, checkpoints) = (1, 0, None, 0);
            self.log = Some(Log { title, key, first, seq, hash, head, checkpoints, kept, next });
            return Ok(());
        };
        self.lines += 1;
        let strange = Tampered::NotALog(self.lines);
        let value: Value = serde_json::from_str(line).map_err(|_| strange.clone())?;
        if value.get("mark").is_some() {
            let mark = signed(serde_json::from_value(value).map_err(|_| strange.clone())?);
            // Written in another way it would say the same, and be another file.
            return if mark_line(&mark) == line { log.mark(mark) } else { Err(strange) };
        }
        let found = value.get("seq").and_then(Value::as_i64).ok_or(strange)?;
        log.entry(found, line, value.get("act").and_then(Value::as_str) == Some(BROKEN))
    }

    /// Ends the log.
    ///
    /// # Errors
    /// Where it is not whole.
    pub fn end(self) -> Result<Verified, Tampered> {
        let Some(mut log) = self.log else { return Err(Tampered::NotALog(1)) };
        log.against_kept()?;
        if let Some(beyond) = log.next {
            return Err(Tampered::Shortened { checkpoint: beyond.mark.seq, last: log.seq });
        }
        let Some(head) = log.head else { return Err(Tampered::CutOff(log.seq)) };
        Ok(Verified {
            tenant: log.title.tenant,
            key: log.title.key,
            first: log.first,
            last: log.seq,
            at: head.mark.at,
            checkpoints: log.checkpoints,
        })
    }
}

impl Log {
    fn entry(&mut self, found: i64, line: &str, broken: bool) -> Result<(), Tampered> {
        if found != self.seq + 1 || self.head.is_some() {
            return Err(Tampered::Gap { expected: self.seq + 1, found });
        }
        if broken {
            return Err(Tampered::Broken(found));
        }
        self.against_kept()?;
        self.seq = found;
        self.hash = audit_link(&self.hash, line);
        Ok(())
    }

    fn mark(&mut self, signed: SignedMark) -> Result<(), Tampered> {
        let mark = &signed.mark;
        if mark.tenant != self.title.tenant || !holds(&self.key, &signed) {
            return Err(Tampered::Forged(mark.seq));
        }
        match mark.kind {
            MarkKind::Start if self.seq == 0 => {
                (self.first, self.seq, self.hash) = (mark.seq + 1, mark.seq, mark.hash.clone());
                // What was before it is nowhere any more.
                while self.next.as_ref().is_some_and(|next| next.mark.seq < mark.seq) {
                    self.next = self.kept.next();
                }
                return Ok(());
            }
            _ if mark.seq != self.seq || self.head.is_some() => {
                return Err(Tampered::Gap { expected: self.seq, found: mark.seq });
            }
            _ if mark.hash != self.hash => return Err(Tampered::Changed(self.seq)),
            MarkKind::Head => self.head = Some(signed),
            MarkKind::Checkpoint | MarkKind::Start => self.checkpoints += 1,
        }
        Ok(())
    }

    /// Holds the last entry against what is kept of it elsewhere.
    fn against_kept(&mut self) -> Result<(), Tampered> {
        while let Some(kept) = self.next.take_if(|next| next.mark.seq <= self.seq) {
            if !holds(&self.key, &kept) {
                return Err(Tampered::Forged(kept.mark.seq));
            }
            if kept.mark.seq == self.seq && kept.mark.hash != self.hash {
                return Err(Tampered::Changed(self.seq));
            }
            self.checkpoints += 1;
            self.next = self.kept.next();
        }
        Ok(())
    }
}

fn verifying(key: &str) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(&key.parse::<BlobHash>().ok()?.to_bytes()).ok()
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
