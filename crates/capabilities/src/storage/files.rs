//! Files that are read and removed.

use std::ops::Range;
use std::sync::Arc;

use kernel::Result;

use super::contents::FileStream;
use super::object::{self, Object};
use super::put::{Condition, refused};
use super::{Desk, Inner, Storage, hidden, known, put, statements, whole};
use crate::access::{Guest, Operation};
use crate::database::{Durability, Writer};

impl Storage {
    /// The file at a path, without its content.
    ///
    /// # Errors
    /// `not_found` where there is none that `guest` may read.
    pub async fn get(&self, guest: &Guest, bucket: &str, path: &str) -> Result<Object> {
        let bucket = self.0.bucket(guest.env(), bucket).await?;
        let path = put::path(path, "/path")?;
        let sql = object::get(&statements(&bucket, guest), &bucket.name, &path);
        let rows = Desk::Reader(&self.0.databases, guest.env()).ask(sql).await?;
        rows.first().map(|row| Object::read(row)).ok_or_else(hidden)
    }

    /// The bytes of `range` in a file that [`Storage::get`] has given.
    ///
    /// # Errors
    /// `not_found` where it was replaced or removed meanwhile: ask for it again.
    pub async fn read(&self, guest: &Guest, object: &Object, range: Range<u64>) -> Result<FileStream> {
        self.0.contents.read(guest.env().id(), &object.content, range).await
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `not_found` where it is hidden, `forbidden` where the rules refuse, 412 where the condition does not hold.
    pub async fn delete(&self, guest: &Guest, bucket: &str, path: &str, condition: Condition) -> Result<()> {
        let path = put::path(path, "/path")?;
        let (inner, guest, bucket) = (Arc::clone(&self.0), guest.clone(), bucket.to_owned());
        whole(async move {
            let mut db = inner.databases.writer(guest.env()).await?;
            db.at_depth(guest.depth());
            db.begin(Durability::Full).await?;
            match inner.remove(&mut db, &guest, &bucket, &path, &condition).await {
                Ok(object) => {
                    db.commit().await?;
                    drop(db);
                    inner.contents.discard(guest.env().id(), &object.content).await;
                    Ok(())
                }
                Err(refusal) => {
                    db.rollback().await?;
                    Err(refusal)
                }
            }
        })
        .await
    }
}

impl Inner {
    async fn remove(
        &self,
        db: &mut Writer,
        guest: &Guest,
        bucket: &str,
        path: &str,
        condition: &Condition,
    ) -> Result<Object> {
        let bucket = known(&*self.live.app(guest.env()).await?, bucket)?;
        let statements = statements(&bucket, guest);
        let mut desk = Desk::Turn(db);
        let found = desk.ask(object::get(&statements, &bucket.name, path)).await?;
        let object = found.first().map(|row| Object::read(row)).ok_or_else(hidden)?;
        if desk.ask(statements.delete(&object.id)).await?.is_empty() {
            return Err(refused(&bucket, Operation::Delete));
        }
        condition.hold(Some(&object))?;
        Ok(object)
    }
}
