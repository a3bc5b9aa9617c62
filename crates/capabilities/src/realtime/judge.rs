//! Who is told what of a change: the database decides, by the rule of lists and the subscriber's own condition, on
//! the row as it is and on the row as it was.

use std::collections::HashMap;
use std::sync::Arc;

use kernel::{Env, Error, Result};
use serde_json::Value;

use crate::access::{Expr, New, Operation, Sql, Subject, View, compile};
use crate::database::{self, Cell, Changed, Databases, Entry, PARAMETERS, quoted};
use crate::rows::{ColumnModel, TableModel, encode_row, selected};

/// Rows that are judged in one statement.
const AT_ONCE: usize = 200;

/// The most bytes that they may be.
const BYTES: usize = 8 << 20;

/// What somebody wants to know of a table.
pub(super) struct Wanted<'a> {
    table: &'a TableModel,
    filter: Option<Expr>,
    columns: Vec<&'a ColumnModel>,
    subject: &'a Subject,
}

/// What a subscriber is told of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// It has come into view.
    Insert(Arc<str>),
    /// It has changed, and was and is in view.
    Update(Arc<str>),
    /// It has gone out of view; its id.
    Delete(Arc<str>),
}

impl Event {
    /// The row as it is for the subscriber afterwards.
    pub fn leaves(&self) -> Option<&Arc<str>> {
        match self {
            Event::Insert(row) | Event::Update(row) => Some(row),
            Event::Delete(_) => None,
        }
    }
}

/// The row's id, and what is told of it.
pub(super) type Told = (Arc<str>, Event);

impl<'a> Wanted<'a> {
    /// # Errors
    /// `invalid_input` at `/where` or `/select`.
    pub fn new(
        table: &'a TableModel,
        filter: Option<&str>,
        select: Option<&str>,
        subject: &'a Subject,
    ) -> Result<Self> {
        let filter = filter.map(|text| Expr::parse_where(text, table)).transpose();
        let filter = filter.map_err(|error| error.field("/where"))?;
        let mut columns = selected(table, select)?;
        // Without it nobody knows which row it is.
        if !columns.iter().any(|column| column.name == "id")
            && let Some(id) = table.column("id")
        {
            columns.insert(0, id);
        }
        let wanted = Self { table, filter, columns, subject };
        let mut sql = Sql::default();
        wanted.condition(&mut sql);
        if sql.params.len() > PARAMETERS / 4 {
            let message =
                format!("the where has too many values: at most {} with those of the rules", PARAMETERS / 4);
            return Err(Error::invalid("/where", message));
        }
        Ok(wanted)
    }

    /// What is told of these changes to rows of the table, in their order.
    pub async fn judge(
        &self,
        databases: &Databases,
        env: &Env,
        entries: &[&Entry],
    ) -> Result<Vec<(u64, Told)>, database::Error> {
        let mut ids: Vec<&str> = entries.iter().filter_map(|entry| id_of(entry)).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut now: HashMap<String, Arc<str>> = HashMap::new();
        let mut chunks: Vec<&[&str]> = ids.chunks(AT_ONCE).collect();
        while let Some(ids) = chunks.pop() {
            let read = self.read(databases, env, self.as_they_are(ids), |key, row| {
                if let Cell::Text(id) = key {
                    now.insert(id.to_owned(), row);
                }
            });
            match read.await {
                Err(database::Error::TooMuchMemory) if ids.len() > 1 => {
                    let (first, second) = ids.split_at(ids.len() / 2);
                    chunks.extend([first, second]);
                }
                read => read?,
            }
        }
        let mut before: HashMap<i64, Arc<str>> = HashMap::new();
        let were: Vec<(i64, &Entry)> =
            (0..).zip(entries.iter().copied()).filter(|(_, it)| was(it).is_some()).collect();
        let at_once = (PARAMETERS / 2 / (self.table.columns.len() + 1)).clamp(1, 50);
        for were in were.chunks(at_once) {
            self.read(databases, env, self.as_they_were(were), |key, row| {
                if let Cell::Int(index) = key {
                    before.insert(index, row);
                }
            })
            .await?;
        }
        let mut told = Vec::new();
        for (index, entry) in (0..).zip(entries) {
            let Some(id) = id_of(entry) else { continue };
            let event = match (before.get(&index), now.get(id)) {
                (None, None) => continue,
                (Some(was), Some(is)) if was == is => continue,
                (None, Some(is)) => Event::Insert(Arc::clone(is)),
                (Some(_), Some(is)) => Event::Update(Arc::clone(is)),
                (Some(_), None) => Event::Delete(id.into()),
            };
            told.push((entry.seq, (id.into(), event)));
        }
        Ok(told)
    }

