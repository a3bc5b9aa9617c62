//! Lists of rows: what is asked, the page that the rules leave of it, and its JSON.

use bytes::Bytes;
use indexmap::IndexMap;
use kernel::{Error, Result};
use serde::Deserialize;

use super::encode;
use super::error::told;
use super::expand::{self, Budget, Parent};
use super::given::unknown;
use super::order::{List, Order};
use super::search::Search;
use super::service::{Rows, known};
use super::statement::{Statements, Wanted};
use super::{App, ColumnModel, TableModel};
use crate::access::{Expr, Guest};
use crate::database::{self, PARAMETERS, Row};

/// How many rows a list has where nothing is said, and at most.
pub(crate) const LIMIT: u32 = 50;
pub(crate) const LIMIT_MOST: u32 = 200;

/// After how many bytes a list ends, with a cursor.
pub(super) const LIST_BYTES: usize = 4 << 20;

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
    /// Words that rows must have.
    pub search: Option<String>,
    /// Rows to bring along: columns that refer to rows, or `comments_via_post` for the rows that refer to this one.
    pub expand: Option<String>,
    /// Name → `count()`, `sum(column)` and its like: numbers over the rows instead of the rows.
    pub aggregate: Option<IndexMap<String, String>>,
    /// The columns by which `aggregate` counts apart.
    pub group: Option<Vec<String>>,
}

/// How many rows a page has.
pub(super) struct Bounds {
    pub usual: u32,
    pub most: u32,
}

/// One page of a list, as the database gave it.
pub(super) struct Page<'t> {
    pub table: &'t TableModel,
    pub columns: Vec<&'t ColumnModel>,
    order: Order<'t>,
    filter: Option<String>,
    search: Option<String>,
    read: database::Rows,
    limit: usize,
}

impl Rows {
    /// The rows that `guest` may list, as the JSON of `{"rows": […], "cursor"?}`; or of `{"groups": […], "more"?}` where
    /// they are counted. Rows that are hidden are left out.
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
        if query.aggregate.is_some() || query.group.is_some() {
            return self.aggregate(guest, table, query).await;
        }
        let nodes = query.expand.as_deref().map(|text| expand::parse(text, table, app)).transpose()?;
        let nodes = nodes.unwrap_or_default();
        let beside = expand::beside(&nodes, table);
        let bounds = Bounds { usual: LIMIT, most: LIMIT_MOST };
        let page = self.page(guest, table, query, bounds, &beside).await?;
        let (mut objects, mut parents) = (Vec::new(), Vec::new());
        let first = page.columns.len() + page.order.columns().len();
        let cursor = page.each(|row| {
            let mut json = Vec::with_capacity(256);
            encode::open_object(&page.columns, row, &mut json)?;
            let bytes = json.len();
            objects.push(json);
            parents.push(Parent::of(row, first, &nodes));
            Ok(bytes)
        })?;
        let expanded = match nodes.is_empty() {
            true => Vec::new(),
            false => self.expand(app, guest, &nodes, &parents, &mut Budget::default()).await?,
        };
        let mut json = Vec::with_capacity(objects.iter().map(Vec::len).sum::<usize>() + 64);
        json.extend_from_slice(b"{\"rows\":[");
        for (index, object) in objects.iter().enumerate() {
            json.extend_from_slice(if index > 0 { b"," } else { b"" });
            json.extend_from_slice(object);
            json.extend_from_slice(expanded.get(index).map_or(&[][..], Vec::as_slice));
            json.push(b'}');
        }
        json.push(b']');
        if let Some(cursor) = cursor {
            json.extend_from_slice(b",\"cursor\":\"");
            json.extend_from_slice(cursor.as_bytes());
            json.push(b'"');
        }
        json.push(b'}');
        Ok(json.into())
    }

    /// Reads one page, `beside` behind what is wanted and ordered by.
    pub(super) async fn page<'t>(
        &self,
        guest: &Guest,
        table: &'t TableModel,
        query: &ListQuery,
        bounds: Bounds,
        beside: &[&ColumnModel],
    ) -> Result<Page<'t>> {
        let limit = query.limit.unwrap_or(bounds.usual);
        if !(1..=bounds.most).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit is 1 to {}", bounds.most)));
        }
        let columns = selected(table, query.select.as_deref())?;
        let (filter, search) = narrowed(table, query)?;
        let order = Order::parse(query.order.as_deref(), table)?;
        let list =
            List { table: &table.name, filter: query.filter.as_deref(), search: query.search.as_deref() };
        let after = query.cursor.as_deref().map(|cursor| order.read_cursor(cursor, &list)).transpose()?;
        let wanted = Wanted {
            columns: &columns,
            beside,
            filter: filter.as_ref(),
            search: search.as_ref(),
            order: &order,
            after: after.as_ref(),
            most: limit + 1,
        };
        let sql = Statements { table, subject: guest.subject() }.list(&wanted);
        few_enough(sql.params.len())?;
        let read = match (filter, search) {
            // What a filter lets through may be far apart, and anybody may send one; a page's own lists do not wait
            // for it.
            (None, None) => self.databases.read_rows(guest.env(), sql.text, sql.params, LIST_BYTES).await,
            _ => {
                self.databases
                    .list_rows(guest.env(), &guest.clients(), sql.text, sql.params, LIST_BYTES)
                    .await
            }
        };
        let read = read.map_err(|error| told(error, table))?;
        let (filter, search) = (query.filter.clone(), query.search.clone());
        Ok(Page { table, columns, order, filter, search, read, limit: limit as usize })
    }
}

impl Page<'_> {
    /// Gives each row to `write`, which answers how many bytes it has made of it; then the cursor, where more follows.
    pub fn each(
        &self,
        mut write: impl FnMut(&Row<'_>) -> std::result::Result<usize, database::Error>,
    ) -> Result<Option<String>> {
        let (mut bytes, mut last) = (0, None);
        let mut more = self.read.is_cut() || self.read.iter().len() > self.limit;
        for row in self.read.iter().take(self.limit) {
            // Texts may be several times as long in JSON.
            if bytes > LIST_BYTES {
                more = true;
                break;
            }
            bytes += write(&row).map_err(|error| told(error, self.table))?;
            last = Some(row);
        }
        if !more {
            return Ok(None);
        }
        let place = last.and_then(|row| self.order.place(&row, self.columns.len())).ok_or_else(|| {
            Error::invalid("/order", "the values of these columns are too long to go on after them")
                .hint("order by another column, or ask for fewer rows with a where")
        })?;
        let list =
            List { table: &self.table.name, filter: self.filter.as_deref(), search: self.search.as_deref() };
        Ok(Some(self.order.cursor(&place, &list)))
    }
}

/// The condition and the words of a query.
pub(super) fn narrowed(table: &TableModel, query: &ListQuery) -> Result<(Option<Expr>, Option<Search>)> {
    let filter = query.filter.as_deref().map(|text| Expr::parse_where(text, table)).transpose();
    let search = query.search.as_deref().map(|text| Search::parse(text, table)).transpose()?;
    Ok((filter.map_err(|error| error.field("/where"))?, search))
}

/// Refuses a statement of more values than the engine takes.
pub(super) fn few_enough(params: usize) -> Result<()> {
    if params > PARAMETERS {
        let message = format!("the where has too many values: at most {PARAMETERS} with those of the rules");
        return Err(Error::invalid("/where", message));
    }
    Ok(())
}

/// The columns that are wanted, as the query orders them.
pub(crate) fn selected<'a>(table: &'a TableModel, select: Option<&str>) -> Result<Vec<&'a ColumnModel>> {
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
