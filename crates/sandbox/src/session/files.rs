//! Files inside. Paths are relative to the home directory, or absolute; the jail bounds what they lead to.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hand::wire::{
    Among, Change, Completeness, Contents, Entry, Existing, FileRequest, Found, Listed, Stdin, TreeCaps,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::work::Work;
use super::{Error, Result, Session};

/// How long work with names may take.
const NAMES: Duration = Duration::from_secs(120);

/// How long work with content may take.
const CONTENT: Duration = Duration::from_secs(3_600);

/// The most bytes of results that are held.
const MAX_HELD: usize = 64 << 20;

/// Work with files of a sandbox. Each call is a process of its own inside, as the user whom commands run as.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    session: &'a Session,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Its permissions, three octal digits; those of the file that was there without, or 0644.
    pub mode: Option<u32>,
    /// Whether there may be one.
    pub existing: Existing,
}

impl Default for Write {
    fn default() -> Self {
        Self { mode: None, existing: Existing::Replace }
    }
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The directory, or the one file.
    pub path: String,
    /// What a file's name, or with a `/` its path below the directory, looks like: a glob as in `.gitignore`.
    pub name: Option<String>,
    /// What a line in it looks like: a regular expression of the crate `regex`.
    pub line: Option<String>,
    /// Which files.
    pub among: Among,
    /// The most results, at most [`hand::wire::MAX_RESULTS`].
    pub limit: u32,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    /// Files or lines, in the order of paths.
    pub found: Vec<Found>,
    /// Whether there is more.
    pub completeness: Completeness,
    /// Files that were looked into.
    pub files: u64,
    /// Files and directories that could not be: too large, no text, or not to be read.
    pub skipped: u64,
}

impl Session {
    /// Work with files.
    #[must_use]
    pub fn files(&self) -> Files<'_> {
        Files { session: self }
    }
}

impl Files<'_> {
    /// Opens a regular file for reading at most `limit` bytes from `offset`.
    ///
    /// # Errors
    /// `NotFound`, `Denied`; `Invalid` where it is a directory, a pipe or a device.
    pub async fn open(&self, path: &str, offset: u64, limit: Option<u64>) -> Result<Content> {
        let request = FileRequest::Read { path: path.to_owned(), offset, limit };
        let mut work = self.begin(request, Stdin::Empty, Some(CONTENT)).await?;
        let entry = work.line().await?.ok_or(Error::Protocol("it does not say what it reads"))?;
        Ok(Content { entry, work })
    }

    /// Reads at most `limit` bytes of a regular file from `offset`, with what is known of the whole file.
    ///
    /// # Errors
    /// As [`Files::open`].
    pub async fn read(&self, path: &str, offset: u64, limit: u32) -> Result<(Entry, Vec<u8>)> {
        let mut content = self.open(path, offset, Some(limit.into())).await?;
        let mut all = Vec::new();
        while let Some(bytes) = content.chunk().await? {
            if all.len() + bytes.len() > limit as usize {
                return Err(Error::Protocol("it reads more than it was asked to"));
            }
            all.extend_from_slice(&bytes);
        }
        Ok((content.entry, all))
    }

    /// Makes a file of the first `size` bytes of `content`, and the directories above it. Whoever reads it sees what was
    /// there before or all of the new.
    ///
    /// # Errors
    /// `Exists`, `Full`, `Denied`; `Invalid` where there is something that is no regular file, or `content` is shorter.
    /// What was there is still there then.
    pub async fn write(
        &self,
        path: &str,
        content: impl AsyncRead + Unpin,
        size: u64,
        how: Write,
    ) -> Result<()> {
        let Write { mode, existing } = how;
        let request = FileRequest::Write { path: path.to_owned(), size, mode, existing };
        let mut work = self.begin(request, Stdin::Stream, Some(CONTENT)).await?;
        let mut stdin = work.stdin();
        let mut content = content.take(size);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match content.read(&mut buffer).await {
                Ok(0) => break,
                // Where it has ended, it says itself why.
                Ok(count) if stdin.write_all(&buffer[..count]).await.is_err() => break,
                Ok(_) => {}
                Err(error) => return Err(Error::Content(error.kind())),
            }
        }
        // Shutting down only sends a frame.
        let _ = stdin.shutdown().await;
        work.end().await
    }

    /// What is in a directory, `depth` directories deep, at most `limit` entries: each directory's in the order of names.
    ///
    /// # Errors
    /// `NotFound`, `Denied`; `Invalid` where it is no directory.
    pub async fn list(&self, path: &str, depth: u32, limit: u32) -> Result<(Vec<Entry>, Completeness)> {
        let request = FileRequest::List { path: path.to_owned(), depth, limit };
        let mut entries = Vec::new();
        let end = self
            .collect(request, |line| match line {
                Listed::Entry(entry) => {
                    let held = entry.path.len() + size_of::<Entry>();
                    entries.push(entry);
                    Line::Held(held)
                }
                Listed::End(completeness) => Line::End(completeness),
            })
            .await?;
        Ok((entries, end))
    }

    /// What is known of a file; a link is not followed.
    ///
    /// # Errors
    /// `NotFound`, `Denied`.
    pub async fn stat(&self, path: &str) -> Result<Entry> {
        self.begin(FileRequest::Stat { path: path.to_owned() }, Stdin::Empty, Some(NAMES))
            .await?
            .only_line()
            .await
    }

    /// Makes a directory and those above it. One that is there is no error.
    ///
    /// # Errors
    /// `Exists` where something else is there; `Denied`, `Full`.
    pub async fn make_directory(&self, path: &str) -> Result<()> {
        self.done(FileRequest::MakeDirectory { path: path.to_owned() }).await
    }

    /// Moves a file or a directory in one step, and makes the directories above its new place.
    ///
    /// # Errors
    /// `NotFound`, `Exists`; `Invalid` where it would be another file system.
    pub async fn rename(&self, from: &str, to: &str, existing: Existing) -> Result<()> {
        self.done(FileRequest::Move { from: from.to_owned(), to: to.to_owned(), existing }).await
    }

    /// Removes a file, a link, or a directory.
    ///
    /// # Errors
    /// `NotFound`, `Denied`; `Exists` where a directory has content that is to stay.
    pub async fn remove(&self, path: &str, contents: Contents) -> Result<()> {
        self.done(FileRequest::Remove { path: path.to_owned(), contents }).await
    }

    /// Searches files by their names, and by their lines.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` where a glob or an expression is none.
    pub async fn search(&self, search: Search) -> Result<Searched> {
        let Search { path, name, line, among, limit } = search;
        let request = FileRequest::Search { path, name, line, among, limit };
        let mut found = Vec::new();
        let (completeness, files, skipped) = self
            .collect(request, |line| match line {
                Found::End { completeness, files, skipped } => Line::End((completeness, files, skipped)),
                Found::File { ref path } | Found::Line { ref path, .. } => {
                    let held = path.len() + size_of::<Found>() + 400;
                    found.push(line);
                    Line::Held(held)
                }
            })
            .await?;
        Ok(Searched { found, completeness, files, skipped })
    }

    /// Opens all files below a directory for reading, in an order that is always the same.
    ///
    /// # Errors
    /// `NotFound`, `Denied`; `Invalid` where it is no directory, for a link or something else that is no file, and for more
    /// than `caps` let through; some of them only with a later file.
    pub async fn tree(&self, path: &str, caps: TreeCaps) -> Result<Tree> {
        let request = FileRequest::Tree { path: path.to_owned(), caps };
        Ok(Tree { work: self.begin(request, Stdin::Empty, Some(CONTENT)).await?, caps })
    }

    /// Begins to watch a directory and all below it, without `.git` and `node_modules`. What changes after this has
    /// returned is told.
    ///
    /// # Errors
    /// `NotFound`, `Denied`; `Invalid` where it is no directory.
    pub async fn watch(&self, path: &str) -> Result<Watch> {
        let mut work = self.begin(FileRequest::Watch { path: path.to_owned() }, Stdin::Empty, None).await?;
        match work.line().await? {
            Some(Change::Watching) => Ok(Watch { work }),
            Some(_) | None => Err(Error::Protocol("it does not say that it watches")),
        }
    }

    async fn begin(&self, request: FileRequest, stdin: Stdin, timeout: Option<Duration>) -> Result<Work> {
        Work::begin(self.session, request, stdin, timeout).await
    }

    async fn done(&self, request: FileRequest) -> Result<()> {
        self.begin(request, Stdin::Empty, Some(NAMES)).await?.end().await
    }

    async fn collect<T: DeserializeOwned, E>(
        &self,
        request: FileRequest,
        mut take: impl FnMut(T) -> Line<E>,
    ) -> Result<E> {
        let mut work = self.begin(request, Stdin::Empty, Some(NAMES)).await?;
        let mut held = 0;
        while let Some(line) = work.line().await? {
            match take(line) {
                Line::Held(bytes) => held += bytes,
                Line::End(end) => {
                    work.end().await?;
                    return Ok(end);
                }
            }
            if held > MAX_HELD {
                return Err(Error::Protocol("it sends more than can be held"));
            }
        }
        Err(Error::Protocol("it does not say that this is all"))
    }
}

