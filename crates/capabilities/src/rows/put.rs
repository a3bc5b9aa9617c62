//! Rows that are made where they are not there, and changed where they are: under the rules of both.

use kernel::{Code, Error, Result};
use serde_json::{Map, Value};

use super::change::{self, Change};
use super::error::told;
use super::etag::IfMatch;
use super::given::{Given, changes, new_row, unknown};
use super::service::{Rows, Stored, known};
use super::statement::Statements;
use super::{App, ColumnModel, TableModel};
use crate::access::Guest;
use crate::database::{Cell, RunRows};

/// The longest id that a caller may choose, in characters.
const LONGEST: usize = 64;

/// Which row is put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one of this id.
    Id(String),
    /// The one with the same values in these columns, which must be unique.
    By(Vec<String>),
}

/// A row that is put, checked as either.
pub(super) struct Put<'a> {
    pub table: &'a TableModel,
    by: Vec<&'a ColumnModel>,
    id: Option<String>,
    row: Given,
    /// What a new row is, or why there can be none.
    new: Result<Given>,
    if_match: Option<IfMatch>,
}

impl Rows {
    /// Makes the row, or changes the one that is there to these values; the rest of it stays. Also says which of both.
    ///
    /// # Errors
    /// As [`Rows::create`] and [`Rows::update`]; a row that is hidden is none, so that only who may make one learns that it
    /// is in the way.
    pub async fn put(
        &self,
        guest: &Guest,
        table: &str,
        target: &Target,
        row: Map<String, Value>,
        if_match: Option<IfMatch>,
    ) -> Result<(Stored, bool)> {
        // What is wrong with the request is said before anybody waits for a turn.
        let before = self.app(guest.env()).await?;
        let put = Put::check(&before, guest, table, target, row.clone(), if_match.clone())?;
        let writer = self.databases.rows_writer(guest.env(), guest.depth()).await;
        let mut writer = writer.map_err(|error| told(error, put.table))?;
        // As for a change by itself: these are the rules that hold.
        let app = self.app(guest.env()).await?;
        let put = Put::check(&app, guest, table, target, row, if_match)?;
        let table = put.table;
        writer.begin().await.map_err(|error| told(error, table))?;
        match put.make(&mut writer, guest).await {
            Ok(made) => {
                writer.commit().await.map_err(|error| told(error, table))?;
                Ok(made)
            }
            Err(refusal) => {
                writer.rollback().await.map_err(|error| told(error, table))?;
                Err(refusal)
            }
        }
    }
}

impl<'a> Put<'a> {
    pub fn check(
        app: &'a App,
        guest: &Guest,
        table: &str,
        target: &Target,
        row: Map<String, Value>,
        if_match: Option<IfMatch>,
    ) -> Result<Self> {
        let table = &**known(app, table)?;
        let new = new_row(table, guest.subject(), row.clone());
        let row = changes(table, guest.subject(), row)?;
        let (by, id) = match target {
            Target::Id(id) => (table.column("id").into_iter().collect(), Some(chosen(id)?)),
            Target::By(names) => (unique(table, names, &row)?, None),
        };
        Ok(Self { table, by, id, row, new, if_match })
    }

    /// Makes or changes the row inside an open transaction, which the caller rolls back on an error.
    pub async fn make(self, writer: &mut impl RunRows, guest: &Guest) -> Result<(Stored, bool)> {
        let Put { table, by, id, row, new, if_match } = self;
        let statements = Statements { table, subject: guest.subject() };
        let by_id = id.iter().map(|id| ("id".to_owned(), Value::from(id.as_str()))).collect::<Given>();
        let sql = statements.find(&by, if id.is_some() { &by_id } else { &row });
        let rows = writer.run(sql.text, sql.params).await.map_err(|error| told(error, table))?;
        let there = rows.iter().next().and_then(|row| match row.cell(0) {
            Cell::Text(id) => Some(id.to_owned()),
            _ => None,
        });
        let (change, created) = match there {
            Some(id) => (Change::Update { id, changes: row, if_match }, false),
            None if if_match.is_some() => {
                return Err(Error::precondition("there is no such row").field("/if_match"));
            }
            None => match (id, new?) {
                (Some(id), new) => (Change::Create { id, new }, true),
                (None, new) => (Change::create(new), true),
            },
        };
        let made = change::make(writer, &statements, &change).await.map_err(|error| match error.code() {
            // Whether there is a row that nobody may see is not told apart from one that may not be made.
            Code::NotFound => {
                Error::new(Code::Forbidden, format!("the rules of {} do not allow this put", table.name))
            }
            _ => error,
        })?;
        made.map(|row| (row, created)).ok_or_else(|| Error::internal("a row that was put is not returned"))
    }
}

fn chosen(id: &str) -> Result<String> {
    let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !plain || id.len() > LONGEST {
        let message = format!("an id is 1 to {LONGEST} letters, digits, - and _");
        return Err(Error::invalid("/id", message));
    }
    Ok(id.to_owned())
}

fn unique<'a>(table: &'a TableModel, names: &[String], row: &Given) -> Result<Vec<&'a ColumnModel>> {
    let mut columns = Vec::new();
    for name in names {
        let column = table.shown_column(name).ok_or_else(|| unknown(table, "/by", name))?;
        if row.get(&column.name).is_none_or(Value::is_null) {
            let message = format!("{} says which row it is, and has no value", column.name);
            return Err(Error::invalid(format!("/{}", column.name), message));
        }
        columns.push(column);
    }
    let same = |known: &&Vec<String>| {
        known.len() == columns.len()
            && known.iter().all(|name| columns.iter().any(|column| column.name == *name))
    };
    if table.names_of_rows().find(same).is_none() {
        let lists: Vec<String> = table.names_of_rows().map(|names| names.join(",")).collect();
        let error = Error::invalid(
            "/by",
            format!("the values of {} need not differ in {}", names.join(","), table.name),
        );
        return Err(match lists.as_slice() {
            [] => error.hint("put a row by its id, or make columns unique"),
            lists => error.hint(format!("use by={}", lists.join(" or by="))),
        });
    }
    Ok(columns)
}
