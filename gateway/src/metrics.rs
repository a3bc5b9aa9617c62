//! `/metrics`: what the platform counts, as Prometheus reads it. What labels say is a closed set each: no tenant, environment,
//! host, path or input is in it.

#[cfg(test)]
mod board;
mod catalogue;
mod document;
mod doors;
mod meters;
mod process;
mod sheet;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use edge::Edge;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use kernel::{Error, Proof as _, Result, Scope, Secret, Tenant};
use mcp_server::auth::Authenticated;
use mcp_server::platform::Platform;
use prometheus::TEXT_FORMAT;
use subtle::ConstantTimeEq as _;
use web::problem::{Problem, unknown_method};

use crate::api::Api;
use crate::health::Health;
use crate::traffic::Traffic;
use catalogue as metric;
use process::Process;
use sheet::Sheet;

pub use document::document;
pub use doors::Door;
pub use meters::Meters;

/// Everything that is shown.
pub struct Shown {
    /// What is counted while it happens.
    pub meters: Arc<Meters>,
    /// What is asked how it is.
    pub platform: Arc<Platform>,
    /// What answers for apps.
    pub edge: Edge,
    /// The connections.
    pub traffic: Traffic,
    /// What has to be there.
    pub health: Health,
    /// Whose keys open it.
    pub api: Api,
    /// What else does, and opens nothing else.
    pub token: Option<Secret>,
}

/// The route.
pub fn router(shown: Shown) -> Router {
    Router::new()
        .route("/metrics", get(show))
        .method_not_allowed_fallback(unknown_method)
        .with_state(Arc::new(shown))
}

async fn show(State(shown): State<Arc<Shown>>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    shown.api.guard().check(&parts.uri, &parts.headers)?;
    if !shown.is_opened_by(&parts) {
        let Authenticated(caller) = Authenticated::from_request_parts(&mut parts, &shown.api).await?;
        Tenant::authorize(&caller, &[Scope::TenantAdmin])?;
    }
    let text = shown.text().await?;
    let headers = [(CONTENT_TYPE, TEXT_FORMAT), (CACHE_CONTROL, "no-store")];
    Ok((headers, text).into_response())
}

