//! Backups: made when they are due or asked for, bounded, and removed.

use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;

#[tokio::test]
async fn backups_that_are_asked_for_have_a_bound_and_can_be_removed() {
    let ground = Ground::new().await;
    let store = tempfile::tempdir().unwrap();
    let asked = async |most: u64| {
        let backups = Backups::local(store.path(), ground.snapshots.clone(), most).unwrap();
        backups.take_one_more(&ground.env, "slug".to_owned(), Vec::new()).await
    };
    let first = asked(1).await.unwrap();
    assert_eq!(asked(first.bytes).await.unwrap_err().code(), kernel::Code::QuotaExceeded, "of bytes");
    for _ in 1..20 {
        asked(u64::MAX).await.unwrap();
    }
    assert_eq!(asked(u64::MAX).await.unwrap_err().code(), kernel::Code::QuotaExceeded, "of backups");
    let backups = Backups::local(store.path(), ground.snapshots.clone(), u64::MAX).unwrap();
    backups.forget(ground.env.id(), &first.backup.to_string()).await.unwrap();
    let again = backups.forget(ground.env.id(), &first.backup.to_string()).await.unwrap_err();
    assert_eq!(again.code(), kernel::Code::NotFound);
    assert_eq!(std::fs::read_dir(store.path().join(ground.env.id().to_string())).unwrap().count(), 38);
    asked(u64::MAX).await.unwrap();
}

#[tokio::test]
async fn backups_are_made_when_they_are_due_and_older_ones_go() {
    let ground = Ground::new().await;
    let store = tempfile::tempdir().unwrap();
    let backups = Backups::local(store.path(), ground.snapshots.clone(), u64::MAX).unwrap();
    let spec: BackupSpec = serde_json::from_value(json!({ "every": "1h", "keep": 2 })).unwrap();
    let keep_up = || backups.keep_up(&ground.env, &spec, "slug".to_owned(), Vec::new());
    let made = keep_up().await.unwrap().unwrap();
    assert_eq!(keep_up().await.unwrap(), None, "not due");
    let folder = store.path().join(ground.env.id().to_string());
    // As if they were of hours before.
    let age = |backup: &Backup, hours: u64| {
        let path = folder.join(format!("{}.json", backup.backup));
        let created_at = Timestamp::now().minus(std::time::Duration::from_secs(hours * 3_600));
        std::fs::write(path, serde_json::to_vec(&Backup { created_at, ..backup.clone() }).unwrap()).unwrap();
    };
    age(&made, 5);
    let second = keep_up().await.unwrap().unwrap();
    age(&second, 3);
    ground.execute("INSERT INTO todos (title) VALUES ('four')").await;
    let third = keep_up().await.unwrap().unwrap();
    let listed = backups.list(ground.env.id()).await.unwrap();
    assert_eq!(listed.iter().map(|it| it.backup).collect::<Vec<_>>(), [third.backup, second.backup]);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);

    // What cannot be made pushes nothing out.
    age(&third, 2);
    std::fs::rename(
        ground.directory.path().join(ground.env.id().to_string()),
        ground.directory.path().join("away"),
    )
    .unwrap();
    ground.databases.close().await;
    keep_up().await.unwrap_err();
    assert_eq!(backups.list(ground.env.id()).await.unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);

    // A backup is an archive, of its own moment.
    for (backup, rows) in [(second, 2), (third, 3)] {
        let (_, stream) = backups.read(ground.env.id(), &backup.backup.to_string()).await.unwrap();
        let archive: Vec<u8> = stream.map_ok(|chunk| chunk.to_vec()).try_concat().await.unwrap();
        assert_eq!(kernel::BlobHash::of(&archive), backup.sha256);
        let (env, imported) = ground.import(archive).await;
        imported.unwrap();
        assert_eq!(ground.read(&env, "SELECT count(*) FROM todos").await, [[json!(rows)]]);
    }
    // One that is half there is none.
    std::fs::write(folder.join(format!("{}.tar", kernel::SnapshotId::new())), "half").unwrap();
    assert_eq!(backups.list(ground.env.id()).await.unwrap().len(), 2);
    assert!(backups.read(EnvId::new(), "x").await.is_err());
}

#[tokio::test]
async fn the_newest_of_many_backups_is_known_soon_in_a_slow_store() {
    let ground = Ground::new().await;
    let far = Duration::from_millis(200);
    let slow = ThrottleConfig { wait_get_per_call: far, ..ThrottleConfig::default() };
    let store = Arc::new(ThrottledStore::new(InMemory::new(), slow));
    let backups = Backups::remote(store, ground.snapshots.clone(), u64::MAX);
    let id = ground.env.id();
    assert_eq!(backups.newest(id).await.unwrap(), (0, None));
    let mut made = Vec::new();
    for _ in 0..20 {
        made.push(backups.take(&ground.env, "slug".to_owned(), Vec::new()).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(backups.newest(id).await.unwrap(), (20, made.last().cloned()));
    // One after the other they take as long as twenty.
    assert!(begun.elapsed() < 10 * far, "{:?}", begun.elapsed());
    made.reverse();
    let begun = Instant::now();
    assert_eq!(backups.list(id).await.unwrap(), made);
    assert!(begun.elapsed() < 10 * far, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn archives_of_which_nothing_is_noted_go_after_a_day() {
    let ground = Ground::new().await;
    let store = tempfile::tempdir().unwrap();
    let backups = Backups::local(store.path(), ground.snapshots.clone(), u64::MAX).unwrap();
    let made = backups.take(&ground.env, "slug".to_owned(), Vec::new()).await.unwrap();
    let folder = store.path().join(ground.env.id().to_string());
    let [young, old] = [0, 25].map(|hours| {
        let path = folder.join(format!("{}.tar", kernel::SnapshotId::new()));
        let file = std::fs::File::create(&path).unwrap();
        let at = std::time::SystemTime::now() - Duration::from_secs(hours * 3_600);
        file.set_modified(at).unwrap();
        path
    });
    let kept = folder.join(format!("{}.tar", made.backup));
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(48 * 3_600);
    std::fs::File::options().write(true).open(&kept).unwrap().set_modified(long_ago).unwrap();
    backups.sweep(ground.env.id()).await.unwrap();
    assert_eq!([&young, &old, &kept].map(|path| path.exists()), [true, false, true]);
}
