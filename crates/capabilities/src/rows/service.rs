//! Rows, read and changed by whom the rules let.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use kernel::{Code, Env, Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::change::{self, Change};
use super::encode;
use super::error::told;
use super::etag::IfMatch;
use super::given::{changes, new_row, unknown};
use super::order::{List, Order};
use super::statement::{Statements, Wanted};
use super::{App, ColumnModel, TableModel};
use crate::access::{Expr, Guest};
use crate::database::{self, Databases, PARAMETERS, RowsTurn, RowsWriter};

/// How many rows a list has where nothing is said, and at most.
pub(crate) const LIMIT: u32 = 50;
pub(crate) const LIMIT_MOST: u32 = 200;

/// After how many bytes a list ends, with a cursor.
const LIST_BYTES: usize = 4 << 20;

/// Who knows the app of an environment's live release. A release that is still on trial is not it: nobody reads or
/// writes by rules that may never hold.
pub trait LiveApps: Send + Sync + 'static {
    /// The app; an empty one before the first release. Asked for each request, so it answers from memory.
    fn app<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Arc<App>>>;
}

/// The rows of every environment's app. Clones share everything.
#[derive(Clone)]
pub struct Rows {
    pub(super) databases: Arc<Databases>,
    live: Arc<dyn LiveApps>,
}

/// Which rows are wanted, and what of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// The columns, separated by commas; all of them without it.
    pub select: Option<String>,
    /// The condition that rows must meet.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    /// By which columns, `-` before one turns it; by `id` without it.
    pub order: Option<String>,
    /// At most this many rows, 1 to 200; 50 without it.
    pub limit: Option<u32>,
    /// Where to go on: the cursor of the page before.
    pub cursor: Option<String>,
}

/// A row as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// The row as a JSON object, columns in the order of the table.
    pub json: Bytes,
    /// Its strong entity tag, with the quotes.
    pub etag: String,
}

impl Rows {
    /// Rows in `databases`, of the apps that `live` knows.
    #[must_use]
    pub fn new(databases: Arc<Databases>, live: Arc<dyn LiveApps>) -> Self {
        Self { databases, live }
    }

