//! Changes to rows, made in a turn of the writer: alone or one of several.

use kernel::{Code, Error, Result};

use super::encode;
use super::error::told;
use super::etag::{self, IfMatch};
use super::given::{Given, parameter};
use super::service::Stored;
use super::statement::{Statements, new_id};
use super::{ColumnModel, TableModel, Type};
use crate::access::{Operation, Sql};
use crate::database::{self, Cell, Row, RunRows, quoted};

/// What is done with one row, its values checked.
#[derive(Debug)]
pub(super) enum Change {
    Create { id: String, new: Given },
    Update { id: String, changes: Given, if_match: Option<IfMatch> },
    Delete { id: String, if_match: Option<IfMatch> },
}

impl Change {
    /// A new row.
    pub fn create(new: Given) -> Self {
        Change::Create { id: new_id(), new }
    }

    /// Whether it may turn out after the fact that nothing is to be changed.
    pub fn is_conditional(&self) -> bool {
        match self {
            Change::Create { .. } => false,
            Change::Update { if_match, .. } | Change::Delete { if_match, .. } => if_match.is_some(),
        }
    }
}

/// Makes the change and returns the row as it is then, or as it was. On an error the caller rolls back where it has
/// a transaction open, which it must have for a conditional change.
pub(super) async fn make(
    writer: &mut impl RunRows,
    statements: &Statements<'_>,
    change: &Change,
) -> Result<Option<Stored>> {
    let table = statements.table;
    match change {
        Change::Create { id, new } => match one(writer, table, statements.create(id, new)).await {
            Ok(Some(row)) => Ok(Some(row)),
            Ok(None) => Err(refused(table, Operation::Create)),
            Err(database::Error::ForeignKey) => Err(dangling(writer, table, new).await),
            Err(error) => Err(told(error, table)),
        },
        Change::Update { id, changes, if_match } => {
            let before = match if_match {
                Some(_) => Some(read(writer, statements, id).await?),
                None => None,
            };
            match one(writer, table, statements.update(id, changes)).await {
                Ok(Some(row)) => condition(if_match.as_ref(), before.as_ref()).map(|()| Some(row)),
                Ok(None) => Err(not_changed(writer, statements, id, changes).await),
                Err(database::Error::ForeignKey) => Err(dangling(writer, table, changes).await),
                Err(error) => Err(told(error, table)),
            }
        }
        Change::Delete { id, if_match } => match one(writer, table, statements.delete(id)).await {
            Ok(Some(row)) => condition(if_match.as_ref(), Some(&row)).map(|()| Some(row)),
            Ok(None) => Err(not_permitted(writer, statements, id, Operation::Delete).await),
            Err(database::Error::ForeignKey) => {
                Err(Error::new(Code::Conflict, "other rows refer to this row")
                    .hint("remove or change those first"))
            }
            Err(error) => Err(told(error, table)),
        },
    }
}

/// The row with this id, as the turn sees it.
///
/// # Errors
/// `not_found` where it is hidden.
pub(super) async fn read(writer: &mut impl RunRows, statements: &Statements<'_>, id: &str) -> Result<Stored> {
    let row = one(writer, statements.table, statements.get(id)).await;
    row.map_err(|error| told(error, statements.table))?.ok_or_else(|| hidden(statements.table))
}

/// `row`, which has all columns of its table that are shown.
pub(super) fn stored(table: &TableModel, row: &Row<'_>) -> Result<Stored, database::Error> {
    let mut json = Vec::with_capacity(256);
    let columns: Vec<_> = table.shown().collect();
    encode::object(&columns, row, &mut json)?;
    let id = match row.cell(0) {
        Cell::Text(id) => id.to_owned(),
        _ => String::new(),
    };
    Ok(Stored { id, etag: etag::of(&json), json: json.into() })
}

/// There is no such row, or none that may be read: one answer for both.
pub(super) fn hidden(table: &TableModel) -> Error {
    Error::not_found(format!("such row in {}", table.name))
}

async fn one(
    writer: &mut impl RunRows,
    table: &TableModel,
    sql: Sql,
) -> Result<Option<Stored>, database::Error> {
    let rows = writer.run(sql.text, sql.params).await?;
    rows.iter().next().map(|row| stored(table, &row)).transpose()
}

/// What comes last: a condition counts only where all else would go well (RFC 9110 §13.2.1).
fn condition(if_match: Option<&IfMatch>, row: Option<&Stored>) -> Result<()> {
    match (if_match, row) {
        (Some(condition), Some(row)) if !condition.holds(&row.etag) => {
            Err(Error::precondition("the row has changed since it was read")
                .field("/if_match")
                .hint("read it again, and send its new etag"))
        }
        _ => Ok(()),
    }
}

/// Nothing was changed: the row is hidden, or may be seen and no more.
async fn not_permitted(
    writer: &mut impl RunRows,
    statements: &Statements<'_>,
    id: &str,
    operation: Operation,
) -> Error {
    match read(writer, statements, id).await {
        Ok(_) => refused(statements.table, operation),
        Err(error) => error,
    }
}

/// As [`not_permitted`], naming the column that would not have stayed as it is.
async fn not_changed(
    writer: &mut impl RunRows,
    statements: &Statements<'_>,
    id: &str,
    changes: &Given,
) -> Error {
    let table = statements.table;
    let row = match read(writer, statements, id).await {
        Ok(row) => serde_json::from_slice::<Given>(&row.json).unwrap_or_default(),
        Err(error) => return error,
    };
    let differs = |column: &&ColumnModel| {
        let given = changes.get(&column.name);
        column.immutable
            && statements.keeps(column)
            && given.is_some_and(|it| row.get(&column.name) != Some(it))
    };
    match table.shown().find(differs) {
        Some(column) => {
            Error::new(Code::Forbidden, format!("{} keeps the value that the row was made with", column.name))
                .field(format!("/{}", column.name))
                .hint("leave it out")
        }
        None => refused(table, Operation::Update),
    }
}

fn refused(table: &TableModel, operation: Operation) -> Error {
    Error::new(Code::Forbidden, format!("the rules of {} do not allow this {operation}", table.name))
}

/// Names the reference that points at nothing; the engine does not say it.
async fn dangling(writer: &mut impl RunRows, table: &TableModel, given: &Given) -> Error {
    for column in &table.columns {
        let (Some(target), Some(value)) = (&column.references, given.get(&column.name)) else { continue };
        let text = format!("SELECT 1 FROM {} WHERE \"id\" = ?", quoted(target));
        if value.is_null() {
            continue;
        }
        let found = match writer.run(text, vec![parameter(Type::Text, value)]).await {
            Ok(rows) => rows.iter().len() > 0,
            Err(error) => return told(error, table),
        };
        if !found {
            return Error::new(
                Code::Conflict,
                format!("{} refers to a row of {target} that is not there", column.name),
            )
            .field(format!("/{}", column.name));
        }
    }
    told(database::Error::ForeignKey, table)
}
