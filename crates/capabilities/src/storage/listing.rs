//! Lists of files.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Error, Result};
use serde::Deserialize;

use super::object::{self, Object};
use super::{Desk, Storage, statements};
use crate::access::Guest;
use crate::rows::{Order, Wanted};

/// How many files a list has where nothing is said, and at most.
const LIMIT: u32 = 50;
const LIMIT_MOST: u32 = 200;

/// The longest beginning of paths, in bytes.
const PREFIX: usize = 512;

/// Which files are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFiles {
    /// What their paths begin with.
    pub prefix: Option<String>,
    /// At most this many, 1 to 200; 50 without it.
    pub limit: Option<u32>,
    /// Where to go on: the cursor of the page before.
    pub cursor: Option<String>,
}

/// A page of files.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The files, by their paths.
    pub files: Vec<Object>,
    /// Where the next page begins; none on the last.
    pub cursor: Option<String>,
}

impl Storage {
    /// The files of a bucket that `guest` may list, by their paths.
    ///
    /// # Errors
    /// `not_found` for the bucket; `invalid_input` with a pointer to the field.
    pub async fn list(&self, guest: &Guest, bucket: &str, query: &ListFiles) -> Result<Listed> {
        let limit = query.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MOST).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit is 1 to {LIMIT_MOST}")));
        }
        let prefix = query.prefix.as_deref().unwrap_or_default();
        if prefix.len() > PREFIX {
            return Err(Error::invalid("/prefix", format!("a prefix has at most {PREFIX} bytes")));
        }
        let bucket = self.0.bucket(guest.env(), bucket).await?;
        let after = query.cursor.as_deref().map(|cursor| read_cursor(cursor, prefix)).transpose()?;
        let filter = object::within(&bucket.name, prefix, after.as_deref());
        let order = Order::parse(Some("path"), &bucket.table)?;
        let columns: Vec<_> = bucket.table.columns.iter().collect();
        let wanted = Wanted {
            columns: &columns,
            beside: &[],
            search: None,
            filter: Some(&filter),
            order: &order,
            after: None,
            most: limit + 1,
        };
        let sql = statements(&bucket, guest).list(&wanted);
        let rows = Desk::Reader(&self.0.databases, guest.env()).ask(sql).await?;
        let files: Vec<Object> = rows.iter().take(limit as usize).map(|row| Object::read(row)).collect();
        let more = rows.len() > files.len();
        let cursor = files.last().filter(|_| more).map(Object::cursor);
        Ok(Listed { files, cursor })
    }
}

impl Object {
    /// Where a list goes on after it.
    #[must_use]
    pub fn cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.path)
    }
}

/// The path that a cursor tells. It says where to go on and nothing else: the rules are asked again.
fn read_cursor(cursor: &str, prefix: &str) -> Result<String> {
    let path = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    path.filter(|path| path.starts_with(prefix)).ok_or_else(|| {
        Error::invalid("/cursor", "the cursor does not belong to this list")
            .hint("pass the cursor with the very bucket and prefix that returned it")
    })
}
