//! `steading env export` and `import`: an environment as a file.

use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use kernel::{Code, Error};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use super::Failure;
use super::client::{Client, segment};

/// Writes the environment's archive to a file that is not there yet, whole or not at all.
pub async fn export(client: &Client, env: &str, file: Option<PathBuf>) -> Result<Value, Failure> {
    let path = file.unwrap_or_else(|| PathBuf::from(format!("{env}.steading.tar")));
    if path.exists() {
        return Err(Error::new(Code::Conflict, format!("{} is there already", path.display()))
            .hint("name another file")
            .into());
    }
    let half = path.with_extension("half");
    let written = download(client, env, &half).await;
    let written = match written {
        Ok(bytes) => tokio::fs::rename(&half, &path).await.map(|()| bytes).map_err(|e| unusable(&path, e)),
        Err(failure) => {
            let _ = tokio::fs::remove_file(&half).await;
            Err(failure)
        }
    };
    Ok(json!({ "file": path, "bytes": written? }))
}

async fn download(client: &Client, env: &str, to: &Path) -> Result<u64, Failure> {
    let mut stream = client.download(&format!("/v1/envs/{}/export", segment(env))).await?;
    // What is stored of passwords is in it.
    let mut file = tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .await
        .map_err(|e| unusable(to, e))?;
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        file.write_all(&chunk).await.map_err(|e| unusable(to, e))?;
        bytes += chunk.len() as u64;
    }
    file.sync_all().await.map_err(|e| unusable(to, e))?;
    Ok(bytes)
}

/// Makes an environment of an archive.
pub async fn import(client: &Client, file: &Path, slug: &str) -> Result<Value, Failure> {
    let opened = tokio::fs::File::open(file).await.map_err(|e| unusable(file, e))?;
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(opened, 256 << 10));
    client.send(Method::POST, &format!("/v1/envs/{}/import", segment(slug)), "application/x-tar", body).await
}

/// A file that cannot be read or written.
pub fn unusable(path: &Path, error: std::io::Error) -> Failure {
    Error::new(Code::InvalidInput, format!("{} cannot be used: {error}", path.display())).into()
}
