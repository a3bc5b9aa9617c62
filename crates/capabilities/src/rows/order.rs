//! The order of a list, and cursors into it: the last row's place, never more than that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{BlobHash, Error, Result};
use serde_json::{Value, json};

use super::given::unknown;
use super::{ColumnModel, TableModel, Type};
use crate::access::Sql;
use crate::database::{Cell, Row, quoted};

/// How many columns an order may name.
const COLUMNS: usize = 8;

/// The longest text that a cursor holds, in bytes.
const LONGEST: usize = 1_000;

/// By what a list is ordered; the last column is always `id`, so that no two rows are in the same place.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    columns: Vec<(&'a ColumnModel, Direction)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// The place of a row: its values in the columns of the order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place(Vec<Value>);

impl<'a> Order<'a> {
    /// Reads `-created_at,title`; by `id` where nothing is said, which is the order in which rows were made.
    ///
    /// # Errors
    /// `invalid_input` at `/order`.
    pub fn parse(text: Option<&str>, table: &'a TableModel) -> Result<Self> {
        let mut columns: Vec<(&ColumnModel, Direction)> = Vec::new();
        let words = text.unwrap_or_default().split(',').map(str::trim);
        for word in words.filter(|_| text.is_some_and(|text| !text.trim().is_empty())) {
            let (name, direction) = match word.strip_prefix('-') {
                Some(name) => (name, Direction::Down),
                None => (word, Direction::Up),
            };
            let column = table.shown_column(name).ok_or_else(|| match name.rsplit_once(' ') {
                Some((column, _)) => unknown(table, "/order", name)
                    .hint(format!("write {column}, or -{column} for the largest first")),
                None => unknown(table, "/order", name),
            })?;
            if matches!(column.kind, Type::Json | Type::Blob) {
                let message =
                    format!("rows cannot be ordered by {}, a {}", column.name, column.kind.as_str());
                return Err(Error::invalid("/order", message));
            }
            if columns.iter().any(|(known, _)| known.name == column.name) {
                return Err(Error::invalid("/order", format!("{} is named twice", column.name)));
            }
            columns.push((column, direction));
        }
        if columns.len() > COLUMNS {
            return Err(Error::invalid("/order", format!("at most {COLUMNS} columns can be named")));
        }
        // After the id nothing is left to order.
        match columns.iter().position(|(column, _)| column.name == "id") {
            Some(at) => columns.truncate(at + 1),
            None => columns.extend(table.column("id").map(|id| (id, Direction::Up))),
        }
        Ok(Self { columns })
    }

