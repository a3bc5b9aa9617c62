//! Archives whose database somebody has tampered with: refused, or harmless.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use kernel::{Env, EnvId, Error, Result, Scopes, Secret, TenantId, Timestamp};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::archive::{self, Index, Most};
use super::{Attic, Backup, Backups, NewSnapshot, SnapshotLimits, Snapshots};
use crate::auth::{Auth, AuthLimits, Claims, Outside, TokenKeys};
use crate::database::{Databases, Limits};
use crate::functions::copier::Copier;
use crate::hosting::Blobs;
use crate::logs::Logs;
use crate::mail::Post;
use crate::releases::{BackupSpec, Keep, LiveCheck, Releases, Served, Wanted};
use crate::rows::LiveApps;
use crate::storage::{Contents, LinkKeys, Storage, StorageLimits};

#[macro_use]
mod yard;

mod backups;
mod files;
mod foreign;
mod functions;
mod now;
mod old;

struct NoKeys;

impl TokenKeys for NoKeys {
    fn sign<'a>(&'a self, _: &'a Env, _: &'a Claims) -> BoxFuture<'a, Result<Secret>> {
        async { Ok(Secret::new("")) }.boxed()
    }

    fn verify<'a>(&'a self, _: &'a Env, _: &'a Secret) -> BoxFuture<'a, Result<Option<Claims>>> {
        async { Ok(None) }.boxed()
    }

    fn service<'a>(
        &'a self,
        _: &'a Env,
        _: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<(kernel::KeyId, Scopes)>>> {
        async { Ok(None) }.boxed()
    }

    fn jwks<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<Value>> {
        async { Ok(json!({ "keys": [] })) }.boxed()
    }

    fn kid<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<String>> {
        async { Ok(String::new()) }.boxed()
    }

    fn seal(&self, _: &str, _: &[u8]) -> Result<String> {
        Err(Error::internal("no seal"))
    }

    fn open(&self, _: &str, _: &str) -> Result<Zeroizing<Vec<u8>>> {
        Err(Error::internal("no seal"))
    }
}

struct Trusting;

impl LiveCheck for Trusting {
    fn check<'a>(&'a self, _: &'a Env, _: &'a Served) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }
}

const MOST: Most = Most { database: 1 << 30, bytes: 1 << 30, files: 100 };

impl LinkKeys for NoKeys {
    fn mac<'a>(&'a self, _: &'a Env, _: &'a [u8]) -> BoxFuture<'a, Result<[u8; 32]>> {
        async { Ok([0; 32]) }.boxed()
    }

    fn is_good<'a>(&'a self, _: &'a Env, _: kernel::KeyId) -> BoxFuture<'a, Result<bool>> {
        async { Ok(false) }.boxed()
    }
}

/// An environment with an app, and its archive.
struct Ground {
    directory: tempfile::TempDir,
    storage: Storage,
    databases: Arc<Databases>,
    snapshots: Snapshots,
    env: Env,
}

impl Ground {
    async fn new() -> Self {
        Self::with(SnapshotLimits::default()).await
    }

    async fn with(limits: SnapshotLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let contents = Contents::local(directory.path()).unwrap();
        Self::on(directory, contents, limits).await
    }

    async fn on(directory: tempfile::TempDir, contents: Contents, limits: SnapshotLimits) -> Self {
        let attic = Attic::local(&directory.path().join("attic")).unwrap();
        Self::with_attic(directory, contents, attic, limits).await
    }

