//! Files that get another path, or are made once more.

use std::sync::Arc;

use kernel::Result;
use serde_json::Map;

use super::object::{self, Object, Standing};
use super::put::{refused, taken, used};
use super::{Desk, Inner, Storage, hidden, known, put, quota, statements, whole};
use crate::access::{Guest, Operation};
use crate::database::{Durability, Writer};
use crate::rows::new_id;

impl Storage {
    /// Gives a file another path in its bucket, where nothing is. Both the update of the file and the making of one at
    /// the other path must be allowed.
    ///
    /// # Errors
    /// `not_found` where it is hidden, `forbidden` where the rules refuse, `conflict` where something is there.
    pub async fn rename(&self, guest: &Guest, bucket: &str, path: &str, to: &str) -> Result<Object> {
        let (path, to) = (put::path(path, "/path")?, put::path(to, "/to")?);
        let (inner, guest, bucket) = (Arc::clone(&self.0), guest.clone(), bucket.to_owned());
        whole(async move {
            let mut db = inner.databases.writer(guest.env()).await?;
            db.at_depth(guest.depth());
            db.begin(Durability::Full).await?;
            let moved = inner.shift(&mut db, &guest, &bucket, &path, &to).await;
            inner.settle(db, moved).await
        })
        .await
    }

    /// Makes a file of the same content at another path of the bucket, where nothing is.
    ///
    /// # Errors
    /// As [`Storage::rename`]; `quota_exceeded`.
    pub async fn copy(&self, guest: &Guest, bucket: &str, path: &str, to: &str) -> Result<Object> {
        let to = put::path(to, "/to")?;
        let from = self.get(guest, bucket, path).await?;
        let (inner, guest) = (Arc::clone(&self.0), guest.clone());
        whole(async move {
            let env = guest.env().id();
            let known = inner.bucket(guest.env(), &from.bucket).await?;
            let given = like(&from, &to);
            let mut desk = Desk::Reader(&inner.databases, guest.env());
            vacant(&Standing::ask(&mut desk, &known, &guest, &to, &given).await?, &known)?;
            let content = inner.contents.copy(env, &from.content).await?;
            let mut db = inner.databases.writer(guest.env()).await?;
            db.at_depth(guest.depth());
            db.begin(Durability::Full).await?;
            let made = inner.duplicate(&mut db, &guest, &from, &to, &content).await;
            let made = inner.settle(db, made).await;
            if made.is_err() {
                inner.contents.discard(env, &content).await;
            }
            made
        })
        .await
    }
}

impl Inner {
    async fn settle<T>(&self, mut db: Writer, done: Result<T>) -> Result<T> {
        match done {
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

    async fn shift(
        &self,
        db: &mut Writer,
        guest: &Guest,
        bucket: &str,
        path: &str,
        to: &str,
    ) -> Result<Object> {
        let bucket = known(&*self.live.app(guest.env()).await?, bucket)?;
        let statements = statements(&bucket, guest);
        let mut desk = Desk::Turn(db);
        let found = desk.ask(object::get(&statements, &bucket.name, path)).await?;
        let from = found.first().map(|row| Object::read(row)).ok_or_else(hidden)?;
        if path == to {
            return Ok(from);
        }
        vacant(&Standing::ask(&mut desk, &bucket, guest, to, &like(&from, to)).await?, &bucket)?;
        let given = Map::from_iter([("path".to_owned(), to.into())]);
        let moved = desk.ask(statements.update(&from.id, &given)).await?;
        moved.first().map(|row| Object::read(row)).ok_or_else(|| refused(&bucket, Operation::Update))
    }

    async fn duplicate(
        &self,
        db: &mut Writer,
        guest: &Guest,
        from: &Object,
        to: &str,
        content: &str,
    ) -> Result<Object> {
        let bucket = known(&*self.live.app(guest.env()).await?, &from.bucket)?;
        let mut given = like(from, to);
        let mut desk = Desk::Turn(db);
        vacant(&Standing::ask(&mut desk, &bucket, guest, to, &given).await?, &bucket)?;
        given.insert("etag".to_owned(), from.etag.as_str().into());
        given.insert("content".to_owned(), content.into());
        let sql = statements(&bucket, guest).create(&new_id(), &object::owned(given, guest.subject()));
        let made = desk.ask(sql).await?;
        let made = made.first().map(|row| Object::read(row));
        let made = made.ok_or_else(|| refused(&bucket, Operation::Create))?;
        let used = used(&mut desk).await?;
        let most = self.most(guest.env().id()).await;
        if used > most {
            return Err(quota::used_up(used.saturating_sub(made.size), most));
        }
        Ok(made)
    }
}

/// The values of a file like `from` at another path.
fn like(from: &Object, to: &str) -> Map<String, serde_json::Value> {
    let metadata = from.metadata.as_object();
    let mut given = object::given(&from.bucket, to, &from.content_type, metadata);
    given.insert("size".to_owned(), from.size.into());
    given
}

/// Refuses a path where no file may be made, or one is.
fn vacant(standing: &Standing, bucket: &super::Bucket) -> Result<()> {
    match (&standing.object, standing.may_create) {
        (_, false) => Err(refused(bucket, Operation::Create)),
        (Some(_), true) => Err(taken().field("/to")),
        (None, true) => Ok(()),
    }
}