    /// Its columns.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &'a ColumnModel> + '_ {
        self.columns.iter().map(|(column, _)| *column)
    }

    /// Appends what comes after `ORDER BY`. Rows without a value come first, or last where the order is turned.
    pub fn by(&self, sql: &mut Sql) {
        for (index, (column, direction)) in self.columns.iter().enumerate() {
            sql.text.push_str(if index == 0 { "" } else { ", " });
            sql.text.push_str(&quoted(&column.name));
            sql.text.push_str(if *direction == Direction::Down { " DESC" } else { "" });
        }
    }

    /// Appends the condition that a row comes after `place`.
    pub fn after(&self, place: &Place, sql: &mut Sql) {
        let columns: Vec<_> = self.columns.iter().zip(&place.0).collect();
        // Alone it lets an index skip what is before.
        if let Some(((column, direction), value)) = columns.first()
            && !value.is_null()
            && (*direction == Direction::Up || column.required)
        {
            sql.text.push_str(&quoted(&column.name));
            sql.text.push_str(if *direction == Direction::Up { " >= " } else { " <= " });
            bind(value, sql);
            sql.text.push_str(" AND ");
        }
        sql.text.push('(');
        let mut first = true;
        for (index, ((column, direction), value)) in columns.iter().enumerate() {
            if value.is_null() && *direction == Direction::Down {
                continue;
            }
            sql.text.push_str(if first { "(" } else { " OR (" });
            first = false;
            for ((column, _), value) in &columns[..index] {
                sql.text.push_str(&quoted(&column.name));
                sql.text.push_str(" IS ");
                bind(value, sql);
                sql.text.push_str(" AND ");
            }
            let name = quoted(&column.name);
            match (value.is_null(), direction) {
                (true, _) => sql.text.push_str(&format!("{name} IS NOT NULL")),
                (false, Direction::Up) => {
                    sql.text.push_str(&format!("{name} > "));
                    bind(value, sql);
                }
                (false, Direction::Down) => {
                    sql.text.push_str(&format!("({name} < "));
                    bind(value, sql);
                    sql.text.push_str(&format!(" OR {name} IS NULL)"));
                }
            }
            sql.text.push(')');
        }
        sql.text.push(')');
    }

    /// The place of `row`, whose columns from `first` on are those of the order; none where it is too long to be
    /// told.
    pub fn place(&self, row: &Row<'_>, first: usize) -> Option<Place> {
        let mut values = Vec::with_capacity(self.columns.len());
        for index in 0..self.columns.len() {
            values.push(match row.cell(first + index) {
                Cell::Null => Value::Null,
                Cell::Int(number) => number.into(),
                Cell::Real(number) if number.is_infinite() => json!([number > 0.0]),
                Cell::Real(number) => number.into(),
                Cell::Text(text) if text.len() <= LONGEST => text.into(),
                Cell::Text(_) | Cell::Blob(_) => return None,
            });
        }
        Some(Place(values))
    }

    /// `place` as a cursor of this list.
    pub fn cursor(&self, place: &Place, list: &List<'_>) -> String {
        URL_SAFE_NO_PAD.encode(json!([self.digest(list), place.0]).to_string())
    }

    /// The place that a cursor tells. It says where to go on and nothing else: rules and filters are asked again.
    ///
    /// # Errors
    /// `invalid_input` where it is of another list, or not one of ours.
    pub fn read_cursor(&self, cursor: &str, list: &List<'_>) -> Result<Place> {
        let wrong = || {
            Error::invalid("/cursor", "the cursor does not belong to this list")
                .hint("pass the cursor with the very table, where and order that returned it")
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
        let (digest, values): (String, Vec<Value>) = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let infinity = |value: &Value| value.as_array().is_some_and(|it| it.len() == 1 && it[0].is_boolean());
        let fits = |value: &Value| {
            value.is_null() || value.is_string() || infinity(value) || value.is_i64() || value.is_f64()
        };
        let id = values.last().is_some_and(Value::is_string);
        if digest != self.digest(list)
            || values.len() != self.columns.len()
            || !id
            || !values.iter().all(fits)
        {
            return Err(wrong());
        }
        Ok(Place(values))
    }

    /// What ties a cursor to its list.
    fn digest(&self, list: &List<'_>) -> String {
        let order =
            self.columns.iter().map(|(column, direction)| (&column.name, *direction == Direction::Up));
        let text = match list.search {
            None => json!([list.table, list.filter, order.collect::<Vec<_>>()]),
            Some(words) => json!([list.table, list.filter, order.collect::<Vec<_>>(), words]),
        };
        let text = text.to_string();
        BlobHash::of(text.as_bytes()).to_string().chars().take(16).collect()
    }
}

/// What a cursor belongs to, beside the order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List<'a> {
    pub table: &'a str,
    pub filter: Option<&'a str>,
    pub search: Option<&'a str>,
}

/// JSON has no infinities, and neither have parameters.
fn bind(value: &Value, sql: &mut Sql) {
    match value.as_array().and_then(|it| it.first()).map(|it| it.as_bool() == Some(true)) {
        Some(true) => sql.text.push_str("9e999"),
        Some(false) => sql.text.push_str("-9e999"),
        None => sql.bind(value.clone()),
    }
}
