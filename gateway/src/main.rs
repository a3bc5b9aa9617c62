//! The product: one binary, `steading`.

mod api;
mod app_functions;
mod apps;
mod cli;
mod clock;
mod config;
mod console;
mod events;
mod groundwork;
mod health;
mod hosts;
mod live_check;
mod lockfile;
mod metering;
mod metrics;
mod oauth;
mod ports;
mod previews;
mod prompt;
mod proxies;
mod redirect;
mod sandboxes;
mod serve;
mod telemetry;
mod trace;
mod traffic;
mod upkeep;
mod wiring;

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use crate::cli::{Args, Context, Failure, Output};
use crate::config::{Config, Surroundings};
use crate::sandboxes::Part;

/// What is freed goes back to the system, also the 19 MiB that a password's hash takes on whichever thread: glibc
/// keeps them for each thread that ever hashed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The processes that make sandboxes have no configuration, no log and no runtime of their own.
    if let Some((part, settings)) = Part::of_this_process() {
        return part.play(&settings);
    }
    let args = match cli::parse() {
        Ok(args) => args,
        Err(refused) => return refused,
    };
    let surroundings = Surroundings::read();
    let output = Output::new(args.form(), &surroundings);
    match run(args, surroundings, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

/// Config, log, groundwork, runtime, command; in this order, so that a wrong configuration stops before anything starts,
/// and a platform that stays has no thread with a privilege.
fn run(args: Args, surroundings: Surroundings, output: Output) -> Result<(), Failure> {
    let args = match args.without_configuration(output) {
        ControlFlow::Break(outcome) => return outcome,
        ControlFlow::Continue(args) => args,
    };
    let (config, unknown) = Config::load(args.config(&surroundings), &surroundings, &args.given())?;
    telemetry::start(&args.log(&config.log), output.colour());
    for name in unknown {
        tracing::warn!(variable = name, "this variable means nothing to steading");
    }
    drop(rustls::crypto::ring::default_provider().install_default());
    let groundwork = Mutex::new(args.groundwork(&config, &surroundings)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()
        .map_err(kernel::Error::internal)?;
    let outcome = runtime.block_on(args.run(Context { config, surroundings, output, groundwork }));
    // What blocks still (a read of the terminal, for one) must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// As many threads as there are cores, within reason: each keeps its own heap.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16)
}
