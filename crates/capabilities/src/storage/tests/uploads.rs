//! Uploads that break off, go on, are tampered with, and never finish.

use std::time::Duration;

use futures::StreamExt as _;
use kernel::{Code, Error};
use sha1::Digest as _;

use super::*;
use crate::storage::{Appended, Checksum, FileStream, Upload};

suite! {
    an_upload_goes_on_where_it_broke_off_also_after_a_restart,
    an_upload_whose_process_died_before_the_file_had_its_place_gets_it_when_asked_for,
    bytes_with_a_checksum_are_kept_whole_or_not_at_all,
    an_upload_is_its_makers_alone,
    offsets_lengths_rules_and_types_hold,
    who_comes_again_takes_over_from_a_connection_that_hangs,
    what_nobody_finishes_goes,
}

fn wanted(bucket: &str, path: &str, length: usize) -> Put {
    Put { length: Some(length as u64), ..place(bucket, path) }
}

fn body(bytes: &'static [u8]) -> FileStream {
    futures::stream::iter(bytes.chunks(1_000).map(|chunk| Ok(Bytes::from_static(chunk)))).boxed()
}

/// A body whose connection is cut behind these bytes.
fn cut(bytes: &'static [u8]) -> FileStream {
    let broken = Error::new(Code::InvalidInput, "the body broke off before its end");
    body(bytes).chain(futures::stream::iter([Err(broken)])).boxed()
}

impl Ground {
    async fn begin(&self, guest: &Guest, put: Put) -> Result<Upload> {
        self.storage.begin_upload(guest, put, "bucket b3du".to_owned()).await
    }

    async fn append(&self, guest: &Guest, id: &str, offset: usize, body: FileStream) -> Result<Appended> {
        self.storage.append(guest, id, offset as u64, None, body).await
    }

    /// How many files of unfinished uploads there are.
    fn staged(&self) -> usize {
        let folder = self.dir.path().join(self.env.id().to_string()).join("uploads");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    /// The same data directory, as another process finds it.
    async fn restarted(self) -> Self {
        self.databases.close().await;
        let databases = Arc::new(Databases::new(self.dir.path().to_owned(), Limits::default()));
        let contents = self.contents.clone();
        let live = Arc::clone(&self.live) as Arc<dyn LiveApps>;
        let limits = StorageLimits::default();
        let storage = Storage::new(Arc::clone(&databases), live, contents, Arc::new(Keys), limits);
        Self { databases, storage, ..self }
    }
}

fn leaked(length: usize) -> &'static [u8] {
    (0..length).map(|i| (i / 3) as u8).collect::<Vec<_>>().leak()
}

async fn an_upload_goes_on_where_it_broke_off_also_after_a_restart(engine: Engine) {
    let mut ground = engine.ground().await;
    let ada = ground.user();
    let bytes = leaked(700_000);
    let upload = ground.begin(&ada, wanted("own", "big.bin", bytes.len())).await.unwrap();
    assert_eq!((upload.offset, upload.done), (0, false));
    let mut offset = 0;
    for end in [100_000, 250_500, 600_000] {
        let broken = ground.append(&ada, &upload.id, offset, cut(&bytes[offset..end])).await;
        assert_eq!(told(broken), "400 invalid_input: the body broke off before its end");
        ground = ground.restarted().await;
        let seen = ground.storage.upload(&ada, &upload.id).await.unwrap();
        assert_eq!((seen.offset, seen.noted.as_str()), (end as u64, "bucket b3du"));
        assert_eq!(
            told(ground.storage.get(&ada, "own", "big.bin").await),
            "404 not_found: there is no such file"
        );
        offset = end;
    }
    let last = ground.append(&ada, &upload.id, offset, body(&bytes[offset..])).await.unwrap();
    assert!(matches!(last, Appended::Kept(Upload { done: true, offset: 700_000, .. })), "{last:?}");
    assert!(ground.read(&ada, "own", "big.bin").await.unwrap() == bytes);
    // A client that has not heard the answer finds the upload whole.
    let seen = ground.storage.upload(&ada, &upload.id).await.unwrap();
    assert_eq!((seen.offset, seen.done), (700_000, true));
    assert_eq!((ground.staged(), ground.contents()), (0, 1));
}

