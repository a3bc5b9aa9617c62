//! The bytes of files: small ones from a bounded memory, coded once; large ones streamed from the disk.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use capabilities::auth::{Turn, Turns};
use capabilities::hosting::{BlobStream, Blobs, Error, Result, SiteFile};
use kernel::{BlobHash, Env, EnvId};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::coding::{self, Coding};

/// Files of at most this many bytes are read whole; larger ones are streamed as they are.
const SMALL: u64 = 2 << 20;

/// How many bytes the memory holds, over all environments.
const MEMORY: u64 = 16 << 20;
const EXPECTED_FILES: usize = 1_000;
/// Few, because a file larger than a shard would never be kept.
const SHARDS: usize = 4;

/// How long a request waits for a turn at coding before it gets the file as it is.
const WAIT: Duration = Duration::from_millis(250);

/// What a file's bytes are kept under. The environment is part of it, so that none is answered from the
/// bytes of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    env: EnvId,
    hash: BlobHash,
    coding: Coding,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Bytes> for ByBytes {
    fn weight(&self, _: &Key, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + size_of::<Key>() as u64
    }
}

pub(crate) struct Contents {
    blobs: Blobs,
    /// Of coding, which takes a core for long: half of them at most, and one environment's crowd nobody else's turn.
    turns: Turns,
    memory: Cache<Key, Bytes, ByBytes>,
}

impl Contents {
    pub(crate) fn new(blobs: Blobs) -> Self {
        Self::with_memory(blobs, MEMORY)
    }

    fn with_memory(blobs: Blobs, bytes: u64) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(EXPECTED_FILES)
            .weight_capacity(bytes)
            .shards(SHARDS)
            .build();
        // Building fails only where an option is missing that is given here.
        let memory = match options {
            Ok(options) => Cache::with_options(
                options,
                ByBytes,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(EXPECTED_FILES, bytes, ByBytes),
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { blobs, turns: Turns::new(cores / 2), memory }
    }

    /// Whether the file is sent in the coding that the client likes best.
    pub(crate) fn is_coded(file: &SiteFile) -> bool {
        file.size <= SMALL && coding::pays(&file.content_type, file.size)
    }

    pub(crate) fn is_small(file: &SiteFile) -> bool {
        file.size <= SMALL
    }

    /// A small file's bytes as they are. Requests for the same bytes at the same time read once.
    pub(crate) async fn whole(&self, env: &Env, file: &SiteFile) -> Result<Bytes> {
        let key = Key { env: env.id(), hash: file.sha256, coding: Coding::Identity };
        self.memory.get_or_insert_async(&key, self.blobs.read(env, key.hash)).await
    }

    /// A small file's bytes in that coding, where they are remembered.
    pub(crate) fn remembered(&self, env: &Env, file: &SiteFile, coding: Coding) -> Option<Bytes> {
        self.memory.get(&Key { env: env.id(), hash: file.sha256, coding })
    }

    /// A small file's bytes in that coding; none where no turn at coding comes soon enough. Requests for the same bytes
    /// at the same time code once.
    pub(crate) async fn coded(&self, env: &Env, file: &SiteFile, coding: Coding) -> Result<Option<Bytes>> {
        if let Some(bytes) = self.remembered(env, file, coding) {
            return Ok(Some(bytes));
        }
        let Ok(Ok(turn)) = tokio::time::timeout(WAIT, self.turns.take(env.id(), 1)).await else {
            return Ok(None);
        };
        let key = Key { env: env.id(), hash: file.sha256, coding };
        self.memory.get_or_insert_async(&key, self.code(env, key, turn)).await.map(Some)
    }

    /// A file, or the bytes of a range in it, as a stream from the disk.
    pub(crate) async fn stream(
        &self,
        env: &Env,
        file: &SiteFile,
        part: Option<Range<u64>>,
    ) -> Result<BlobStream> {
        self.blobs.get(env, file.sha256, part).await
    }

    async fn code(&self, env: &Env, key: Key, turn: Turn) -> Result<Bytes> {
        let bytes = self.blobs.read(env, key.hash).await?;
        let coded = tokio::task::spawn_blocking(move || {
            // The work goes on where who asked for it has gone, and so does its turn.
            let _turn = turn;
            key.coding.encode(&bytes)
        })
        .await;
        coded.map_err(|stopped| Error::Files(std::io::Error::other(stopped)))?.map_err(Error::Files)
    }
}

#[cfg(test)]
mod tests {
    use kernel::TenantId;
    use tempfile::TempDir;

