//! Why the control plane does not open.

use std::path::PathBuf;

use crate::key_command::CommandFailed;
use crate::key_encryption::Unwrappable;

/// Why [`crate::Control::open`] failed. The text is for who runs the platform and names paths.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory cannot be made, read or kept private.
    #[error("cannot use {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The control database cannot be used.
    #[error("cannot use the control database {place}")]
    Store {
        /// Where it is, without a password.
        place: String,
        /// Why.
        #[source]
        source: store::Error,
    },
    /// The master key is not one.
    #[error(
        "{} is not a master key (32 bytes): restore it from a backup, for nothing else opens what is sealed",
        .path.display()
    )]
    MasterMalformed {
        /// The file.
        path: PathBuf,
    },
    /// The control database was sealed with a master key that is gone.
    #[error(
        "the master key {} is missing: restore it from a backup, for nothing else opens what is sealed",
        .path.display()
    )]
    MasterMissing {
        /// The file.
        path: PathBuf,
    },
    /// The control database was sealed with another master key.
    #[error("the master key {} does not belong to this control database: restore the one that does", .path.display())]
    MasterForeign {
        /// The file.
        path: PathBuf,
    },
    /// The data keys are wrapped by a command, and none is set.
    #[error("the data keys of this control database are wrapped by a command, and keys.command names none")]
    KeyCommandMissing,
    /// The command that wraps data keys gave none.
    #[error("the command that keys.command names gave no key")]
    KeyCommand(#[source] CommandFailed),
    /// The platform's own data key does not open.
    #[error("the platform's own data key cannot be had: {0}")]
    DataKey(String),
    /// The operator's key file holds something else.
    #[error("{} does not hold an operator key: remove it, and another is made", .path.display())]
    OperatorKey {
        /// The file.
        path: PathBuf,
    },
    /// The stored signing key does not open, or is not the one it says.
    #[error("the stored signing key has been changed: restore the control database from a backup")]
    SigningKey,
    /// The plans cannot be read.
    #[error("the plans cannot be read")]
    Plans(#[source] kernel::Error),
    /// The environment that is there from the start cannot be recorded.
    #[error("the default environment cannot be recorded")]
    DefaultEnvironment(#[source] kernel::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// No template was configured.
    #[error("there must be at least one template")]
    NoTemplate,
}

impl From<Unwrappable> for OpenError {
    fn from(why: Unwrappable) -> Self {
        match why {
            Unwrappable::Command(failed) => OpenError::KeyCommand(failed),
            why => OpenError::DataKey(why.to_string()),
        }
    }
}

impl OpenError {
    /// The next action, where the message does not end with it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            OpenError::File { .. } => Some("check its owner and the space on its disk"),
            OpenError::Store { source, .. } => match source {
                store::Error::Damaged(_) => Some("restore it from a backup"),
                store::Error::Full(_) => Some("make room on its disk"),
                store::Error::Newer { .. } => None,
                _ => Some("check that it is there, that it may be written, and the space on its disk"),
            },
            OpenError::Plans(_) | OpenError::DefaultEnvironment(_) => Some("check the space on the disk"),
            OpenError::KeyCommandMissing => Some("set keys.command as it was"),
            OpenError::KeyCommand(_) => Some(
                "run it by hand: it gets `wrap` or `unwrap` as its last argument, and the key on its standard input",
            ),
            OpenError::DataKey(_) => {
                Some("restore the control database from a backup, with the key that belongs to it")
            }
            OpenError::MasterMalformed { .. }
            | OpenError::MasterMissing { .. }
            | OpenError::MasterForeign { .. }
            | OpenError::OperatorKey { .. }
            | OpenError::SigningKey
            | OpenError::Random(_)
            | OpenError::NoTemplate => None,
        }
    }
}
