//! What is built, as directories that sandboxes read: made of an environment's blobs when a version is first started here.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use capabilities::functions::Files;
use capabilities::hosting::Blobs;
use kernel::{Env, EnvId, Error, Result};

/// A directory of the host, with one directory for each environment and in it one for each version.
#[derive(Debug, Clone)]
pub struct Artifacts {
    directory: PathBuf,
    blobs: Blobs,
}

impl Artifacts {
    /// Those in `directory`, which is emptied: what an earlier process has left is made again where it is needed.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(directory: PathBuf, blobs: Blobs) -> Result<Self> {
        readable().recursive(true).create(&directory).map_err(failed)?;
        let mut left = std::fs::read_dir(&directory).map_err(failed)?;
        left.try_for_each(|entry| remove(&entry?.path())).map_err(failed)?;
        Ok(Self { directory, blobs })
    }

    /// The directory that has these files of an environment. Where it is there already nothing is written.
    ///
    /// # Errors
    /// Where a blob is missing or damaged; of the file system.
    pub async fn place(&self, env: &Env, version: &str, files: &Files) -> Result<PathBuf> {
        let place = self.directory.join(env.id().to_string()).join(version);
        if tokio::fs::try_exists(&place).await.map_err(failed)? {
            return Ok(place);
        }
        // Whoever makes it at the same time makes another one of the same.
        let half = self.directory.join(format!("half-{}", kernel::SandboxId::new()));
        let made = self.fill(env, &half, files).await.and_then(|()| {
            readable().recursive(true).create(place.parent().unwrap_or(&place)).map_err(failed)?;
            match std::fs::rename(&half, &place) {
                Err(_) if place.is_dir() => Ok(()),
                done => done.map_err(failed),
            }
        });
        // Of what came to its place nothing is left here.
        removed(half).await?;
        made.map(|()| place)
    }

    async fn fill(&self, env: &Env, half: &Path, files: &Files) -> Result<()> {
        readable().create(half).map_err(failed)?;
        for (path, file) in files {
            let place = half.join(path.as_str());
            readable().recursive(true).create(place.parent().unwrap_or(half)).map_err(failed)?;
            self.blobs.link(env, file.sha256, place).await?;
        }
        Ok(())
    }

    /// The blobs that they are made of.
    pub(crate) const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Takes a version that nothing runs of out of the way, at once; what is given back removes it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn forget(&self, env: EnvId, version: &str) -> impl Future<Output = Result<()>> + Send + use<> {
        self.set_aside(&self.directory.join(env.to_string()).join(version))
    }

    /// The same with all of an environment.
    ///
    /// # Errors
    /// Of the file system.
    pub fn forget_all(&self, env: EnvId) -> impl Future<Output = Result<()>> + Send + use<> {
        self.set_aside(&self.directory.join(env.to_string()))
    }

    /// Who asks for it from here on makes another one.
    fn set_aside(&self, place: &Path) -> impl Future<Output = Result<()>> + Send + use<> {
        let aside = self.directory.join(format!("half-{}", kernel::SandboxId::new()));
        let moved = std::fs::rename(place, &aside);
        async move {
            match moved {
                Ok(()) => removed(aside).await,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed(error)),
            }
        }
    }
}

/// Sandboxes are other users than this process.
fn readable() -> std::fs::DirBuilder {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o755);
    builder
}

/// Removes a directory while others work.
async fn removed(directory: PathBuf) -> Result<()> {
    let removed = tokio::task::spawn_blocking(move || remove(&directory)).await;
    removed.map_err(Error::internal)?.map_err(failed)
}

fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(error: io::Error) -> Error {
    Error::internal(format!("the files of a function cannot be written: {error}"))
}
