//! What can go wrong with files of workspaces.

use std::io;

use kernel::Code;

/// Why a workspace could not be made, kept, read or brought back. Paths are those inside the workspace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such workspace or snapshot.
    #[error("there is no {0}")]
    Missing(String),
    /// The id is in use.
    #[error("{0} exists already")]
    Taken(String),
    /// A quota below the least.
    #[error("at least {least} bytes are needed, not {given}")]
    QuotaTooSmall {
        /// What was asked for.
        given: u64,
        /// The least there is.
        least: u64,
    },
    /// More than the quota.
    #[error("the files take more than the {quota_bytes} bytes that the workspace may hold")]
    OverQuota {
        /// The quota.
        quota_bytes: u64,
    },
    /// A tree is over a bound.
    #[error("{path}: {what}, and at most {most} can be kept")]
    OverCap {
        /// Where.
        path: String,
        /// Of what there is too much.
        what: &'static str,
        /// How much is allowed.
        most: u64,
    },
    /// A tree takes too long to read.
    #[error("the files could not be read within {seconds} seconds")]
    TooSlow {
        /// How long they may take.
        seconds: u64,
    },
    /// Something that is not taken along where it is.
    #[error("{path}: {what}")]
    Refused {
        /// Where.
        path: String,
        /// Why.
        what: &'static str,
    },
    /// An archive or a manifest is not what was written.
    #[error("the archive is not what was written: {path}: {what}")]
    Spoilt {
        /// Where, or of what.
        path: String,
        /// Why.
        what: &'static str,
    },
    /// What is needed is not on this machine.
    #[error("{what}")]
    Unavailable {
        /// What is missing.
        what: String,
        /// What is to be done about it.
        hint: String,
    },
    /// The kernel or the file system.
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
}

impl Error {
    /// A system call failed while `what` was done.
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io(what, error)
    }

    /// The same of rustix's errors.
    pub(crate) fn os(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |error| Self::Io(what, error.into())
    }
}

impl From<Error> for kernel::Error {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Missing(what) => Self::not_found(what),
            Error::Taken(_) => Self::new(Code::Conflict, text),
            Error::QuotaTooSmall { .. } => Self::invalid("/quota_bytes", text),
            Error::OverQuota { .. } => Self::new(Code::QuotaExceeded, text)
                .hint("give the workspace a larger quota, or remove files"),
            Error::OverCap { .. } => Self::new(Code::TooLarge, text).hint("remove it from the workspace"),
            Error::TooSlow { .. } => {
                Self::new(Code::TooLarge, text).hint("remove files, above all directories deep within others")
            }
            Error::Refused { .. } => Self::new(Code::InvalidInput, text),
            Error::Unavailable { hint, .. } => Self::new(Code::Unavailable, text).hint(hint),
            Error::Io(_, ref source) if full(source) => Self::new(Code::QuotaExceeded, text)
                .hint("remove files, or give the workspace or the disk more room")
                .source(error),
            Error::Spoilt { .. } | Error::Io(..) => Self::internal(error),
        }
    }
}

fn full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}
