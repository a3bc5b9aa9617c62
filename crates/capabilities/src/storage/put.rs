//! A file that is made or replaced: asked for first, written next to what is there, put in its place last.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use kernel::{Code, Error, Result};
use serde_json::{Map, Value};

use super::contents::{Most, Written};
use super::object::{self, Object, Standing};
use super::quota::Flight;
use super::{Bucket, Desk, Inner, Storage, known, media, quota, statements, whole};
use crate::access::{Guest, Operation, Source, Sql};
use crate::database::{Durability, Role, Writer};
use crate::hosting::SitePath;
use crate::rows::{IfMatch, new_id};

/// The longest metadata of a file, as JSON in bytes.
const METADATA: usize = 4_096;

/// A file that is to be stored.
#[derive(Debug, Clone, Default)]
pub struct Put {
    /// The bucket.
    pub bucket: String,
    /// Where in the bucket.
    pub path: String,
    /// What it is said to be; by the path's extension where nothing is said.
    pub content_type: Option<String>,
    /// How many bytes are announced.
    pub length: Option<u64>,
    /// What is noted about it; what was noted stays where nothing is.
    pub metadata: Option<Map<String, Value>>,
    /// Which state the place must be in.
    pub condition: Condition,
    /// At most so many bytes, where that is less than the bucket allows.
    pub most: Option<u64>,
}

/// Which state of a place a change is meant for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// Any.
    #[default]
    Any,
    /// Nothing is there (`If-None-Match: *`).
    Absent,
    /// A file with one of these tags is there (`If-Match`).
    Match(IfMatch),
}

/// A file that was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The file.
    pub object: Object,
    /// Whether there was none before.
    pub created: bool,
}

/// A file that is to be stored, everything checked that can be before its bytes come.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub guest: Guest,
    pub bucket: String,
    pub path: String,
    pub content_type: String,
    pub metadata: Option<Map<String, Value>>,
    pub condition: Condition,
    /// The unfinished upload that it comes from, which is finished with it.
    pub upload: Option<String>,
}

impl Storage {
    /// Makes or replaces a file with what `body` brings.
    ///
    /// # Errors
    /// `invalid_input` for the path, the content type or bytes of another type; `not_found` for the bucket;
    /// `forbidden` where the rules refuse; 412 where the condition does not hold; `too_large` and `quota_exceeded`
    /// with the numbers, as soon as they are passed. Nothing has changed then.
    pub async fn put<S>(&self, guest: &Guest, put: Put, body: S) -> Result<Placed>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let (length, most) = (put.length, put.most.unwrap_or(u64::MAX));
        let (checked, bucket) = self.0.check(guest, put).await?;
        let room = self.0.ask_first(&checked, &bucket, length).await?;
        let env = guest.env().id();
        let mut flight = Flight::new(&self.0.coming, env, room.bytes, self.0.most(env).await);
        let largest = bucket.max_size.min(most);
        let most = if largest <= room.bytes {
            Most { bytes: largest, beyond: quota::too_large(&bucket.name, largest) }
        } else {
            room
        };
        if length.is_some_and(|length| length > most.bytes) {
            return Err(most.beyond);
        }
        let body = body.map(|chunk| flight.add(chunk?));
        let written = self.0.contents.write(env, body, most, &checked.content_type).await?;
        self.place(checked, written).await
    }

    /// Gives written bytes their place; they are discarded where they do not get it.
    pub(super) async fn place(&self, checked: Checked, written: Written) -> Result<Placed> {
        let inner = std::sync::Arc::clone(&self.0);
        whole(async move {
            let env = checked.guest.env().id();
            let placed = inner.commit(&checked, &written).await;
            match placed {
                Ok((placed, before)) => {
                    if let Some(before) = before {
                        inner.contents.discard(env, &before.content).await;
                    }
                    Ok(placed)
                }
                Err(refusal) => {
                    inner.contents.discard(env, &written.key).await;
                    Err(refusal)
                }
            }
        })
        .await
    }
}

impl Inner {
    /// Checks what is said of a file that is to be stored.
    pub(super) async fn check(&self, guest: &Guest, put: Put) -> Result<(Checked, std::sync::Arc<Bucket>)> {
        let bucket = self.bucket(guest.env(), &put.bucket).await?;
        let path = path(&put.path, "/path")?;
        let content_type = media::declared(put.content_type.as_deref(), &path)?;
        bucket.admit(&content_type)?;
        if put.metadata.as_ref().is_some_and(|it| Value::Object(it.clone()).to_string().len() > METADATA) {
            let message = format!("the metadata is longer than {METADATA} bytes");
            return Err(Error::invalid("/metadata", message).hint("keep rows about files in a table"));
        }
        let checked = Checked {
            guest: guest.clone(),
            bucket: bucket.name.clone(),
            path,
            content_type,
            metadata: put.metadata,
            condition: put.condition,
            upload: None,
        };
        Ok((checked, bucket))
    }