    /// The app of the environment's live release; an empty one before the first.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn app(&self, env: &Env) -> Result<Arc<App>> {
        self.live.app(env).await
    }

    /// The rows that `guest` may list, as the JSON of `{"rows": […], "cursor"?}`. Rows that are hidden are left out.
    ///
    /// # Errors
    /// `not_found` for an unknown table; `invalid_input` with a pointer to the part of the query.
    pub async fn list(&self, guest: &Guest, table: &str, query: &ListQuery) -> Result<Bytes> {
        let app = self.app(guest.env()).await?;
        match self.list_of(&app, guest, table, query).await {
            Err(error) => {
                let now = self.switched(guest.env(), &app, error).await?;
                self.list_of(&now, guest, table, query).await
            }
            listed => listed,
        }
    }

    async fn list_of(&self, app: &App, guest: &Guest, table: &str, query: &ListQuery) -> Result<Bytes> {
        let table = known(app, table)?;
        let limit = query.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MOST).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit is 1 to {LIMIT_MOST}")));
        }
        let columns = selected(table, query.select.as_deref())?;
        let filter = query.filter.as_deref().map(|text| Expr::parse_where(text, table)).transpose();
        let filter = filter.map_err(|error| error.field("/where"))?;
        let order = Order::parse(query.order.as_deref(), table)?;
        let list = List { table: &table.name, filter: query.filter.as_deref() };
        let after = query.cursor.as_deref().map(|cursor| order.read_cursor(cursor, &list)).transpose()?;
        let wanted = Wanted {
            columns: &columns,
            filter: filter.as_ref(),
            order: &order,
            after: after.as_ref(),
            most: limit + 1,
        };
        let sql = Statements { table, subject: guest.subject() }.list(&wanted);
        if sql.params.len() > PARAMETERS {
            let message =
                format!("the where has too many values: at most {PARAMETERS} with those of the rules");
            return Err(Error::invalid("/where", message));
        }

        let read = match filter {
            // What a filter lets through may be far apart, and anybody may send one; a page's own lists do not wait
            // for it.
            Some(_) => self.databases.list_rows(guest.env(), sql.text, sql.params, LIST_BYTES).await,
            None => self.databases.read_rows(guest.env(), sql.text, sql.params, LIST_BYTES).await,
        };
        let read = read.map_err(|error| told(error, table))?;
        let mut json = Vec::with_capacity(1024);
        json.extend_from_slice(b"{\"rows\":[");
        let (mut last, mut more) = (None, read.is_cut() || read.iter().len() > limit as usize);
        for (index, row) in read.iter().take(limit as usize).enumerate() {
            // Texts may be several times as long in JSON.
            if json.len() > LIST_BYTES {
                more = true;
                break;
            }
            if index > 0 {
                json.push(b',');
            }
            encode::object(&columns, &row, &mut json).map_err(|error| told(error, table))?;
            last = Some(row);
        }
        json.push(b']');
        if more {
            let place = last.and_then(|row| order.place(&row, columns.len())).ok_or_else(|| {
                Error::invalid("/order", "the values of these columns are too long to go on after them")
                    .hint("order by another column, or ask for fewer rows with a where")
            })?;
            json.extend_from_slice(b",\"cursor\":\"");
            json.extend_from_slice(order.cursor(&place, &list).as_bytes());
            json.push(b'"');
        }
        json.push(b'}');
        Ok(json.into())
    }

    /// The row with this id.
    ///
    /// # Errors
    /// `not_found` where there is none that `guest` may read.
    pub async fn get(&self, guest: &Guest, table: &str, id: &str) -> Result<Stored> {
        let app = self.app(guest.env()).await?;
        match self.get_of(&app, guest, table, id).await {
            Err(error) => {
                let now = self.switched(guest.env(), &app, error).await?;
                self.get_of(&now, guest, table, id).await
            }
            found => found,
        }
    }

    async fn get_of(&self, app: &App, guest: &Guest, table: &str, id: &str) -> Result<Stored> {
        let table = known(app, table)?;
        let sql = Statements { table, subject: guest.subject() }.get(id);
        let read = self.databases.read_rows(guest.env(), sql.text, sql.params, usize::MAX).await;
        let found =
            read.and_then(|rows| rows.iter().next().map(|row| change::stored(table, &row)).transpose());
        found.map_err(|error| told(error, table))?.ok_or_else(|| change::hidden(table))
    }

    /// The app that has taken the place of `before` since; or `error`, where it is not of that switch: a table that was
    /// read as the earlier release had it is not there like that any more.
    async fn switched(&self, env: &Env, before: &Arc<App>, error: Error) -> Result<Arc<App>> {
        if error.code() != Code::Unavailable {
            return Err(error);
        }
        let now = self.app(env).await?;
        if Arc::ptr_eq(before, &now) { Err(error) } else { Ok(now) }
    }

    /// Makes a row of these values and returns it.
    ///
    /// # Errors
    /// `invalid_input` with a pointer to the column, `forbidden` where the rules refuse, `conflict` with a row that
    /// is there.
    pub async fn create(&self, guest: &Guest, table: &str, row: Map<String, Value>) -> Result<Stored> {
        let change =
            |table: &TableModel| Ok(Change::Create { new: new_row(table, guest.subject(), row.clone())? });
        let row = self.alone(guest, table, change).await?;
        row.ok_or_else(|| Error::internal("a row that was made is not returned"))
    }

    /// Changes these values of a row and returns it.
    ///
    /// # Errors
    /// `not_found` where the row is hidden, `forbidden` where the rules refuse, 412 where `if_match` does not hold;
    /// else as [`Rows::create`].
    pub async fn update(
        &self,
        guest: &Guest,
        table: &str,
        id: &str,
        row: Map<String, Value>,
        if_match: Option<IfMatch>,
    ) -> Result<Stored> {
        let change = |table: &TableModel| {
            let changes = changes(table, guest.subject(), row.clone())?;
            Ok(Change::Update { id: id.to_owned(), changes, if_match: if_match.clone() })
        };
        let row = self.alone(guest, table, change).await?;
        row.ok_or_else(|| Error::internal("a row that was changed is not returned"))
    }

    /// Removes a row.
    ///
    /// # Errors
    /// As [`Rows::update`]; `conflict` where other rows refer to it.
    pub async fn delete(
        &self,
        guest: &Guest,
        table: &str,
        id: &str,
        if_match: Option<IfMatch>,
    ) -> Result<()> {
        let change = |_: &TableModel| Ok(Change::Delete { id: id.to_owned(), if_match: if_match.clone() });
        self.alone(guest, table, change).await.map(drop)
    }

    /// Makes one change by itself, in a transaction of several statements only where it needs one.
    async fn alone(
        &self,
        guest: &Guest,
        name: &str,
        prepare: impl Fn(&TableModel) -> Result<Change>,
    ) -> Result<Option<Stored>> {
        // What is wrong with the request is said before anybody waits for a turn.
        let before = self.app(guest.env()).await?;
        let table = known(&before, name)?;
        let mut change = prepare(table)?;
        let turn =
            Turn::take(&self.databases, guest.env(), &change).await.map_err(|error| told(error, table))?;
        // No release is switched to while we have the turn, so that these are the rules that hold.
        let app = self.app(guest.env()).await?;
        let table = known(&app, name)?;
        if !Arc::ptr_eq(&before, &app) {
            change = prepare(table)?;
        }
        let statements = Statements { table, subject: guest.subject() };
        let mut writer = match turn {
            Turn::Shared(mut turn) => return change::make(&mut turn, &statements, &change).await,
            Turn::Whole(writer) => *writer,
        };
        writer.begin().await.map_err(|error| told(error, table))?;
        match change::make(&mut writer, &statements, &change).await {
            Ok(row) => {
                writer.commit().await.map_err(|error| told(error, table))?;
                Ok(row)
            }
            Err(refusal) => {
                writer.rollback().await.map_err(|error| told(error, table))?;
                Err(refusal)
            }
        }
    }
}

