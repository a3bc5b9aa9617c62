//! What can go wrong with an environment's database, and what the caller is told.

use std::time::Duration;

use kernel::{Code, EnvId, LimitInfo, LimitScope};

use super::policy::Refusal;

/// What the names of checks begin with that are a column's; the column's name follows. No name of a table or a column has
/// a dot.
pub(crate) const CHECK: &str = "check.";

/// Why a call on an environment's database failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine does not take the statement.
    #[error("{message}{}", at.map(|at| format!(" (at byte {at})")).unwrap_or_default())]
    Statement {
        /// The engine's words.
        message: String,
        /// The byte of the text it points at.
        at: Option<usize>,
        /// What to write instead.
        hint: Option<&'static str>,
    },
    /// The guard does not let the statement pass.
    #[error("{0}")]
    Refused(Refusal),
    /// More than one statement, where one is expected.
    #[error("only one statement is allowed")]
    Several,
    /// A function listens to a table that would not be there.
    #[error("there is no table {table}, and the function {function} listens to it")]
    Listened {
        /// The function.
        function: String,
        /// Which of its events, from 0.
        at: usize,
        /// The table.
        table: String,
    },
    /// No statement at all.
    #[error("there is no statement in the text")]
    Empty,
    /// The text is too long.
    #[error("the SQL text is {bytes} bytes long and at most {most} are allowed")]
    TextTooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// As many parameters as the statement names must come.
    #[error("the statement has {expected} parameters and {given} values were given")]
    ParameterCount {
        /// How many the statement names.
        expected: usize,
        /// How many came.
        given: usize,
    },
    /// A parameter with a name instead of a number.
    #[error("the parameter {0} has no number")]
    ParameterName(String),
    /// Bare and numbered parameters in one statement.
    #[error("the statement mixes bare ? and numbered parameters")]
    ParameterStyles,
    /// A parameter's value has no place in a column.
    #[error("the value {why}")]
    Parameter {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A row with the same key is there.
    #[error("a row with the same {0} is already there")]
    Duplicate(String),
    /// A reference to a row that is not there, or from rows that still are.
    #[error("a foreign key would point at a row that is not there")]
    ForeignKey,
    /// A value that its column does not take: missing, of another type, or against a check.
    #[error("{0}")]
    Value(String),
    /// A value against the check of this column.
    #[error("the check of {0} does not hold")]
    Check(String),
    /// A value or row above the limit.
    #[error("a text, blob or row is over the limit of the database")]
    ValueTooBig,
    /// The statement took too long.
    #[error("the statement ran longer than {} s", .0.as_secs_f32())]
    TooSlow(Duration),
    /// The call was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// The statement took too much memory.
    #[error("the statement needs too much memory")]
    TooMuchMemory,
    /// Together with what others ran at that moment, too much memory was needed.
    #[error("too much memory is needed at this moment")]
    Crowded,
    /// Others were first, for too long.
    #[error("the database is busy")]
    Busy,
    /// The database is at its largest.
    #[error("the database has reached its size quota")]
    Quota {
        /// That of rows, in bytes.
        bytes: u64,
    },
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The disk cannot be read or written.
    #[error("the disk cannot be read or written")]
    Disk(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The cursor is of another statement, or not one of ours.
    #[error("the cursor does not belong to this statement and its parameters")]
    Cursor,
    /// One row alone is above what a result may be.
    #[error(
        "row {row} is about {tokens} tokens, most of them in the column {column}, and a result may be {most}"
    )]
    WideRow {
        /// Which row of the whole result, from 1.
        row: u64,
        /// Its widest column.
        column: String,
        /// How wide it is.
        tokens: usize,
        /// How wide a result may be.
        most: usize,
    },
    /// What a change returns is above what a result may be; the change is undone.
    #[error("the rows that RETURNING gives are too many for one result, and nothing was changed")]
    WideReturning,
    /// The environment has no database.
    #[error("there is no database of the environment {0}")]
    Unknown(EnvId),
    /// The environment has a database.
    #[error("the environment {0} has a database already")]
    Exists(EnvId),
    /// The environment is there and its database file is gone.
    #[error("the database file of the environment {0} is missing")]
    Missing(EnvId),
    /// The file is damaged or not ours.
    #[error("the database of the environment {0} is damaged")]
    Damaged(EnvId),
    /// A later version of this program has changed the platform's tables.
    #[error("the database of the environment {0} belongs to a later version of this program")]
    Newer(EnvId),
    /// The name is taken by a migration with other content.
    #[error("the migration {0} was applied before with other content")]
    MigrationChanged(String),
    /// A migration would lose something else than what was accepted.
    #[error("what the migration would lose has changed since the dry run")]
    MoreLost,
    /// The name of a migration is empty or too long.
    #[error("a migration needs a name of 1 to 200 characters")]
    MigrationName,
    /// The migration breaks a reference between rows.
    #[error("after this migration {rows} rows of {table} would point at rows that are not there")]
    MigrationBreaksReferences {
        /// The table that refers.
        table: String,
        /// How many of its rows.
        rows: u64,
    },
    /// A part of a script.
    #[error("statement {number}: {source}")]
    Script {
        /// Which statement, from 1.
        number: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// There is no such table to load into.
    #[error("there is no table {0}")]
    NoTable(String),
    /// The data cannot be read at all.
    #[error("the data is not valid {format}: {why}")]
    Data {
        /// The format it should have.
        format: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A row of the data cannot be loaded; nothing was.
    #[error("line {line}{}: {why}", column.as_ref().map(|c| format!(", column {c}")).unwrap_or_default())]
    Row {
        /// The line of the text, or the element of the array, from 1.
        line: u64,
        /// The column.
        column: Option<String>,
        /// What is wrong there.
        why: String,
    },
    /// A transaction is needed, or is open already.
    #[error("the transaction of this writer is {0}")]
    Transaction(&'static str),
    /// The engine failed in a way that is not the caller's.
    #[error("the database engine failed")]
    Engine(#[source] sqlx::Error),
    /// A file operation failed.
    #[error("a file of the database cannot be used")]
    File(#[source] std::io::Error),
}

impl From<Error> for kernel::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let new = |code| kernel::Error::new(code, message.clone());
        let sql = |code| new(code).field("/sql");
        match error {
            Error::Statement { hint, .. } => advised(sql(Code::InvalidInput), hint),
            Error::Refused(refusal) => advised(sql(Code::InvalidInput), refusal.advice()),
            Error::Several => sql(Code::InvalidInput)
                .hint("send the statements one by one, or as one script with db_migrate"),
            Error::Empty => sql(Code::InvalidInput),
            Error::TextTooLong { .. } => sql(Code::TooLarge).hint("pass data as params, or use db_load"),
            Error::ParameterCount { .. } => new(Code::InvalidInput).field("/params"),
            Error::ParameterName(_) => sql(Code::InvalidInput).hint("write ?1, ?2 or $1, $2"),
            Error::ParameterStyles => sql(Code::InvalidInput).hint("use either ?, ? or ?1, ?2"),
            Error::Parameter { index, .. } => new(Code::InvalidInput).field(format!("/params/{index}")),
            Error::Duplicate(_) => sql(Code::Conflict)
                .hint("change the value, or add ON CONFLICT DO NOTHING or ON CONFLICT DO UPDATE"),
            Error::ForeignKey => sql(Code::Conflict)
                .hint("insert the row that is referred to first; delete the rows that refer first"),
            Error::Value(_) | Error::Check(_) => sql(Code::InvalidInput),
            Error::ValueTooBig => {
                sql(Code::TooLarge).hint("keep large content in storage and its address here")
            }
            Error::TooSlow(_) => {
                sql(Code::Timeout).hint("add a LIMIT, a WHERE that an index serves, or an index")
            }
            Error::Cancelled => new(Code::Timeout),
            Error::TooMuchMemory => sql(Code::TooLarge)
                .hint("read or change fewer rows at once, or add an index for the ORDER BY"),
            Error::Busy | Error::Crowded => new(Code::Unavailable).retry_after(Duration::from_secs(1)),
            Error::Quota { bytes } => {
                let info = LimitInfo::new("database_bytes", LimitScope::Environment, bytes, "bytes")
                    .raised("ask who runs the platform for a plan with more");
                new(Code::QuotaExceeded)
                    .limit(info)
                    .hint("delete rows that are not needed, or ask for a larger quota")
            }
            Error::DiskFull => {
                new(Code::Unavailable).hint("the operator has to free space on the disk; nothing was changed")
            }
            Error::Disk(source) => new(Code::Unavailable)
                .hint("the operator has to look after the disk; nothing was changed")
                .source(source),
            Error::Cursor => new(Code::InvalidInput)
                .field("/cursor")
                .hint("pass the cursor with the very statement and parameters that returned it"),
            Error::WideRow { .. } => sql(Code::TooLarge)
                .hint("select fewer columns, or a part of the value with substr(column, 1, 2000)"),
            Error::WideReturning => {
                sql(Code::TooLarge).hint("return fewer columns, or none and read them after")
            }
            Error::Unknown(_) => new(Code::NotFound)
                .hint("it is being deleted, or its directory is gone: restore that from a backup"),
            Error::Exists(_) => new(Code::Conflict),
            Error::Missing(_) | Error::Damaged(_) => {
                new(Code::Unavailable).hint("restore it from a backup, or delete the environment")
            }
            Error::Newer(_) => {
                new(Code::Unavailable).hint("run the version that served it last, or a later one")
            }
            Error::MigrationChanged(_) => new(Code::Conflict)
                .field("/name")
                .hint("an applied migration does not change: write the difference as a new one"),
            Error::Listened { .. } => sql(Code::Conflict)
                .hint("leave the table as it is called, or apply a manifest whose function has no `events` of it first"),
            Error::MoreLost => {
                new(Code::Conflict).field("/confirm").hint("make another dry run and look at what it returns")
            }
            Error::MigrationName => new(Code::InvalidInput).field("/name"),
            Error::MigrationBreaksReferences { .. } => sql(Code::Conflict),
            Error::Script { source, .. } => {
                let inner = kernel::Error::from(*source);
                let outer = advised(kernel::Error::new(inner.code(), message), inner.advice());
                outer.field("/sql")
            }
            Error::NoTable(_) => new(Code::NotFound).field("/table").hint("create it with db_migrate"),
            Error::Data { .. } | Error::Row { .. } => new(Code::InvalidInput)
                .field("/text")
                .hint("nothing was loaded; mend the data and send it again"),
            Error::Transaction(_) => kernel::Error::internal(message),
            Error::Engine(source) => kernel::Error::internal(source),
            Error::File(source) => kernel::Error::internal(source),
        }
    }
}

fn advised(error: kernel::Error, hint: Option<&str>) -> kernel::Error {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
