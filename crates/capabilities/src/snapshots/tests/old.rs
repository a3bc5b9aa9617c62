//! What is kept for long: backups, and snapshots that are packed away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::yard::{Engine, some};
use super::*;

both!(
    a_backup_in_the_store_is_whole_and_restores_elsewhere,
    an_old_snapshot_is_packed_away_and_comes_back,
    backups_of_a_deleted_environment_stay_for_their_time,
);

async fn a_backup_in_the_store_is_whole_and_restores_elsewhere(engine: Engine) {
    let yard = engine.yard().await;
    let env = yard.ground.env.clone();
    let store = tempfile::tempdir().unwrap();
    let snapshots = yard.ground.snapshots.clone();
    let backups = match &yard.s3 {
        Some((s3, _)) => Backups::remote(s3.store().unwrap(), snapshots, u64::MAX),
        None => Backups::local(store.path(), snapshots, u64::MAX).unwrap(),
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
    let losses = yard.ground.snapshots.losses(&env, &packed, &[]).await.unwrap();
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
        Some((s3, _)) => Backups::remote(s3.store().unwrap(), snapshots, u64::MAX),
        None => Backups::local(store.path(), snapshots, u64::MAX).unwrap(),
    };
    // Who has none may have one on its way.
    backups.leave(tenant, EnvId::new()).await.unwrap();
    let kept = backups.take(&env, "slug".to_owned(), Vec::new()).await.unwrap();
    assert_eq!(backups.left_of(env.id()).await.unwrap(), None);
    assert_eq!(
        backups.expire_left(Duration::ZERO).await.unwrap(),
        1,
        "the note of the other; an environment that is there is not left"
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
    // What is written when the environment has been deleted goes like the others.
    backups.leave(tenant, env.id()).await.unwrap();
    let late = backups.take(&env, "slug".to_owned(), Vec::new()).await.unwrap();
    assert_eq!(backups.left_of(env.id()).await.unwrap(), Some(tenant));
    assert_eq!(backups.list(env.id()).await.unwrap(), [late]);
    assert_eq!(backups.expire_left(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(backups.list(env.id()).await.unwrap(), []);
}
