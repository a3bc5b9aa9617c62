//! What can go wrong with blobs and sites, and what the caller is told.

use kernel::{BlobHash, Code};

use super::files::Owner;
use super::path::PathError;

/// What most fallible functions of hosting return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of hosting. `at` is a JSON pointer (RFC 6901) relative to what the files are of.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of the caller's machine, which nobody but the command line can read.
    #[error("a directory cannot be read from here")]
    Directory,
    /// A path that no site may have.
    #[error("the path {path:?} is not allowed: {why}")]
    Path { at: String, path: String, why: PathError },
    /// Two paths that are one on machines that ignore case.
    #[error("{first:?} and {second:?} differ only in case or in how they spell the same characters")]
    Collision { at: String, first: String, second: String },
    /// A file where another path needs a directory.
    #[error("{file:?} is a file, so {below:?} cannot lie below it")]
    FileAndDirectory { at: String, file: String, below: String },
    /// Too many files.
    #[error("the {of} has {count} files; the limit is {limit}")]
    TooManyFiles { of: Owner, count: usize, limit: usize },
    /// One file is too large.
    #[error("{path:?} has {size} bytes; the limit is {limit} for each file")]
    FileTooLarge { of: Owner, at: String, path: String, size: u64, limit: u64 },
    /// The files together are too large.
    #[error("the {of} has more than {limit} bytes in all")]
    TooManyBytes { of: Owner, limit: u64 },
    /// Text that was to be base64 and is not.
    #[error("{path:?} is not valid base64")]
    Base64 { at: String, path: String },
    /// Text that was to be a hash and is not.
    #[error("{path:?} names a blob by something else than 64 lower-case hexadecimal digits")]
    Hash { at: String, path: String },
    /// A named blob that was never uploaded to this environment.
    #[error("{path:?} names the blob {hash}, which is not uploaded")]
    NotUploaded { at: String, path: String, hash: BlobHash },
    /// A single-page app without the page.
    #[error("spa is on, but there is no index.html to fall back to")]
    SpaWithoutIndex,
    /// A header rule that cannot be.
    #[error("{why}")]
    HeaderRule { at: String, why: String },
    /// A redirect that cannot be.
    #[error("{why}")]
    Redirect { at: String, why: String },
    /// An upload whose bytes are not the ones that were announced.
    #[error("the bytes have the SHA-256 {actual}, not {expected}")]
    Mismatch { expected: BlobHash, actual: BlobHash },
    /// An upload over its limit.
    #[error("the blob is larger than {limit} bytes")]
    BlobTooLarge { limit: u64 },
    /// More than the environment's blobs may have together.
    #[error("the app's sites and functions have {used} of {limit} bytes, and this is more")]
    Full { used: u64, limit: u64 },
    /// The sender stopped in the middle of an upload.
    #[error("the upload broke off")]
    Upload(#[source] std::io::Error),
    /// There is no such blob in this environment.
    #[error("there is no blob {0}")]
    NoBlob(BlobHash),
    /// The environment is being removed.
    #[error("the environment is being deleted")]
    Removed,
    /// A stored blob that no longer has the bytes of its name.
    #[error("the stored blob {0} is damaged")]
    Damaged(BlobHash),
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull(#[source] object_store::Error),
    /// The object store failed.
    #[error("the object store failed")]
    Store(#[source] object_store::Error),
    /// The file system failed.
    #[error("the file system failed")]
    Files(#[source] std::io::Error),
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(one) = cause {
            let io = one.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if matches!(io, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) {
                return Error::DiskFull(error);
            }
            cause = one.source();
        }
        Error::Store(error)
    }
}

impl From<Error> for kernel::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let invalid = |at: &str| kernel::Error::invalid(at, message.clone());
        match &error {
            Error::Directory => {
                invalid("/dir").hint("send `files`, or run `steading apply` where the directory is")
            }
            Error::Path { at, .. } => invalid(at).hint("use a relative path such as `assets/app.js`"),
            Error::Collision { at, .. } | Error::FileAndDirectory { at, .. } => {
                invalid(at).hint("rename or remove one of the two")
            }
            Error::TooManyFiles { .. } => {
                kernel::Error::new(Code::TooLarge, message).field("/files").hint("deploy fewer files")
            }
            Error::FileTooLarge { of, at, .. } => kernel::Error::new(Code::TooLarge, message)
                .field(at)
                .hint(format!("make the file smaller, or keep it in storage instead of the {of}")),
            Error::TooManyBytes { of, .. } => kernel::Error::new(Code::TooLarge, message)
                .field("/files")
                .hint(format!("keep large files in storage instead of the {of}")),
            Error::Base64 { at, .. } => {
                invalid(at).hint("use the standard alphabet (RFC 4648 §4), without line breaks")
            }
            Error::Hash { at, .. } => invalid(at).hint("give the SHA-256 of the file's bytes"),
            Error::NotUploaded { at, hash, .. } => {
                invalid(at).hint(format!("upload its bytes with PUT /v1/blobs/{hash}, then try again"))
            }
            Error::SpaWithoutIndex => invalid("/spa").hint("add index.html, or turn spa off"),
            Error::HeaderRule { at, .. } | Error::Redirect { at, .. } => invalid(at),
            Error::Mismatch { .. } => kernel::Error::new(Code::InvalidInput, message)
                .hint("send the bytes as they are, under the SHA-256 of exactly these bytes"),
            Error::BlobTooLarge { .. } => kernel::Error::new(Code::TooLarge, message),
            Error::Full { .. } => kernel::Error::new(Code::QuotaExceeded, message).hint(
                "keep fewer releases (`lifecycle.releases`), or have environments.max_files_bytes raised; what no release \
                 needs goes by itself (`lifecycle.blobs`)",
            ),
            Error::Upload(_) => {
                kernel::Error::new(Code::InvalidInput, message).hint("send it again").source(error)
            }
            Error::NoBlob(hash) => kernel::Error::not_found(format!("blob {hash}")),
            Error::Removed => kernel::Error::new(Code::Conflict, message),
            Error::DiskFull(_) => kernel::Error::new(Code::Unavailable, message)
                .hint("free disk space on the server, then try again")
                .source(error),
            Error::Damaged(_) | Error::Store(_) | Error::Files(_) => kernel::Error::internal(error),
        }
    }
}
