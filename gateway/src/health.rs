//! `/healthz`: the process answers. `/readyz`: so does what it stands on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use kernel::{CallId, Code, Error};
use mcp_server::platform::Platform;
use rustix::fs::{StatVfsMountFlags, statvfs};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use web::problem::{PROBLEM_JSON, REQUEST_ID, unknown_method};

use crate::api::answer;

/// How long the control database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// With less than that on the disk of the data directory no database can write for long, in bytes.
const ROOM: u64 = 16 << 20;

/// When to ask again, in seconds.
const AGAIN: u64 = 5;

/// What the platform stands on.
#[derive(Clone)]
pub struct Health {
    /// What is asked.
    pub platform: Arc<Platform>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The file of the control database, where it is one.
    pub control_file: Option<PathBuf>,
    /// Cancelled when the program is told to stop.
    pub stopping: CancellationToken,
}

/// What has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The control database answers, and its file is where it was.
    ControlDatabase,
    /// The data directory can be written, and has room.
    Disk,
    /// There is a process that makes sandboxes, or one that starts it.
    Sandboxes,
    /// The program was not told to stop.
    Running,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ControlDatabase, Self::Disk, Self::Sandboxes, Self::Running];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ControlDatabase => "control_database",
            Self::Disk => "disk",
            Self::Sandboxes => "sandboxes",
            Self::Running => "running",
        }
    }

    /// What to say where it is not there.
    const fn lacks(self) -> &'static str {
        match self {
            Self::ControlDatabase => "the control database does not answer, or its file is gone",
            Self::Disk => "the data directory cannot be written, or its disk has less than 16 MiB left",
            Self::Sandboxes => "the process that starts the one that makes sandboxes has ended",
            Self::Running => "the platform was told to stop",
        }
    }
}

/// The disk of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes that it has.
    pub size: u64,
    /// Whether it can be written.
    pub is_writable: bool,
}

impl Health {
    /// Which parts are there.
    pub async fn look(&self) -> [(Part, bool); 4] {
        let answers = tokio::time::timeout(PATIENCE, self.platform.control.ping());
        let answers = answers.await.is_ok_and(|answer| answer.is_ok());
        let is_there = |part| match part {
            // A file that was removed is written on, and lost.
            Part::ControlDatabase => answers && self.control_file.as_ref().is_none_or(|file| file.exists()),
            Part::Disk => self.disk().is_some_and(|disk| disk.is_writable && disk.free >= ROOM),
            Part::Sandboxes => self.platform.hands.can_begin(),
            Part::Running => !self.stopping.is_cancelled(),
        };
        Part::ALL.map(|part| (part, is_there(part)))
    }

    /// The disk of the data directory; none where there is no such directory.
    pub fn disk(&self) -> Option<Disk> {
        let disk = statvfs(&self.data_dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let is_writable = !disk.f_flag.contains(StatVfsMountFlags::RDONLY);
        Some(Disk { free: bytes(disk.f_bavail), size: bytes(disk.f_blocks), is_writable })
    }
}

/// The routes. They ask for no credential, and say nothing that is anybody's.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(unknown_method)
        .with_state(health)
}

async fn healthz() -> Response {
    answer(StatusCode::OK, &json!({ "status": "ok" }))
}

async fn readyz(State(health): State<Health>) -> Response {
    let parts = health.look().await.into_iter();
    let lacking: Vec<Part> = parts.filter(|(_, is_there)| !is_there).map(|(part, _)| part).collect();
    if lacking.is_empty() {
        return answer(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let names: Vec<_> = lacking.iter().map(|part| part.as_str()).collect();
    let error = Error::new(Code::Unavailable, format!("the platform is not ready: {}", names.join(", ")))
        .retry_after(Duration::from_secs(AGAIN));
    let request_id = CallId::new().to_string();
    let mut problem = error.problem(&request_id);
    let parts = lacking.iter().map(|part| json!({ "part": part.as_str(), "message": part.lacks() }));
    problem["not_ready"] = parts.collect();
    let again = AGAIN.to_string();
    let headers = [
        (CONTENT_TYPE.as_str(), PROBLEM_JSON),
        (REQUEST_ID, request_id.as_str()),
        (RETRY_AFTER.as_str(), again.as_str()),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers, Body::from(problem.to_string())).into_response()
}