    /// Refuses before any byte comes what would be refused after the last: by the rules and the condition, as things
    /// are. How much room there is for the file.
    pub(super) async fn ask_first(
        &self,
        checked: &Checked,
        bucket: &Bucket,
        length: Option<u64>,
    ) -> Result<Most> {
        let env = checked.guest.env();
        let mut desk = Desk::Reader(&self.databases, env);
        let given = checked.given(length.unwrap_or_default());
        let standing = checked.standing(&mut desk, bucket, &given).await?;
        let replaced = standing.object.as_ref().map_or(0, |object| object.size);
        // A rule that asks for a size nobody has told is asked when the size is known.
        let asks_size = |operation| {
            let rule = bucket.table.access.of(operation);
            rule.is_some_and(|rule| {
                rule.columns().iter().any(|column| column.of == Source::New && column.name == "size")
            })
        };
        let unknown = length.is_none() && [Operation::Create, Operation::Update].into_iter().any(asks_size);
        if !unknown {
            standing.permit(bucket)?;
        }
        checked.hold(standing.object.as_ref().filter(|_| standing.visible))?;
        let used = used(&mut desk).await?.saturating_sub(replaced);
        let most = self.most(checked.guest.env().id()).await;
        Ok(Most { bytes: most.saturating_sub(used), beyond: quota::used_up(used, most) })
    }

    /// Makes the row; the object as it is, and as it was.
    async fn commit(&self, checked: &Checked, written: &Written) -> Result<(Placed, Option<Object>)> {
        let mut db = self.databases.writer(checked.guest.env()).await?;
        db.at_depth(checked.guest.depth());
        // After a power cut the row must not name bytes that are gone.
        db.begin(Durability::Full).await?;
        match self.make(&mut db, checked, written).await {
            Ok(done) => {
                db.commit().await?;
                Ok(done)
            }
            Err(refusal) => {
                db.rollback().await?;
                Err(refusal)
            }
        }
    }

    async fn make(
        &self,
        db: &mut Writer,
        checked: &Checked,
        written: &Written,
    ) -> Result<(Placed, Option<Object>)> {
        // No release is switched to while we have the turn, so that these are the rules that hold.
        let bucket = known(&*self.live.app(checked.guest.env()).await?, &checked.bucket)?;
        bucket.admit(&checked.content_type)?;
        if written.size > bucket.max_size {
            return Err(quota::too_large(&bucket.name, bucket.max_size));
        }
        let mut given = checked.given(written.size);
        let standing = checked.standing(&mut Desk::Turn(db), &bucket, &given).await?;
        standing.permit(&bucket)?;
        given.insert("etag".to_owned(), format!("\"{}\"", written.sha256).into());
        given.insert("content".to_owned(), written.key.as_str().into());
        let statements = statements(&bucket, &checked.guest);
        let sql = match &standing.object {
            Some(before) => statements.update(&before.id, &given),
            None => statements.create(&new_id(), &object::owned(given, checked.guest.subject())),
        };
        let rows = Desk::Turn(db).ask(sql).await?;
        let object = rows.first().map(|row| Object::read(row)).ok_or_else(|| standing.refusal(&bucket))?;
        checked.hold(standing.object.as_ref())?;
        if let Some(upload) = &checked.upload {
            let done = "UPDATE _steading_upload SET done = 1 WHERE id = ?1 AND done = 0";
            if db.run(Role::Platform, done, &[upload.as_str().into()]).await?.changed == 0 {
                return Err(Error::not_found("such upload (any more)"));
            }
        }
        let used = used(&mut Desk::Turn(db)).await?;
        let most = self.most(checked.guest.env().id()).await;
        if used > most {
            return Err(quota::used_up(used.saturating_sub(written.size), most));
        }
        Ok((Placed { object, created: standing.object.is_none() }, standing.object))
    }
}

impl Checked {
    fn given(&self, size: u64) -> Map<String, Value> {
        let mut given = object::given(&self.bucket, &self.path, &self.content_type, self.metadata.as_ref());
        given.insert("size".to_owned(), size.into());
        given
    }

    async fn standing(
        &self,
        desk: &mut Desk<'_>,
        bucket: &Bucket,
        given: &Map<String, Value>,
    ) -> Result<Standing> {
        Standing::ask(desk, bucket, &self.guest, &self.path, given).await
    }

