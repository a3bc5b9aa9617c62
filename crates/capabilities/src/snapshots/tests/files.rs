//! Files in snapshots, branches and archives.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::yard::{Engine, some};
use super::*;
use crate::access::Guest;
use crate::storage::Put;

both!(
    files_come_back_and_nothing_that_a_snapshot_needs_is_removed,
    a_branch_has_its_files_for_itself,
    an_archive_has_the_files_and_an_import_that_fails_leaves_none,
    an_export_that_is_read_slowly_is_whole,
    what_only_snapshots_need_counts,
    each_moment_under_load_has_its_files,
    what_an_attempt_that_died_has_left_is_removed,
    what_a_return_takes_away_takes_no_room_but_the_snapshots,
);

async fn what_a_return_takes_away_takes_no_room_but_the_snapshots(engine: Engine) {
    let yard = engine.yard().await;
    let env = yard.ground.env.clone();
    yard.put(&env, "a", b"one".to_vec()).await;
    let first = yard.take().await;
    let uploads = yard.ground.directory.path().join(env.id().to_string()).join("uploads");
    let staged = || std::fs::read_dir(&uploads).map_or(0, Iterator::count);
    for round in 0..4 {
        let later = format!("later {round}");
        yard.put(&env, &later, vec![7; 6 << 20]).await;
        let put = Put { bucket: "docs".to_owned(), path: "x".to_owned(), length: Some(9), ..Put::default() };
        let guest = Guest::maker(env.clone());
        yard.ground.storage.begin_upload(&guest, put, String::new()).await.unwrap();
        assert_eq!(staged(), 1);
        yard.restore(&first).await;
        // Behind S3 the snapshot of the moment before has no contents of its own.
        let kept = if engine == Engine::S3 { round + 2 } else { 1 };
        assert_eq!((yard.stored(&env), staged()), (kept, 0), "round {round}");
    }
    assert_eq!(yard.files(&env, &["a", "later 0"]).await, [some(b"one"), None]);
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
