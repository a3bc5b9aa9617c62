//! The bytes of files: small ones from a bounded memory, coded once; large ones streamed from the disk.

use std::ops::Range;

use bytes::Bytes;
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

#[derive(Debug)]
pub(crate) struct Contents {
    blobs: Blobs,
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
        Self { blobs, memory }
    }

    /// Whether the file is sent in the coding that the client likes best.
    pub(crate) fn is_coded(file: &SiteFile) -> bool {
        file.size <= SMALL && coding::pays(&file.content_type, file.size)
    }

    pub(crate) fn is_small(file: &SiteFile) -> bool {
        file.size <= SMALL
    }

    /// A small file's bytes in that coding. Requests for the same bytes at the same time read and code once.
    pub(crate) async fn whole(&self, env: &Env, file: &SiteFile, coding: Coding) -> Result<Bytes> {
        let key = Key { env: env.id(), hash: file.sha256, coding };
        self.memory.get_or_insert_async(&key, self.read(env, key)).await
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

    async fn read(&self, env: &Env, key: Key) -> Result<Bytes> {
        let bytes = self.blobs.read(env, key.hash).await?;
        if key.coding == Coding::Identity {
            return Ok(bytes);
        }
        let coded = tokio::task::spawn_blocking(move || key.coding.encode(&bytes)).await;
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
        let read = async |coding| ground.contents.whole(&ground.env, &file, coding).await;
        let coded = read(Coding::Brotli).await.unwrap();
        assert!(read(Coding::Identity).await.unwrap() == largest);
        ground.lose_the_disk();
        assert!(read(Coding::Identity).await.unwrap() == largest);
        assert_eq!(read(Coding::Brotli).await.unwrap(), coded);
        assert!(read(Coding::Gzip).await.is_err());
    }

    #[tokio::test]
    async fn one_environment_is_not_answered_from_the_memory_of_another() {
        let ground = Ground::new();
        let file = ground.file(b"secret".to_vec()).await;
        assert_eq!(ground.contents.whole(&ground.env, &file, Coding::Identity).await.unwrap(), "secret");
        let other = Env::for_upkeep(ground.env.tenant(), EnvId::new());
        assert!(ground.contents.whole(&other, &file, Coding::Identity).await.is_err());
    }

    #[tokio::test]
    async fn the_memory_is_bounded() {
        let mut ground = Ground::new();
        ground.contents = Contents::with_memory(ground.contents.blobs.clone(), 80_000);
        for number in 0..50_u8 {
            let file = ground.file(vec![number; 10_000]).await;
            ground.contents.whole(&ground.env, &file, Coding::Identity).await.unwrap();
        }
        let held = ground.contents.memory.weight();
        assert!((10_000..=80_000).contains(&held), "{held}");
    }
}
