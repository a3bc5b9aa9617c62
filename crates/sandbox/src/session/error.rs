//! What can go wrong between a session and the hand.

use hand::wire::{Cause, Failure};
use kernel::Code;

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The sandbox, or its connection, has ended.
    #[error("the sandbox has ended")]
    Closed,
    /// The other side is no hand, or one of another version.
    #[error("the hand does not keep to the protocol: {0}")]
    Protocol(&'static str),
    /// The hand says no.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// What was to be written could not be read.
    #[error("the content could not be read: {0}")]
    Content(std::io::ErrorKind),
    /// The request is too long for one message.
    #[error("the request is {bytes} bytes, of at most {most}", most = hand::wire::MAX_PAYLOAD)]
    TooLong {
        /// Its size.
        bytes: usize,
    },
}

/// What most fallible functions here return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for kernel::Error {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Closed => {
                kernel::Error::new(Code::Unavailable, text).hint("call again: the sandbox is started anew")
            }
            Error::Protocol(_) => kernel::Error::internal(error),
            Error::Content(_) => kernel::Error::new(Code::InvalidInput, text).hint("send it again"),
            Error::TooLong { .. } => kernel::Error::new(Code::TooLarge, text)
                .hint("write what is long to a file and name the file"),
            Error::Refused(failure) => match failure.cause {
                Cause::Invalid => kernel::Error::new(Code::InvalidInput, text),
                Cause::NotFound => kernel::Error::new(Code::NotFound, text),
                Cause::Denied => kernel::Error::new(Code::Forbidden, text),
                Cause::Exists => kernel::Error::new(Code::Conflict, text),
                Cause::Full => {
                    kernel::Error::new(Code::QuotaExceeded, text).hint("remove files that are not needed")
                }
                Cause::TimedOut => kernel::Error::new(Code::Timeout, text).hint("ask for less at once"),
                Cause::Busy => kernel::Error::new(Code::Unavailable, text)
                    .hint("end what runs in the background: `kill -9 -1` ends all of it"),
                Cause::Reset => kernel::Error::new(Code::Conflict, text),
                Cause::Broken => kernel::Error::new(Code::Unavailable, text),
            },
        }
    }
}
