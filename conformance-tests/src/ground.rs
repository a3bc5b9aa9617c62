//! The server and the browser that tests share, and an environment for each test alone.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Chromium, Client, Steading, require};

use crate::shared::Shared;

static STEADING: Shared<Steading> = Shared::new();
static BROWSER: Shared<Mutex<Chromium>> = Shared::new();
static PLACES: AtomicU32 = AtomicU32::new(1);

/// The server that tests share.
#[must_use]
pub fn steading() -> Arc<Steading> {
    // What tests leave at work in their sandboxes makes no room for the next ones at once.
    STEADING.get(|| require(Steading::launch().env("STEADING_SANDBOX_AWAKE_OF_TENANT", "32").start()))
}

/// A data directory for another gateway on the control plane of `one`: with its keys and its environments.
///
/// # Errors
/// Where it cannot be made.
pub fn home_beside(one: &Steading) -> anyhow::Result<TempDir> {
    let other = TempDir::new()?;
    for name in ["keys", "operator.key"] {
        let from = one.ready().data_dir.join(name);
        let copied = Command::new("cp").arg("-a").arg(from).arg(other.path()).status()?;
        anyhow::ensure!(copied.success(), "{name} is not copied");
    }
    symlink(one.ready().data_dir.join("envs"), other.path().join("envs"))?;
    Ok(other)
}

/// Has the browser that tests share to itself.
///
/// # Errors
/// What `look` finds wrong.
pub fn browser<T>(look: impl FnOnce(&Chromium) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let shared = BROWSER.get(|| Mutex::new(require(Chromium::start())));
    let browser: MutexGuard<'_, Chromium> = shared.lock().unwrap_or_else(PoisonError::into_inner);
    // What a test before this one has left on the console is not this one's.
    browser.console()?;
    look(&browser)
}

/// A new environment on the shared server.
pub struct Place {
    /// The server.
    pub steading: Arc<Steading>,
    /// The environment's slug.
    pub slug: String,
    /// Where its app answers.
    pub url: String,
    /// The operator, in the environment.
    pub client: Client,
}

impl Place {
    /// Makes one whose slug begins with `name`.
    ///
    /// # Errors
    /// With the problem, where the server refuses.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        Self::on(steading(), name)
    }

    /// The same on a server that nobody else has.
    ///
    /// # Errors
    /// With the problem, where the server refuses.
    pub fn alone(name: &str) -> anyhow::Result<Self> {
        Self::on(Arc::new(require(Steading::start())), name)
    }

    /// The same on that server.
    ///
    /// # Errors
    /// With the problem, where the server refuses.
    pub fn on(steading: Arc<Steading>, name: &str) -> anyhow::Result<Self> {
        let slug = format!("{name}-{}", PLACES.fetch_add(1, Ordering::Relaxed));
        let made = steading.client().output("env_create", &json!({ "slug": slug }))?;
        let url = made["url"].as_str().context("no url")?.to_owned();
        let client = steading.client().in_env(&slug);
        Ok(Self { steading, slug, url, client })
    }

    /// The MCP endpoint of the environment.
    #[must_use]
    pub fn mcp_url(&self) -> String {
        format!("{}/mcp/{}", self.steading.ready().url, self.slug)
    }

    /// The binary under test.
    #[must_use]
    pub fn binary(&self) -> PathBuf {
        self.steading.command(&[]).get_program().into()
    }

    /// A command of the binary in this environment, with the operator's key.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.steading.command(arguments);
        command.args(["--env", &self.slug]);
        command
    }

    /// Calls a tool that must succeed.
    ///
    /// # Errors
    /// With the problem, where it does not.
    pub fn output(&self, tool: &str, input: &Value) -> anyhow::Result<Value> {
        self.client.output(tool, input)
    }
}
