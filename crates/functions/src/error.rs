//! Why a function does not run.

use std::sync::Arc;
use std::time::Duration;

use capabilities::functions::Kind;
use kernel::Code;
use serde::{Deserialize, Serialize};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The module does not load, or has nothing to call. Its author mends it.
    #[error("the function does not start: {}", .0.message)]
    Failed(Box<Failure>),
    /// It ended before it was ready, and said nothing of why.
    #[error("the function ended before it was ready ({0})")]
    Ended(String),
    /// It does not answer.
    #[error("the function does not answer")]
    Silent,
    /// Its process is gone.
    #[error("the function's process has ended")]
    Gone,
    /// It answered what is no HTTP.
    #[error("the function's answer is no HTTP")]
    Broken(#[source] hyper::Error),
    /// All its processes are at work, and none has had room in time.
    #[error("the function is busy: each of its {0} processes works on as many requests as it may")]
    Busy(u32),
    /// It has not started in time, and goes on to.
    #[error("the function is still being started")]
    Starting,
    /// Its environment has as many processes as it may, and all of them are at work.
    #[error(
        "the environment's functions have no room for one more process: they may have {processes}, of {memory_mb} MB together"
    )]
    FullEnv {
        /// How many it may have.
        processes: usize,
        /// What all of them may use together, by their limits.
        memory_mb: u64,
    },
    /// This machine has as many processes of functions as it may, and none makes way.
    #[error("this machine has no room for one more process of a function: it may have {0}")]
    FullMachine(usize),
    /// It ends again and again, and is not started for a while.
    #[error("the function ends again and again{}", last.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
    Crashes {
        /// When it is started again.
        left: Duration,
        /// Why it has ended last.
        last: Option<Arc<Error>>,
    },
    /// The answer has not begun in time.
    #[error("the function's answer has not begun within {} ms", .0.as_millis())]
    Late(Duration),
    /// Its event loop has not come round, for which it was ended.
    #[error("the function's event loop has not come round for {} ms, for which it was ended", .0.as_millis())]
    Blocked(Duration),
    /// Its files are more than they may be, for which it was ended.
    #[error("the function has written more to its workspace than it may, for which it was ended")]
    Full,
    /// What others who waited for the same were told.
    #[error("{0}")]
    Shared(Arc<Error>),
    /// Of the sandbox.
    #[error("{}", .0.message())]
    Sandbox(#[from] kernel::Error),
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a module does not load: what the runner says of it, which the module's author may read and nobody believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which kind of failure: `syntax`, `missing_module`, `no_export` and so on.
    pub kind: String,
    /// What it is.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// The error's stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The file, in the sources as they were deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its line, from 1 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Its column, from 1 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// The line itself, with a mark below the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
}

impl From<sandbox::session::Error> for Error {
    fn from(error: sandbox::session::Error) -> Self {
        Self::Sandbox(error.into())
    }
}

impl Error {
    /// The same in words of what it is of: each text begins with what it is, which is a function or a service.
    #[must_use]
    pub fn said_of(&self, kind: Kind) -> String {
        let text = self.to_string();
        let last = self.failure().and_then(|it| it.stack.clone()).filter(|_| kind == Kind::Service);
        match (kind, last) {
            (Kind::Function, _) => text,
            (Kind::Service, None) => text.replacen("the function", "the service", 1),
            (Kind::Service, Some(last)) => {
                format!("{}\n{last}", text.replacen("the function", "the service", 1))
            }
        }
    }

    /// Whether the function was not asked at all, for what is not its fault.
    #[must_use]
    pub fn is_of_platform(&self) -> bool {
        match self {
            Self::Busy(_)
            | Self::Starting
            | Self::FullEnv { .. }
            | Self::FullMachine(_)
            | Self::Sandbox(_) => true,
            Self::Shared(error) | Self::Crashes { last: Some(error), .. } => error.is_of_platform(),
            Self::Failed(_)
            | Self::Ended(_)
            | Self::Silent
            | Self::Gone
            | Self::Broken(_)
            | Self::Crashes { last: None, .. }
            | Self::Late(_)
            | Self::Blocked(_)
            | Self::Full => false,
        }
    }

    /// Why its module does not load, where that is why.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Shared(error) | Self::Crashes { last: Some(error), .. } => error.failure(),
            _ => None,
        }
    }
}

impl From<Error> for kernel::Error {
    fn from(error: Error) -> Self {
        if let Error::Sandbox(error) = error {
            return error;
        }
        let (text, wait) = (error.to_string(), Duration::from_secs(1));
        let unavailable = || kernel::Error::new(Code::Unavailable, text.clone());
        of(&error, &text, unavailable().retry_after(wait)).source(error)
    }
}

/// `unavailable` has the text.
fn of(error: &Error, text: &str, unavailable: kernel::Error) -> kernel::Error {
    match error {
        Error::Failed(failure) => {
            kernel::Error::new(Code::InvalidInput, text.to_owned()).hint(failure.hint.clone())
        }
        Error::Ended(_) => unavailable.hint("look into its log, which has what it wrote last"),
        Error::Silent | Error::Late(_) | Error::Blocked(_) => {
            kernel::Error::new(Code::Timeout, text.to_owned())
                .hint("look for what keeps its event loop busy, or give it a larger timeout_s")
        }
        Error::Busy(_) => unavailable.hint("give it a larger concurrency or max_instances"),
        Error::Starting => unavailable
            .hint("ask again in a moment: what it runs on may have to be fetched first, which happens once"),
        Error::FullEnv { .. } => unavailable
            .hint("ask again in a moment, or give functions a smaller memory_mb; functions.processes_of_env and functions.memory_of_env of the platform's configuration say how much there is"),
        Error::FullMachine(_) => unavailable
            .hint("ask again in a moment; functions.processes of the platform's configuration says how many there are"),
        Error::Crashes { left, .. } => unavailable
            .retry_after(*left + Duration::from_secs(1))
            .hint("look into its log for why, mend it, and deploy it again"),
        Error::Shared(error) => of(error, text, unavailable),
        Error::Gone | Error::Broken(_) | Error::Full => unavailable,
        Error::Sandbox(error) => kernel::Error::new(error.code(), text.to_owned()),
    }
}
