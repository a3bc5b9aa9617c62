//! Uploads that go on where they broke off: bytes are gathered beside the files, and become one with the last of them.

use std::time::Duration;

use futures::StreamExt as _;
use kernel::{Code, Env, Error, Result, Timestamp};
use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::contents::{FileStream, Most};
use super::put::{Checked, Condition, Put};
use super::quota::Flight;
use super::staging::{Staged, Turn};
use super::{Desk, Inner, Storage, media, object, put, quota, whole};
use crate::access::{Guest, Subject};
use crate::database::{Durability, Role};

/// How long an upload is kept after its last bytes.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// An upload.
#[derive(Debug, Clone, PartialEq)]
pub struct Upload {
    /// Its id, which only its maker is told.
    pub id: String,
    /// The bucket that the file is for.
    pub bucket: String,
    /// The path that the file is for.
    pub path: String,
    /// How many bytes the file has.
    pub length: u64,
    /// How many of them are here.
    pub offset: u64,
    /// What its maker said of it, as it was said.
    pub noted: String,
    /// Until when it is kept.
    pub expires_at: Timestamp,
    /// Whether the file is in its place.
    pub done: bool,
    /// The tag of the file that has just got its place.
    pub etag: Option<String>,
}

impl Upload {
    /// Where its file answers, on the app's host.
    #[must_use]
    pub fn address(&self) -> String {
        object::address(&self.bucket, &self.path)
    }
}

/// What bytes must come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// Their SHA-1.
    Sha1(Vec<u8>),
    /// Their SHA-256.
    Sha256(Vec<u8>),
}

/// What has come of bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Appended {
    /// They are kept.
    Kept(Upload),
    /// They are others than their checksum says, and are not kept.
    Mismatch,
}

/// A row of uploads, and what its file is to be.
struct Row {
    upload: Upload,
    content_type: String,
    metadata: Option<Map<String, Value>>,
}

impl Storage {
    /// Begins an upload of `put.length` bytes. The rules are asked now, and again with the last bytes.
    ///
    /// # Errors
    /// As [`Storage::put`]; `quota_exceeded` also for too many uploads that are not finished.
    pub async fn begin_upload(&self, guest: &Guest, put: Put, noted: String) -> Result<Upload> {
        let length = put.length.unwrap_or_default();
        let (checked, bucket) = self.0.check(guest, put).await?;
        let room = self.0.ask_first(&checked, &bucket, Some(length)).await?;
        if length > bucket.max_size {
            return Err(quota::too_large(&bucket.name, bucket.max_size));
        }
        if length > room.bytes {
            return Err(room.beyond);
        }
        let id = Uuid::new_v4().simple().to_string();
        let upload = Upload {
            id,
            bucket: checked.bucket,
            path: checked.path,
            length,
            offset: 0,
            noted,
            expires_at: Timestamp::now().plus(LIFE),
            done: false,
            etag: None,
        };
        let staged = self.0.staging.of(guest.env().id(), &upload.id);
        staged.make().await?;
        let metadata = checked.metadata.map(|it| Value::Object(it).to_string());
        let row = [
            json!(upload.id),
            json!(owner(guest)),
            json!(upload.bucket),
            json!(upload.path),
            json!(upload.length),
            json!(checked.content_type),
            json!(metadata),
            json!(upload.noted),
            json!(upload.expires_at.as_micros()),
        ];
        if let Err(refusal) = self.0.insert(guest, &row).await {
            staged.remove().await;
            return Err(refusal);
        }
        if length > 0 {
            return Ok(upload);
        }
        self.upload(guest, &upload.id).await
    }

    /// The upload as it is. Bytes that are on their way are cut off; where all are here, the file gets its place.
    ///
    /// # Errors
    /// `not_found` where there is none of `guest`; as [`Storage::put`] where the file gets no place.
    pub async fn upload(&self, guest: &Guest, id: &str) -> Result<Upload> {
        let (storage, guest, id) = (self.clone(), guest.clone(), id.to_owned());
        whole(async move {
            let (turn, mut row) = storage.0.row(&guest, &id).await?;
            if row.upload.done {
                return Ok(row.upload);
            }
            row.upload.offset = turn.staged().length().await?;
            storage.settle_upload(&guest, row, turn).await
        })
        .await
    }

