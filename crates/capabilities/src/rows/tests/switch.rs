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

/// Knows the app of a while ago the first time it is asked.
struct Late {
    earlier: std::sync::Mutex<Option<Arc<App>>>,
    live: Arc<dyn LiveApps>,
}

impl LiveApps for Late {
    fn app<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Arc<App>>> {
        match self.earlier.lock().unwrap().take() {
            Some(app) => Box::pin(async { Ok(app) }),
            None => self.live.app(env),
        }
    }
}

#[tokio::test]
async fn a_read_that_a_release_overtakes_is_made_again_by_the_rules_that_hold_now() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::for_upkeep(TenantId::new(), EnvId::new());
    let databases = Arc::new(Databases::new(dir.path().to_owned(), Limits::default()));
    databases.create(env.id()).await.unwrap();
    let (blobs, logs) = (Blobs::new(dir.path()).unwrap(), Logs::new(dir.path()));
    let releases = Arc::new(Releases::new(Arc::clone(&databases), blobs, logs, Arc::new(Unchecked)));
    let live = Arc::clone(&releases) as Arc<dyn LiveApps>;
    let apply = async |columns: Value, access: &str| {
        let tables = json!({ "notes": { "columns": columns, "access": access } });
        let manifest = serde_json::from_value(json!({ "database": { "tables": tables } })).unwrap();
        releases
            .apply(&env, Wanted::Manifest(Box::new(manifest)), &[], &CancellationToken::new())
            .await
            .unwrap();
        live.app(&env).await.unwrap()
    };
    let visitor = Guest::visitor(env.clone());
    let both = apply(json!({ "text": "text", "more": "text" }), "admin_write").await;
    apply(json!({ "text": "text" }), "admin_write").await;
    let sql = "INSERT INTO notes (id, text) VALUES ('a', 'b')";
    databases.execute(&env, sql, &[], &CancellationToken::new()).await.unwrap();
    let late = || {
        let earlier = std::sync::Mutex::new(Some(Arc::clone(&both)));
        Rows::new(Arc::clone(&databases), Arc::new(Late { earlier, live: Arc::clone(&live) }))
    };
    let query = ListQuery { select: Some("text".to_owned()), ..ListQuery::default() };
    assert_eq!(late().list(&visitor, "notes", &query).await.unwrap(), r#"{"rows":[{"text":"b"}]}"#);
    assert_eq!(late().get(&visitor, "notes", "a").await.unwrap().id, "a");
    let all = late().list(&visitor, "notes", &ListQuery::default()).await.unwrap();
    assert!(!String::from_utf8_lossy(&all).contains("more"), "{all:?}");
    apply(json!({ "text": "text" }), "private").await;
    assert_eq!(late().list(&visitor, "notes", &ListQuery::default()).await.unwrap(), r#"{"rows":[]}"#);
    assert_eq!(
        told(late().get(&visitor, "notes", "a").await),
        "404 not_found: there is no such row in notes"
    );
}