/// What a change by itself is made in.
enum Turn {
    /// A statement that is a transaction of its own.
    Shared(RowsTurn),
    /// Several statements of one transaction.
    Whole(Box<RowsWriter>),
}

impl Turn {
    async fn take(databases: &Databases, env: &Env, change: &Change) -> Result<Self, database::Error> {
        match change.is_conditional() {
            true => databases.rows_writer(env).await.map(Box::new).map(Turn::Whole),
            false => databases.rows_turn(env).await.map(Turn::Shared),
        }
    }
}

/// The table of that name.
pub(super) fn known<'a>(app: &'a App, name: &str) -> Result<&'a Arc<TableModel>> {
    app.table(name).ok_or_else(|| Error::new(Code::NotFound, "there is no such table"))
}

/// The columns that are wanted, as the query orders them.
fn selected<'a>(table: &'a TableModel, select: Option<&str>) -> Result<Vec<&'a ColumnModel>> {
    let Some(select) = select else { return Ok(table.shown().collect()) };
    let mut columns: Vec<&ColumnModel> = Vec::new();
    for name in select.split(',').map(str::trim) {
        let column = table.shown_column(name).ok_or_else(|| unknown(table, "/select", name))?;
        if columns.iter().any(|known| known.name == column.name) {
            return Err(Error::invalid("/select", format!("{} is named twice", column.name)));
        }
        columns.push(column);
    }
    Ok(columns)
}
