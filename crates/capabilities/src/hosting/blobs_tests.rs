//! Blobs on a real directory: what a write leaves behind, what a collection takes, what damage does.

use futures::TryStreamExt;
use kernel::{EnvId, TenantId};
use tempfile::TempDir;

use super::*;

struct Disk {
    dir: TempDir,
    blobs: Blobs,
    env: Env,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path()).unwrap();
        Self { dir, blobs, env: another_env() }
    }

    fn blob_dir(&self) -> PathBuf {
        self.dir.path().join(self.env.id().to_string()).join("blobs")
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.blob_dir()) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn age(&self, name: &str, by: Duration) {
        let file = File::options().write(true).open(self.blob_dir().join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(SystemTime::now() - by)).unwrap();
    }

    async fn put(&self, text: &'static str) -> BlobHash {
        self.blobs.put(&self.env, Bytes::from_static(text.as_bytes())).await.unwrap()
    }

    async fn part(&self, hash: BlobHash, range: Option<Range<u64>>) -> Result<Vec<u8>> {
        let stream = self.blobs.get(&self.env, hash, range).await?;
        stream
            .try_fold(Vec::new(), |mut all, chunk| async move {
                all.extend_from_slice(&chunk);
                Ok(all)
            })
            .await
    }
}

fn another_env() -> Env {
    Env::for_upkeep(TenantId::new(), EnvId::new())
}