async fn an_upload_whose_process_died_before_the_file_had_its_place_gets_it_when_asked_for(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let upload = ground.begin(&ada, wanted("own", "a", 5)).await.unwrap();
    let staged = ground.dir.path().join(ground.env.id().to_string()).join("uploads").join(&upload.id);
    std::fs::write(&staged, b"whole").unwrap();
    let ground = ground.restarted().await;
    assert!(ground.storage.upload(&ada, &upload.id).await.unwrap().done);
    assert_eq!(ground.read(&ada, "own", "a").await.unwrap(), b"whole");
}

async fn bytes_with_a_checksum_are_kept_whole_or_not_at_all(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let upload = ground.begin(&ada, wanted("own", "a", 8)).await.unwrap();
    let add = |offset: u64, checksum: Checksum, body: FileStream| {
        let (storage, ada, id) = (ground.storage.clone(), ada.clone(), upload.id.clone());
        async move { storage.append(&ada, &id, offset, Some(checksum), body).await }
    };
    let sha1 = |bytes: &[u8]| Checksum::Sha1(sha1::Sha1::digest(bytes).to_vec());
    let sha256 = |bytes: &[u8]| Checksum::Sha256(kernel::BlobHash::of(bytes).to_bytes().to_vec());
    assert_eq!(add(0, sha1(b"other"), body(b"four")).await.unwrap(), Appended::Mismatch);
    assert!(add(0, sha1(b"four"), cut(b"four")).await.is_err());
    assert_eq!(ground.storage.upload(&ada, &upload.id).await.unwrap().offset, 0);
    assert!(matches!(add(0, sha1(b"four"), body(b"four")).await, Ok(Appended::Kept(_))));
    assert_eq!(add(4, sha256(b"more"), body(b"less")).await.unwrap(), Appended::Mismatch);
    // A process that dies while it writes what is not sure leaves none of it.
    let folder = ground.dir.path().join(ground.env.id().to_string()).join("uploads");
    std::fs::write(folder.join(&upload.id), b"fourunsure").unwrap();
    std::fs::write(folder.join(format!("{}.sure", upload.id)), b"4").unwrap();
    assert_eq!(ground.storage.upload(&ada, &upload.id).await.unwrap().offset, 4);
    assert!(matches!(add(4, sha256(b"more"), body(b"more")).await, Ok(Appended::Kept(_))));
    assert_eq!(ground.read(&ada, "own", "a").await.unwrap(), b"fourmore");
}

async fn an_upload_is_its_makers_alone(engine: Engine) {
    let ground = engine.ground().await;
    let (ada, bob) = (ground.user(), ground.user());
    let upload = ground.begin(&ada, wanted("own", "a", 4)).await.unwrap();
    let nothing = "404 not_found: there is no such upload (any more)";
    let other = Env::for_upkeep(ground.env.tenant(), EnvId::new());
    ground.databases.create(other.id()).await.unwrap();
    for guest in [bob, ground.visitor(), Guest::maker(ground.env.clone()), Guest::maker(other)] {
        assert_eq!(told(ground.storage.upload(&guest, &upload.id).await), nothing);
        assert_eq!(told(ground.append(&guest, &upload.id, 0, body(b"evil")).await), nothing);
        assert_eq!(told(ground.storage.end_upload(&guest, &upload.id).await), nothing);
    }
    for id in [
        "",
        "..",
        "../../main.db",
        &upload.id[1..],
        &upload.id.to_uppercase(),
        &format!("{}.sure", upload.id),
    ] {
        if *id != *upload.id {
            assert_eq!(told(ground.storage.upload(&ada, id).await), nothing, "{id}");
        }
    }
    ground.storage.end_upload(&ada, &upload.id).await.unwrap();
    assert_eq!(told(ground.storage.upload(&ada, &upload.id).await), nothing);
    assert_eq!(ground.staged(), 0);
}

