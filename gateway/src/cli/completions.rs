//! `steading completions`: what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;
use kernel::Error;

use super::{Args, Failure, Output};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    shell: Known,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    /// Runs it.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let shell = match self.shell {
            Known::Bash => Shell::Bash,
            Known::Zsh => Shell::Zsh,
            Known::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "steading", &mut script);
        let script = String::from_utf8(script).map_err(Error::internal)?;
        output.line(script.trim_end());
        Ok(())
    }
}
