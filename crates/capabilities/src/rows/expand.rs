//! Rows that come along with others: those that a row refers to, and those that refer to it, each under the rules of its
//! own table.

use std::collections::HashMap;

use futures::future::BoxFuture;
use kernel::{Code, Error, Result};

use super::encode;
use super::error::told;
use super::list::LIST_BYTES;
use super::order::{List, Order};
use super::service::Rows;
use super::statement::Statements;
use super::{App, ColumnModel, TableModel};
use crate::access::Guest;
use crate::database::{self, Cell, Row};

/// How many rows may be named, and how far from the row that is asked for.
const NAMED: usize = 8;
const DEPTH: usize = 2;

/// How many rows that refer to one come along; a cursor says that there are more.
const REFERRING: usize = 50;

/// One name in `expand`.
pub(super) struct Node<'a> {
    /// As it is answered.
    name: String,
    table: &'a TableModel,
    /// The column that refers.
    column: &'a ColumnModel,
    way: Way,
    children: Vec<Node<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the row that refers.
    To,
    /// From the row that is referred to.
    From,
}

/// A row that others come along with.
pub(super) struct Parent {
    id: String,
    /// What it refers to, for each node.
    refers: Vec<Option<String>>,
}

/// How many bytes may come along yet.
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(LIST_BYTES)
    }
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            Error::new(Code::TooLarge, format!("more than {LIST_BYTES} bytes would come along"))
                .field("/expand")
                .hint("ask for fewer rows at once, or expand less")
        })?;
        Ok(())
    }
}

/// Reads `list,list.team,comments_via_post`.
///
/// # Errors
/// `invalid_input` at `/expand`.
pub(super) fn parse<'a>(text: &str, table: &'a TableModel, app: &'a App) -> Result<Vec<Node<'a>>> {
    let wrong = |message: String| Error::invalid("/expand", message);
    if table.shown_column("expand").is_some() {
        return Err(wrong(format!("{} has a column expand, where rows would come along", table.name)));
    }
    let mut nodes: Vec<Node<'a>> = Vec::new();
    let paths: Vec<&str> = text.split(',').map(str::trim).collect();
    if paths.len() > NAMED {
        return Err(wrong(format!("at most {NAMED} can be named")));
    }
    for path in paths {
        let steps: Vec<&str> = path.split('.').collect();
        if steps.len() > DEPTH {
            return Err(wrong(format!("rows come along at most {DEPTH} steps away")));
        }
        let (mut at, mut from) = (&mut nodes, table);
        for step in steps {
            let known = at.iter().position(|node| node.name.eq_ignore_ascii_case(step));
            let index = match known {
                Some(index) => index,
                None => {
                    at.push(node(step, from, app)?);
                    at.len() - 1
                }
            };
            from = at[index].table;
            at = &mut at[index].children;
        }
    }
    Ok(nodes)
}

fn node<'a>(name: &str, from: &'a TableModel, app: &'a App) -> Result<Node<'a>> {
    let refers = |column: &&ColumnModel| column.references.is_some();
    if let Some(column) = from.shown_column(name).filter(refers)
        && let Some(table) = column.references.as_deref().and_then(|table| app.table(table))
    {
        return Ok(Node { name: column.name.clone(), table, column, way: Way::To, children: Vec::new() });
    }
    let via = name.match_indices("_via_").find_map(|(at, via)| {
        let table = app.table(&name[..at])?;
        let column = table.shown_column(&name[at + via.len()..])?;
        let here = column.references.as_ref().is_some_and(|to| to.eq_ignore_ascii_case(&from.name));
        here.then(|| (format!("{}_via_{}", table.name, column.name), table, column))
    });
    if let Some((name, table, column)) = via {
        return Ok(Node { name, table, column, way: Way::From, children: Vec::new() });
    }
    let name: String = name.chars().take(130).collect();
    let columns: Vec<_> = from.shown().filter(refers).map(|column| column.name.as_str()).collect();
    let error = Error::invalid("/expand", format!("{} refers to nothing by {name:?}", from.name));
    Err(match columns.as_slice() {
        [] => error.hint("for rows that refer to this one write table_via_column"),
        columns => error.hint(format!(
            "write {}, or table_via_column for rows that refer to this one",
            columns.join(", ")
        )),
    })
}