impl Shown {
    /// Whether a request shows the token that is for this alone.
    fn is_opened_by(&self, parts: &Parts) -> bool {
        let shown = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, token)) = shown.and_then(|shown| shown.split_once(' ')) else { return false };
        let is_it = |own: &Secret| bool::from(token.trim().as_bytes().ct_eq(own.expose().as_bytes()));
        scheme.eq_ignore_ascii_case("bearer") && self.token.as_ref().is_some_and(is_it)
    }

    async fn text(&self) -> Result<String> {
        let sheet = Sheet::default();
        // Before anybody is asked: what asks the database has one of its connections.
        self.write(&sheet).map_err(Error::internal)?;
        let ready = self.health.look().await;
        let ready = ready.map(|(part, is_there)| (part.as_str(), f64::from(u8::from(is_there))));
        sheet.by(&metric::READY, &ready).map_err(Error::internal)?;
        sheet.text(&self.meters.counted).map_err(Error::internal)
    }

    fn write(&self, sheet: &Sheet) -> prometheus::Result<()> {
        self.of_traffic(sheet)?;
        self.of_what_runs(sheet)?;
        self.of_models(sheet)?;
        self.of_the_control_plane(sheet)?;
        self.of_the_machine(sheet)
    }

    fn of_traffic(&self, sheet: &Sheet) -> prometheus::Result<()> {
        let own = self.platform.control.limiter().refused();
        let mut held_up: Vec<_> = self.meters.held_up().collect();
        for (limit, count) in own {
            match held_up.iter_mut().find(|(of, _)| *of == limit) {
                Some((_, counted)) => *counted += count,
                None => held_up.push((limit, count)),
            }
        }
        let held_up: Vec<_> = held_up.iter().map(|(limit, count)| (limit.as_str(), number(*count))).collect();
        sheet.by(&metric::RATE_LIMITED, &held_up)?;
        let traffic = self.traffic.census();
        sheet.by(
            &metric::TURNED_AWAY,
            &[
                ("connection", number(traffic.refused_connections)),
                ("request", number(traffic.refused_requests)),
                ("answer", number(traffic.refused_answers)),
            ],
        )?;
        sheet.one(&metric::CONNECTIONS, number(traffic.connections))?;
        sheet.one(&metric::ANSWERS, number(traffic.answers))?;
        sheet.by(
            &metric::SOCKETS,
            &[
                ("realtime", number(self.platform.realtime.connections() as u64)),
                ("function", number(self.edge.sockets() as u64)),
                ("preview", number(self.platform.hands.census().visits)),
            ],
        )
    }

    fn of_what_runs(&self, sheet: &Sheet) -> prometheus::Result<()> {
        let hands = self.platform.hands.census();
        let states = [("awake", hands.awake), ("waking", hands.waking), ("frozen", hands.frozen)];
        sheet.by(&metric::SANDBOXES, &numbers(states))?;
        let starts = [("made", hands.made), ("failed", hands.failed), ("no_place", hands.without_place)];
        sheet.by(&metric::SANDBOX_STARTS, &numbers(starts))?;
        let functions = self.platform.functions.census();
        sheet.one(&metric::PROCESSES, number(functions.processes))?;
        let starts = [("started", functions.started), ("failed", functions.failed)];
        sheet.by(&metric::FUNCTION_STARTS, &numbers(starts))?;
        sheet.one(&metric::FUNCTION_START_SECONDS, functions.starting.as_secs_f64())?;
        let answers = functions.answers;
        let answers = [
            ("answered", answers.answered),
            ("threw", answers.threw),
            ("refused", answers.refused),
            ("failed", answers.failed),
        ];
        sheet.by(&metric::FUNCTION_ANSWERS, &numbers(answers))
    }

    fn of_models(&self, sheet: &Sheet) -> prometheus::Result<()> {
        let models = self.platform.models.census();
        let calls = [
            ("said", models.said),
            ("estimated", models.estimated),
            ("unused", models.unused),
            ("no_budget", models.refused),
        ];
        sheet.by(&metric::MODEL_CALLS, &numbers(calls))?;
        let tokens =
            [("prompt", models.prompt), ("cached", models.cached), ("completion", models.completion)];
        sheet.by(&metric::MODEL_TOKENS, &numbers(tokens))?;
        sheet.one(&metric::MODEL_COST, number(models.micro))
    }

    fn of_the_control_plane(&self, sheet: &Sheet) -> prometheus::Result<()> {
        let ledger = self.platform.control.ledger().backlog();
        sheet.one(&metric::LEDGER_WAITING, number(ledger.waiting))?;
        sheet.one(&metric::LEDGER_DROPPED, number(ledger.dropped))?;
        sheet.one(&metric::LEDGER_FAILURES, number(ledger.failures))?;
        let database = self.platform.control.store().connections();
        let connections = [("used", database.used), ("idle", database.idle)];
        sheet.by(&metric::DATABASE_CONNECTIONS, &numbers(connections))?;
        sheet.one(&metric::DATABASE_CONNECTIONS_MAX, number(database.most))?;
        sheet.one(&metric::DATABASE_FAILURES, number(database.failures))?;
        sheet.one(&metric::ENVIRONMENTS, number(self.platform.databases.open() as u64))
    }

    fn of_the_machine(&self, sheet: &Sheet) -> prometheus::Result<()> {
        if let Some(disk) = self.health.disk() {
            sheet.one(&metric::DISK_FREE, number(disk.free))?;
            sheet.one(&metric::DISK_SIZE, number(disk.size))?;
        }
        sheet.one(&metric::UPTIME, self.meters.since.elapsed().as_secs_f64())?;
        sheet.by(&metric::BUILD, &[(env!("CARGO_PKG_VERSION"), 1.0)])?;
        sheet.one(&metric::PROCESS_START, self.meters.started.as_micros() as f64 / 1e6)?;
        if let Some(process) = Process::look() {
            sheet.one(&metric::PROCESS_CPU, process.cpu)?;
            sheet.one(&metric::PROCESS_MEMORY, number(process.memory))?;
            sheet.one(&metric::PROCESS_FDS, number(process.files))?;
            sheet.one(&metric::PROCESS_FDS_MAX, number(process.files_most))?;
        }
        Ok(())
    }
}

/// As Prometheus has all its values: exact up to 2^53.
fn number(count: u64) -> f64 {
    count as f64
}

fn numbers<const N: usize>(counts: [(&'static str, u64); N]) -> [(&'static str, f64); N] {
    counts.map(|(label, count)| (label, number(count)))
}
