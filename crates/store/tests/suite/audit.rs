//! Chains of acts: whole whoever writes, and seen where somebody else has.

use std::time::Duration;

use kernel::{BlobHash, TenantId, Timestamp};
use store::{
    AuditEntry, AuditMark, AuditSigner, MarkKind, NewAuditEntry, SignedMark, Store, audit_beginning,
    audit_link,
};

use crate::place::{Place, now, tenant};
use crate::races::{RACERS, race};

/// A signer that everybody here knows and nobody in the database.
#[derive(Debug, Clone, Copy)]
pub struct Scribe;

impl AuditSigner for Scribe {
    fn sign(&self, mark: &AuditMark) -> String {
        BlobHash::of(format!("scribe {mark}").as_bytes()).to_string()
    }

    fn holds(&self, signed: &SignedMark) -> bool {
        self.sign(&signed.mark) == signed.signature
    }
}

fn act(tenant: TenantId, what: &str) -> NewAuditEntry {
    at(tenant, what, now())
}

fn at(tenant: TenantId, what: &str, at: Timestamp) -> NewAuditEntry {
    NewAuditEntry { tenant, at, env: None, body: format!(r#"{{"at":"{at}","act":"{what}"}}"#) }
}

async fn written(store: &Store, acts: &[NewAuditEntry]) -> Vec<TenantId> {
    store.records().append(&[], acts, &Scribe).await.unwrap()
}

/// The chain, whose hashes and end were found to be right from number `from` on, behind that hash.
async fn whole(store: &Store, tenant: TenantId, from: i64, mut hash: String) -> Vec<AuditEntry> {
    let entries = store.audit().after(tenant, 0, 10_000).await.unwrap();
    for (entry, seq) in entries.iter().zip(from..) {
        hash = audit_link(&hash, &entry.body);
        assert_eq!((entry.seq, &entry.hash), (seq, &hash));
        assert!(entry.body.starts_with(&format!(r#"{{"seq":{seq},"#)), "{}", entry.body);
    }
    let head = store.audit().head(tenant).await.unwrap().unwrap();
    assert!(Scribe.holds(&head));
    assert_eq!((head.mark.seq, &head.mark.hash), (from + entries.len() as i64 - 1, &hash));
    entries
}

pub async fn a_chain_is_whole_however_many_write(place: &Place) {
    let (store, one) = place.with_tenant().await;
    let two = tenant("other");
    assert!(store.tenants().insert(&two).await.unwrap().is_made());
    let two = two.id;
    let (first, second) = (store.clone(), place.open().await);
    race(|number| {
        let store = if number % 2 == 0 { first.clone() } else { second.clone() };
        async move {
            for turn in 0..5 {
                let mine = [act(one, &format!("{number} {turn}")), act(two, "x"), act(one, "y")];
                assert_eq!(written(&store, &mine).await, []);
            }
        }
    })
    .await;
    for (tenant, each) in [(one, 10), (two, 5)] {
        let entries = whole(&store, tenant, 1, audit_beginning(tenant)).await;
        assert_eq!(entries.len(), RACERS * each);
    }
    let last = store.audit().before(one, None, None, 3).await.unwrap();
    assert_eq!(last.iter().map(|it| it.seq).collect::<Vec<_>>(), [160, 159, 158]);
    assert_eq!(store.audit().before(one, None, Some(3), 9).await.unwrap().len(), 2);
}

pub async fn a_chain_that_somebody_has_changed_says_so_and_goes_on(place: &Place) {
    let (store, one) = place.with_tenant().await;
    let raw = place.raw().await;
    let changes = [
        // The last is gone, the end put back where it was, the end is gone, another end, a last one that nobody signed.
        "DELETE FROM audit WHERE seq = (SELECT MAX(seq) FROM audit)",
        "UPDATE audit_heads SET seq = seq - 1, hash = (SELECT hash FROM audit WHERE seq = audit_heads.seq - 1)",
        "DELETE FROM audit_heads",
        "UPDATE audit_heads SET hash = 'abc'",
        "INSERT INTO audit SELECT tenant, seq + 1, at, env, body, hash FROM audit \
         WHERE seq = (SELECT MAX(seq) FROM audit)",
        "UPDATE audit_heads SET signature = ''",
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(written(&store, &[act(one, "a"), act(one, "b")]).await, [], "{change}");
        sqlx::query(change).execute(&raw).await.unwrap();
        let acts = [act(one, "after")];
        assert_eq!(written(&store, &acts).await, [one], "{change}");
        let last = store.audit().before(one, None, None, 2).await.unwrap();
        assert!(last[0].body.ends_with(r#""act":"after"}"#), "{change}: {last:?}");
        assert!(last[1].body.contains("audit.broken"), "{change}: {last:?}");
        let head = store.audit().head(one).await.unwrap().unwrap();
        assert!(Scribe.holds(&head) && head.mark.seq == last[0].seq, "{number}");
    }
}

pub async fn old_entries_go_and_what_is_left_says_where_it_starts(place: &Place) {
    let (store, one) = place.with_tenant().await;
    let idle = tenant("idle");
    assert!(store.tenants().insert(&idle).await.unwrap().is_made());
    let old = |tenant| at(tenant, "old", now().minus(Duration::from_secs(90)));
    written(&store, &[old(idle.id)]).await;
    let made = store.audit().checkpoint(&Scribe, now()).await.unwrap().0;
    assert_eq!(made.iter().map(|it| it.mark.tenant).collect::<Vec<_>>(), [idle.id]);
    written(&store, &[old(one), old(one), old(one), act(one, "young"), act(one, "young")]).await;
    let made = store.audit().checkpoint(&Scribe, now()).await.unwrap().0;
    assert_eq!((made.len(), made[0].mark.seq, Scribe.holds(&made[0])), (1, 5, true));
    assert_eq!(store.audit().checkpoint(&Scribe, now()).await.unwrap(), (Vec::new(), 0), "nothing has grown");
    let long_ago = now().minus(Duration::from_secs(60));
    let before = now().minus(Duration::from_secs(30));
    assert_eq!(store.audit().old(before, 9).await.unwrap(), [one], "the last one of a chain stays");
    let purge = async |limit| store.audit().purge(&Scribe, one, before, limit).await.unwrap();
    assert_eq!([purge(2).await, purge(2).await, purge(2).await], [Some(2), Some(1), Some(0)]);
    let starts = store.audit().marks(one, MarkKind::Start, 0).await.unwrap();
    assert_eq!((starts.len(), starts[0].mark.seq, Scribe.holds(&starts[0])), (1, 3, true));
    assert_eq!(whole(&store, one, 4, starts[0].mark.hash.clone()).await.len(), 2);
    assert_eq!(written(&store, &[act(one, "more")]).await, []);
    assert_eq!(
        store.audit().checkpoint(&Scribe, long_ago).await.unwrap(),
        (Vec::new(), 0),
        "the last one is young"
    );
    assert_eq!(whole(&store, one, 4, starts[0].mark.hash.clone()).await.len(), 3);
    assert_eq!(store.audit().marks(one, MarkKind::Checkpoint, 0).await.unwrap().len(), 1);
    assert_eq!(whole(&store, idle.id, 1, audit_beginning(idle.id)).await.len(), 1);
}

pub async fn nothing_is_signed_away_that_was_not_written(place: &Place) {
    let changes = [
        // Made old, all of it.
        "UPDATE audit SET at = 0",
        // The same, with the text and its own hash, or with an end of one's own.
        "UPDATE audit SET at = 0, body = replace(body, '\"act\":\"a\"', '\"act\":\"b\"') WHERE seq = 1",
        "UPDATE audit SET seq = seq + 1000000; UPDATE audit_heads SET seq = seq + 1000000",
        "INSERT INTO audit_marks SELECT tenant, 'start', 2, hash, at, '' FROM audit_heads",
        "DELETE FROM audit WHERE seq <= 2",
    ];
    for change in changes {
        let (store, raw) = (place.open().await, place.raw().await);
        let one = tenant(&format!("t{}", BlobHash::of(change.as_bytes()).to_string().get(..8).unwrap()));
        assert!(store.tenants().insert(&one).await.unwrap().is_made());
        sqlx::raw_sql("DELETE FROM audit; DELETE FROM audit_heads; DELETE FROM audit_marks")
            .execute(&raw)
            .await
            .unwrap();
        let acts: Vec<_> = (0..5).map(|_| act(one.id, "a")).collect();
        written(&store, &acts).await;
        let before = now().minus(Duration::from_secs(60));
        sqlx::raw_sql(change).execute(&raw).await.unwrap();
        let gone = store.audit().purge(&Scribe, one.id, before, 100).await.unwrap();
        assert!(gone.is_none_or(|gone| gone == 0), "{change}");
        for start in store.audit().marks(one.id, MarkKind::Start, 0).await.unwrap() {
            assert!(!Scribe.holds(&start), "{change}");
        }
    }
}

pub async fn a_chain_that_cannot_be_read_gets_no_checkpoint_and_keeps_no_other_from_it(place: &Place) {
    let (store, one) = place.with_tenant().await;
    written(&store, &[act(one, "a")]).await;
    let raw = place.raw().await;
    let odd = "INSERT INTO audit_heads VALUES ('a stranger', 1, '', 0, '', 0, 0)";
    sqlx::raw_sql(odd).execute(&raw).await.unwrap();
    let (made, changed) = store.audit().checkpoint(&Scribe, now()).await.unwrap();
    assert_eq!((made.len(), changed), (1, 1));
    // Whoever says that all is checked, for ever, has it checked once more.
    let never = "UPDATE audit_heads SET checked = 9000000000, checked_at = 9000000000000000000";
    sqlx::raw_sql(never).execute(&raw).await.unwrap();
    assert_eq!(store.audit().checkpoint(&Scribe, now()).await.unwrap().0.len(), 1);
}
