//! Files in snapshots, branches, archives and backups, with their bytes in a directory and behind S3.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::access::Guest;
use crate::storage::tests::s3;
use crate::storage::{Condition, Put};

/// An environment, and where all bytes of files are.
struct Yard {
    ground: Ground,
    s3: Option<(crate::storage::S3, PathBuf)>,
}

/// What every test is tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Directory,
    S3,
}

macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod in_a_directory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Engine::Directory).await;
            })+
        }

        mod behind_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Engine::S3).await;
            })+
        }
    };
}

both!(
    files_come_back_and_nothing_that_a_snapshot_needs_is_removed,
    a_branch_has_its_files_for_itself,
    an_archive_has_the_files_and_an_import_that_fails_leaves_none,
    an_export_that_is_read_slowly_is_whole,
    what_only_snapshots_need_counts,
    each_moment_under_load_has_its_files,
    a_backup_in_the_store_is_whole_and_restores_elsewhere,
    what_an_attempt_that_died_has_left_is_removed,
    an_old_snapshot_is_packed_away_and_comes_back,
    backups_of_a_deleted_environment_stay_for_their_time,
);

impl Engine {
    async fn yard(self) -> Yard {
        self.with(SnapshotLimits { most: 1_000, ..SnapshotLimits::default() }).await
    }

    async fn with(self, limits: SnapshotLimits) -> Yard {
        let directory = tempfile::tempdir().unwrap();
        let s3 = match self {
            Engine::Directory => None,
            Engine::S3 => Some(s3::service(&directory.path().join("s3"), s3::SECRET).await),
        };
        let contents = match &s3 {
            Some((s3, _)) => Contents::s3(s3, directory.path()).unwrap(),
            None => Contents::local(directory.path()).unwrap(),
        };
        let attic = match &s3 {
            Some((s3, _)) => Attic::remote(s3.store().unwrap()),
            None => Attic::local(&directory.path().join("attic")).unwrap(),
        };
        Yard { ground: Ground::with_attic(directory, contents, attic, limits).await, s3 }
    }
}

impl Yard {
    async fn put(&self, env: &Env, path: &str, bytes: Vec<u8>) {
        let put = Put { bucket: "docs".to_owned(), path: path.to_owned(), ..Put::default() };
        let body = stream::iter([Ok(Bytes::from(bytes))]);
        self.ground.storage.put(&Guest::maker(env.clone()), put, body).await.unwrap();
    }

    async fn delete(&self, env: &Env, path: &str) {
        let guest = Guest::maker(env.clone());
        self.ground.storage.delete(&guest, "docs", path, Condition::Any).await.unwrap();
    }

    /// The bytes at each of `paths`; none where there is no file.
    async fn files(&self, env: &Env, paths: &[&str]) -> Vec<Option<Vec<u8>>> {
        let guest = Guest::maker(env.clone());
        let mut files = Vec::new();
        for path in paths {
            let Ok(found) = self.ground.storage.get(&guest, "docs", path).await else {
                files.push(None);
                continue;
            };
            let bytes = self.ground.storage.read(&guest, &found, 0..found.size).await.unwrap();
            files.push(Some(bytes.try_collect::<Vec<_>>().await.unwrap().concat()));
        }
        files
    }

    /// How many contents an environment has, wherever they are.
    fn stored(&self, env: &Env) -> usize {
        let root = self.s3.as_ref().map_or(self.ground.directory.path(), |(_, files)| files);
        std::fs::read_dir(root.join(env.id().to_string()).join("files")).map_or(0, Iterator::count)
    }

    async fn take(&self) -> String {
        let taken = self.ground.snapshots.take(&self.ground.env, NewSnapshot::default()).await.unwrap();
        taken.snapshot.to_string()
    }

    async fn restore(&self, snapshot: &str) -> String {
        self.ground.snapshots.restore(&self.ground.env, snapshot).await.unwrap().undo.to_string()
    }

    /// Removes what nobody needs, as if a day had passed.
    async fn tidy(&self, env: &Env) {
        let _held = self.ground.snapshots.hold(env).await;
        self.ground.storage.tidy_older(env, Duration::ZERO).await.unwrap();
    }

    fn new_env(&self) -> Env {
        Env::for_upkeep(TenantId::new(), EnvId::new())
    }

