//! Files of a sandbox: read and written as they are, and told of as JSON.

use std::io;

use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use hands::Hand;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use kernel::{Code, Error, Result};
use mcp_server::extract::Query;
use sandbox::session::{
    Among, Change, Completeness, Content, Contents, Entry, Existing, FileKind, Found, Search, Watch, Write,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::io::StreamReader;
use tool::Effect;
use web::body::chunks;

use super::asked::{Answer, Asked};
use super::lines::{self, Source, Still};
use crate::api::unbroken;

/// How many entries are listed where nobody says, and at most.
const USUAL: u32 = 1_000;
const MOST: u32 = 10_000;

/// How deep is listed at most.
const DEEP: u32 = 32;

/// The largest file that is written, in bytes; a workspace's quota is the bound that counts.
const LARGEST: u64 = 16 << 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    path: String,
    #[serde(default)]
    offset: u64,
    limit: Option<u64>,
}

/// A file's bytes, or some of them.
pub async fn read_file(
    asked: Asked,
    Query(Part { path, offset, limit }): Query<Part>,
    headers: HeaderMap,
) -> Answer {
    let work = async {
        let hand = asked.hand().await?;
        let content = hand.files().open(&path, offset, limit).await?;
        Ok((hand, content))
    };
    let (hand, content) = asked.act("sandboxes.read", Effect::Read, work).await?;
    let length = content.entry().size.saturating_sub(offset).min(limit.unwrap_or(u64::MAX));
    let reading =
        Reading { content, left: length, still: Still::new(&asked.api, headers, &asked.caller), _hand: hand };
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        // Never a page of the platform's own.
        (CONTENT_DISPOSITION, "attachment".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Body::from_stream(reading.into_stream())).into_response())
}

/// A file on its way out.
struct Reading {
    content: Content,
    left: u64,
    still: Still,
    _hand: Hand,
}

impl Reading {
    /// As many bytes as were announced. Where the file has become shorter the answer breaks off.
    fn into_stream(self) -> impl futures::Stream<Item = io::Result<Bytes>> {
        stream::try_unfold(self, |mut it| async move {
            while it.left > 0 {
                tokio::select! {
                    biased;
                    () = it.still.time() => it.still.holds().await.map_err(gone)?,
                    chunk = it.content.chunk() => {
                        let chunk = chunk.map_err(|error| gone(error.into()))?;
                        let mut chunk = chunk.ok_or(io::ErrorKind::UnexpectedEof)?;
                        chunk.truncate(usize::try_from(it.left).unwrap_or(usize::MAX));
                        it.left -= chunk.len() as u64;
                        return Ok(Some((chunk, it)));
                    }
                }
            }
            Ok(None)
        })
    }
}

fn gone(error: Error) -> io::Error {
    io::Error::other(error.message().to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    path: String,
    /// Three octal digits.
    mode: Option<String>,
    #[serde(default)]
    existing: Overwriting,
}

/// What becomes of something that is there.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Overwriting {
    #[default]
    Replace,
    Refuse,
}

impl From<Overwriting> for Existing {
    fn from(overwriting: Overwriting) -> Self {
        match overwriting {
            Overwriting::Replace => Self::Replace,
            Overwriting::Refuse => Self::Refuse,
        }
    }
}

