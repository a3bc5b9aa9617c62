//! What happens to a test whose engine is not there.

use crate::Engine;

/// Why an engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The machine does not have it.
    #[error("{0} is not on this machine: `cargo xtask test` installs it (package {packages})", packages = .0.packages().join(", "))]
    Missing(Engine),
    /// The product has not been built.
    #[error("the binary `steading` is not built: `cargo xtask test` builds it, or STEADING_BIN names it")]
    NotBuilt,
    /// It is there and does not work; what it said is part of the source.
    #[error("{name} is there and does not start")]
    Broken {
        /// What does not start.
        name: &'static str,
        /// What happened.
        source: anyhow::Error,
    },
}

impl Unavailable {
    pub(crate) fn broken(name: &'static str) -> impl Fn(anyhow::Error) -> Self {
        move |source| Self::Broken { name, source }
    }
}

/// The engine; a test without it fails, so that no machine passes by skipping.
///
/// # Panics
/// With what is missing and how it is installed, or with what the engine said when it did not start.
#[expect(clippy::panic, reason = "this is how a test fails")]
#[track_caller]
pub fn require<T>(engine: Result<T, Unavailable>) -> T {
    match engine {
        Ok(engine) => engine,
        Err(Unavailable::Broken { name, source }) => panic!("{name} does not start: {source:?}"),
        Err(missing) => panic!("{missing}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(
        expected = "postgres is not on this machine: `cargo xtask test` installs it (package postgresql)"
    )]
    fn a_missing_engine_fails_the_test_and_says_what_installs_it() {
        require::<()>(Err(Unavailable::Missing(Engine::Postgres)));
    }

    #[test]
    #[should_panic(expected = "the log says why")]
    fn a_broken_engine_fails_the_test_with_what_it_said() {
        require::<()>(Err(Unavailable::broken("postgres")(anyhow::anyhow!("the log says why"))));
    }
}
