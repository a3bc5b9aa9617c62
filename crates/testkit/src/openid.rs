//! An OpenID provider of the caller's own: `oidc-provider`.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::directory::temporary;
use crate::http::Request;
use crate::process::{Ending, Process, Stdout};
use crate::{NodeTool, Unavailable, eventually};

const READY_LIMIT: Duration = Duration::from_secs(60);
/// Another process may take the free port between our look and the server's bind.
const ATTEMPTS: u32 = 3;

/// A running provider on a loopback port. Dropping it ends it.
#[derive(Debug)]
pub struct OpenId {
    // Dropped in this order: the process ends before its directory goes.
    _process: Process,
    _directory: TempDir,
    issuer: String,
}

impl OpenId {
    /// What the one client is called, and its secret.
    pub const CLIENT: (&str, &str) = ("the-app", "a secret of the provider's");

    /// Starts one that knows nobody.
    ///
    /// # Errors
    /// As [`NodeTool::install`], and `Broken` with its log where it does not start.
    pub fn start() -> Result<Self, Unavailable> {
        let node = NodeTool::install_provider()?;
        Self::serve(&node).map_err(Unavailable::broken("oidc-provider"))
    }

    /// Its address, and its name in tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Says who there is (`accounts`: subject → claims), where people may be sent back to (`redirects`, with new keys), or
    /// both.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn control(&self, said: &Value) -> anyhow::Result<()> {
        let answer = Request::post(&format!("{}/control", self.issuer)).json(said).send()?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }

    fn serve(node: &NodeTool) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS {
            let directory = temporary()?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut serve = node.command("node", directory.path())?;
            let (id, secret) = Self::CLIENT;
            serve.arg(node.directory().join("provider.mjs")).args([&port.to_string(), id, secret]);
            let mut process =
                Process::spawn(serve, &directory.path().join("log"), Stdout::Log, Ending::Kill)?;
            let provider = format!("http://127.0.0.1:{port}");
            let ready = eventually(READY_LIMIT, || {
                if process.exited().is_some() {
                    return Some(false);
                }
                let metadata = format!("{provider}/.well-known/openid-configuration");
                let said = Request::get(&metadata).send().ok()?.json().ok()?;
                (said["issuer"] == json!(provider)).then_some(true)
            });
            match ready {
                Some(true) => return Ok(Self { _process: process, _directory: directory, issuer: provider }),
                Some(false) => {}
                None => bail!("no answer within {READY_LIMIT:?}:\n{}", process.log_tail()),
            }
        }
        bail!("it ended {ATTEMPTS} times before it was ready")
    }
}
