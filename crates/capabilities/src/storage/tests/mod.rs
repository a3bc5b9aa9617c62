//! Files over real engines: a database, and contents in a directory or behind S3.

/// The same tests with contents in a directory and behind S3.
macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod in_a_directory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::storage::tests::Engine::Directory).await;
            })+
        }

        mod behind_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::storage::tests::Engine::S3).await;
            })+
        }
    };
}

mod attacks;
mod links;
mod lives;
mod pictures;
pub(crate) mod s3;
mod uploads;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryStreamExt as _};
use kernel::{Env, EnvId, Result, TenantId, UserId};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{Condition, Contents, LinkKeys, ListFiles, Object, Put, Storage, StorageLimits, StorageSpec};
use crate::access::{Guest, Subject, User};
use crate::database::{Databases, Limits};
use crate::rows::{App, LiveApps};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nand more";

/// The app that is live, which a test may change.
#[derive(Default)]
struct Live(Mutex<Arc<App>>);

impl LiveApps for Live {
    fn app<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<Arc<App>>> {
        async { Ok(Arc::clone(&self.0.lock().unwrap())) }.boxed()
    }
}

/// A secret for each environment, which is its name: nobody outside of these tests knows it.
struct Keys;

impl LinkKeys for Keys {
    fn mac<'a>(&'a self, env: &'a Env, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 32]>> {
        let keyed = [env.id().to_string().as_bytes(), message].concat();
        async move { Ok(kernel::BlobHash::of(&keyed).to_bytes()) }.boxed()
    }

    fn is_good<'a>(&'a self, _: &'a Env, _: kernel::KeyId) -> BoxFuture<'a, Result<bool>> {
        async { Ok(false) }.boxed()
    }
}

/// Where contents are.
#[derive(Debug, Clone, Copy)]
enum Engine {
    Directory,
    S3,
}

impl Engine {
    async fn ground(self) -> Ground {
        self.with(StorageLimits::default()).await
    }

    async fn with(self, limits: StorageLimits) -> Ground {
        let dir = tempfile::tempdir().unwrap();
        let (contents, files) = match self {
            Engine::Directory => (Contents::local(dir.path()).unwrap(), dir.path().to_owned()),
            Engine::S3 => s3::serve(&dir.path().join("s3")).await,
        };
        Ground::on(dir, contents, files, limits).await
    }
}

struct Ground {
    dir: TempDir,
    /// Where the engine has its files.
    files: PathBuf,
    contents: Contents,
    env: Env,
    live: Arc<Live>,
    databases: Arc<Databases>,
    storage: Storage,
}

impl Ground {
    async fn new() -> Self {
        Engine::Directory.ground().await
    }

    async fn on(dir: TempDir, contents: Contents, files: PathBuf, limits: StorageLimits) -> Self {
        let databases = Arc::new(Databases::new(dir.path().to_owned(), Limits::default()));
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        databases.create(env.id()).await.unwrap();
        let live = Arc::new(Live::default());
        let storage = Storage::new(
            Arc::clone(&databases),
            Arc::clone(&live) as Arc<dyn LiveApps>,
            contents.clone(),
            Arc::new(Keys),
            limits,
        );
        let ground = Self { dir, files, contents, env, live, databases, storage };
        ground.buckets(json!({
            "own": { "access": "private" },
            "open": { "access": "public_read", "max_size": 1000 },
            "pictures": { "access": "private", "types": ["image/*"] },
            "closed": {},
        }));
        ground
    }

    fn buckets(&self, buckets: Value) {
        let spec: StorageSpec = serde_json::from_value(json!({ "buckets": buckets })).unwrap();
        *self.live.0.lock().unwrap() = Arc::new(App { buckets: spec.models(&[]).unwrap(), ..App::default() });
    }

    fn user(&self) -> Guest {
        let user = User { id: UserId::new(), role: "user".to_owned(), email: None, claims: Map::new() };
        Guest::new(self.env.clone(), Subject::User(user))
    }

    fn visitor(&self) -> Guest {
        Guest::visitor(self.env.clone())
    }

    async fn put(&self, guest: &Guest, bucket: &str, path: &str, bytes: &'static [u8]) -> Result<Object> {
        let put = Put { length: Some(bytes.len() as u64), ..place(bucket, path) };
        self.store(guest, put, bytes).await
    }

    async fn store(&self, guest: &Guest, put: Put, bytes: &'static [u8]) -> Result<Object> {
        // In pieces, as a network brings them.
        let chunks: Vec<_> = bytes.chunks(7).map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        Ok(self.storage.put(guest, put, futures::stream::iter(chunks)).await?.object)
    }

    async fn read(&self, guest: &Guest, bucket: &str, path: &str) -> Result<Vec<u8>> {
        let object = self.storage.get(guest, bucket, path).await?;
        let stream = self.storage.read(guest, &object, 0..object.size).await?;
        Ok(stream.try_collect::<Vec<_>>().await?.concat())
    }

    async fn paths(&self, guest: &Guest, bucket: &str) -> Vec<String> {
        let listed = self.storage.list(guest, bucket, &ListFiles::default()).await.unwrap();
        listed.files.into_iter().map(|file| file.path).collect()
    }

    /// How many contents there are.
    fn contents(&self) -> usize {
        std::fs::read_dir(self.files.join(self.env.id().to_string()).join("files")).map_or(0, Iterator::count)
    }
}

fn place(bucket: &str, path: &str) -> Put {
    Put { bucket: bucket.to_owned(), path: path.to_owned(), ..Put::default() }
}

/// What the caller is told: status, code, where, and the words.
fn told<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let at = error.pointer().map(|at| format!(" {at}")).unwrap_or_default();
            format!("{} {}{at}: {}", error.status(), error.code().as_str(), error.message())
        }
    }
}
