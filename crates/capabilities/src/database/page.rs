//! Reading with SQL, a page at a time: no row is left out without a cursor that says so.

use std::ops::ControlFlow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{BlobHash, Env};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Kind, Text, names};
use super::error::Error;
use super::guard::Statement;
use super::policy::Role;
use super::{Databases, or_cancelled, values};

/// One statement that reads, and how much of its result is wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The statement.
    pub sql: String,
    /// The values of `?1`, `?2` or `$1`, `$2`.
    pub params: Vec<Value>,
    /// At most this many rows; 100 without it, and never more than 1,000.
    pub limit: Option<u32>,
    /// Where to go on: the cursor of the page before.
    pub cursor: Option<String>,
    /// About how many tokens the rows of a page may be. 0 is the default, 3,500.
    pub budget: usize,
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, a value for each column.
    pub rows: Vec<Vec<Value>>,
    /// Where the next page begins; none where this is the last one.
    pub cursor: Option<String>,
}

const ROWS: u32 = 100;
const ROWS_MOST: u32 = 1_000;
const BUDGET: usize = 3_500;

impl Databases {
    /// Reads with one statement. Pages follow each other without gap or repetition while the data does not
    /// change in between and the statement orders its rows.
    ///
    /// # Errors
    /// What the guard or the engine holds against the statement, a cursor of another one, a row too wide.
    pub async fn query(&self, env: &Env, query: Query, cancel: &CancellationToken) -> Result<Page, Error> {
        let mut lease = self.environments.reader(env.id(), Kind::Reader).await?;
        let connection = lease.connection()?;
        let watch = connection.watch();
        let limit = self.environments.limits().statement;
        let page = or_cancelled(cancel, &watch, watch.within(limit, read(connection, &query))).await;
        lease.settle();
        page
    }
}

async fn read(connection: &mut Connection, query: &Query) -> Result<Page, Error> {
    let bound = digest(query);
    let skipped = query.cursor.as_deref().map_or(Ok(0), |cursor| offset(cursor, &bound))?;
    let statement = connection.inspect(Role::Reader, &query.sql, Text::One).await?;
    let mut page = Collected::new(query, &statement, skipped);
    connection
        .step(&statement, &query.sql, &query.params, |row| {
            if page.seen == 0 {
                page.columns = names(row);
            }
            page.seen += 1;
            if page.seen <= skipped { Ok(ControlFlow::Continue(())) } else { page.take(values::row(row)?) }
        })
        .await?;
    let cursor = page.more.then(|| cursor(skipped + page.rows.len() as u64, &bound));
    Ok(Page { columns: page.columns, rows: page.rows, cursor })
}

struct Collected {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
    seen: u64,
    skipped: u64,
    most_rows: usize,
    budget: usize,
    spent: usize,
    more: bool,
}

impl Collected {
    fn new(query: &Query, statement: &Statement, skipped: u64) -> Self {
        Self {
            columns: statement.columns.clone(),
            rows: Vec::new(),
            seen: 0,
            skipped,
            most_rows: query.limit.unwrap_or(ROWS).clamp(1, ROWS_MOST) as usize,
            budget: if query.budget == 0 { BUDGET } else { query.budget },
            spent: tokens(&statement.columns),
            more: false,
        }
    }

    /// Takes a row in, or finds that it belongs on the next page.
    fn take(&mut self, row: Vec<Value>) -> Result<ControlFlow<()>, Error> {
        let tokens = values::tokens(&row);
        if self.rows.is_empty() && tokens > self.budget {
            let widest = row.iter().zip(&self.columns).max_by_key(|(value, _)| value.to_string().len());
            return Err(Error::WideRow {
                row: self.skipped + 1,
                column: widest.map(|(_, column)| column.clone()).unwrap_or_default(),
                tokens,
                most: self.budget,
            });
        }
        if self.rows.len() == self.most_rows || self.spent + tokens > self.budget {
            self.more = true;
            return Ok(ControlFlow::Break(()));
        }
        self.spent += tokens;
        self.rows.push(row);
        Ok(ControlFlow::Continue(()))
    }
}

fn tokens(columns: &[String]) -> usize {
    tool::budget::estimate(&json!(columns).to_string())
}

/// What ties a cursor to its statement and parameters.
fn digest(query: &Query) -> String {
    let text = json!([query.sql, query.params]).to_string();
    BlobHash::of(text.as_bytes()).to_string().chars().take(16).collect()
}

fn cursor(offset: u64, digest: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{digest}{offset}"))
}

fn offset(cursor: &str, digest: &str) -> Result<u64, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| Error::Cursor)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Cursor)?;
    text.strip_prefix(digest).and_then(|offset| offset.parse().ok()).ok_or(Error::Cursor)
}
