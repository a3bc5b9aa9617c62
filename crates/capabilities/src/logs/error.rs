//! What can go wrong when a log is read.

use kernel::Code;

/// What most fallible functions of logs return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of logs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A cursor that no page gave out.
    #[error("{0:?} is not a cursor of logs_query")]
    Cursor(String),
    /// The file system failed.
    #[error("the file system failed")]
    Files(#[source] std::io::Error),
}

impl From<Error> for kernel::Error {
    fn from(error: Error) -> Self {
        match &error {
            Error::Cursor(_) => kernel::Error::new(Code::InvalidInput, error.to_string())
                .field("/cursor")
                .hint("pass the cursor of the page before, or none for the newest entries"),
            Error::Files(_) => kernel::Error::internal(error),
        }
    }
}