    use super::*;

    struct Ground {
        dir: TempDir,
        contents: Contents,
        env: Env,
    }

    impl Ground {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let contents = Contents::new(Blobs::new(dir.path()).unwrap());
            Self { dir, contents, env: Env::for_upkeep(TenantId::new(), EnvId::new()) }
        }

        async fn file(&self, bytes: Vec<u8>) -> SiteFile {
            let size = bytes.len() as u64;
            let sha256 = self.contents.blobs.put(&self.env, bytes.into()).await.unwrap();
            SiteFile { sha256, size, content_type: "text/plain".into() }
        }

        fn lose_the_disk(&self) {
            std::fs::remove_dir_all(self.dir.path()).unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_read_or_coded_once_is_answered_from_memory() {
        let ground = Ground::new();
        let largest = vec![b'a'; SMALL as usize];
        let file = ground.file(largest.clone()).await;
        let read = async |coding| match coding {
            Coding::Identity => ground.contents.whole(&ground.env, &file).await.map(Some),
            coding => ground.contents.coded(&ground.env, &file, coding).await,
        };
        let coded = read(Coding::Brotli).await.unwrap();
        assert!(read(Coding::Identity).await.unwrap().unwrap() == largest);
        ground.lose_the_disk();
        assert!(read(Coding::Identity).await.unwrap().unwrap() == largest);
        assert_eq!(read(Coding::Brotli).await.unwrap(), coded);
        assert!(read(Coding::Gzip).await.is_err());
    }

    #[tokio::test]
    async fn who_gets_no_turn_at_coding_gets_the_file_as_it_is() {
        let mut ground = Ground::new();
        ground.contents.turns = Turns::new(1);
        let file = ground.file(vec![b'a'; 1_000]).await;
        let held = ground.contents.turns.take(EnvId::new(), 1).await.unwrap();
        let coded = async || ground.contents.coded(&ground.env, &file, Coding::Brotli).await.unwrap();
        assert_eq!(coded().await, None);
        assert_eq!(ground.contents.remembered(&ground.env, &file, Coding::Brotli), None);
        drop(held);
        let bytes = coded().await;
        assert!(bytes.as_ref().is_some_and(|bytes| bytes.len() < 1_000));
        let _held = ground.contents.turns.take(EnvId::new(), 1).await.unwrap();
        assert_eq!(coded().await, bytes, "what is remembered takes no turn");
    }

    #[tokio::test]
    async fn one_environment_is_not_answered_from_the_memory_of_another() {
        let ground = Ground::new();
        let file = ground.file(b"secret".to_vec()).await;
        assert_eq!(ground.contents.whole(&ground.env, &file).await.unwrap(), "secret");
        let other = Env::for_upkeep(ground.env.tenant(), EnvId::new());
        assert!(ground.contents.whole(&other, &file).await.is_err());
    }

    #[tokio::test]
    async fn the_memory_is_bounded() {
        let mut ground = Ground::new();
        ground.contents = Contents::with_memory(ground.contents.blobs.clone(), 80_000);
        for number in 0..50_u8 {
            let file = ground.file(vec![number; 10_000]).await;
            ground.contents.whole(&ground.env, &file).await.unwrap();
        }
        let held = ground.contents.memory.weight();
        assert!((10_000..=80_000).contains(&held), "{held}");
    }
}