    async fn with_attic(
        directory: tempfile::TempDir,
        contents: Contents,
        attic: Attic,
        limits: SnapshotLimits,
    ) -> Self {
        let path = directory.path().to_owned();
        let databases = Arc::new(Databases::new(path.clone(), Limits::default()));
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        databases.create(env.id()).await.unwrap();
        let (blobs, logs) = (Blobs::new(&path).unwrap(), Logs::new(&path));
        let builder = Arc::new(Copier::new(blobs.clone()));
        let releases = Releases::new(Arc::clone(&databases), blobs, logs.clone(), Arc::new(Trusting))
            .with_functions(builder);
        let releases = Arc::new(releases);
        let post = Post::to_outbox(logs.clone());
        let auth = Auth::new(
            Arc::clone(&databases),
            Arc::new(NoKeys),
            post,
            Outside::unknown().unwrap(),
            AuthLimits::default(),
        );
        let manifest = json!({
            "database": { "tables": { "todos": { "columns": { "title": "text!" }, "access": "private" } } },
            "storage": { "buckets": { "docs": { "access": "admin_only" } } },
            "site": { "files": { "index.html": "hello" } },
        });
        let wanted = Wanted::Manifest(Box::new(serde_json::from_value(manifest).unwrap()));
        releases.apply(&env, wanted, &[], &CancellationToken::new()).await.unwrap();
        let storage = Storage::new(
            Arc::clone(&databases),
            Arc::clone(&releases) as Arc<dyn LiveApps>,
            contents.clone(),
            Arc::new(NoKeys),
            StorageLimits::default(),
        );
        let snapshots =
            Snapshots::new(path, Arc::clone(&databases), releases, auth, logs, contents, attic, limits);
        let ground = Self { directory, storage, databases, snapshots, env };
        ground.execute("INSERT INTO todos (title) VALUES ('one'), ('two'), ('three')").await;
        ground.execute("DELETE FROM todos WHERE title = 'two'").await;
        ground
            .execute("CREATE TABLE counted (n INTEGER PRIMARY KEY AUTOINCREMENT, x AS (n * 2), y BLOB)")
            .await;
        ground.execute("INSERT INTO counted (n, y) VALUES (7, x'00ff'), (9, NULL)").await;
        ground.execute("DELETE FROM counted WHERE n = 9").await;
        ground
    }

    async fn execute(&self, sql: &str) {
        self.databases.execute(&self.env, sql, &[], &CancellationToken::new()).await.unwrap();
    }

    async fn read(&self, env: &Env, sql: &str) -> Vec<Vec<Value>> {
        self.databases.platform_query(env, sql, &[]).await.unwrap()
    }

    /// The archive, with what `tamper` does to its database.
    async fn archive(&self, tamper: &[&str]) -> Vec<u8> {
        let archive = self.snapshots.export(&self.env, "slug".to_owned(), Vec::new()).await.unwrap();
        let archive: Vec<u8> = archive.map_ok(|chunk| chunk.to_vec()).try_concat().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        archive::read(archive.as_slice(), directory.path(), MOST).unwrap();
        alter(&directory.path().join("main.db"), tamper).await;
        self.pack(directory.path())
    }

    fn pack(&self, directory: &Path) -> Vec<u8> {
        let index = Index::of(directory, &[], Timestamp::now(), "slug".to_owned(), 1, Vec::new()).unwrap();
        let mut archive = Vec::new();
        archive::write(&index, |item| std::fs::File::open(directory.join(&item.path)), &mut archive).unwrap();
        archive
    }

