//! What happens to a test whose engine is not there.

use std::io::Write;

use crate::environment::variable;

/// Why an engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The machine does not have it.
    #[error("{engine} is not on this machine: {reason}")]
    Missing {
        /// The engine's name.
        engine: &'static str,
        /// What was looked for, and where it would come from.
        reason: String,
    },
    /// It is there and does not work; its log is part of the source.
    #[error("{engine} is there and does not start")]
    Broken {
        /// The engine's name.
        engine: &'static str,
        /// What happened.
        source: anyhow::Error,
    },
}

impl Unavailable {
    pub(crate) fn missing(engine: &'static str, reason: impl Into<String>) -> Self {
        Self::Missing { engine, reason: reason.into() }
    }

    pub(crate) fn broken(engine: &'static str) -> impl Fn(anyhow::Error) -> Self {
        move |source| Self::Broken { engine, source }
    }
}

/// The engine, or `None` on a machine without it, where the caller's test ends early.
///
/// A skip is one line on stderr that begins with `SKIPPED`, written past the test runner's capture;
/// `cargo xtask test` counts these lines.
///
/// # Panics
/// Where the engine is there and does not start; and where it is missing although `CI` or
/// `STEADING_REQUIRE_ENGINES` is set.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn require<T>(engine: Result<T, Unavailable>) -> Option<T> {
    match engine {
        Ok(engine) => Some(engine),
        Err(Unavailable::Broken { engine, source }) => panic!("{engine} does not start: {source:?}"),
        Err(missing) if skips_are_failures() => panic!("{missing}"),
        Err(missing) => {
            announce(&missing);
            None
        }
    }
}

/// Whether a missing engine fails its tests here: `CI` or `STEADING_REQUIRE_ENGINES` is set.
#[must_use]
pub fn skips_are_failures() -> bool {
    ["CI", "STEADING_REQUIRE_ENGINES"]
        .iter()
        .any(|name| variable(name).is_some_and(|value| value != "0" && value != "false"))
}

fn announce(missing: &Unavailable) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not `eprintln!`: the test runner swallows that for a test that passes. A closed stderr has no reader to tell.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
}