    async fn archive(&self) -> Vec<u8> {
        let archive =
            self.ground.snapshots.export(&self.ground.env, "slug".to_owned(), Vec::new()).await.unwrap();
        archive.map_ok(|chunk| chunk.to_vec()).try_concat().await.unwrap()
    }
}

fn some(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

async fn files_come_back_and_nothing_that_a_snapshot_needs_is_removed(engine: Engine) {
    let yard = engine.yard().await;
    let env = yard.ground.env.clone();
    let large = vec![7; 11 << 20];
    yard.put(&env, "a", b"one".to_vec()).await;
    yard.put(&env, "b", large.clone()).await;
    let first = yard.take().await;
    yard.put(&env, "a", b"two".to_vec()).await;
    yard.delete(&env, "b").await;
    yard.put(&env, "c", b"three".to_vec()).await;
    yard.tidy(&env).await;
    let paths = ["a", "b", "c"];
    let undo = yard.restore(&first).await;
    yard.tidy(&env).await;
    assert_eq!(yard.files(&env, &paths).await, [some(b"one"), Some(large.clone()), None]);
    // What is removed again after it came back is still the snapshot's.
    yard.delete(&env, "b").await;
    yard.tidy(&env).await;
    yard.restore(&undo).await;
    assert_eq!(yard.files(&env, &paths).await, [some(b"two"), None, some(b"three")]);
    yard.restore(&first).await;
    assert_eq!(yard.files(&env, &paths).await, [some(b"one"), Some(large), None]);
    for snapshot in yard.ground.snapshots.list(&env).await.unwrap() {
        yard.ground.snapshots.remove(&env, &snapshot.snapshot.to_string()).await.unwrap();
    }
    yard.tidy(&env).await;
    assert_eq!(yard.stored(&env), 2, "what nobody needs is gone, and nothing else");
    yard.delete(&env, "b").await;
    assert_eq!(yard.stored(&env), 1, "without snapshots it goes at once");
    assert_eq!(yard.files(&env, &paths).await, [some(b"one"), None, None]);
}

async fn a_branch_has_its_files_for_itself(engine: Engine) {
    let yard = engine.yard().await;
    let (env, now, past, shape) = (yard.ground.env.clone(), yard.new_env(), yard.new_env(), yard.new_env());
    for n in 0..40_u8 {
        yard.put(&env, &format!("many/{n}"), vec![n; 10]).await;
    }
    yard.put(&env, "a", b"one".to_vec()).await;
    let first = yard.take().await;
    yard.put(&env, "a", b"two".to_vec()).await;
    yard.delete(&env, "many/3").await;
    yard.tidy(&env).await;
    let branch = |to: &Env, snapshot: Option<&'static str>, with| {
        let (snapshots, env, to) = (yard.ground.snapshots.clone(), env.clone(), to.id());
        async move { snapshots.branch(&env, to, snapshot, with).await }
    };
    branch(&now, None, super::super::With::Data).await.unwrap();
    branch(&past, Some(Box::leak(first.clone().into_boxed_str())), super::super::With::Data).await.unwrap();
    branch(&shape, None, super::super::With::Shape).await.unwrap();
    let paths = ["a", "many/3", "many/4"];
    let (two, one) = ([some(b"two"), None, some(&[4; 10])], [some(b"one"), some(&[3; 10]), some(&[4; 10])]);
    assert_eq!(yard.files(&now, &paths).await, two);
    assert_eq!(yard.files(&past, &paths).await, one);
    assert_eq!(yard.files(&shape, &paths).await, [None, None, None]);
    assert_eq!((yard.stored(&now), yard.stored(&past), yard.stored(&shape)), (40, 41, 0));
    // What either does is its own affair.
    yard.delete(&now, "many/4").await;
    yard.tidy(&now).await;
    assert_eq!(yard.files(&env, &paths).await, two);
    for n in 4..40 {
        yard.delete(&env, &format!("many/{n}")).await;
    }
    yard.ground.snapshots.remove(&env, &first).await.unwrap();
    yard.tidy(&env).await;
    assert_eq!(yard.files(&past, &paths).await, one);
    yard.ground.storage.forget(env.id()).await.unwrap();
    std::fs::remove_dir_all(yard.ground.directory.path().join(env.id().to_string())).unwrap();
    assert_eq!(yard.stored(&env), 0);
    assert_eq!(yard.files(&past, &paths).await, one);
    yard.ground.storage.forget(past.id()).await.unwrap();
    assert_eq!(yard.files(&now, &["a"]).await, [some(b"two")]);
}