    /// Adds bytes behind the `offset` that are here; with the last of them the file gets its place. What came before
    /// `body` broke off is kept, unless there is a checksum.
    ///
    /// # Errors
    /// As [`Storage::upload`]; `conflict` at another offset; `too_large` for more bytes than were announced.
    pub async fn append(
        &self,
        guest: &Guest,
        id: &str,
        offset: u64,
        checksum: Option<Checksum>,
        body: FileStream,
    ) -> Result<Appended> {
        let (storage, guest, id) = (self.clone(), guest.clone(), id.to_owned());
        // To its end also where the client goes away: what is half written would mix with what comes next.
        whole(async move {
            let (turn, mut row) = storage.0.row(&guest, &id).await?;
            let here = if row.upload.done { row.upload.length } else { turn.staged().length().await? };
            if offset != here {
                let message = format!("{here} bytes of the upload are here, not {offset}");
                return Err(Error::new(Code::Conflict, message)
                    .field("/upload_offset")
                    .hint("ask with HEAD where to go on"));
            }
            if row.upload.done {
                return Ok(Appended::Kept(row.upload));
            }
            let most = row.upload.length - offset;
            let used = put::used(&mut Desk::Reader(&storage.0.databases, guest.env())).await?;
            let all = storage.0.most(guest.env().id()).await;
            quota::room(used, most, all)?;
            let left = all.saturating_sub(used);
            let mut flight = Flight::new(&storage.0.coming, guest.env().id(), left, all);
            let body = body.map(move |chunk| flight.add(chunk?)).boxed();
            let received = storage.0.receive(&turn, offset, most, checksum, body).await;
            // What has come takes room, also where it broke off.
            row.upload.offset = turn.staged().length().await?;
            storage.0.renew(&guest, &mut row.upload).await?;
            if !received? {
                return Ok(Appended::Mismatch);
            }
            storage.settle_upload(&guest, row, turn).await.map(Appended::Kept)
        })
        .await
    }

    /// Removes an upload with its bytes; a file that is in its place stays.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn end_upload(&self, guest: &Guest, id: &str) -> Result<()> {
        let (storage, guest, id) = (self.clone(), guest.clone(), id.to_owned());
        whole(async move {
            let (turn, _) = storage.0.row(&guest, &id).await?;
            storage.0.drop_upload(guest.env(), turn.staged(), &id).await
        })
        .await
    }

    /// Puts the file in its place where all bytes are here. An upload whose file is refused for good is removed.
    async fn settle_upload(&self, guest: &Guest, row: Row, turn: Turn) -> Result<Upload> {
        let Row { mut upload, content_type, metadata } = row;
        let (env, staged) = (guest.env(), turn.staged());
        let placed = async {
            if upload.offset >= media::HEAD as u64 || upload.offset == upload.length {
                media::agree(&content_type, &staged.head(media::HEAD).await?)?;
            }
            if upload.offset < upload.length {
                return Ok(None);
            }
            let most = Most { bytes: upload.length, beyond: Error::internal("an upload grew after its end") };
            let bytes = ReaderStream::with_capacity(staged.open().await?, 256 << 10)
                .map(|chunk| chunk.map_err(Error::internal));
            let written = self.0.contents.write(env.id(), bytes, most, &content_type).await?;
            let checked = Checked {
                guest: guest.clone(),
                bucket: upload.bucket.clone(),
                path: upload.path.clone(),
                content_type: content_type.clone(),
                metadata,
                condition: Condition::Any,
                upload: Some(upload.id.clone()),
            };
            self.place(checked, written).await.map(|placed| Some(placed.object.etag))
        }
        .await;
        match placed {
            Ok(etag) => {
                upload.done = etag.is_some();
                upload.etag = etag;
                if upload.done {
                    staged.remove().await;
                }
                Ok(upload)
            }
            Err(refusal) => {
                // What is our own fault, or passes, can be tried again.
                if !matches!(refusal.code(), Code::Internal | Code::Unavailable | Code::Timeout) {
                    self.0.drop_upload(env, staged, &upload.id).await?;
                }
                Err(refusal)
            }
        }
    }
}

impl Inner {
    /// The upload of `guest`, when it is this caller's turn.
    async fn row(&self, guest: &Guest, id: &str) -> Result<(Turn, Row)> {
        let nothing = || Error::not_found("such upload (any more)");
        let is_ours = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        if !is_ours {
            return Err(nothing());
        }
        // Who has none gets no turn, which would cut off somebody else's.
        self.find(guest, id).await?.ok_or_else(nothing)?;
        let turn = self.staging.turn(guest.env().id(), id).await?;
        let row = self.find(guest, id).await?.ok_or_else(nothing)?;
        Ok((turn, row))
    }