    /// What comes last: a condition counts only where all else would go well (RFC 9110 §13.2.1).
    fn hold(&self, object: Option<&Object>) -> Result<()> {
        self.condition.hold(object)
    }
}

impl Condition {
    /// Refuses where the place of `object` is in another state.
    pub(super) fn hold(&self, object: Option<&Object>) -> Result<()> {
        let holds = match (self, object) {
            (Condition::Any, _) | (Condition::Absent, None) => true,
            (Condition::Match(tags), Some(object)) => tags.holds(&object.etag),
            (Condition::Absent, Some(_)) | (Condition::Match(_), None) => false,
        };
        if holds {
            return Ok(());
        }
        Err(match self {
            Condition::Absent => {
                Error::precondition("there is a file at this path already").field("/if_none_match")
            }
            _ => Error::precondition("the file has changed since it was read").field("/if_match"),
        }
        .hint("read it again, and send its new etag"))
    }
}

impl Standing {
    /// What is at a path, and what `guest` may do there with a file that has the values `given`.
    pub(super) async fn ask(
        desk: &mut Desk<'_>,
        bucket: &Bucket,
        guest: &Guest,
        path: &str,
        given: &Map<String, Value>,
    ) -> Result<Self> {
        let statements = statements(bucket, guest);
        let owned = object::owned(given.clone(), guest.subject());
        let found = desk.ask(object::standing(&statements, &bucket.name, path, given, &owned)).await?;
        if let Some(row) = found.first() {
            return Ok(Self::there(row));
        }
        let asked = desk.ask(object::creating(&statements, &owned)).await?;
        Ok(Self::absent(asked.first().map(Vec::as_slice).unwrap_or_default()))
    }

    /// Refuses where the file may neither be made nor replaced.
    pub(super) fn permit(&self, bucket: &Bucket) -> Result<()> {
        let may = match self.object {
            Some(_) => self.visible && self.may_change,
            None => self.may_create,
        };
        if may { Ok(()) } else { Err(self.refusal(bucket)) }
    }

    /// What is said where a file is not stored. Who may not make one at this path is not told whether one is there.
    pub(super) fn refusal(&self, bucket: &Bucket) -> Error {
        match (&self.object, self.visible) {
            (Some(_), true) => refused(bucket, Operation::Update),
            (Some(_), false) if self.may_create => taken(),
            (Some(_), false) | (None, _) => refused(bucket, Operation::Create),
        }
    }
}

/// There is a file that the rules hide, where one might be made.
pub(super) fn taken() -> Error {
    Error::new(Code::Conflict, "this path is taken").field("/path").hint("choose another path")
}

pub(super) fn refused(bucket: &Bucket, operation: Operation) -> Error {
    Error::new(Code::Forbidden, format!("the rules of {} do not allow this {operation}", bucket.name))
}

/// A path in the form that files have; `at` is where it was given.
pub(super) fn path(text: &str, at: &str) -> Result<String> {
    let path = text.parse::<SitePath>();
    path.map(String::from).map_err(|why| {
        Error::invalid(at, format!("this is no path of a file: {why}"))
            .hint("write it like albums/2026/cat.png")
    })
}

/// Reads every file's row, for [`check_stored`].
pub(crate) const STORED: &str = "SELECT id, bucket, path, content_type, metadata FROM _steading_object";

/// Refuses a row that no file of ours has.
///
/// # Errors
/// What is wrong with it, at the column.
pub(crate) fn check_stored(row: &[Value]) -> Result<()> {
    let text = |at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default();
    let is_kept = |column: &str, kept: bool| match kept {
        true => Ok(()),
        false => Err(Error::invalid(format!("/{column}"), "this is not written as it is kept")),
    };
    let bucket = super::BucketName::try_from(text(1).to_owned());
    bucket.map_err(|why| Error::invalid("/bucket", why.to_string()))?;
    is_kept("path", path(text(2), "/path")? == text(2))?;
    is_kept("content_type", media::declared(Some(text(3)), text(2))? == text(3))?;
    is_kept("metadata", serde_json::from_str::<Map<String, Value>>(text(4)).is_ok())
}

/// How many bytes the environment's files have.
pub(super) async fn used(desk: &mut Desk<'_>) -> Result<u64> {
    let sql = Sql { text: quota::USED.to_owned(), params: Vec::new() };
    let rows = desk.ask(sql).await?;
    // What cannot be summed up leaves no room.
    Ok(rows.first().and_then(|row| row.first()?.as_u64()).unwrap_or(u64::MAX))
}