/// What became of a line of results.
enum Line<E> {
    /// It is kept, and takes so many bytes.
    Held(usize),
    /// It was the last.
    End(E),
}

/// A file's content on its way out. Dropped it is given up.
#[derive(Debug)]
pub struct Content {
    entry: Entry,
    work: Work,
}

impl Content {
    /// What is known of the whole file.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Where the file could not be read to its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.work.bytes().await
    }
}

/// Files on their way out, with their content. Dropped they are given up.
#[derive(Debug)]
pub struct Tree {
    work: Work,
    /// What may still come.
    caps: TreeCaps,
}

impl Tree {
    /// The next file: its path below the directory, and its content; `None` where there is no more.
    ///
    /// # Errors
    /// As [`Files::tree`].
    pub async fn file(&mut self) -> Result<Option<(String, Bytes)>> {
        let Some(Entry { path, size, .. }) = self.work.line().await? else { return Ok(None) };
        let caps = &mut self.caps;
        let left = (caps.files.checked_sub(1), caps.bytes.checked_sub(size));
        let (Some(files), Some(bytes), true) = (left.0, left.1, size <= caps.file_bytes) else {
            return Err(Error::Protocol("it reads more than it was asked to"));
        };
        (caps.files, caps.bytes) = (files, bytes);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut content = BytesMut::new();
        while content.len() < size {
            match self.work.some(size - content.len()).await? {
                Some(bytes) => content.extend_from_slice(&bytes),
                None => return Err(Error::Protocol("it sends half a file")),
            }
        }
        Ok(Some((path, content.freeze())))
    }
}

/// Changes as they happen. Dropped nothing is watched any more.
#[derive(Debug)]
pub struct Watch {
    work: Work,
}

impl Watch {
    /// The next change.
    ///
    /// # Errors
    /// Where nothing is watched any more, because the sandbox has ended.
    pub async fn change(&mut self) -> Result<Change> {
        self.work.line().await?.ok_or(Error::Closed)
    }
}
