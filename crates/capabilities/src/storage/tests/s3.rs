//! An S3 service in this process, and what becomes of files when it is away or refuses.

use std::path::{Path, PathBuf};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use kernel::Secret;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use super::*;
use crate::storage::S3;
use crate::storage::contents::Most;
use futures::StreamExt as _;

const ACCESS: &str = "access";
pub(crate) const SECRET: &str = "secret-of-the-bucket";

/// Serves a bucket below `root`; contents in it, and where it has its files.
pub(super) async fn serve(root: &Path) -> (Contents, PathBuf) {
    let (s3, files) = service(root, SECRET).await;
    (Contents::s3(&s3, root.parent().unwrap()).unwrap(), files)
}

/// A service whose secret is `secret`, as somebody knows it who says [`SECRET`].
pub(crate) async fn service(root: &Path, secret: &str) -> (S3, PathBuf) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let files = root.join("files-of-apps");
    std::fs::create_dir_all(&files).unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single(ACCESS, secret));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            stream.set_nodelay(true).unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let _ =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let s3 = S3 {
        endpoint,
        bucket: "files-of-apps".to_owned(),
        region: "us-east-1".to_owned(),
        access_key: ACCESS.to_owned(),
        secret_key: Secret::new(SECRET),
    };
    (s3, files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_is_told_without_its_address_or_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (s3, files) = service(&dir.path().join("s3"), "another secret").await;
    assert!(!format!("{s3:?}").contains(SECRET));
    let contents = Contents::s3(&s3, dir.path()).unwrap();
    let ground = Ground::on(dir, contents, files, StorageLimits::default()).await;
    let ada = ground.user();
    let refused = ground.put(&ada, "own", "a", b"x").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (kernel::Code::Unavailable, "the store of files does not answer")
    );
    assert!(!refused.chain().contains(SECRET), "{}", refused.chain());
    assert_eq!(ground.paths(&ada, "own").await, [""; 0], "no row names what is not there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_environment_leaves_nothing_in_the_bucket() {
    let ground = Engine::S3.ground().await;
    let ada = ground.user();
    for path in ["a", "b"] {
        ground.put(&ada, "own", path, b"x").await.unwrap();
    }
    assert_eq!(ground.contents(), 2);
    ground.storage.forget(ground.env.id()).await.unwrap();
    assert_eq!(ground.contents(), 0);
    assert!(ground.put(&ada, "own", "c", b"late").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_sender_goes_away_leaves_no_parts_in_the_bucket() {
    let ground = Engine::S3.ground().await;
    let root = ground.dir.path().join("s3");
    let there = |root: &Path| {
        let names =
            std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("upload")).collect::<Vec<_>>()
    };
    // More than two parts come, and then nothing any more.
    let known = root.clone();
    let (sent, seen) = tokio::sync::oneshot::channel();
    let chunks = (0..12).map(|_| Ok(Bytes::from(vec![7; 1 << 20])));
    let hang = futures::stream::once(async move {
        let begun = there(&known);
        sent.send(begun).unwrap();
        futures::future::pending().await
    });
    let stream = futures::stream::iter(chunks).chain(hang);
    let most = Most { bytes: 1 << 30, beyond: kernel::Error::internal("never") };
    let contents = ground.contents.clone();
    let writing = contents.write(ground.env.id(), stream, most, "application/octet-stream");
    let begun = tokio::select! {
        _ = writing => panic!("it cannot come to its end"),
        seen = seen => seen.unwrap(),
    };
    assert_ne!(begun, [""; 0], "the store had begun");
    let gone = async {
        while !there(&root).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
    assert_eq!(ground.contents(), 0);
}
