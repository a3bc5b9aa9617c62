//! `steading generate`: writes the files that are made from the code. Hidden: for those who build it.

use std::path::{Path, PathBuf};

use kernel::{Code, Error};

use super::{Failure, Output};
use crate::config;

/// Write the generated files of the repository
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Generate {
    /// The repository
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

impl Generate {
    /// Runs it.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        for (name, text) in files() {
            write(&self.dir.join(&name), &text)?;
            output.progress(&name);
        }
        Ok(())
    }
}

/// Every generated file: its path in the repository and its text.
fn files() -> Vec<(String, String)> {
    vec![("steading.example.toml".to_owned(), config::example()), ("docs/errors.md".to_owned(), errors())]
}

fn errors() -> String {
    let mut text = String::from(
        "# Errors\n\nEvery failed call carries one of these codes, in `application/problem+json` over HTTP, as text over MCP, and\n\
         as the exit code of the command line. Written by `steading generate`.\n\n\
         | code | HTTP status | exit code | meaning |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let (name, status, exit) = (code.as_str(), code.status(), code.exit_code());
        text.push_str(&format!("| `{name}` | {status} | {exit} | {} |\n", code.title()));
    }
    text.push_str("\nThe command line ends with 64 where its flags or its configuration are wrong, before it does anything.\n");
    text
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|e| Error::new(Code::Unavailable, format!("{} cannot be written: {e}", path.display())))
}