async fn offsets_lengths_rules_and_types_hold(engine: Engine) {
    let ground = engine.with(StorageLimits { bytes: 2_000 }).await;
    let ada = ground.user();
    assert_eq!(
        told(ground.begin(&ground.visitor(), wanted("own", "a", 4)).await),
        "403 forbidden: the rules of own do not allow this create"
    );
    assert_eq!(
        told(ground.begin(&ada, wanted("open", "a", 1_001)).await),
        "413 too_large: a file of open has at most 1000 bytes"
    );
    let upload = ground.begin(&ada, wanted("own", "a", 1_500)).await.unwrap();
    assert_eq!(
        told(ground.begin(&ada, wanted("own", "b", 2_001)).await),
        "429 quota_exceeded: the app's files have 0 of 2000 bytes, and this is more",
    );
    let second = ground.begin(&ada, wanted("own", "b", 1_500)).await.unwrap();
    ground.append(&ada, &second.id, 0, body(leaked(600))).await.unwrap();
    assert_eq!(
        told(ground.append(&ada, &upload.id, 0, body(leaked(1_500))).await),
        "429 quota_exceeded: the app's files have 600 of 2000 bytes, and this is more",
        "what has come takes room, and what was announced takes none"
    );
    ground.storage.end_upload(&ada, &second.id).await.unwrap();
    // So does what has come of a body that broke off, and what is still coming.
    let third = ground.begin(&ada, wanted("own", "c", 1_500)).await.unwrap();
    assert!(ground.append(&ada, &third.id, 0, cut(leaked(1_000))).await.is_err());
    assert_eq!(
        told(ground.append(&ada, &upload.id, 0, body(leaked(1_500))).await),
        "429 quota_exceeded: the app's files have 1000 of 2000 bytes, and this is more"
    );
    ground.storage.end_upload(&ada, &third.id).await.unwrap();
    let (asks, mut asked) = tokio::sync::mpsc::unbounded_channel::<()>();
    let stalled = body(leaked(1_500)).chain(futures::stream::pending().map(Ok)).inspect(move |_| {
        let _ = asks.send(());
    });
    let other = ground.begin(&ada, wanted("own", "d", 1_600)).await.unwrap();
    let (storage, guest, id) = (ground.storage.clone(), ada.clone(), other.id.clone());
    let coming = tokio::spawn(async move { storage.append(&guest, &id, 0, None, stalled.boxed()).await });
    asked.recv().await.unwrap();
    asked.recv().await.unwrap();
    assert_eq!(
        told(ground.append(&ada, &upload.id, 0, body(leaked(1_500))).await),
        "429 quota_exceeded: the app's files have 0 of 2000 bytes, and this is more"
    );
    coming.abort();
    ground.storage.end_upload(&ada, &other.id).await.unwrap();
    assert_eq!(
        told(ground.append(&ada, &upload.id, 1, body(b"x")).await),
        "409 conflict /upload_offset: 0 bytes of the upload are here, not 1"
    );
    assert_eq!(
        told(ground.append(&ada, &upload.id, 0, body(leaked(1_501))).await),
        "413 too_large /upload_length: the upload has 1500 bytes left, and these are more"
    );
    assert_eq!(ground.storage.upload(&ada, &upload.id).await.unwrap().offset, 0);
    ground.storage.end_upload(&ada, &upload.id).await.unwrap();
    let lie = Put { content_type: Some("image/png".to_owned()), ..wanted("pictures", "a.png", 200) };
    let upload = ground.begin(&ada, lie).await.unwrap();
    assert_eq!(
        told(ground.append(&ada, &upload.id, 0, body(leaked(100))).await),
        "400 invalid_input /content_type: the bytes are not image/png"
    );
    let upload = ground.begin(&ada, wanted("own", "late", 4)).await.unwrap();
    ground.buckets(json!({ "own": {} }));
    assert_eq!(
        told(ground.append(&ada, &upload.id, 0, body(b"late")).await),
        "403 forbidden: the rules of own do not allow this create"
    );
    assert_eq!((ground.staged(), ground.contents()), (0, 0), "what is refused for good is gone");
}

