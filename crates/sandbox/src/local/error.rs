//! What goes wrong where sandboxes are made.

use std::io;

use hand::jail::Step;
use kernel::Code;

use super::probe;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such sandbox.
    #[error("there is no such sandbox")]
    Unknown,
    /// There is one with this id.
    #[error("there is a sandbox with this id")]
    Taken,
    /// A version of the runner that is not here.
    #[error("there is no such version of the runner")]
    Runner,
    /// A path that is not below any directory that sandboxes may see.
    #[error("{0} may not be mounted into a sandbox")]
    Outside(String),
    /// A step of making a jail.
    #[error("a jail cannot be made here: {step:?} at {at}")]
    Jail {
        /// The step.
        step: Step,
        /// On what.
        at: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Whoever makes the jail ended without a word, or took too long.
    #[error("the jail's maker ended early")]
    Maker,
    /// There is no gVisor.
    #[error("gVisor is not installed on this machine")]
    NoGvisor,
    /// gVisor was started, and its hand did not speak.
    #[error("gVisor did not start: {0}")]
    Gvisor(String),
    /// Sandboxes of this machine are not kept from it like that.
    #[error("sandboxes that are kept apart by {0} are not made on this machine")]
    Isolation(&'static str),
    /// Nothing here can pause processes.
    #[error("sandboxes cannot be paused on this machine")]
    Freezer,
    /// Nobody gets to the sockets of what runs inside.
    #[error("the sockets of what runs in this sandbox cannot be reached")]
    Door(#[source] io::Error),
    /// A control group.
    #[error("a control group failed")]
    Groups(#[source] io::Error),
    /// A file of the run directory, or a socket.
    #[error("{0} failed")]
    Files(&'static str, #[source] io::Error),
    /// Another process uses the run directory.
    #[error("another process uses the run directory")]
    Locked,
    /// Everybody who may make processes is busy.
    #[error("no more threads can be made")]
    Threads(#[source] io::Error),
    /// The process that makes sandboxes is gone, or does not speak as it should.
    #[error("the process that makes sandboxes is gone")]
    Gone(#[source] io::Error),
    /// Where things are cannot be said to it, or it was not told.
    #[error("a path cannot be told to the process that makes sandboxes")]
    Settings(#[source] serde_json::Error),
    /// The process that starts the one that makes sandboxes is gone.
    #[error("the process that starts the one that makes sandboxes is gone")]
    Starter,
    /// It answered what was not asked.
    #[error("the process that makes sandboxes gave an answer to something else")]
    Answer,
    /// A call came that cannot come now.
    #[error("this cannot be asked now")]
    Order,
}

impl From<Error> for kernel::Error {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let unavailable = |error: Error, hint: &str| {
            kernel::Error::new(Code::Unavailable, "sandboxes are not available").hint(hint).source(error)
        };
        match &error {
            Error::Unknown => kernel::Error::not_found("sandbox"),
            Error::Taken => kernel::Error::new(Code::Conflict, text),
            Error::Runner => kernel::Error::not_found("such version of the runner"),
            Error::Freezer => kernel::Error::new(Code::Unavailable, text)
                .hint("let this process write a control group with a freezer; `doctor` says how"),
            Error::Jail { step, source, .. } => {
                let hint = probe::mend(*step, source);
                unavailable(error, &hint)
            }
            Error::NoGvisor => kernel::Error::new(Code::Unavailable, text)
                .hint("install it: `apt install runsc`, or name the program in sandbox.runsc"),
            Error::Gvisor(_) => unavailable(
                error,
                "run `steading doctor`; gVisor needs root, and a machine whose processes may trace their own",
            ),
            Error::Isolation(_) => kernel::Error::new(Code::Unavailable, text)
                .hint("the operator demands less in sandbox.isolation, or serves on a machine that has it"),
            Error::Door(_) => unavailable(error, "it may just have ended: try again"),
            Error::Groups(_) => unavailable(error, "free memory, or raise the limit on control groups"),
            Error::Threads(_) | Error::Maker => {
                unavailable(error, "try again when the machine is less loaded")
            }
            Error::Gone(_) => unavailable(error, "try again; the process is started again"),
            Error::Starter => {
                unavailable(error, "have `steading serve` started again; all but sandboxes works")
            }
            Error::Settings(_) => {
                unavailable(error, "choose a data directory whose path is valid UTF-8, with --data-dir")
            }
            Error::Locked => unavailable(error, "stop the other process that uses this data directory"),
            Error::Outside(_) | Error::Files(..) | Error::Answer | Error::Order => {
                kernel::Error::internal(error)
            }
        }
    }
}
