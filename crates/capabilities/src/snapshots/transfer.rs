//! An environment as one stream, and one made of such a stream, which may come from anybody.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use kernel::{BlobHash, Code, Env, EnvId, Error, Result, TenantId, Timestamp};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};

use super::archive::{self, DATABASE, Index, Most, Refused};
use super::branch::Site;
use super::exports::Export;
use super::store::{Staged, entries};
use super::{Inner, Snapshots, blocking, contents};
use crate::auth;
use crate::database::{self, Along, Fate, Loose, Maker};
use crate::releases::{self, past};
use crate::storage::pins::{NAMED, Named};
use crate::storage::{self, FileStream};

/// How much goes over at a time.
const CHUNK: usize = 256 << 10;

/// How many of those may wait for a slow reader.
const WAITING: usize = 4;

/// How many files an archive may have.
const FILES: usize = 200_000;

/// An environment as a stream of bytes.
pub type ArchiveStream = BoxStream<'static, io::Result<Bytes>>;

/// What an environment was made of.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The release that is live there; 0 where there is none.
    pub release: u64,
    /// Names of the secrets that were set where it comes from.
    pub secrets: Vec<String>,
}

impl Snapshots {
    /// The environment as it is now, as an archive; `slug` and the names of `secrets` are noted in it. It holds all data
    /// of its users, and what is stored of their passwords.
    ///
    /// # Errors
    /// `rate_limited` where too many that were begun are not read yet; `unavailable` where others write for too long, or
    /// the disk is full. A stream that nobody takes more of ends with an error.
    pub async fn export(&self, env: &Env, slug: String, secrets: Vec<String>) -> Result<ArchiveStream> {
        let export = self.0.exports.begin(env.tenant(), env.id())?;
        let (index, staged) = self.0.gather(env, slug, secrets).await?;
        let directory = staged.path().to_owned();
        Ok(self.0.stream(env.id(), index, directory, (staged, export), Form::Plain))
    }

    /// A place among the imports that are under way, until it is dropped. What is imported has no environment yet.
    ///
    /// # Errors
    /// `rate_limited` where the tenant has as many as it may; `unavailable` where all have.
    pub fn begin_import(&self, tenant: TenantId) -> Result<Export> {
        self.0.imports.begin(tenant, EnvId::new())
    }

    /// Makes the files of the environment `to` out of an archive, whoever has made that.
    ///
    /// # Errors
    /// `invalid_input` for one that is not whole, or says or holds what no environment does; `too_large`; `unavailable`
    /// where the disk is full. Nothing is there then.
    pub async fn import<S>(&self, to: EnvId, stream: S) -> Result<Imported>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let inner = self.0.clone();
        // Whoever sends it may go away; what was begun is ended.
        tokio::spawn(async move { inner.import(to, stream.boxed()).await }).await.map_err(Error::internal)?
    }
}

/// How an archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// With gzip.
    Compressed,
}

