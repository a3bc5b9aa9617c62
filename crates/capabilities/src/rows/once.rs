//! Changes under a key of their sender's: made once, however often they are asked for, and answered alike.

use bytes::Bytes;
use kernel::{Code, Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::App;
use super::batch::{self, Batch};
use super::change::{self, Change};
use super::etag::IfMatch;
use super::given::{changes, new_row};
use super::put::{Put, Target};
use super::service::{Rows, Stored, known};
use super::statement::Statements;
use crate::access::{Guest, Subject};
use crate::database::{Among, Durability, Role, Writer};

/// How long an answer is kept, in microseconds.
const KEPT: i64 = 24 * 60 * 60 * 1_000_000;

/// How many answers are kept, of one user and of all, and how long one may be, in bytes.
const OF_ONE: i64 = 100;
const OF_ALL: i64 = 10_000;
const BYTES: usize = 64 << 10;

/// The longest key, in bytes.
const LONGEST: usize = 255;

/// A change that is asked for.
#[derive(Debug, Clone)]
pub enum Write {
    /// A row is made.
    Create {
        /// In this table.
        table: String,
        /// Of these values.
        row: Map<String, Value>,
    },
    /// Values of a row are changed.
    Update {
        /// In this table.
        table: String,
        /// The row's id.
        id: String,
        /// The values.
        row: Map<String, Value>,
        /// The state that it must be in.
        if_match: Option<IfMatch>,
    },
    /// A row is made, or changed where it is there.
    Put {
        /// In this table.
        table: String,
        /// Which row.
        target: Target,
        /// The values.
        row: Map<String, Value>,
        /// The state that it must be in.
        if_match: Option<IfMatch>,
    },
    /// A row is removed.
    Delete {
        /// From this table.
        table: String,
        /// The row's id.
        id: String,
        /// The state that it must be in.
        if_match: Option<IfMatch>,
    },
    /// Several of these.
    Batch(Batch),
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The row's id; none of a batch, and where there is no row any more.
    pub id: Option<String>,
    /// The row's entity tag.
    pub etag: Option<String>,
    /// The body.
    pub json: Bytes,
}

/// What a sender calls a change, to ask for it again without making it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Reads an `Idempotency-Key`.
    ///
    /// # Errors
    /// `invalid_input` for an empty or a long one.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > LONGEST {
            let message = format!("an Idempotency-Key has 1 to {LONGEST} characters");
            return Err(Error::new(Code::InvalidInput, message).hint("send a new UUID for each change"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    id: Option<String>,
    etag: Option<String>,
    body: String,
}

impl Reply {
    fn row(status: u16, row: Stored) -> Self {
        Self { status, id: Some(row.id), etag: Some(row.etag), json: row.json }
    }

    fn none() -> Self {
        Self { status: 204, id: None, etag: None, json: Bytes::new() }
    }
}

impl Rows {
    /// Makes a change; under a key, the first time only.
    ///
    /// # Errors
    /// As the methods for each; 422 where the key stands for another change.
    pub async fn write(&self, guest: &Guest, write: Write, key: Option<&Key>) -> Result<Reply> {
        if let Some(key) = key {
            return self.once(guest, write, key).await;
        }
        Ok(match write {
            Write::Create { table, row } => Reply::row(201, self.create(guest, &table, row).await?),
            Write::Update { table, id, row, if_match } => {
                Reply::row(200, self.update(guest, &table, &id, row, if_match).await?)
            }
            Write::Put { table, target, row, if_match } => {
                let (row, created) = self.put(guest, &table, &target, row, if_match).await?;
                Reply::row(if created { 201 } else { 200 }, row)
            }
            Write::Delete { table, id, if_match } => {
                self.delete(guest, &table, &id, if_match).await?;
                Reply::none()
            }
            Write::Batch(batch) => {
                Reply { status: 200, id: None, etag: None, json: self.batch(guest, batch).await? }
            }
        })
    }

    /// Makes the change and keeps its answer in one transaction: either both are there, or neither.
    async fn once(&self, guest: &Guest, write: Write, key: &Key) -> Result<Reply> {
        let user = match guest.subject() {
            Subject::User(user) => user.id.to_string(),
            Subject::Service => "service".to_owned(),
            // Whoever else has no session could ask for the answer.
            Subject::Visitor => {
                let message = "an Idempotency-Key is for those who are signed in";
                return Err(Error::new(Code::InvalidInput, message).hint("sign in, or leave the header out"));
            }
        };
        let mut db = self.databases.writer(guest.env()).await?;
        db.at_depth(guest.depth());
        // No release is switched to while we have the turn, so that these are the rules that hold.
        let app = self.app(guest.env()).await?;
        db.begin(Durability::Normal).await?;
        match again(&mut db, guest, &app, write, &user, key).await {
            Ok(reply) => {
                db.commit().await?;
                Ok(reply)
            }
            Err(refusal) => {
                db.rollback().await?;
                Err(refusal)
            }
        }
    }
}

async fn again(
    db: &mut Writer,
    guest: &Guest,
    app: &App,
    write: Write,
    user: &str,
    key: &Key,
) -> Result<Reply> {
    let (digest, now) = (write.digest(), Timestamp::now().as_micros());
    let sql = "SELECT digest, reply FROM _steading_reply WHERE user = ?1 AND key = ?2 AND created_at > ?3";
    let since = now - KEPT;
    let known = db.run(Role::Platform, sql, &[user.into(), key.0.as_str().into(), since.into()]).await?.rows;
    if let Some(row) = known.first() {
        let text = |index: usize| row.get(index).and_then(Value::as_str).unwrap_or_default();
        if text(0) != digest {
            return Err(Error::idempotency_misuse("this Idempotency-Key has been used for another change")
                .hint("send a new key for each change"));
        }
        let kept: Kept = serde_json::from_str(text(1)).map_err(Error::internal)?;
        let Kept { status, id, etag, body } = kept;
        let json = match &write {
            Write::Batch(batch) => batch::told_again(&mut Among(db), guest, app, batch, body).await?,
            _ => body.into(),
        };
        return Ok(Reply { status, id, etag, json });
    }
    let reply = write.make(&mut Among(db), guest, app).await?;
    if reply.json.len() > BYTES {
        let message = format!("an answer of more than {BYTES} bytes is not kept for an Idempotency-Key");
        return Err(
            Error::new(Code::TooLarge, message).hint("leave the key out, or change fewer rows at once")
        );
    }
    let body = String::from_utf8(reply.json.to_vec()).map_err(Error::internal)?;
    let kept = Kept { status: reply.status, id: reply.id.clone(), etag: reply.etag.clone(), body };
    let kept = serde_json::to_string(&kept).map_err(Error::internal)?;
    let sql = "INSERT OR REPLACE INTO _steading_reply (user, key, digest, reply, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = [user.into(), key.0.as_str().into(), digest.into(), kept.into(), now.into()];
    db.run(Role::Platform, sql, &row).await?;
    for (sql, params) in [
        ("DELETE FROM _steading_reply WHERE created_at <= ?1", vec![since.into()]),
        (
            "DELETE FROM _steading_reply WHERE user = ?1 AND created_at <= (SELECT created_at FROM _steading_reply \
             WHERE user = ?1 ORDER BY created_at DESC LIMIT 1 OFFSET ?2)",
            vec![user.into(), OF_ONE.into()],
        ),
        (
            "DELETE FROM _steading_reply WHERE created_at <= (SELECT created_at FROM _steading_reply \
             ORDER BY created_at DESC LIMIT 1 OFFSET ?1)",
            vec![OF_ALL.into()],
        ),
    ] {
        db.run(Role::Platform, sql, &params).await?;
    }
    Ok(reply)
}

impl Write {
    /// What tells this change from any other.
    fn digest(&self) -> String {
        let condition = |if_match: &Option<IfMatch>| json!(if_match.as_ref().map(|it| format!("{it:?}")));
        let text = match self {
            Write::Create { table, row } => json!(["create", table, row]),
            Write::Update { table, id, row, if_match } => {
                json!(["update", table, id, row, condition(if_match)])
            }
            Write::Put { table, target, row, if_match } => {
                json!(["put", table, format!("{target:?}"), row, condition(if_match)])
            }
            Write::Delete { table, id, if_match } => json!(["delete", table, id, condition(if_match)]),
            Write::Batch(batch) => json!(["batch", format!("{batch:?}")]),
        };
        Sha256::digest(text.to_string()).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    }

    async fn make(self, rows: &mut Among<'_>, guest: &Guest, app: &App) -> Result<Reply> {
        let subject = guest.subject();
        let (table, change, status) = match self {
            Write::Create { table, row } => {
                let table = known(app, &table)?;
                (table, Change::create(new_row(table, subject, row)?), 201)
            }
            Write::Update { table, id, row, if_match } => {
                let table = known(app, &table)?;
                (table, Change::Update { id, changes: changes(table, subject, row)?, if_match }, 200)
            }
            Write::Delete { table, id, if_match } => {
                (known(app, &table)?, Change::Delete { id, if_match }, 204)
            }
            Write::Put { table, target, row, if_match } => {
                let put = Put::check(app, guest, &table, &target, row, if_match)?;
                let (row, created) = put.make(rows, guest).await?;
                return Ok(Reply::row(if created { 201 } else { 200 }, row));
            }
            Write::Batch(batch) => {
                let ready = batch::check(&batch, guest, app)?;
                let json = batch::made(rows, guest, &ready).await?;
                return Ok(Reply { status: 200, id: None, etag: None, json });
            }
        };
        let row = change::make(rows, &Statements { table, subject }, &change).await?;
        Ok(match row {
            Some(row) if status != 204 => Reply::row(status, row),
            _ => Reply::none(),
        })
    }
}
