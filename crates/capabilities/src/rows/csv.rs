//! Lists of rows as CSV (RFC 4180), for programs that calculate: no cell is a formula.

use bytes::Bytes;
use kernel::Result;

use super::list::{Bounds, ListQuery};
use super::service::{Rows, known};
use super::{TableModel, Type, encode};
use crate::access::Guest;
use crate::database::{self, Cell};

/// How many rows a page has, where nothing is said and at most.
const ROWS: u32 = 10_000;

/// A page of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name, as the manifest writes it.
    pub name: String,
    /// The names of the columns, then the rows, each line with its end.
    pub csv: Bytes,
    /// Where to go on, where more rows follow.
    pub cursor: Option<String>,
}

impl Rows {
    /// The rows that `guest` may list, as CSV.
    ///
    /// # Errors
    /// As [`Rows::list`].
    pub async fn csv(&self, guest: &Guest, table: &str, query: &ListQuery) -> Result<Table> {
        let app = self.app(guest.env()).await?;
        match self.csv_of(known(&app, table)?, guest, query).await {
            Err(error) => {
                let now = self.switched(guest.env(), &app, error).await?;
                self.csv_of(known(&now, table)?, guest, query).await
            }
            listed => listed,
        }
    }

    async fn csv_of(&self, table: &TableModel, guest: &Guest, query: &ListQuery) -> Result<Table> {
        for (name, given) in [
            ("expand", query.expand.is_some()),
            ("aggregate", query.aggregate.is_some()),
            ("group", query.group.is_some()),
        ] {
            if given {
                return Err(kernel::Error::invalid(format!("/{name}"), format!("CSV has no {name}")));
            }
        }
        let page = self.page(guest, table, query, Bounds { usual: ROWS, most: ROWS }, &[]).await?;
        let names: Vec<&str> = page.columns.iter().map(|column| column.name.as_str()).collect();
        let mut csv = names.join(",").into_bytes();
        csv.extend_from_slice(b"\r\n");
        let cursor = page.each(|row| {
            let before = csv.len();
            for (index, column) in page.columns.iter().enumerate() {
                csv.extend_from_slice(if index > 0 { b"," } else { b"" });
                cell(column.kind, row.cell(index), &mut csv)?;
            }
            csv.extend_from_slice(b"\r\n");
            Ok(csv.len() - before)
        })?;
        Ok(Table { name: table.name.clone(), csv: csv.into(), cursor })
    }
}

fn cell(kind: Type, cell: Cell<'_>, to: &mut Vec<u8>) -> std::result::Result<(), database::Error> {
    match (kind, cell) {
        (_, Cell::Null) => {}
        (Type::Blob, _) => {
            let mut json = Vec::new();
            encode::value(kind, cell, &mut json)?;
            text(&String::from_utf8_lossy(&json), to);
        }
        (_, Cell::Text(value)) => text(value, to),
        // A number is one, also where it begins with a minus.
        (_, cell) => encode::value(kind, cell, to)?,
    }
    Ok(())
}

/// A text between quotes, after an apostrophe where a program would take it for a formula
/// (<https://owasp.org/www-community/attacks/CSV_Injection>).
fn text(value: &str, to: &mut Vec<u8>) {
    to.push(b'"');
    let first = value.trim_start_matches([' ', '\u{a0}']).chars().next();
    // The wide forms are the same to spreadsheets of the far east.
    if first
        .is_some_and(|c| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠'))
    {
        to.push(b'\'');
    }
    to.extend_from_slice(value.replace('"', "\"\"").as_bytes());
    to.push(b'"');
}
