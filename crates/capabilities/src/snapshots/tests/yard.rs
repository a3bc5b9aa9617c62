//! What tests of files are tried on: an environment whose files' bytes are in a directory, or behind S3.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::access::Guest;
use crate::storage::tests::s3;
use crate::storage::{Condition, Put};

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

/// An environment, and where all bytes of files are.
pub(super) struct Yard {
    pub(super) ground: Ground,
    pub(super) s3: Option<(crate::storage::S3, PathBuf)>,
}

/// What every test is tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Directory,
    S3,
}

impl Engine {
    pub(super) async fn yard(self) -> Yard {
        self.with(SnapshotLimits { most: 1_000, ..SnapshotLimits::default() }).await
    }

    pub(super) async fn with(self, limits: SnapshotLimits) -> Yard {
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
    pub(super) async fn put(&self, env: &Env, path: &str, bytes: Vec<u8>) {
        let put = Put { bucket: "docs".to_owned(), path: path.to_owned(), ..Put::default() };
        let body = stream::iter([Ok(Bytes::from(bytes))]);
        self.ground.storage.put(&Guest::maker(env.clone()), put, body).await.unwrap();
    }

    pub(super) async fn delete(&self, env: &Env, path: &str) {
        let guest = Guest::maker(env.clone());
        self.ground.storage.delete(&guest, "docs", path, Condition::Any).await.unwrap();
    }

    /// The bytes at each of `paths`; none where there is no file.
    pub(super) async fn files(&self, env: &Env, paths: &[&str]) -> Vec<Option<Vec<u8>>> {
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
    pub(super) fn stored(&self, env: &Env) -> usize {
        let root = self.s3.as_ref().map_or(self.ground.directory.path(), |(_, files)| files);
        std::fs::read_dir(root.join(env.id().to_string()).join("files")).map_or(0, Iterator::count)
    }

    pub(super) async fn take(&self) -> String {
        let taken = self.ground.snapshots.take(&self.ground.env, NewSnapshot::default()).await.unwrap();
        taken.snapshot.to_string()
    }

    pub(super) async fn restore(&self, snapshot: &str) -> String {
        self.ground.snapshots.restore(&self.ground.env, snapshot).await.unwrap().undo.to_string()
    }

    /// Removes what nobody needs, as if a day had passed.
    pub(super) async fn tidy(&self, env: &Env) {
        let _held = self.ground.snapshots.hold(env).await;
        self.ground.storage.tidy_older(env, Duration::ZERO).await.unwrap();
    }

    pub(super) fn new_env(&self) -> Env {
        Env::for_upkeep(TenantId::new(), EnvId::new())
    }

    pub(super) async fn archive(&self) -> Vec<u8> {
        let archive =
            self.ground.snapshots.export(&self.ground.env, "slug".to_owned(), Vec::new()).await.unwrap();
        archive.map_ok(|chunk| chunk.to_vec()).try_concat().await.unwrap()
    }
}

pub(super) fn some(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}