/// Makes a file of the body.
pub async fn write(
    asked: Asked,
    Query(Target { path, mode, existing }): Query<Target>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    unbroken(async move {
        let work = async {
            let size =
                headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
            let size = size.filter(|size| *size <= LARGEST).ok_or_else(|| {
                Error::new(Code::InvalidInput, "the length of the file is not known")
                    .hint("send the header Content-Length")
            })?;
            let mode = match mode {
                None => None,
                Some(digits) if digits.len() == 3 => {
                    let mode = u32::from_str_radix(&digits, 8);
                    Some(mode.map_err(|_| Error::invalid("/mode", "a mode is three octal digits"))?)
                }
                Some(_) => return Err(Error::invalid("/mode", "a mode is three octal digits")),
            };
            let hand = asked.hand().await?;
            // A file takes its time: whoever sends its end must still be let in.
            let still = Still::new(&asked.api, headers.clone(), &asked.caller);
            let parts = (chunks(body), size, still);
            let content = stream::try_unfold(parts, |(mut chunks, left, still)| async move {
                let Some(chunk) = chunks.try_next().await.map_err(gone)? else { return Ok(None) };
                let left = left.saturating_sub(chunk.len() as u64);
                if left == 0 {
                    still.holds().await.map_err(gone)?;
                }
                Ok::<_, io::Error>(Some((chunk, (chunks, left, still))))
            });
            let content = StreamReader::new(Box::pin(content));
            let how = Write { mode, existing: existing.into() };
            hand.files().write(&path, content, size, how).await?;
            Ok(json!({ "bytes": size }))
        };
        asked.told("sandboxes.write", Effect::Write, work).await
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doomed {
    path: String,
    #[serde(default)]
    recursive: bool,
}

pub async fn remove(asked: Asked, Query(Doomed { path, recursive }): Query<Doomed>) -> Answer {
    unbroken(async move {
        let contents = if recursive { Contents::Remove } else { Contents::Refuse };
        let work = async {
            let hand = asked.hand().await?;
            Ok(hand.files().remove(&path, contents).await?)
        };
        asked.done("sandboxes.remove", Effect::Destroy, work).await
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    #[serde(default = "home")]
    path: String,
    depth: Option<u32>,
    limit: Option<u32>,
}

/// Where commands begin.
fn home() -> String {
    "/workspace".to_owned()
}

pub async fn list(asked: Asked, Query(Listing { path, depth, limit }): Query<Listing>) -> Answer {
    let work = async {
        let depth = depth.unwrap_or(1);
        if !(1..=DEEP).contains(&depth) {
            return Err(Error::invalid("/depth", format!("{depth} is not from 1 to {DEEP}")));
        }
        let limit = bounded(limit)?;
        let hand = asked.hand().await?;
        let _turn = hand.turn().await?;
        let (entries, completeness) = hand.files().list(&path, depth, limit).await?;
        let entries: Vec<_> = entries.into_iter().map(shown).collect();
        Ok(json!({ "files": entries, "more": completeness == Completeness::More }))
    };
    asked.told("sandboxes.files", Effect::Read, work).await
}

fn bounded(limit: Option<u32>) -> Result<u32> {
    let limit = limit.unwrap_or(USUAL);
    if (1..=MOST).contains(&limit) {
        return Ok(limit);
    }
    Err(Error::invalid("/limit", format!("{limit} is not from 1 to {MOST}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct One {
    #[serde(default = "home")]
    path: String,
}

/// What is known of a file; a link is told of as a link.
pub async fn stat(asked: Asked, Query(One { path }): Query<One>) -> Answer {
    let work = async {
        let hand = asked.hand().await?;
        Ok(shown(hand.files().stat(&path).await?))
    };
    asked.told("sandboxes.stat", Effect::Read, work).await
}

pub async fn make_directory(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (_, input) = asked.input(request).await?;
        let work = async {
            let One { path } = tool::decode(input)?;
            let hand = asked.hand().await?;
            Ok(hand.files().make_directory(&path).await?)
        };
        asked.done("sandboxes.mkdir", Effect::Idempotent, work).await
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Moving {
    from: String,
    to: String,
    #[serde(default)]
    existing: Overwriting,
}

pub async fn rename(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (_, input) = asked.input(request).await?;
        let work = async {
            let Moving { from, to, existing } = tool::decode(input)?;
            let hand = asked.hand().await?;
            Ok(hand.files().rename(&from, &to, existing.into()).await?)
        };
        asked.done("sandboxes.move", Effect::Write, work).await
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default = "home")]
    path: String,
    name: Option<String>,
    line: Option<String>,
    /// Also what `.gitignore` names.
    #[serde(default)]
    all: bool,
    limit: Option<u32>,
}

/// Files by their names, or lines of them.
pub async fn search(mut asked: Asked, request: Request) -> Answer {
    let (_, input) = asked.input(request).await?;
    let work = async {
        let Wanted { path, name, line, all, limit } = tool::decode(input)?;
        let among = if all { Among::All } else { Among::Tracked };
        let search = Search { path, name, line, among, limit: bounded(limit)? };
        let hand = asked.hand().await?;
        let _turn = hand.turn().await?;
        let searched = hand.files().search(search).await?;
        let found: Vec<_> = searched
            .found
            .into_iter()
            .filter_map(|found| match found {
                Found::File { path } => Some(json!({ "path": path })),
                Found::Line { path, number, text } => {
                    Some(json!({ "path": path, "line": number, "text": text }))
                }
                Found::End { .. } => None,
            })
            .collect();
        Ok(json!({
            "found": found, "more": searched.completeness == Completeness::More,
            "files": searched.files, "skipped": searched.skipped,
        }))
    };
    asked.told("sandboxes.search", Effect::Read, work).await
}

/// Changes below a directory, as they happen.
pub async fn watch(asked: Asked, Query(One { path }): Query<One>, headers: HeaderMap) -> Answer {
    let work = async {
        let hand = asked.hand().await?;
        let watch = hand.files().watch(&path).await?;
        Ok(Watching { watch: Some(watch), begun: false, _hand: hand })
    };
    let watching = asked.act("sandboxes.watch", Effect::Read, work).await?;
    Ok(lines::answer(watching, Still::new(&asked.api, headers, &asked.caller)))
}

/// A directory that is told of.
struct Watching {
    watch: Option<Watch>,
    begun: bool,
    _hand: Hand,
}

impl Source for Watching {
    async fn next(&mut self) -> Option<Value> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(json!({ "type": "watching" }));
        }
        let change = self.watch.as_mut()?.change().await;
        Some(match change {
            Ok(Change::Watching) => json!({ "type": "watching" }),
            Ok(Change::Created(path)) => json!({ "type": "created", "path": path }),
            Ok(Change::Modified(path)) => json!({ "type": "modified", "path": path }),
            Ok(Change::Removed(path)) => json!({ "type": "removed", "path": path }),
            Ok(Change::Everything) => json!({ "type": "everything" }),
            Err(error) => {
                self.watch = None;
                lines::failed(&error.into())
            }
        })
    }
}

fn shown(entry: Entry) -> Value {
    let Entry { path, kind, size, modified_ms, mode, target } = entry;
    let kind = match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Link => "link",
        FileKind::Other => "other",
    };
    let mut body = json!({
        "path": path, "kind": kind, "size": size, "modified_ms": modified_ms, "mode": format!("{mode:03o}"),
    });
    if let Some(target) = target {
        body["target"] = target.into();
    }
    body
}
