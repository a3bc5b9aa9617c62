//! A PocketBase server of the caller's own, which the product's data plane is measured against.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::directory::temporary;
use crate::http::Request;
use crate::process::{Ending, Process, Stdout, User, command};
use crate::{PythonTool, Unavailable, eventually};

const SUPERUSER: &str = "root@example.com";
const PASSWORD: &str = "of-a-server-that-lives-for-a-minute";
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Another process may take the free port between our look and the server's bind.
const ATTEMPTS: u32 = 3;

/// A running PocketBase on a loopback port, as it comes, with a superuser. Dropping it ends it and removes its files.
#[derive(Debug)]
pub struct PocketBase {
    // Dropped in this order: the server ends before its directory goes.
    process: Process,
    _directory: TempDir,
    url: String,
    token: String,
}

impl PocketBase {
    /// Starts one with an empty data directory.
    ///
    /// # Errors
    /// As [`PythonTool::install`], whose environment has the program, and `Broken` with the server's log where it
    /// does not start.
    pub fn start() -> Result<Self, Unavailable> {
        let program = PythonTool::install()?.program("pocketbase");
        Self::serve(&program).map_err(Unavailable::broken("pocketbase"))
    }

    /// Its address, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process id of the server.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What the server answers to the superuser.
    ///
    /// # Errors
    /// Where it does not answer with JSON and a status of success.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        said(Request::post(&format!("{}{path}", self.url)).header("authorization", &self.token).json(body))
    }

    fn serve(program: &Path) -> anyhow::Result<Self> {
        let directory = temporary()?;
        // It writes migrations beside its data directory: both are below ours.
        let data = directory.path().join("data");
        let mut upsert = command(program, User::Current);
        upsert.args(["superuser", "upsert", SUPERUSER, PASSWORD, "--dir"]).arg(&data);
        let output = upsert.current_dir(directory.path()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for _ in 0..ATTEMPTS {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let mut serve = command(program, User::Current);
            serve.arg("serve").arg(format!("--http={address}")).arg("--dir").arg(&data);
            serve.current_dir(directory.path());
            let mut process =
                Process::spawn(serve, &directory.path().join("log"), Stdout::Log, Ending::Kill)?;
            let url = format!("http://{address}");
            let credentials = json!({ "identity": SUPERUSER, "password": PASSWORD });
            let path = "/api/collections/_superusers/auth-with-password";
            let session = eventually(READY_LIMIT, || {
                if process.exited().is_some() {
                    return Some(None);
                }
                said(Request::post(&format!("{url}{path}")).json(&credentials)).ok().map(Some)
            });
            match session {
                Some(Some(session)) => {
                    let token = session["token"].as_str().context("a session without a token")?.to_owned();
                    return Ok(Self { process, _directory: directory, url, token });
                }
                Some(None) => {}
                None => bail!("no answer within {READY_LIMIT:?}:\n{}", process.log_tail()),
            }
        }
        bail!("it ended {ATTEMPTS} times before it was ready")
    }
}

fn said(request: Request) -> anyhow::Result<Value> {
    let response = request.send()?;
    ensure!((200..300).contains(&response.status), "{}: {}", response.status, response.text()?);
    response.json()
}