async fn an_archive_has_the_files_and_an_import_that_fails_leaves_none(engine: Engine) {
    let yard = engine.yard().await;
    let env = yard.ground.env.clone();
    let large: Vec<u8> = (0..12_u32 << 20).map(|n| (n % 251) as u8).collect();
    yard.put(&env, "a", b"one".to_vec()).await;
    yard.put(&env, "b/large", large.clone()).await;
    yard.put(&env, "empty", Vec::new()).await;
    let archive = yard.archive().await;
    let (made, imported) = yard.ground.import(archive.clone()).await;
    imported.unwrap();
    assert_eq!(yard.files(&made, &["a", "b/large", "empty"]).await, [some(b"one"), Some(large), some(b"")]);
    // The same archive with another content, with a row that says another size, with more than its rows name.
    let directory = tempfile::tempdir().unwrap();
    archive::read(archive.as_slice(), directory.path(), MOST).unwrap();
    let unnamed = uuid::Uuid::new_v4().simple().to_string();
    std::fs::write(directory.path().join("files").join(unnamed), "nobody's").unwrap();
    let (made, imported) = yard.ground.import(yard.ground.pack(directory.path())).await;
    imported.unwrap();
    assert_eq!(yard.stored(&made), 3);
    for tamper in ["size = size + 1", "etag = '\"x\"'", "content = '../../main.db'", "content = id"] {
        let sql = format!("UPDATE _steading_object SET {tamper} WHERE path = 'a'");
        let (made, imported) = yard.ground.import(yard.ground.archive(&[&sql]).await).await;
        assert_eq!(imported.unwrap_err().code(), kernel::Code::InvalidInput, "{tamper}");
        assert_eq!(yard.stored(&made), 0, "{tamper}");
    }
}

async fn an_export_that_is_read_slowly_is_whole(engine: Engine) {
    let yard = engine.yard().await;
    let env = yard.ground.env.clone();
    for n in 0..6_u8 {
        yard.put(&env, &n.to_string(), vec![n; 1 << 20]).await;
    }
    let mut archive = yard.ground.snapshots.export(&env, "slug".to_owned(), Vec::new()).await.unwrap();
    let mut bytes = archive.next().await.unwrap().unwrap().to_vec();
    for n in 0..6 {
        yard.delete(&env, &n.to_string()).await;
    }
    // Everything that the upkeep does.
    yard.ground.snapshots.expire(&env, Keep::default()).await.unwrap();
    yard.tidy(&env).await;
    while let Some(chunk) = archive.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    drop(archive);
    let (made, imported) = yard.ground.import(bytes).await;
    imported.unwrap();
    assert_eq!(yard.files(&made, &["0", "5"]).await, [Some(vec![0; 1 << 20]), Some(vec![5; 1 << 20])]);
    // What held them is gone with the export.
    let halves = || {
        let snapshots = yard.ground.directory.path().join(env.id().to_string()).join("snapshots");
        std::fs::read_dir(snapshots).unwrap().count()
    };
    while halves() > 0 {
        tokio::task::yield_now().await;
    }
    yard.tidy(&env).await;
    assert_eq!(yard.stored(&env), 0);
}

async fn what_only_snapshots_need_counts(engine: Engine) {
    let yard = engine.with(SnapshotLimits { bytes: 3 << 20, ..SnapshotLimits::default() }).await;
    let env = yard.ground.env.clone();
    yard.put(&env, "a", vec![1; 2 << 20]).await;
    let first = yard.take().await;
    yard.take().await;
    // What they share with the environment costs nothing; what they alone have does, and once.
    yard.put(&env, "a", vec![2; 2 << 20]).await;
    yard.take().await;
    yard.put(&env, "a", vec![3; 2 << 20]).await;
    let refused = yard.ground.snapshots.take(&env, NewSnapshot::default()).await.unwrap_err();
    assert_eq!(refused.code(), kernel::Code::QuotaExceeded);
    for snapshot in yard.ground.snapshots.list(&env).await.unwrap() {
        if snapshot.snapshot.to_string() != first {
            yard.ground.snapshots.remove(&env, &snapshot.snapshot.to_string()).await.unwrap();
        }
    }
    yard.take().await;
}

