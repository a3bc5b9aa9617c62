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
        let options = OptionsBuilder::new()
            .estimated_items_capacity(EXPECTED_FILES)
            .weight_capacity(MEMORY)
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
            Err(_) => Cache::with_weighter(EXPECTED_FILES, MEMORY, ByBytes),
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
