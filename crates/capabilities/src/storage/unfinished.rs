//! How many uploads may be unfinished: of each user, of each network without a session, and of all such networks.

use std::hash::BuildHasher as _;

use kernel::{Code, Error, Result};
use serde_json::{Value, json};

use super::Inner;
use super::uploads::owner;
use crate::access::{Guest, Subject};
use crate::database::{Role, Writer};

/// How many of one user, or of one network where nobody is signed in, may be unfinished.
const OF_ONE: u64 = 100;

/// How many of all networks together.
const OF_ALL: u64 = 10_000;

impl Inner {
    /// What tells the networks of visitors apart: not their address, and nothing after this process.
    fn network(&self, guest: &Guest) -> Option<i64> {
        let is_visitor = *guest.subject() == Subject::Visitor;
        is_visitor.then(|| self.networks.hash_one((guest.env().id(), guest.network())).cast_signed())
    }

    /// Inserts the row of an upload that begins, where one more may be unfinished. Gives the ids of those that have gone for
    /// it: where visitors have too many, the oldest of the network that has most of them goes first.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(super) async fn enter(&self, db: &mut Writer, guest: &Guest, row: &[Value]) -> Result<Vec<String>> {
        let network = json!(self.network(guest));
        let own = "SELECT count(*) FROM _steading_upload WHERE owner IS ?1 AND network IS ?2 AND done = 0";
        if count(db, own, &[json!(owner(guest)), network.clone()]).await? >= OF_ONE {
            let message = format!("{OF_ONE} uploads are not finished, which is as many as there may be");
            return Err(Error::new(Code::QuotaExceeded, message)
                .hint("finish them, or remove them with DELETE; after a day they go by themselves"));
        }
        let mut gone = Vec::new();
        let all = "SELECT count(*) FROM _steading_upload WHERE network IS NOT NULL AND done = 0";
        if !network.is_null() && count(db, all, &[]).await? >= OF_ALL {
            let sql = "DELETE FROM _steading_upload WHERE id = (SELECT id FROM _steading_upload WHERE done = 0 AND network = \
                       (SELECT network FROM _steading_upload WHERE network IS NOT NULL AND done = 0 GROUP BY network \
                       ORDER BY count(*) DESC LIMIT 1) ORDER BY expires_at, rowid LIMIT 1) RETURNING id";
            let rows = db.run(Role::Platform, sql, &[]).await?.rows;
            gone.extend(rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)));
        }
        let sql = "INSERT INTO _steading_upload (id, owner, bucket, path, length, content_type, metadata, noted, \
                   received, done, expires_at, network) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, ?9, ?10)";
        let row: Vec<Value> = row.iter().cloned().chain([network]).collect();
        db.run(Role::Platform, sql, &row).await?;
        Ok(gone)
    }
}

async fn count(db: &mut Writer, sql: &str, params: &[Value]) -> Result<u64> {
    let rows = db.run(Role::Platform, sql, params).await?.rows;
    Ok(rows.first().and_then(|row| row.first()?.as_u64()).unwrap_or_default())
}