async fn each_moment_under_load_has_its_files(engine: Engine) {
    let yard = engine.yard().await;
    let env = yard.ground.env.clone();
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let going = || !stop.load(Ordering::SeqCst);
    // Both files change one after the other, so that a moment in which they are two steps apart has never been.
    let write = async {
        for n in 1_u64.. {
            if !going() {
                break;
            }
            for path in ["first", "second"] {
                yard.put(&env, path, n.to_string().into_bytes()).await;
            }
            if n.is_multiple_of(3) {
                yard.put(&env, "passing", vec![0; 100]).await;
                yard.delete(&env, "passing").await;
            }
            written.store(n, Ordering::SeqCst);
        }
    };
    let tidy = async {
        while going() {
            let _held = yard.ground.snapshots.hold(&env).await;
            // Longer than a write takes to get its row, which this must not take away from it.
            yard.ground.storage.tidy_older(&env, Duration::from_secs(2)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let keep = async {
        let mut kept = Vec::new();
        for n in 0..9 {
            let least = written.load(Ordering::SeqCst);
            let branch = yard.new_env();
            let (made, snapshot) = match n % 3 {
                0 => (None, Some(yard.take().await)),
                1 => {
                    let with = super::super::With::Data;
                    yard.ground.snapshots.branch(&env, branch.id(), None, with).await.unwrap();
                    (Some(branch), None)
                }
                _ => {
                    let (made, imported) = yard.ground.import(yard.archive().await).await;
                    imported.unwrap();
                    (Some(made), None)
                }
            };
            kept.push((least, written.load(Ordering::SeqCst) + 1, made, snapshot));
        }
        stop.store(true, Ordering::SeqCst);
        kept
    };
    let (_, _, kept) = tokio::join!(write, tidy, keep);
    yard.tidy(&env).await;
    for (least, most, made, snapshot) in kept {
        let of = match (made, snapshot) {
            (Some(made), _) => made,
            (None, snapshot) => {
                yard.restore(&snapshot.unwrap()).await;
                yard.tidy(&env).await;
                env.clone()
            }
        };
        let files = yard.files(&of, &["first", "second"]).await;
        let number = |file: &Option<Vec<u8>>| {
            file.as_ref().map_or(0, |bytes| String::from_utf8(bytes.clone()).unwrap().parse::<u64>().unwrap())
        };
        let (first, second) = (number(&files[0]), number(&files[1]));
        assert!(first == second || first == second + 1, "{first} and {second} have never been together");
        assert!(
            (least..=most).contains(&second) || first > least && first <= most,
            "{least} {first} {second} {most}"
        );
    }
}

async fn a_backup_in_the_store_is_whole_and_restores_elsewhere(engine: Engine) {
    let yard = engine.yard().await;
    let env = yard.ground.env.clone();
    let store = tempfile::tempdir().unwrap();
    let snapshots = yard.ground.snapshots.clone();
    let backups = match &yard.s3 {
        Some((s3, _)) => Backups::remote(s3.store().unwrap(), snapshots),
        None => Backups::local(store.path(), snapshots).unwrap(),
    };
    let stop = AtomicBool::new(false);
    let write = async {
        let mut n = 0_u64;
        while !stop.load(Ordering::SeqCst) {
            n += 1;
            yard.put(&env, "file", n.to_string().into_bytes()).await;
            yard.ground.execute(&format!("INSERT INTO todos (title) VALUES ('{n}')")).await;
        }
    };
    yard.put(&env, "large", vec![9; 20 << 20]).await;
    let spec: BackupSpec = serde_json::from_value(json!({ "every": "1h", "keep": 2 })).unwrap();
    let make = async {
        let mut made = Vec::new();
        for _ in 0..4 {
            made.push(backups.take(&env, "slug".to_owned(), Vec::new()).await.unwrap());
        }
        stop.store(true, Ordering::SeqCst);
        made
    };
    let ((), made) = tokio::join!(write, make);
    let listed = backups.list(env.id()).await.unwrap();
    let ids = |backups: &[Backup]| backups.iter().map(|it| it.backup).collect::<Vec<_>>();
    assert_eq!(ids(&listed), made.iter().rev().map(|it| it.backup).collect::<Vec<_>>());
    assert_eq!(backups.keep_up(&env, &spec, "slug".to_owned(), Vec::new()).await.unwrap(), None, "not due");
    let listed = backups.list(env.id()).await.unwrap();
    assert_eq!(ids(&listed), [made[3].backup, made[2].backup]);
    // On another platform, with its own store.
    let elsewhere = engine.yard().await;
    for backup in listed {
        let (_, stream) = backups.read(env.id(), &backup.backup.to_string()).await.unwrap();
        let archive: Vec<u8> = stream.map_ok(|chunk| chunk.to_vec()).try_concat().await.unwrap();
        assert_eq!((kernel::BlobHash::of(&archive), archive.len() as u64), (backup.sha256, backup.bytes));
        let (there, imported) = elsewhere.ground.import(archive).await;
        imported.unwrap();
        let files = elsewhere.files(&there, &["file", "large"]).await;
        assert_eq!(files[1], Some(vec![9; 20 << 20]));
        let file: u64 = String::from_utf8(files[0].clone().unwrap()).unwrap().parse().unwrap();
        let rows = elsewhere.ground.read(&there, "SELECT max(CAST(title AS INTEGER)) FROM todos").await;
        let row = rows[0][0].as_u64().unwrap();
        assert!(file == row || file == row + 1, "{file} and {row} have never been together");
    }
    assert!(backups.read(elsewhere.ground.env.id(), &made[3].backup.to_string()).await.is_err());
}

async fn what_an_attempt_that_died_has_left_is_removed(engine: Engine) {
    let yard = engine.yard().await;
    let (env, branch) = (yard.ground.env.clone(), yard.new_env());
    yard.put(&env, "a", b"one".to_vec()).await;
    let with = super::super::With::Data;
    yard.ground.snapshots.branch(&env, branch.id(), None, with).await.unwrap();
    // As if it had died one step earlier, and a snapshot in the middle.
    let directory = yard.ground.directory.path().join(branch.id().to_string());
    std::fs::rename(&directory, directory.with_extension("half")).unwrap();
    let snapshots = yard.ground.directory.path().join(env.id().to_string()).join("snapshots");
    std::fs::create_dir_all(snapshots.join("half-snap")).unwrap();
    yard.delete(&env, "a").await;
    if engine == Engine::S3 {
        assert_eq!(yard.stored(&env), 1, "it might be needed");
    }
    yard.ground.snapshots.sweep().await.unwrap();
    assert_eq!((yard.stored(&branch), directory.with_extension("half").exists()), (0, false));
    yard.ground.snapshots.expire(&env, Keep::default()).await.unwrap();
    yard.tidy(&env).await;
    assert_eq!(yard.stored(&env), 0);
}

async fn an_old_snapshot_is_packed_away_and_comes_back(engine: Engine) {
    let yard = engine.yard().await;
    let (env, past, other) = (yard.ground.env.clone(), yard.new_env(), yard.new_env());
    yard.put(&env, "a", b"one".to_vec()).await;
    yard.put(&env, "large", vec![5; 9 << 20]).await;
    let (first, second) = (yard.take().await, yard.take().await);
    yard.put(&env, "a", b"two".to_vec()).await;
    yard.delete(&env, "large").await;
    yard.ground.execute("DELETE FROM todos").await;
    // As if the first were of long ago.
    let home = yard.ground.directory.path().join(env.id().to_string()).join("snapshots");
    let about = home.join(&first).join("snapshot.json");
    let mut said: Value = serde_json::from_slice(&std::fs::read(&about).unwrap()).unwrap();
    said["created_at"] = json!(Timestamp::now().minus(Duration::from_secs(8 * 86_400)));
    std::fs::write(&about, said.to_string()).unwrap();
    let keep: Keep = serde_json::from_value(json!({ "archive": "7d" })).unwrap();
    let expire = || yard.ground.snapshots.expire(&env, keep);
    assert_eq!(expire().await.unwrap(), 0);
    let archived = || async {
        let all = yard.ground.snapshots.list(&env).await.unwrap();
        all.iter().map(|it| (it.snapshot.to_string() == first, it.archived)).collect::<Vec<_>>()
    };
    assert_eq!(archived().await, [(false, false), (true, true)]);
    let left = |path: &std::path::Path| {
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(left(&home.join(&first)), ["packed.json", "snapshot.json"]);
    // Nothing but the archive has its files any more.
    yard.ground.snapshots.remove(&env, &second).await.unwrap();
    yard.tidy(&env).await;
    assert_eq!(yard.stored(&env), 1);
    let packed = yard.ground.snapshots.find(&env, &first).await.unwrap();
    let losses = yard.ground.snapshots.losses(&env, &packed).await.unwrap();
    assert!(losses.contains(&"table todos: rows 2 removed since are back".to_owned()), "{losses:?}");
    let with = super::super::With::Data;
    yard.ground.snapshots.branch(&env, past.id(), Some(&first), with).await.unwrap();
    yard.restore(&first).await;
    yard.tidy(&env).await;
    for of in [&env, &past] {
        assert_eq!(yard.files(of, &["a", "large"]).await, [some(b"one"), Some(vec![5; 9 << 20])]);
        assert_eq!(yard.ground.read(of, "SELECT count(*) FROM todos").await, [[json!(2)]]);
    }
    // An end in the middle leaves it whole, and what is no snapshot's goes.
    std::fs::write(home.join(&first).join("main.db"), "left").unwrap();
    expire().await.unwrap();
    assert_eq!(left(&home.join(&first)), ["packed.json", "snapshot.json"]);
    let store = match &yard.s3 {
        Some((_, files)) => files.join("archive"),
        None => yard.ground.directory.path().join("attic"),
    };
    let folder = store.join(env.id().to_string());
    std::fs::write(folder.join("snap_of_nobody.tar.gz"), "left").unwrap();
    expire().await.unwrap();
    let archive = format!("{first}.tar.gz");
    assert_eq!(left(&folder), [archive.as_str()]);
    // What is not as it was packed is not taken, whoever has changed it.
    let whole = std::fs::read(folder.join(&archive)).unwrap();
    let foreign = yard.ground.archive(&["UPDATE todos SET title = 'theirs'"]).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &foreign).unwrap();
    for wrong in [whole[..whole.len() / 2].to_vec(), gzip.finish().unwrap(), Vec::new()] {
        std::fs::write(folder.join(&archive), wrong).unwrap();
        yard.ground.snapshots.restore(&env, &first).await.unwrap_err();
        yard.ground.snapshots.branch(&env, other.id(), Some(&first), with).await.unwrap_err();
    }
    assert_eq!(yard.files(&env, &["a"]).await, [some(b"one")]);
    yard.ground.snapshots.remove(&env, &first).await.unwrap();
    assert!(!folder.join(&archive).exists());
}

async fn backups_of_a_deleted_environment_stay_for_their_time(engine: Engine) {
    let yard = engine.yard().await;
    let (env, tenant) = (yard.ground.env.clone(), TenantId::new());
    let store = tempfile::tempdir().unwrap();
    let snapshots = yard.ground.snapshots.clone();
    let backups = match &yard.s3 {
        Some((s3, _)) => Backups::remote(s3.store().unwrap(), snapshots),
        None => Backups::local(store.path(), snapshots).unwrap(),
    };
    // Who has none leaves none.
    backups.leave(tenant, EnvId::new()).await.unwrap();
    let kept = backups.take(&env, "slug".to_owned(), Vec::new()).await.unwrap();
    assert_eq!(backups.left_of(env.id()).await.unwrap(), None);
    assert_eq!(
        backups.expire_left(Duration::ZERO).await.unwrap(),
        0,
        "an environment that is there is not left"
    );
    backups.leave(tenant, env.id()).await.unwrap();
    assert_eq!(backups.left_of(env.id()).await.unwrap(), Some(tenant));
    assert_eq!(backups.expire_left(Duration::from_secs(3_600)).await.unwrap(), 0);
    assert_eq!(backups.list(env.id()).await.unwrap(), [kept]);
    assert_eq!(backups.expire_left(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(
        (backups.list(env.id()).await.unwrap(), backups.left_of(env.id()).await.unwrap()),
        (vec![], None)
    );
    assert_eq!(backups.expire_left(Duration::ZERO).await.unwrap(), 0);
}