async fn who_comes_again_takes_over_from_a_connection_that_hangs(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let upload = ground.begin(&ada, wanted("own", "a", 8)).await.unwrap();
    let (arrived, seen) = tokio::sync::oneshot::channel();
    let first = futures::stream::once(async { Ok(Bytes::from_static(b"four")) });
    let hang = futures::stream::once(async move {
        arrived.send(()).unwrap();
        futures::future::pending().await
    });
    let hanging = {
        let (storage, ada, id) = (ground.storage.clone(), ada.clone(), upload.id.clone());
        tokio::spawn(async move { storage.append(&ada, &id, 0, None, first.chain(hang).boxed()).await })
    };
    seen.await.unwrap();
    assert_eq!(ground.storage.upload(&ada, &upload.id).await.unwrap().offset, 4);
    assert_eq!(told(hanging.await.unwrap()), "409 conflict: the upload goes on with another request");
    ground.append(&ada, &upload.id, 4, body(b"more")).await.unwrap();
    assert_eq!(ground.read(&ada, "own", "a").await.unwrap(), b"fourmore");
}

async fn what_nobody_finishes_goes(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let kept = ground.begin(&ada, wanted("own", "a", 4)).await.unwrap();
    let over = ground.begin(&ada, wanted("own", "b", 4)).await.unwrap();
    let folder = ground.dir.path().join(ground.env.id().to_string()).join("uploads");
    std::fs::write(folder.join("0123456789abcdef0123456789abcdef"), b"of nobody").unwrap();
    let sql = "UPDATE _steading_upload SET expires_at = 1 WHERE id = ?1";
    ground.storage.0.change(&ground.env, sql, &[json!(over.id)]).await.unwrap();
    assert_eq!(
        told(ground.storage.upload(&ada, &over.id).await),
        "404 not_found: there is no such upload (any more)"
    );
    assert_eq!(ground.storage.tidy_older(&ground.env, Duration::ZERO).await.unwrap(), 2);
    assert_eq!(ground.staged(), 1);
    assert_eq!(ground.storage.upload(&ada, &kept.id).await.unwrap().offset, 0);
    let mut refused = None;
    for n in 0..100 {
        refused = ground.begin(&ada, wanted("own", &format!("{n}"), 1)).await.err();
    }
    assert_eq!(
        refused.map(|error| error.message().to_owned()).as_deref(),
        Some("100 uploads are not finished, which is as many as there may be")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_of_one_network_use_up_its_own_uploads_alone() {
    let ground = Ground::new().await;
    ground.buckets(json!({ "box": { "access": { "create": "true" } } }));
    let from = |last: u8| ground.visitor().at(Some(std::net::IpAddr::from([192, 0, 2, last])));
    let begin = async |guest: &Guest, path: String| ground.begin(guest, wanted("box", &path, 4)).await;
    for n in 0..100 {
        begin(&from(1), format!("a{n}")).await.unwrap();
    }
    assert_eq!(
        told(begin(&from(1), "one more".to_owned()).await),
        "429 quota_exceeded: 100 uploads are not finished, which is as many as there may be"
    );
    let others = begin(&from(2), "b".to_owned()).await.unwrap();
    begin(&ground.user().at(Some([192, 0, 2, 1].into())), "c".to_owned()).await.unwrap();

    // Where all networks together have too many, the oldest of the one with most goes.
    let first = "SELECT id FROM _steading_upload WHERE path = 'a0'";
    let first = ground.databases.platform_query(&ground.env, first, &[]).await.unwrap()[0][0].clone();
    let first = first.as_str().unwrap();
    assert_eq!(ground.storage.upload(&from(1), first).await.unwrap().offset, 0);
    let staged = ground.staged();
    let crowd = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9899) \
                 INSERT INTO _steading_upload (id, bucket, path, length, content_type, noted, received, done, \
                 expires_at, network) SELECT 'x' || i, 'box', 'x' || i, 1, 'a/b', '', 0, 0, ?1, i FROM n";
    let later = kernel::Timestamp::now().as_micros() + 1_000_000_000;
    ground.storage.0.change(&ground.env, crowd, &[json!(later)]).await.unwrap();
    begin(&from(3), "d".to_owned()).await.unwrap();
    assert_eq!(
        told(ground.storage.upload(&from(1), first).await),
        "404 not_found: there is no such upload (any more)"
    );
    assert_eq!(ground.staged(), staged, "one has come, and one has gone with its bytes");
    ground.storage.upload(&from(2), &others.id).await.unwrap();
}
