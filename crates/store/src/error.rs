//! What can go wrong with the control database.

use kernel::Code;

/// A failure of the control database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is there and is not a sound database.
    #[error("the control database is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A later program has changed the tables.
    #[error(
        "the control database has schema version {found}, this program knows {known}: use a newer program"
    )]
    Newer {
        /// The version in the database.
        found: i64,
        /// The last version this program can read.
        known: i64,
    },
    /// The database cannot be opened or reached.
    #[error("the control database cannot be opened")]
    Open(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database was there and is busy, gone, or read-only now.
    #[error("the control database cannot be reached")]
    Unreachable(#[source] sqlx::Error),
    /// No room for a write.
    #[error("the disk of the control database is full")]
    Full(#[source] sqlx::Error),
    /// A stored value is not what this program writes.
    #[error("a stored {what} cannot be read")]
    Unreadable {
        /// The column.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Anything else the engine says.
    #[error("the control database failed")]
    Engine(#[source] sqlx::Error),
}

/// What every function of the store returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Error::Unreachable(error)
            }
            // SQLite gives its extended result code, whose low byte is the primary one; Postgres five characters.
            E::Database(said) => match said.code().as_deref() {
                Some("53100") => Error::Full(error),
                Some(code) if code.len() == 5 => match &code[..2] {
                    "08" | "53" | "57" => Error::Unreachable(error),
                    "XX" => Error::Damaged(error.into()),
                    _ => Error::Engine(error),
                },
                Some(code) => match code.parse::<i64>().map(|code| code & 0xff) {
                    Ok(11 | 26) => Error::Damaged(error.into()),
                    Ok(13) => Error::Full(error),
                    Ok(5 | 6 | 8 | 10 | 14) => Error::Unreachable(error),
                    _ => Error::Engine(error),
                },
                None => Error::Engine(error),
            },
            _ => Error::Engine(error),
        }
    }
}

impl From<Error> for kernel::Error {
    fn from(error: Error) -> Self {
        match &error {
            Error::Unreachable(_) => {
                kernel::Error::new(Code::Unavailable, "the control database cannot be reached now")
                    .retry_after(std::time::Duration::from_secs(1))
                    .source(error)
            }
            Error::Full(_) => kernel::Error::new(Code::Unavailable, "the platform's disk is full")
                .hint("ask the operator to make room")
                .source(error),
            Error::Damaged(_)
            | Error::Newer { .. }
            | Error::Open(_)
            | Error::Unreadable { .. }
            | Error::Engine(_) => kernel::Error::internal(error),
        }
    }
}