fn chunks(
    texts: &[&'static str],
) -> impl Stream<Item = std::result::Result<Bytes, std::io::Error>> + Send + use<> {
    let chunks: Vec<_> = texts.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect();
    stream::iter(chunks)
}

#[tokio::test]
async fn a_blob_is_kept_once_under_its_hash() {
    let disk = Disk::new();
    let hash = disk.put("hello").await;
    assert_eq!(hash, BlobHash::of(b"hello"));
    assert_eq!(disk.put("hello").await, hash);
    assert_eq!(disk.names(), [hash.to_string()]);
    assert_eq!(disk.blobs.size(&disk.env, hash).await.unwrap(), Some(5));
    assert_eq!(disk.blobs.read(&disk.env, hash).await.unwrap(), "hello");
    assert_eq!(disk.part(hash, None).await.unwrap(), b"hello");
    assert_eq!(disk.part(hash, Some(1..3)).await.unwrap(), b"el");
    assert!(matches!(disk.part(hash, Some(3..9)).await, Err(Error::Damaged(_))));
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let disk = Disk::new();
    let hash = disk.put("").await;
    assert_eq!(disk.blobs.read(&disk.env, hash).await.unwrap(), "");
    assert_eq!(disk.part(hash, None).await.unwrap(), b"");
}

#[tokio::test]
async fn an_environment_does_not_see_the_blobs_of_another() {
    let disk = Disk::new();
    let hash = disk.put("hello").await;
    let other = another_env();
    assert!(!disk.blobs.has(&other, hash).await.unwrap());
    assert!(matches!(disk.blobs.read(&other, hash).await, Err(Error::NoBlob(_))));
    assert!(matches!(disk.blobs.get(&other, hash, None).await, Err(Error::NoBlob(_))));
}

#[tokio::test]
async fn an_upload_with_the_announced_hash_is_stored() {
    let disk = Disk::new();
    let hash = BlobHash::of(b"hello world");
    for _ in 0..2 {
        disk.blobs.put_expected(&disk.env, hash, chunks(&["hello", " ", "world"]), 11).await.unwrap();
    }
    assert_eq!(disk.names(), [hash.to_string()]);
    assert_eq!(disk.blobs.read(&disk.env, hash).await.unwrap(), "hello world");
}

#[tokio::test]
async fn a_refused_upload_leaves_nothing_behind() {
    let disk = Disk::new();
    let hash = BlobHash::of(b"hello world");
    let other = disk.blobs.put_expected(&disk.env, hash, chunks(&["hello"]), 100).await;
    assert!(matches!(other, Err(Error::Mismatch { actual, .. }) if actual == BlobHash::of(b"hello")));
    let large = disk.blobs.put_expected(&disk.env, hash, chunks(&["hello", " world"]), 10).await;
    assert!(matches!(large, Err(Error::BlobTooLarge { limit: 10 })));
    let broken = chunks(&["hello"]).chain(stream::iter([Err(std::io::Error::other("gone"))]));
    let broken = disk.blobs.put_expected(&disk.env, hash, broken, 100).await;
    assert!(matches!(broken, Err(Error::Upload(_))));
    assert_eq!(disk.names(), Vec::<String>::new());
    assert!(!disk.blobs.has(&disk.env, hash).await.unwrap());
}

#[tokio::test]
async fn an_upload_whose_sender_vanishes_leaves_nothing_behind() {
    let disk = Disk::new();
    let hash = BlobHash::of(b"hello");
    let endless = chunks(&["hel"]).chain(stream::pending());
    let upload = disk.blobs.put_expected(&disk.env, hash, endless, 100);
    let mut upload = Box::pin(upload);
    while disk.names().is_empty() {
        assert!(futures::poll!(&mut upload).is_pending());
        tokio::task::yield_now().await;
    }
    drop(upload);
    while !disk.names().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_crash_left_is_no_blob_and_is_collected() {
    let disk = Disk::new();
    let hash = BlobHash::of(b"hello");
    std::fs::create_dir_all(disk.blob_dir()).unwrap();
    let torn = format!("{hash}#1");
    std::fs::write(disk.blob_dir().join(&torn), "hel").unwrap();
    assert!(!disk.blobs.has(&disk.env, hash).await.unwrap());
    assert_eq!(disk.put("hello").await, hash);
    assert_eq!(disk.blobs.read(&disk.env, hash).await.unwrap(), "hello");

    disk.age(&torn, Duration::from_secs(7200));
    let kept = HashSet::from([hash]);
    let collected = disk.blobs.collect(&disk.env, &kept, DEFAULT_GRACE).await.unwrap();
    assert_eq!(collected, Collected { removed: 1, bytes: 3 });
    assert_eq!(disk.names(), [hash.to_string()]);
}

#[tokio::test]
async fn only_what_is_old_and_unnamed_is_collected() {
    let disk = Disk::new();
    let named = disk.put("named").await;
    let fresh = disk.put("fresh").await;
    let asked = disk.put("asked for").await;
    let again = disk.put("put again").await;
    let old = disk.put("old").await;
    for hash in [named, asked, again, old] {
        disk.age(&hash.to_string(), Duration::from_secs(7200));
    }
    assert!(disk.blobs.has(&disk.env, asked).await.unwrap());
    disk.put("put again").await;

    let collected = disk.blobs.collect(&disk.env, &HashSet::from([named]), DEFAULT_GRACE).await.unwrap();
    assert_eq!(collected, Collected { removed: 1, bytes: 3 });
    let mut left = [named, fresh, asked, again].map(|hash| hash.to_string());
    left.sort();
    assert_eq!(disk.names(), left);
}

#[tokio::test]
async fn an_environment_without_blobs_has_nothing_to_collect() {
    let disk = Disk::new();
    let collected = disk.blobs.collect(&disk.env, &HashSet::new(), Duration::ZERO).await.unwrap();
    assert_eq!(collected, Collected::default());
}

#[tokio::test]
async fn a_damaged_blob_is_never_handed_out_whole_and_is_mended_by_putting_it_again() {
    let disk = Disk::new();
    let hash = disk.put("hello").await;
    std::fs::write(disk.blob_dir().join(hash.to_string()), "jello").unwrap();
    assert!(matches!(disk.blobs.read(&disk.env, hash).await, Err(Error::Damaged(_))));
    assert!(matches!(disk.part(hash, None).await, Err(Error::Damaged(_))));
    disk.put("hello").await;
    assert_eq!(disk.blobs.read(&disk.env, hash).await.unwrap(), "hello");
}

#[tokio::test]
async fn puts_and_collections_at_once_lose_nothing_that_was_just_put() {
    let disk = Disk::new();
    let hash = disk.put("hello").await;
    for _ in 0..50 {
        disk.age(&hash.to_string(), Duration::from_secs(7200));
        let nothing = HashSet::new();
        let (put, collected) = tokio::join!(
            disk.blobs.put(&disk.env, Bytes::from_static(b"hello")),
            disk.blobs.collect(&disk.env, &nothing, DEFAULT_GRACE),
        );
        put.unwrap();
        collected.unwrap();
        assert_eq!(disk.blobs.read(&disk.env, hash).await.unwrap(), "hello");
    }
}

#[test]
fn a_full_disk_is_said() {
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded] {
        let source =
            object_store::Error::Generic { store: "x", source: Box::new(std::io::Error::from(kind)) };
        let error = kernel::Error::from(Error::from(source));
        assert_eq!((error.code(), error.message()), (kernel::Code::Unavailable, "the disk is full"));
    }
}

#[tokio::test]
async fn the_blobs_of_an_environment_have_so_many_bytes_at_most() {
    let disk = Disk::new();
    let blobs = Blobs::bounded(disk.dir.path(), 10).unwrap();
    let put = async |text: &'static str| blobs.put(&disk.env, Bytes::from_static(text.as_bytes())).await;
    let first = put("sixsix").await.unwrap();
    let full = |put: Result<BlobHash>| matches!(put, Err(Error::Full { used: 6, limit: 10 }));
    assert!(full(put("fives").await));
    assert_eq!(put("sixsix").await.unwrap(), first, "what is there already takes no more");
    let streamed = blobs.put_expected(&disk.env, BlobHash::of(b"fives"), chunks(&["fi", "ves"]), 100).await;
    assert!(full(streamed.map(|()| first)));
    assert_eq!(disk.names(), [first.to_string()]);
    blobs.put_expected(&disk.env, BlobHash::of(b"four"), chunks(&["fo", "ur"]), 100).await.unwrap();
    assert!(put("x").await.is_err(), "what was streamed counts");
    blobs.put(&another_env(), Bytes::from_static(b"another's")).await.unwrap();
    for name in disk.names() {
        disk.age(&name, Duration::from_secs(60));
    }
    blobs.collect(&disk.env, &HashSet::from([first]), Duration::ZERO).await.unwrap();
    put("four").await.unwrap();
}
