//! The doors of the platform itself, in one router: MCP, the routes, sign-in, the console, health and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use capabilities::outbound::Outbound;
use edge::Edge;
use kernel::{Error, Result};
use mcp_server::bridge::Bridge;
use mcp_server::mcp::{McpOptions, Sessions};
use mcp_server::platform::Platform;
use mcp_server::{Doors, Guard, tools};
use web::problem;

use crate::api::{self, Api};
use crate::config::Config;
use crate::console;
use crate::health::{self, Health};
use crate::metrics::{self, Meters, Shown};
use crate::oauth::{self, Door};

use super::Listening;

/// What answers at the platform's own address.
///
/// # Errors
/// Where that address is none, or what calls out cannot be made.
pub(super) fn platform_router(
    config: &Config,
    listening: &Listening,
    platform: &Arc<Platform>,
    (meters, edge): (&Arc<Meters>, &Edge),
) -> Result<Router> {
    let gate = platform.control.clone();
    let mut doors = Doors::new(Arc::new(tools::registry()), Arc::clone(platform), gate);
    doors.guard = Guard::loopback().with_url(&listening.url.parse().map_err(Error::internal)?);
    doors.body_limit = config.mcp.body_limit;
    let doors = Arc::new(doors);
    platform.hands.connect(Arc::new(Bridge::new(Arc::clone(&doors))));
    let options = McpOptions {
        sessions: if config.mcp.legacy_sessions { Sessions::Legacy } else { Sessions::None },
        stop: listening.stopping.clone(),
        grace: Duration::from_secs(config.shutdown_grace_s),
        ..McpOptions::default()
    };
    let (control, outbound) =
        (Arc::clone(&platform.control), Outbound::new(config.outbound.private.clone())?);
    let health = Health {
        platform: Arc::clone(platform),
        data_dir: config.data_dir.clone(),
        control_file: config.database.url.is_none().then(|| config.data_dir.join("control.db")),
        stopping: listening.stopping.clone(),
    };
    let api = Api::new(Arc::clone(&doors));
    let shown = Shown {
        meters: Arc::clone(meters),
        platform: Arc::clone(platform),
        edge: edge.clone(),
        traffic: listening.traffic.clone(),
        health: health.clone(),
        api: api.clone(),
        token: config.metrics.token.0.clone(),
    };
    let door = Arc::new(Door::new(api, control, config, outbound)?);
    let (pages, visits) = console::console(&door);
    Ok(mcp_server::router(Arc::clone(&doors), options)
        .merge(oauth::router(door))
        .merge(pages)
        .merge(health::router(health))
        .merge(metrics::router(shown))
        .merge(api::router(doors))
        .fallback(problem::unknown_route)
        .layer(middleware::from_fn_with_state(visits, console::let_in)))
}
