//! The log: to stderr, as text for people or JSON for machines. No input, row or credential is ever logged.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Format, Level, Log};

/// Whether text may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal.
    WhereShown,
    /// Nowhere (`NO_COLOR`).
    Never,
}

impl Colour {
    /// Whether to colour what goes to `stream`.
    pub fn on(self, stream: &impl IsTerminal) -> bool {
        self == Colour::WhereShown && stream.is_terminal()
    }
}

/// Starts the log; once per process.
pub fn start(log: &Log, colour: Colour) {
    let level = match log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // Below `info`, these write what passes through them: statements, headers.
    let quiet = ["sqlx", "hyper", "hyper_util", "h2", "reqwest", "rustls", "rmcp", "tower_http"];
    let filter = Targets::new()
        .with_default(level)
        .with_targets(quiet.map(|name| (name, level.min(LevelFilter::WARN))));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        Format::Text => lines.with_ansi(colour.on(&std::io::stderr())).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}
