//! What the users of an app are told when the database refuses.

use kernel::{Code, Error};

use super::TableModel;
use crate::database;

/// `error` in the words of the data plane: of columns and rows, never of statements.
pub(super) fn told(error: database::Error, table: &TableModel) -> Error {
    use database::Error as E;
    let message = error.to_string();
    match error {
        E::Duplicate(what) => duplicate(&what, table),
        E::ForeignKey => Error::new(Code::Conflict, "a reference would point at a row that is not there"),
        E::Value(_) => Error::new(Code::InvalidInput, message),
        E::Check(column) => unchecked(&column, table),
        E::ValueTooBig => Error::new(Code::TooLarge, "a value or the whole row is too large")
            .hint("keep large content in files"),
        E::TooSlow(_) => Error::new(Code::Timeout, "the rows could not be read or changed in time")
            .hint("narrow the where, or have an index added for it"),
        E::TooMuchMemory => Error::new(Code::TooLarge, "too much memory is needed for this")
            .hint("narrow the where, or have an index added for the order"),
        // The statement is ours: the table is another than the release says, or sets off something that may not be.
        E::Statement { .. } | E::Refused(_) => {
            let message = format!("the table {} is not as the release has it", table.name);
            Error::new(Code::Unavailable, message)
                .hint("app_describe shows how they differ; apply the manifest again")
        }
        E::Cancelled
        | E::Busy
        | E::Crowded
        | E::Quota { .. }
        | E::DiskFull
        | E::Disk(_)
        | E::Unknown(_)
        | E::Missing(_)
        | E::Damaged(_)
        | E::Newer(_)
        | E::Engine(_)
        | E::File(_) => Error::from(error),
        E::Several
        | E::Empty
        | E::TextTooLong { .. }
        | E::ParameterCount { .. }
        | E::ParameterName(_)
        | E::ParameterStyles
        | E::Parameter { .. }
        | E::Cursor
        | E::WideRow { .. }
        | E::WideReturning
        | E::Exists(_)
        | E::MigrationChanged(_)
        | E::MoreLost
        | E::MigrationName
        | E::MigrationBreaksReferences { .. }
        | E::Script { .. }
        | E::NoTable(_)
        | E::Data { .. }
        | E::Row { .. }
        | E::Listened { .. }
        | E::Transaction(_) => Error::internal(error),
    }
}

/// A value against the check of `column`.
fn unchecked(column: &str, table: &TableModel) -> Error {
    let Some(column) = table.shown_column(column) else {
        return Error::new(Code::InvalidInput, "the values do not meet a check of the table");
    };
    let hidden = |said: &&str| table.columns.iter().any(|other| other.hidden && said.contains(&other.name));
    let message = match column.check.as_deref().filter(|said| !hidden(said)) {
        Some(said) => format!("{} does not meet its check: {said}", column.name),
        None => format!("{} does not meet its check", column.name),
    };
    Error::invalid(format!("/{}", column.name), message)
}

/// `what` is `todos.list, todos.title`, or the name of an index.
fn duplicate(what: &str, table: &TableModel) -> Error {
    let columns: Vec<&str> = what
        .split(", ")
        .filter_map(|part| table.shown_column(part.rsplit('.').next()?))
        .map(|column| column.name.as_str())
        .collect();
    let conflict =
        |words: String| Error::new(Code::Conflict, format!("a row with the same {words} is already there"));
    match columns.first() {
        Some(first) => conflict(columns.join(", ")).field(format!("/{first}")),
        None => conflict("values".to_owned()),
    }
}