impl Inner {
    /// The archive of what `index` names and lies in `directory`, or elsewhere; `held` is let go at its end.
    pub(super) fn stream(
        &self,
        env: EnvId,
        index: Index,
        directory: PathBuf,
        held: impl Send + 'static,
        form: Form,
    ) -> ArchiveStream {
        let (send, receive) = mpsc::channel(WAITING);
        let (tell, told) = oneshot::channel();
        let idle = self.limits.idle;
        let (contents, runtime) = (self.contents.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let to = io::BufWriter::with_capacity(CHUNK, Sender { to: send, runtime: runtime.clone(), idle });
            let open = |item: &archive::Item| -> io::Result<Box<dyn Read>> {
                match std::fs::File::open(directory.join(&item.path)) {
                    Ok(file) => return Ok(Box::new(file)),
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Err(_) => {}
                }
                let named = item.named().filter(|_| contents.are_away()).ok_or(io::ErrorKind::NotFound)?;
                let from = runtime.block_on(contents.stored(env, &named)).map_err(io::Error::other)?;
                Ok(Box::new(Stored { runtime: runtime.clone(), from, held: Bytes::new() }))
            };
            let written = match form {
                Form::Plain => archive::write(&index, open, to),
                Form::Compressed => {
                    let mut to = GzEncoder::new(to, Compression::default());
                    archive::write(&index, open, &mut to).and_then(|()| to.finish()?.flush())
                }
            };
            // Before whoever reads is told, for they may begin another then.
            drop(held);
            let _ = tell.send(written);
        });
        // How it has ended comes by another way than what waits, which a reader who takes nothing leaves full.
        futures::stream::unfold(Some((receive, told)), async |from| {
            let (mut from, told) = from?;
            if let Some(bytes) = from.recv().await {
                return Some((Ok(bytes), Some((from, told))));
            }
            match told.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((Err(error), None)),
                Err(gone) => Some((Err(io::Error::other(gone)), None)),
            }
        })
        .boxed()
    }

    /// Everything that goes into an archive, in a directory of its own.
    pub(super) async fn gather(
        &self,
        env: &Env,
        slug: String,
        secrets: Vec<String>,
    ) -> Result<(Index, Staged)> {
        let _turn = self.turn(env.id()).await;
        let staged = Staged::new(self.directory(env.id())).await?;
        let database = staged.path().join(DATABASE);
        let mut quiet = self.databases.quiet(env).await?;
        let at = Timestamp::now();
        let copying = self.databases.begin_copy(env, &mut quiet, &database).await?;
        self.link_files(env.id(), staged.path()).await?;
        quiet.end();
        copying.finish().await?;
        let mut copy = self.databases.open_loose(env.id(), &database).await?;
        let prepared =
            async { Ok::<_, Error>((prepare(&mut copy).await?, self.named(&mut copy).await?)) }.await;
        copy.close().await;
        let ((release, blobs), named) = prepared?;
        // It is read for long after this turn.
        self.pin(staged.path(), &named).await?;
        let here = self.environment(env.id());
        contents::blobs(here.join("blobs"), staged.path().join("blobs"), blobs).await?;
        let directory = staged.path().to_owned();
        let index = blocking(move || Index::of(&directory, &named, at, slug, release, secrets)).await?;
        Ok((index, staged))
    }

    async fn import(&self, to: EnvId, stream: ArchiveStream) -> Result<Imported> {
        let site = Site::new(self.environment(to)).await?;
        let made = self.receive(to, stream, &site).await;
        let imported = match made {
            Ok(imported) => site.become_environment().await.map(|()| imported),
            Err(error) => Err(error),
        };
        if imported.is_err() {
            self.undo(to).await;
        }
        imported
    }

    async fn receive(&self, to: EnvId, stream: ArchiveStream, site: &Site) -> Result<Imported> {
        let incoming = site.path().join("incoming");
        let most = Most { database: self.databases.most_bytes(), bytes: self.limits.archive, files: FILES };
        let index = receive(stream, incoming.clone(), most, Form::Plain).await?;
        let path = site.path().join(DATABASE);
        let rebuilt =
            self.databases.rebuild(to, &incoming.join(DATABASE), &path, Maker::Anybody, Along::Data).await;
        rebuilt.map_err(foreign)?;
        let mut copy = self.databases.open_loose(to, &path).await?;
        let checked = check(&mut copy, &index).await;
        copy.close().await;
        let (release, named) = checked?;
        database::make_servable(to, &path).await?;
        let (files, keys) = (incoming.join("files"), named.iter().map(|it| it.key.clone()).collect());
        blocking(move || only(&files, &keys)).await?;
        self.unpack(&incoming, to, to, site.path(), &named).await?;
        let directory = site.path().to_owned();
        blocking(move || {
            match std::fs::rename(incoming.join("blobs"), directory.join("blobs")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::fs::remove_dir_all(&incoming)
        })
        .await?;
        Ok(Imported { release, secrets: index.secrets })
    }
}

/// Makes a copy of a database one that may leave the platform. Gives the live release, and the blobs that all need.
async fn prepare(copy: &mut Loose) -> Result<(u64, HashSet<BlobHash>)> {
    copy.run("BEGIN IMMEDIATE", &[]).await?;
    copy.keep(|fate| matches!(fate, Fate::Shape | Fate::Data | Fate::People(_))).await?;
    copy.run("DELETE FROM _steading_state WHERE key <> 'release'", &[]).await?;
    copy.run("COMMIT", &[]).await?;
    let current = copy.rows(past::CURRENT).await?;
    let release = current.first().and_then(|row| row.first()?.as_u64()).unwrap_or_default();
    Ok((release, past::needed(copy.rows(past::RELEASES).await?)?))
}

/// Holds what came against what an environment of ours says. Gives the live release, and what the files are.
async fn check(copy: &mut Loose, index: &Index) -> Result<(u64, Vec<Named>)> {
    let bad = |why: String| Error::new(Code::InvalidInput, format!("the archive cannot be taken: {why}"));
    copy.run("DELETE FROM _steading_state WHERE key <> 'release'", &[]).await?;
    let releases = copy.rows(past::RELEASES).await?;
    let numbers: Vec<Option<u64>> = releases.iter().map(|row| row.first()?.as_u64()).collect();
    let state = copy.rows("SELECT value FROM _steading_state").await?;
    copy.run(releases::HOLD, &[]).await?;
    let live = match state.first() {
        None => 0,
        Some(row) => {
            let live = row[0].as_str().and_then(|text| text.parse::<u64>().ok());
            live.filter(|live| numbers.contains(&Some(*live)))
                .ok_or_else(|| bad("its live release is not there".to_owned()))?
        }
    };
    let there: HashSet<(&str, u64)> =
        index.files.iter().map(|item| (item.path.as_str(), item.bytes)).collect();
    for row in releases {
        let number = row.first().and_then(Value::as_i64).unwrap_or_default();
        let needed = past::checked(&row);
        let needed = needed.map_err(|error| bad(format!("release {number}: {}", placed(&error))))?;
        let missing =
            |(hash, size): &(BlobHash, u64)| !there.contains(&(format!("blobs/{hash}").as_str(), *size));
        if let Some((hash, _)) = needed.into_iter().find(missing) {
            let why = format!("the blob {hash} of a release is missing, or has another size than it says");
            return Err(bad(why));
        }
    }
    for row in copy.rows(auth::STORED_USERS).await? {
        let id: String = row.first().and_then(Value::as_str).unwrap_or_default().chars().take(80).collect();
        auth::check_stored(&row).map_err(|error| bad(format!("the user {id:?}: {}", placed(&error))))?;
    }
    for row in copy.rows(storage::STORED).await? {
        let id: String = row.first().and_then(Value::as_str).unwrap_or_default().chars().take(80).collect();
        storage::check_stored(&row).map_err(|error| bad(format!("the file {id:?}: {}", placed(&error))))?;
    }
    let (mut named, came): (Vec<_>, HashSet<Named>) =
        (Vec::new(), index.files.iter().filter_map(archive::Item::named).collect());
    for row in copy.rows(NAMED).await? {
        let file = Named::read(&row).ok_or_else(|| bad("the row of a file names no content".to_owned()))?;
        if !came.contains(&file) {
            return Err(bad("the content of a file is missing, or another than its row says".to_owned()));
        }
        named.push(file);
    }
    Ok((live, named))
}

