//! What the gateway and the process that makes sandboxes say to each other.

use std::path::PathBuf;

use hand::jail::Tree;
use kernel::{BlobHash, Code, Error, SandboxId, WorkspaceId, WorkspaceSnapshotId};
use serde::{Deserialize, Serialize};

use super::probe::Finding;
use crate::runner::{Isolation, Limiting, Limits, Spec, Usage};
use crate::workspace::{Fullness, Mounted, Origin};

/// Where things are. The process that makes sandboxes is started with it as its last argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A directory for what lives as long as the sandboxes do; nobody else uses it.
    pub run_dir: PathBuf,
    /// Directories below which everything lies that may be mounted into a sandbox.
    pub trees: Vec<PathBuf>,
    /// Sandboxes that are made before anybody asks for them.
    #[serde(default)]
    pub spares: Vec<Spares>,
    /// Where gVisor's `runsc` is, unless where it usually is.
    #[serde(default)]
    pub runsc: Option<PathBuf>,
}

/// Sandboxes that wait for whose they are to be. Whoever asks for other limits than theirs gets one that is made anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spares {
    /// How many there are.
    pub count: usize,
    /// What each may use.
    pub limits: Limits,
}

impl Settings {
    /// As the argument of a process.
    ///
    /// # Errors
    /// [`super::Error::Settings`] where a path is not text.
    pub fn to_argument(&self) -> Result<String, super::Error> {
        serde_json::to_string(self).map_err(super::Error::Settings)
    }

    /// From the argument of a process.
    ///
    /// # Errors
    /// [`super::Error::Settings`].
    pub fn from_argument(argument: &str) -> Result<Self, super::Error> {
        serde_json::from_str(argument).map_err(super::Error::Settings)
    }
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// The first call: it begins.
    Open,
    /// As the runner's of sandboxes that are kept from their host like that.
    Create(Isolation, Spec),
    /// As the runner's.
    Pause(SandboxId),
    /// As the runner's.
    Resume(SandboxId),
    /// As the runner's.
    Destroy(SandboxId),
    /// As the runner's.
    Usage(SandboxId),
    /// The directory of one's own sockets.
    Door(SandboxId),
    /// Adds a version of the runner: the names of its files, which come along.
    AddRunner(Vec<String>),
    /// Has new sandboxes use a version.
    UseRunner(BlobHash),
    /// Has one that runs use a version.
    SwapRunner(SandboxId, BlobHash),
    /// What works here, found out by doing it.
    Probe,
    /// Whether gVisor does.
    ProbeGvisor,
    /// Of workspaces.
    Workspace(WorkspaceCall),
}

/// What is asked of the keeper of workspaces; each is the method of the port that has its name. With `Archive` come two
/// files, and a third one where there is a base: where the archive goes, where its manifest goes, and the base's manifest.
/// With `Receive` come the manifest, and what its archives are read from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkspaceCall {
    Create { id: WorkspaceId, origin: Origin, quota_bytes: u64 },
    Tree { id: WorkspaceId },
    Snapshot { id: WorkspaceId, snapshot: WorkspaceSnapshotId, mounted: Mounted },
    Rollback { id: WorkspaceId, snapshot: WorkspaceSnapshotId },
    Remove { id: WorkspaceId },
    RemoveSnapshot { snapshot: WorkspaceSnapshotId },
    Fullness { id: WorkspaceId },
    Ids,
    Archive { snapshot: WorkspaceSnapshotId },
    Receive { snapshot: WorkspaceSnapshotId },
    Digest { snapshot: WorkspaceSnapshotId },
}

/// A call with the number that its answer carries.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by the gateway.
    pub number: u64,
    /// The call.
    pub call: Call,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Of the request.
    pub number: u64,
    /// What came of it.
    pub result: Result<Answer, Refusal>,
}

/// What came of a call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// It is done.
    Done,
    /// A sandbox runs; three files come along: the connection to its hand, and the two sockets that listen.
    Created(Isolation, Limiting),
    /// The directory of a sandbox's own sockets, which comes along.
    Door,
    /// What one uses.
    Usage(Usage),
    /// What works here.
    Findings(Vec<Finding>),
    /// How a workspace is mounted.
    Tree(Tree),
    /// How full it is.
    Fullness(Fullness),
    /// Those that there are.
    Ids(Vec<WorkspaceId>, Vec<WorkspaceSnapshotId>),
    /// Of what a snapshot holds.
    Digest(BlobHash),
    /// The version that was added, or the one that was used until then.
    Runner(BlobHash),
}

/// An error that crosses from one process to the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    code: String,
    message: String,
    hint: Option<String>,
    causes: String,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            code: error.code().as_str().to_owned(),
            message: error.message().to_owned(),
            hint: error.advice().map(str::to_owned),
            causes: error.chain(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let code = Code::from_name(&refusal.code).unwrap_or(Code::Internal);
        let mut error = Error::new(code, refusal.message).source(refusal.causes);
        if let Some(hint) = refusal.hint {
            error = error.hint(hint);
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_same_on_the_other_side() {
        let error = Error::not_found("sandbox").hint("make one").source("gone");
        let text = serde_json::to_string(&Refusal::from(error)).unwrap();
        let error = Error::from(serde_json::from_str::<Refusal>(&text).unwrap());
        assert_eq!(
            (error.code(), error.message(), error.advice()),
            (Code::NotFound, "there is no sandbox", Some("make one"))
        );
        assert!(error.chain().ends_with("there is no sandbox: gone"));
    }

    #[test]
    fn fields_that_nobody_knows_are_refused() {
        for text in [
            r#"{"number":1,"call":"probe","more":1}"#,
            r#"{"number":1,"call":"open","settings":{}}"#,
            r#"{"number":1,"call":{"workspace":{"tree":{"id":"wsp_01900000-0000-7000-8000-000000000000","more":1}}}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}
