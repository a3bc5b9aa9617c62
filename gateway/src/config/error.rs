//! Why a configuration is refused.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Source::Variable(name) => write!(f, "the variable {name}"),
            Source::Flag(name) => write!(f, "the flag {name}"),
        }
    }
}

/// Why a configuration is refused. No value is repeated: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{from}: {reason}")]
    Syntax {
        /// Where.
        from: Source,
        /// What is wrong there.
        reason: String,
    },
    /// A key of the file that means nothing.
    #[error("{from}: there is no setting {key:?}")]
    UnknownKey {
        /// The key with its section.
        key: String,
        /// The most alike that there is.
        nearest: Option<&'static str>,
        /// Where.
        from: Source,
    },
    /// A value that a setting cannot have.
    #[error("{from}: {key} {reason}")]
    Value {
        /// The key with its section.
        key: &'static str,
        /// Where.
        from: Source,
        /// What it must be.
        reason: String,
    },
    /// Plain HTTP where others can listen.
    #[error("{0} is not loopback, and plain HTTP there sends keys in the clear")]
    Insecure(SocketAddr),
    /// A mail server without what it takes to use it.
    #[error("mail.smtp is set, and {0}")]
    Mail(&'static str),
    /// A setting that needs another one.
    #[error("{key} is set and {needs} is not")]
    Alone {
        /// What is set.
        key: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A public address that no browser would treat as secure.
    #[error("the public_url is plain HTTP on a host that is not loopback, which sends keys in the clear")]
    InsecurePublicUrl,
    /// A setting that is too small.
    #[error("{key} must be {least} at least{of}")]
    Least {
        /// Which.
        key: &'static str,
        /// How much it must be.
        least: u64,
        /// Where that comes from.
        of: &'static str,
    },
    /// A setting that is too large.
    #[error("{key} must be {most} at most")]
    Most {
        /// Which.
        key: &'static str,
        /// How much it may be.
        most: u64,
    },
    /// Two settings of which one would hold.
    #[error("{one} and {other} are both set")]
    Both {
        /// One.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A setting that cannot be beside the others.
    #[error("{key} {reason}")]
    Wrong {
        /// Which.
        key: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// A bucket whose service is not said.
    #[error("storage.s3_bucket is set, and {0} is not")]
    Bucket(&'static str),
}

impl Error {
    /// The next action.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::UnknownKey { nearest: Some(name), .. } => Some(format!("did you mean {name:?}?")),
            Error::UnknownKey { nearest: None, .. } => {
                Some("remove it; steading.example.toml lists all".to_owned())
            }
            Error::Insecure(_) | Error::InsecurePublicUrl => Some(
                "listen on 127.0.0.1 and serve HTTPS with tls.listen, or put a TLS proxy before it and set \
                 allow_insecure_http = true"
                    .to_owned(),
            ),
            Error::Mail(_) => Some(
                "set mail.from, and mail.user with STEADING_MAIL_PASSWORD where the server asks for them"
                    .to_owned(),
            ),
            Error::Alone { needs, .. } => Some(format!("set {needs} too, or neither")),
            Error::Both { one, other } => Some(format!("set {one} or {other}")),
            Error::Bucket(missing) => Some(format!(
                "set {missing}, or take storage.s3_bucket out to keep files in the data directory"
            )),
            Error::Unreadable { .. }
            | Error::Syntax { .. }
            | Error::Value { .. }
            | Error::Wrong { .. }
            | Error::Least { .. }
            | Error::Most { .. } => None,
        }
    }
}
