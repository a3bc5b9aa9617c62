//! `steading version`.

use serde_json::json;

use super::{Failure, Output};

/// Show the version
#[derive(Debug, clap::Args)]
pub struct Version {}

impl Version {
    /// Runs it.
    #[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let version = json!({
            "name": "steading",
            "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
        });
        output.result(&version, |_| format!("steading {}", env!("CARGO_PKG_VERSION")));
        Ok(())
    }
}
