//! Logs that are whole, and every way in which one may be changed.

use store::{AuditSigner as _, MarkKind};

use super::*;

const KEY: [u8; 32] = [7; 32];

fn marked(key: &AuditKey, kind: MarkKind, tenant: TenantId, seq: i64, hash: &str) -> SignedMark {
    let mark = AuditMark { kind, tenant, seq, hash: hash.to_owned(), at: Timestamp::from_micros(5_000_001) };
    SignedMark { signature: key.sign(&mark), mark }
}

/// A log of so many entries behind number `start`, with a checkpoint after the third, and its checkpoint at the end.
fn log(tenant: TenantId, start: i64, entries: i64) -> (Vec<String>, SignedMark) {
    let key = AuditKey::new(&KEY);
    let mut lines = vec![title(tenant, &key)];
    let mut hash = audit_beginning(tenant);
    if start > 0 {
        let mark = marked(&key, MarkKind::Start, tenant, start, &hash);
        lines.push(mark_line(&mark));
    }
    for seq in start + 1..=start + entries {
        let body = format!(r#"{{"seq":{seq},"tenant":"{tenant}","act":"app_apply","from":"10.0.0.{seq}"}}"#);
        hash = audit_link(&hash, &body);
        lines.push(body);
        if seq == start + 3 {
            lines.push(mark_line(&marked(&key, MarkKind::Checkpoint, tenant, seq, &hash)));
        }
    }
    lines.push(mark_line(&marked(&key, MarkKind::Head, tenant, start + entries, &hash)));
    (lines, marked(&key, MarkKind::Checkpoint, tenant, start + entries, &hash))
}

fn verified(lines: &[String], kept: &[SignedMark]) -> Result<Verified, Tampered> {
    let mut verification = Verification::new(Some(AuditKey::new(&KEY).public()));
    for mark in kept {
        verification.checkpoint(&mark_line(mark))?;
    }
    for line in lines {
        verification.line(line)?;
    }
    verification.end()
}

#[test]
fn a_log_is_verified_with_the_public_key_alone() {
    let tenant = TenantId::new();
    for (start, entries) in [(0, 0), (0, 1), (0, 9), (40, 9)] {
        let (lines, last) = log(tenant, start, entries);
        let kept = [last, log(TenantId::new(), 0, 2).1];
        let found = verified(&lines, &kept[usize::from(entries == 0)..]).unwrap();
        assert_eq!((found.tenant, found.first, found.last), (tenant, start + 1, start + entries));
        let expected = usize::from(entries >= 3) + usize::from(entries > 0);
        assert_eq!(found.checkpoints, expected);
    }
}

#[test]
fn whatever_is_changed_is_seen() {
    let tenant = TenantId::new();
    let (lines, last) = log(tenant, 0, 9);
    let kept = [last];
    for at in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(at);
        // One checkpoint fewer is no change of what was done.
        assert_eq!(verified(&without, &kept).is_ok(), lines[at].contains("checkpoint"), "{at}");
        let mut twice = lines.clone();
        twice.insert(at, lines[at].clone());
        assert_eq!(verified(&twice, &kept).is_ok(), lines[at].contains("checkpoint"), "{at}");
        for byte in 0..lines[at].len() {
            let mut other = lines.clone();
            let mut bytes = lines[at].clone().into_bytes();
            bytes[byte] = if bytes[byte] == b'1' { b'2' } else { b'1' };
            other[at] = String::from_utf8(bytes).unwrap();
            assert!(verified(&other, &kept).is_err(), "{}", other[at]);
        }
        if at + 1 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert!(verified(&swapped, &kept).is_err(), "{at}");
        }
    }
}

#[test]
fn who_signs_a_shorter_or_another_log_is_found_by_key_or_checkpoint() {
    let tenant = TenantId::new();
    let (lines, last) = log(tenant, 0, 9);
    // An earlier end that was once signed, put back.
    let (shorter, _) = log(tenant, 0, 4);
    assert!(verified(&shorter, &[]).is_ok(), "nobody has kept anything that says more");
    assert_eq!(verified(&shorter, &[last]), Err(Tampered::Shortened { checkpoint: 9, last: 4 }));
    // A checkpoint of other entries.
    let other = marked(&AuditKey::new(&KEY), MarkKind::Checkpoint, tenant, 9, &audit_beginning(tenant));
    assert_eq!(verified(&lines, &[other]), Err(Tampered::Changed(9)));
    // The same log of another hand.
    let mine = AuditKey::new(&[8; 32]);
    let mut forged = vec![title(tenant, &mine)];
    forged.push(mark_line(&marked(&mine, MarkKind::Head, tenant, 0, &audit_beginning(tenant))));
    assert_eq!(verified(&forged, &[]), Err(Tampered::OtherKey(AuditKey::new(&KEY).public())));
    let mut trusting = Verification::new(None);
    assert!(forged.iter().all(|line| trusting.line(line).is_ok()));
    assert_eq!(trusting.end().unwrap().key, mine.public(), "whoever believes it is told whom");
    // What the platform itself has found.
    let broken = format!(r#"{{"seq":1,"tenant":"{tenant}","act":"audit.broken","about":{{"head":3}}}}"#);
    assert_eq!(verified(&[lines[0].clone(), broken], &[]), Err(Tampered::Broken(1)));
}