/// The columns that are needed of a row for others to come along: its id, and those that refer.
pub(super) fn beside<'t>(nodes: &[Node<'_>], table: &'t TableModel) -> Vec<&'t ColumnModel> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let refer = nodes.iter().filter(|node| node.way == Way::To);
    table.column("id").into_iter().chain(refer.filter_map(|node| table.column(&node.column.name))).collect()
}

fn text(cell: Cell<'_>) -> Option<String> {
    if let Cell::Text(text) = cell { Some(text.to_owned()) } else { None }
}

impl Parent {
    /// Of a row whose columns from `first` on are those of [`beside`].
    pub fn of(row: &Row<'_>, first: usize, nodes: &[Node<'_>]) -> Self {
        let mut next = first;
        let refers = nodes.iter().map(|node| {
            if node.way == Way::From {
                return None;
            }
            next += 1;
            text(row.cell(next))
        });
        let refers = refers.collect();
        Self { id: text(row.cell(first)).unwrap_or_default(), refers }
    }
}

impl Rows {
    /// What comes along with each of `parents`: `,"expand":{…}`.
    pub(super) fn expand<'a>(
        &'a self,
        app: &'a App,
        guest: &'a Guest,
        nodes: &'a [Node<'a>],
        parents: &'a [Parent],
        budget: &'a mut Budget,
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>>> {
        Box::pin(async move {
            let mut all: Vec<Vec<u8>> = parents.iter().map(|_| b",\"expand\":{".to_vec()).collect();
            for (index, node) in nodes.iter().enumerate() {
                let parts = match node.way {
                    Way::To => self.referred(app, guest, node, index, parents, budget).await?,
                    Way::From => self.referring(app, guest, node, parents, budget).await?,
                };
                for (json, part) in all.iter_mut().zip(parts) {
                    // Names are letters, digits and `_`.
                    json.extend_from_slice(if index > 0 { b",\"" } else { b"\"" });
                    json.extend_from_slice(node.name.as_bytes());
                    json.extend_from_slice(b"\":");
                    budget.take(part.len())?;
                    json.extend_from_slice(&part);
                }
            }
            all.iter_mut().for_each(|json| json.push(b'}'));
            Ok(all)
        })
    }

    /// The row that each parent refers to, or null where there is none that may be read.
    async fn referred(
        &self,
        app: &App,
        guest: &Guest,
        node: &Node<'_>,
        index: usize,
        parents: &[Parent],
        budget: &mut Budget,
    ) -> Result<Vec<Vec<u8>>> {
        let refers = |parent: &'_ Parent| parent.refers.get(index).cloned().flatten();
        let mut ids: Vec<String> = parents.iter().filter_map(refers).collect();
        ids.sort_unstable();
        ids.dedup();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut found = HashMap::new();
        if !ids.is_empty() {
            let beside = beside(&node.children, node.table);
            let sql = Statements { table: node.table, subject: guest.subject() }.gets(&ids, &beside);
            let rows = self.along(guest, node, sql).await?;
            let (objects, of) = objects(&rows, node).map_err(|error| told(error, node.table))?;
            let objects = self.with_children(app, guest, node, objects, &of, budget).await?;
            found = of.into_iter().map(|parent| parent.id).zip(objects).collect();
        }
        Ok(parents
            .iter()
            .map(|parent| {
                refers(parent).and_then(|id| found.get(&id).cloned()).unwrap_or_else(|| b"null".to_vec())
            })
            .collect())
    }

    /// The rows that refer to each parent: `{"rows": […], "cursor"?}`.
    async fn referring(
        &self,
        app: &App,
        guest: &Guest,
        node: &Node<'_>,
        parents: &[Parent],
        budget: &mut Budget,
    ) -> Result<Vec<Vec<u8>>> {
        let ids: Vec<&str> = parents.iter().map(|parent| parent.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut beside = beside(&node.children, node.table);
        if beside.is_empty() {
            beside.extend(node.table.column("id"));
        }
        beside.push(node.column);
        let statements = Statements { table: node.table, subject: guest.subject() };
        let sql = statements.referring(node.column, &ids, &beside, REFERRING + 1);
        let rows = self.along(guest, node, sql).await?;
        let (objects, of) = objects(&rows, node).map_err(|error| told(error, node.table))?;
        let objects = self.with_children(app, guest, node, objects, &of, budget).await?;
        let shown = node.table.shown().count();
        let order = Order::parse(None, node.table)?;
        let mut by_parent: HashMap<String, Vec<(Row<'_>, Vec<u8>)>> = HashMap::new();
        for (row, object) in rows.iter().zip(objects) {
            if let Some(parent) = text(row.cell(shown + beside.len() - 1)) {
                by_parent.entry(parent).or_default().push((row, object));
            }
        }
        let listed = ids.iter().map(|id| {
            let listed = by_parent.remove(*id).unwrap_or_default();
            let mut json = b"{\"rows\":[".to_vec();
            for (at, (_, object)) in listed.iter().take(REFERRING).enumerate() {
                json.extend_from_slice(if at > 0 { b"," } else { b"" });
                json.extend_from_slice(object);
            }
            json.push(b']');
            let last = listed.get(REFERRING - 1).filter(|_| listed.len() > REFERRING);
            if let Some(place) = last.and_then(|(row, _)| order.place(row, shown)) {
                // Of the list that has this very condition.
                let filter = format!("{} == {}", node.column.name, serde_json::Value::from(*id));
                let list = List { table: &node.table.name, filter: Some(&filter), search: None };
                json.extend_from_slice(format!(",\"cursor\":\"{}\"", order.cursor(&place, &list)).as_bytes());
            }
            json.push(b'}');
            json
        });
        Ok(listed.collect())
    }

    async fn along(&self, guest: &Guest, node: &Node<'_>, sql: crate::access::Sql) -> Result<database::Rows> {
        super::list::few_enough(sql.params.len())?;
        let rows =
            self.databases.list_rows(guest.env(), &guest.clients(), sql.text, sql.params, LIST_BYTES).await;
        let rows = rows.map_err(|error| told(error, node.table))?;
        match rows.is_cut() {
            true => Err(Budget(0).take(1).err().unwrap_or_else(|| Error::internal("a full budget"))),
            false => Ok(rows),
        }
    }

    /// `objects`, each with what comes along with it, and closed.
    async fn with_children(
        &self,
        app: &App,
        guest: &Guest,
        node: &Node<'_>,
        mut objects: Vec<Vec<u8>>,
        of: &[Parent],
        budget: &mut Budget,
    ) -> Result<Vec<Vec<u8>>> {
        if !node.children.is_empty() {
            let expanded = self.expand(app, guest, &node.children, of, budget).await?;
            for (object, expanded) in objects.iter_mut().zip(expanded) {
                object.extend_from_slice(&expanded);
            }
        }
        objects.iter_mut().for_each(|object| object.push(b'}'));
        Ok(objects)
    }
}

/// The rows as JSON without their ends, and as parents of those that come along with them.
fn objects(
    rows: &database::Rows,
    node: &Node<'_>,
) -> std::result::Result<(Vec<Vec<u8>>, Vec<Parent>), database::Error> {
    let columns: Vec<_> = node.table.shown().collect();
    let (mut objects, mut parents) = (Vec::new(), Vec::new());
    for row in rows.iter() {
        let mut json = Vec::with_capacity(256);
        encode::open_object(&columns, &row, &mut json)?;
        objects.push(json);
        let mut parent = Parent::of(&row, columns.len(), &node.children);
        // The id is the first column that is shown.
        parent.id = text(row.cell(0)).unwrap_or_default();
        parents.push(parent);
    }
    Ok((objects, parents))
}
