//! Rows while another release takes over: the rules that hold are those of the moment of the change.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::poll;
use kernel::{Code, Error};
use tokio::sync::Notify;

use super::*;

/// Checks of releases that last as long as the test wants; the first one passes at once.
#[derive(Default)]
struct Slow {
    began: Notify,
    goes_on: Notify,
    refuses: AtomicBool,
}

impl LiveCheck for Slow {
    fn check<'a>(&'a self, _: &'a Env, served: &'a Served) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if served.release > 1 {
                self.began.notify_one();
                self.goes_on.notified().await;
            }
            match self.refuses.load(Ordering::Relaxed) {
                true => Err(Error::new(Code::Unavailable, "it does not answer")),
                false => Ok(()),
            }
        })
    }
}

fn manifest(access: &str) -> Wanted {
    let tables = json!({ "notes": { "columns": { "text": "text" }, "access": access } });
    Wanted::Manifest(Box::new(serde_json::from_value(json!({ "database": { "tables": tables } })).unwrap()))
}

#[tokio::test]
async fn a_change_that_waits_for_a_release_goes_by_the_rules_that_hold_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::for_upkeep(TenantId::new(), EnvId::new());
    let databases = Arc::new(Databases::new(dir.path().to_owned(), Limits::default()));
    databases.create(env.id()).await.unwrap();
    let (blobs, logs) = (Blobs::new(dir.path()).unwrap(), Logs::new(dir.path()));
    let slow = Arc::new(Slow::default());
    let check = Arc::clone(&slow) as Arc<dyn LiveCheck>;
    let releases = Arc::new(Releases::new(Arc::clone(&databases), blobs, logs, check));
    let live = Arc::clone(&releases) as Arc<dyn LiveApps>;
    let rows = Rows::new(databases, live);
    let apply = |access: &'static str| {
        let (releases, env) = (Arc::clone(&releases), env.clone());
        tokio::spawn(
            async move { releases.apply(&env, manifest(access), &[], &CancellationToken::new()).await },
        )
    };
    apply("admin_only").await.unwrap().unwrap();
    let user = User { id: UserId::new(), role: "user".to_owned(), email: None, claims: Map::new() };
    let user = Guest::new(env.clone(), Subject::User(user));
    let note = || map(json!({ "text": "a" }));

    // (access, whether the release is given up, what a change begun during its trial comes to)
    let steps = [
        ("private", true, Some(Code::Forbidden)),
        ("private", false, None),
        ("admin_only", true, None),
        ("admin_only", false, Some(Code::Forbidden)),
    ];
    for (access, refuses, expected) in steps {
        slow.refuses.store(refuses, Ordering::Relaxed);
        let applied = apply(access);
        slow.began.notified().await;
        let mut waiting = pin!(rows.create(&user, "notes", note()));
        assert!(poll!(waiting.as_mut()).is_pending());
        slow.goes_on.notify_one();
        assert_eq!(applied.await.unwrap().is_err(), refuses);
        assert_eq!(waiting.await.err().map(|e| e.code()), expected, "{access} {refuses}");
    }
}