    async fn import(&self, archive: Vec<u8>) -> (Env, Result<()>) {
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        let chunks: Vec<_> = archive.chunks(1_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let imported = self.snapshots.import(env.id(), stream::iter(chunks).boxed()).await;
        let there = self.directory.path().join(env.id().to_string()).exists();
        assert_eq!(there, imported.is_ok(), "{imported:?}");
        assert!(!self.directory.path().join(env.id().to_string()).with_extension("half").exists());
        (env, imported.map(drop))
    }
}

async fn alter(database: &Path, statements: &[&str]) {
    let mut db = SqliteConnectOptions::new().filename(database).foreign_keys(false).connect().await.unwrap();
    for sql in statements {
        let done = db.execute(sqlx::AssertSqlSafe((*sql).to_owned())).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    db.close().await.unwrap();
}

#[tokio::test]
async fn rows_come_along_with_their_places_and_no_trigger_goes_off() {
    let ground = Ground::new().await;
    ground.execute("CREATE VIEW titles AS SELECT title FROM todos").await;
    ground.execute("CREATE TRIGGER gone AFTER INSERT ON todos BEGIN DELETE FROM todos; END").await;
    let (env, imported) = ground.import(ground.archive(&[]).await).await;
    imported.unwrap();
    for sql in [
        "SELECT rowid, * FROM todos ORDER BY rowid",
        "SELECT rowid, * FROM counted",
        "SELECT * FROM titles",
        "SELECT name, seq FROM sqlite_sequence",
        "SELECT number, manifest, site, functions FROM _steading_release",
        "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name",
    ] {
        assert_eq!(ground.read(&env, sql).await, ground.read(&ground.env, sql).await, "{sql}");
    }
    assert_eq!(ground.read(&env, "SELECT count(*) FROM todos").await, [[json!(2)]]);
}

#[tokio::test]
async fn what_is_named_like_ours_and_is_not_stays_behind() {
    let ground = Ground::new().await;
    let tamper = [
        "CREATE TABLE _steading_more (x)",
        "CREATE TRIGGER t AFTER INSERT ON _steading_session BEGIN DELETE FROM todos; END",
        "INSERT INTO _steading_session VALUES ('s', 'usr_01890000000070008000000000000001', 'f', 'r', NULL, NULL, 'mail', NULL, 0, 0, 9e15, NULL)",
        "INSERT INTO _steading_state VALUES ('branch', '{}')",
    ];
    let (env, imported) = ground.import(ground.archive(&tamper).await).await;
    imported.unwrap();
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('_steading_more', 't')";
    assert_eq!(ground.read(&env, sql).await, [[json!(0)]]);
    let state = ground.read(&env, "SELECT key FROM _steading_state ORDER BY key").await;
    assert_eq!(
        state,
        [[json!("events")], [json!("release")], [json!("schedules")]],
        "its own, which says that no schedule runs there, and that nobody is told of events"
    );
    assert_eq!(ground.read(&env, "SELECT count(*) FROM _steading_session").await, [[json!(0)]]);
}

#[tokio::test]
async fn triggers_and_views_reach_no_further_than_anybodys() {
    let ground = Ground::new().await;
    for (tamper, tried) in [
        (
            "CREATE TRIGGER t AFTER INSERT ON todos BEGIN UPDATE _steading_user SET role = 'admin'; END",
            "INSERT INTO todos (title) VALUES ('x')",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON todos BEGIN SELECT load_extension('x'); END",
            "INSERT INTO todos (title) VALUES ('x')",
        ),
        ("CREATE VIEW w AS SELECT password FROM _steading_user", "SELECT * FROM w"),
    ] {
        let (env, imported) = ground.import(ground.archive(&[tamper]).await).await;
        imported.unwrap();
        let tried = ground.databases.execute(&env, tried, &[], &CancellationToken::new()).await;
        assert!(tried.is_err(), "{tamper}");
    }
}

#[tokio::test]
async fn a_tampered_database_is_refused() {
    let ground = Ground::new().await;
    let writable = "PRAGMA writable_schema = ON";
    let user = "INSERT INTO _steading_user VALUES ('usr_01890000000070008000000000000001', NULL, ";
    let cases: Vec<(&str, Vec<String>)> = vec![
        ("another program's", vec!["PRAGMA application_id = 1".into()]),
        ("a later layout", vec!["PRAGMA user_version = 1000000".into()]),
        ("a virtual table", vec![
            writable.into(),
            "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING fts5(a)')".into(),
        ]),
        ("a trigger on ours", vec![
            "CREATE TRIGGER t AFTER INSERT ON _steading_user BEGIN DELETE FROM todos; END".into(),
        ]),
        ("an index on ours", vec!["CREATE INDEX i ON _steading_user (role)".into()]),
        ("a reference to ours", vec!["CREATE TABLE r (u TEXT REFERENCES _steading_user (id))".into()]),
        ("another form of ours", vec!["ALTER TABLE _steading_user ADD COLUMN more TEXT".into()]),
        ("another name in the schema", vec![
            writable.into(),
            "UPDATE sqlite_schema SET sql = 'CREATE TABLE other (a, b)' WHERE name = 'counted'".into(),
        ]),
        ("a row that a table does not take", vec![
            writable.into(),
            "UPDATE sqlite_schema SET sql = replace(sql, '\"title\" TEXT NOT NULL', '\"title\" TEXT NOT NULL CHECK (title = ''x'')') WHERE name = 'todos'".into(),
        ]),
        ("rows that refer to none", vec![
            "CREATE TABLE a (id INTEGER PRIMARY KEY)".into(),
            "CREATE TABLE b (a INTEGER REFERENCES a (id))".into(),
            "INSERT INTO b VALUES (5)".into(),
        ]),
        ("a release that is not there", vec!["UPDATE _steading_state SET value = '7' WHERE key = 'release'".into()]),
        ("a release that is none", vec!["UPDATE _steading_release SET manifest = '{\"evil\": 1}'".into()]),
        ("a site without its blob", vec![format!(
            "UPDATE _steading_release SET site = replace(site, '{}', '{}')",
            kernel::BlobHash::of(b"hello"),
            kernel::BlobHash::of(b"other")
        )]),
        ("a user who is none", vec![
            "INSERT INTO _steading_user VALUES ('root', NULL, NULL, 'admin', '{}', 0, 0, NULL)".into(),
        ]),
        ("a password that takes for ever", vec![format!(
            "{user} '$argon2id$v=19$m=4194304,t=1000,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA', 'user', '{{}}', 0, 0, NULL)"
        )]),
        ("an address in another form", vec![format!("{} 'A@X.com', NULL, 'user', '{{}}', 0, 0, NULL)", user.trim_end_matches("NULL, "))]),
        ("a site that says another size", vec![
            "UPDATE _steading_release SET site = replace(site, '\"size\":5', '\"size\":3')".to_owned(),
        ]),
        ("a password that is none", vec![format!("{user} 'plain', 'user', '{{}}', 0, 0, NULL)")]),
    ];
    for (name, tamper) in cases {
        let tamper: Vec<&str> = tamper.iter().map(String::as_str).collect();
        let (_, imported) = ground.import(ground.archive(&tamper).await).await;
        let refused = imported.expect_err(name);
        assert_eq!(refused.code(), kernel::Code::InvalidInput, "{name}: {refused}");
        assert!(!refused.message().contains("internal"), "{name}: {refused}");
    }
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let ground = Ground::new().await;
    let archive = ground.archive(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    archive::read(archive.as_slice(), directory.path(), MOST).unwrap();
    let database = directory.path().join("main.db");
    let whole = std::fs::read(&database).unwrap();
    let mut refused = 0;
    for page in 0..whole.len() / 4_096 {
        let mut damaged = whole.clone();
        damaged[page * 4_096 + 3..page * 4_096 + 12].fill(0xff);
        std::fs::write(&database, damaged).unwrap();
        let (_, imported) = ground.import(ground.pack(directory.path())).await;
        refused += usize::from(imported.is_err());
    }
    // A page that nothing is in may be as it likes.
    assert!(refused >= whole.len() / 4_096 - 2, "{refused} of {} pages", whole.len() / 4_096);
    for cut in [0, 100, 4_096, whole.len() / 2] {
        std::fs::write(&database, &whole[..cut]).unwrap();
        assert!(ground.import(ground.pack(directory.path())).await.1.is_err(), "cut at {cut}");
    }
}

#[tokio::test]
async fn snapshots_keep_to_their_quota() {
    let limits = SnapshotLimits { most: 2, automatic: 2, ..SnapshotLimits::default() };
    let ground = Ground::with(limits).await;
    let first = ground.snapshots.take(&ground.env, NewSnapshot::default()).await.unwrap();
    ground.snapshots.take(&ground.env, NewSnapshot::default()).await.unwrap();
    let refused = ground.snapshots.take(&ground.env, NewSnapshot::default()).await.unwrap_err();
    assert_eq!(refused.code(), kernel::Code::QuotaExceeded);
    // Those of the platform's own do not grow without end, and never push out the one that is wanted.
    let mut undo = first.snapshot;
    for _ in 0..5 {
        undo = ground.snapshots.restore(&ground.env, &undo.to_string()).await.unwrap().undo;
    }
    let there = ground.snapshots.list(&ground.env).await.unwrap();
    let automatic = there.iter().filter(|it| it.automatic).count();
    assert_eq!((there.len() - automatic, (1..=3).contains(&automatic)), (2, true));

    let ground = Ground::with(SnapshotLimits { bytes: 500_000, ..SnapshotLimits::default() }).await;
    let mut taken = 0;
    while ground.snapshots.take(&ground.env, NewSnapshot::default()).await.is_ok() {
        taken += 1;
    }
    assert!((1..=3).contains(&taken), "{taken}");
    let first = ground.snapshots.list(&ground.env).await.unwrap().pop().unwrap();
    let refused = ground.snapshots.restore(&ground.env, &first.snapshot.to_string()).await.unwrap_err();
    assert_eq!(refused.code(), kernel::Code::QuotaExceeded);
}

#[tokio::test]
async fn snapshots_without_a_name_go_as_the_app_says() {
    let ground = Ground::new().await;
    let take = |name: Option<&str>| {
        let name = name.map(str::to_owned);
        ground.snapshots.take(&ground.env, NewSnapshot { name, note: None })
    };
    take(Some("pinned")).await.unwrap();
    for _ in 0..3 {
        take(None).await.unwrap();
    }
    let newest = take(None).await.unwrap();
    let keep = |text: Value| serde_json::from_value::<Keep>(text).unwrap();
    let expire = |text: Value| ground.snapshots.expire(&ground.env, keep(text));
    assert_eq!(expire(json!({})).await.unwrap(), 0);
    assert_eq!(expire(json!({ "age": "1h" })).await.unwrap(), 0);
    assert_eq!(expire(json!({ "keep": 1 })).await.unwrap(), 3);
    let left = ground.snapshots.list(&ground.env).await.unwrap();
    assert_eq!(left.iter().map(|it| it.name.as_deref()).collect::<Vec<_>>(), [None, Some("pinned")]);
    assert_eq!(left[0].snapshot, newest.snapshot);
}

#[tokio::test]
async fn an_export_that_nobody_reads_is_one_of_few_and_ends() {
    let idle = std::time::Duration::from_millis(300);
    let ground = Ground::with(SnapshotLimits { idle, ..SnapshotLimits::default() }).await;
    // More than may wait for who reads.
    ground
        .execute("INSERT INTO counted (n, y) VALUES (100, randomblob(900000)), (101, randomblob(900000))")
        .await;
    let export = || ground.snapshots.export(&ground.env, "slug".to_owned(), Vec::new());
    let (mut first, second) = (export().await.unwrap(), export().await.unwrap());
    let Err(refused) = export().await else { panic!("a third") };
    assert_eq!(refused.code(), kernel::Code::RateLimited);
    drop(second);
    let copies =
        || std::fs::read_dir(ground.directory.path().join(ground.env.id().to_string()).join("snapshots"));
    let end = async {
        while copies().unwrap().count() > 0 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), end).await.expect("the copies go");
    let mut last = None;
    while let Some(chunk) = first.next().await {
        last = Some(chunk.map(|_| ()).map_err(|error| error.kind()));
    }
    assert_eq!(last, Some(Err(std::io::ErrorKind::TimedOut)), "what is cut short does not look whole");
    let whole: Vec<Bytes> = export().await.unwrap().try_collect().await.unwrap();
    assert!(whole.iter().map(Bytes::len).sum::<usize>() > 1_800_000);
}