/// What is wrong, and where.
fn placed(error: &Error) -> String {
    match error.pointer() {
        Some(at) if !at.is_empty() => format!("{at}: {}", error.message()),
        _ => error.message().to_owned(),
    }
}

/// Removes what nobody would ever: contents that came and that no row names.
fn only(files: &Path, keys: &HashSet<String>) -> io::Result<()> {
    for path in entries(files)? {
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| keys.contains(name)) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Takes an archive in.
pub(super) async fn receive(mut stream: ArchiveStream, to: PathBuf, most: Most, form: Form) -> Result<Index> {
    let (send, receive) = mpsc::channel(WAITING);
    let reading = tokio::task::spawn_blocking(move || {
        take(Receiver { from: receive, held: Bytes::new() }, &to, most, form)
    });
    loop {
        let chunk = tokio::select! {
            chunk = stream.next() => chunk,
            // Who reads has ended, and waits for nobody.
            () = send.closed() => break,
        };
        let Some(chunk) = chunk else { break };
        if send.send(chunk).await.is_err() {
            break;
        }
    }
    drop(send);
    reading.await.map_err(Error::internal)?
}

fn take(from: Receiver, to: &Path, most: Most, form: Form) -> Result<Index> {
    std::fs::create_dir(to).map_err(super::disk)?;
    let read = match form {
        Form::Plain => archive::read(from, to, most),
        Form::Compressed => archive::read(GzDecoder::new(from), to, most),
    };
    read.map_err(|refused| match refused {
        Refused::Form(why) => {
            Error::new(Code::InvalidInput, why).hint("send what an export of an environment gave, as it is")
        }
        Refused::TooLarge(_) => Error::new(Code::TooLarge, refused.to_string()),
        Refused::Io(error) if error.kind() == io::ErrorKind::StorageFull => super::disk(error),
        Refused::Io(error) => Error::new(Code::InvalidInput, format!("the archive cannot be read: {error}")),
    })
}

/// What the platform would say of its own database is said of what somebody has sent.
fn foreign(error: database::Error) -> Error {
    use database::Error as Of;
    let why = match error {
        Of::Busy | Of::DiskFull | Of::Disk(_) | Of::Quota { .. } | Of::File(_) | Of::Engine(_) => {
            return error.into();
        }
        Of::Damaged(_) => "it is damaged, or no environment's".to_owned(),
        Of::Newer(_) => "a later version of this program has made it".to_owned(),
        other => other.to_string(),
    };
    Error::new(Code::InvalidInput, format!("the archive's database cannot be taken: {why}"))
}

/// Sends what is written.
struct Sender {
    to: mpsc::Sender<Bytes>,
    runtime: Handle,
    idle: Duration,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sending = self.to.send_timeout(Bytes::copy_from_slice(bytes), self.idle);
        self.runtime.block_on(sending).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => io::ErrorKind::TimedOut,
            SendTimeoutError::Closed(_) => io::ErrorKind::BrokenPipe,
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what is stored elsewhere.
struct Stored {
    runtime: Handle,
    from: FileStream,
    held: Bytes,
}

impl Read for Stored {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() {
            match self.runtime.block_on(self.from.next()) {
                Some(chunk) => self.held = chunk.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let read = self.held.len().min(to.len());
        self.held.copy_to_slice(&mut to[..read]);
        Ok(read)
    }
}

/// Reads what is received.
struct Receiver {
    from: mpsc::Receiver<io::Result<Bytes>>,
    held: Bytes,
}

impl Read for Receiver {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() {
            match self.from.blocking_recv() {
                Some(chunk) => self.held = chunk?,
                None => return Ok(0),
            }
        }
        let read = self.held.len().min(to.len());
        self.held.copy_to_slice(&mut to[..read]);
        Ok(read)
    }
}