    async fn find(&self, guest: &Guest, id: &str) -> Result<Option<Row>> {
        let sql = "SELECT bucket, path, length, content_type, metadata, noted, done, expires_at \
                   FROM _steading_upload WHERE id = ?1 AND owner IS ?2 AND expires_at > ?3";
        let params = [json!(id), json!(owner(guest)), json!(Timestamp::now().as_micros())];
        let rows = self.databases.platform_query(guest.env(), sql, &params).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let text = |at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |at: usize| row.get(at).and_then(Value::as_i64).unwrap_or_default();
        let (length, done) = (u64::try_from(number(2)).unwrap_or_default(), number(6) != 0);
        let upload = Upload {
            id: id.to_owned(),
            bucket: text(0),
            path: text(1),
            length,
            offset: if done { length } else { 0 },
            noted: text(5),
            expires_at: Timestamp::from_micros(number(7)),
            done,
            etag: None,
        };
        Ok(Some(Row { upload, content_type: text(3), metadata: serde_json::from_str(&text(4)).ok() }))
    }

    async fn insert(&self, guest: &Guest, row: &[Value]) -> Result<()> {
        let mut db = self.databases.writer(guest.env()).await?;
        db.begin(Durability::Normal).await?;
        let inserted = async {
            let gone = self.enter(&mut db, guest, row).await?;
            let used = put::used(&mut Desk::Turn(&mut db)).await?;
            let length = row.get(4).and_then(Value::as_u64).unwrap_or_default();
            quota::room(used, length, self.most(guest.env().id()).await)?;
            Ok(gone)
        }
        .await;
        match inserted {
            Ok(gone) => {
                db.commit().await?;
                for id in gone {
                    self.staging.of(guest.env().id(), &id).remove().await;
                }
                Ok(())
            }
            Err(refusal) => {
                db.rollback().await?;
                Err(refusal)
            }
        }
    }

    /// Writes what `body` brings behind the `offset` bytes that are staged; whether it is what its checksum says.
    async fn receive(
        &self,
        turn: &Turn,
        offset: u64,
        most: u64,
        checksum: Option<Checksum>,
        mut body: FileStream,
    ) -> Result<bool> {
        let mut writing = turn.staged().write(offset, checksum.is_some()).await?;
        let (mut sha1, mut sha256, mut received) = (Sha1::new(), Sha256::new(), 0_u64);
        let outcome = loop {
            let chunk = tokio::select! {
                chunk = body.next() => chunk,
                () = turn.cancelled() => {
                    break Err(Error::new(Code::Conflict, "the upload goes on with another request"));
                }
            };
            let chunk = match chunk {
                None => break Ok(()),
                Some(Err(broken)) => break Err(broken),
                Some(Ok(chunk)) => chunk,
            };
            received += chunk.len() as u64;
            if received > most {
                let message = format!("the upload has {most} bytes left, and these are more");
                break Err(Error::new(Code::TooLarge, message).field("/upload_length"));
            }
            match &checksum {
                Some(Checksum::Sha1(_)) => sha1.update(&chunk),
                Some(Checksum::Sha256(_)) => sha256.update(&chunk),
                None => {}
            }
            if let Err(error) = writing.add(&chunk).await {
                break Err(error);
            }
        };
        let fits = match &checksum {
            Some(Checksum::Sha1(expected)) => sha1.finalize().as_slice() == expected.as_slice(),
            Some(Checksum::Sha256(expected)) => sha256.finalize().as_slice() == expected.as_slice(),
            None => true,
        };
        let too_much = received > most;
        if too_much || (checksum.is_some() && (outcome.is_err() || !fits)) {
            writing.undo().await?;
        } else {
            writing.keep().await?;
        }
        outcome.map(|()| fits)
    }

    async fn renew(&self, guest: &Guest, upload: &mut Upload) -> Result<()> {
        upload.expires_at = Timestamp::now().plus(LIFE);
        let sql = "UPDATE _steading_upload SET expires_at = ?2, received = ?3 WHERE id = ?1";
        let params = [json!(upload.id), json!(upload.expires_at.as_micros()), json!(upload.offset)];
        self.change(guest.env(), sql, &params).await
    }

    async fn drop_upload(&self, env: &Env, staged: &Staged, id: &str) -> Result<()> {
        staged.remove().await;
        self.change(env, "DELETE FROM _steading_upload WHERE id = ?1", &[json!(id)]).await
    }

    /// Runs one statement of ours as a transaction of its own.
    pub(super) async fn change(&self, env: &Env, sql: &str, params: &[Value]) -> Result<()> {
        let mut db = self.databases.writer(env).await?;
        db.begin(Durability::Normal).await?;
        match db.run(Role::Platform, sql, params).await {
            Ok(_) => Ok(db.commit().await?),
            Err(error) => {
                db.rollback().await?;
                Err(error.into())
            }
        }
    }
}

/// Whose uploads are whose: a visitor's are those of whoever knows their id.
pub(super) fn owner(guest: &Guest) -> Option<String> {
    match guest.subject() {
        Subject::Service => Some("service".to_owned()),
        subject => subject.uid(),
    }
}