    /// Runs a statement whose rows are the wanted columns and a key.
    async fn read(
        &self,
        databases: &Databases,
        env: &Env,
        sql: Sql,
        mut each: impl FnMut(Cell<'_>, Arc<str>),
    ) -> Result<(), database::Error> {
        let rows = databases.list_rows(env, &[], sql.text, sql.params, BYTES).await?;
        if rows.is_cut() {
            return Err(database::Error::TooMuchMemory);
        }
        for row in rows.iter() {
            let mut json = Vec::with_capacity(256);
            encode_row(&self.columns, &row, &mut json)?;
            each(row.cell(self.columns.len()), String::from_utf8_lossy(&json).into());
        }
        Ok(())
    }

    /// Those of the rows with these ids that are in view.
    fn as_they_are(&self, ids: &[&str]) -> Sql {
        let mut sql = Sql::default();
        let table = quoted(&self.table.name);
        self.select(&format!("{table}.\"id\""), &mut sql);
        // The ids come first and each finds its row: nothing else is read, whatever the rule has an index for.
        sql.text.push_str("json_each(");
        sql.bind(Value::from(Value::from(ids).to_string()));
        sql.text.push_str(&format!(
            ") AS \"_ids\" CROSS JOIN {table} ON {table}.\"id\" = \"_ids\".\"value\" WHERE "
        ));
        self.condition(&mut sql);
        sql
    }

    /// Those of the rows that were in view, as they were.
    fn as_they_were(&self, were: &[(i64, &Entry)]) -> Sql {
        let mut sql = Sql::default();
        let table = quoted(&self.table.name);
        self.select(&format!("{table}.\"_n\""), &mut sql);
        sql.text.push_str("(SELECT \"column1\" AS \"_n\"");
        for (place, column) in (2..).zip(&self.table.columns) {
            sql.text.push_str(&format!(", \"column{place}\" AS {}", quoted(&column.name)));
        }
        sql.text.push_str(" FROM (VALUES ");
        for (place, (index, entry)) in were.iter().enumerate() {
            sql.text.push_str(if place == 0 { "(" } else { ", (" });
            sql.bind((*index).into());
            for column in &self.table.columns {
                sql.text.push_str(", ");
                let of_column = |name: &String| name.eq_ignore_ascii_case(&column.name);
                let value = was(entry).and_then(|it| it.values.get(it.columns.iter().position(of_column)?));
                sql.bind(value.cloned().unwrap_or_default());
            }
            sql.text.push(')');
        }
        sql.text.push_str(&format!(")) AS {table} WHERE "));
        self.condition(&mut sql);
        sql
    }

    fn select(&self, key: &str, sql: &mut Sql) {
        sql.text.push_str("SELECT ");
        for column in &self.columns {
            sql.text.push_str(&format!("{}.{}, ", quoted(&self.table.name), quoted(&column.name)));
        }
        sql.text.push_str(&format!("{key} FROM "));
    }

    fn condition(&self, sql: &mut Sql) {
        let view = View { table: self.table, subject: self.subject, new: New::None };
        sql.text.push('(');
        self.table.access.compile(Operation::List, &view, sql);
        sql.text.push(')');
        if let Some(filter) = &self.filter {
            sql.text.push_str(" AND (");
            compile(filter, &view, sql);
            sql.text.push(')');
        }
    }
}

fn id_of(entry: &Entry) -> Option<&str> {
    match &entry.what {
        Changed::Row { id, .. } => Some(id),
        Changed::Much => None,
    }
}

fn was(entry: &Entry) -> Option<&database::Before> {
    match &entry.what {
        Changed::Row { before, .. } => before.as_ref(),
        Changed::Much => None,
    }
}
