//! The project's own commands: `cargo xtask <command>`.

mod commands;
mod generated;
mod layers;
mod setup;
mod steady;
mod tidy;
mod up;
mod workspace;

use std::process::ExitCode;

use anyhow::bail;

use crate::setup::Install;
use crate::workspace::say;

const USAGE: &str = "\
usage: cargo xtask <command>

  up [--no-install] [-- ARGS]     build and serve; ARGS go to `steading serve`
  test [--no-install] [-- ARGS]   install what tests need, then run every test; ARGS go to `cargo test`
  ci                              what a change must pass: format, lints, layers, tidy, gen --check, test
  gen [--check]                   write, or compare, what is generated from the tools and the configuration
  layers                          check that dependencies point down
  tidy                            check the files' own rules
  bench [FILTER]                  run the benchmarks
  soak [MINUTES]                  run the long tests, ten minutes unless told

--no-install only tells what would be installed.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> anyhow::Result<()> {
    match words {
        ["up", rest @ ..] => with_install(rest, up::up),
        ["test", rest @ ..] => with_install(rest, commands::test),
        ["ci"] => commands::ci(),
        ["gen"] => generated::write(),
        ["gen", "--check"] => generated::check(),
        ["layers"] => commands::layers(),
        ["tidy"] => commands::tidy(),
        ["bench", filter @ ..] => commands::bench(filter),
        ["soak"] => commands::soak("10"),
        ["soak", minutes] if minutes.parse::<u32>().is_ok() => commands::soak(minutes),
        [up::GREET, rest @ ..] => up::greet(rest),
        ["help" | "-h" | "--help"] => {
            say(USAGE);
            Ok(())
        }
        [] => bail!("which command?\n\n{USAGE}"),
        _ => bail!("not a command: {}\n\n{USAGE}", words.join(" ")),
    }
}

/// Takes `--no-install` and an optional `--` off the front; the rest is the command's own.
fn with_install(words: &[&str], command: fn(Install, &[&str]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (install, rest) = match words {
        ["--no-install", rest @ ..] => (Install::OnlyTell, rest),
        rest => (Install::Missing, rest),
    };
    match rest {
        ["--", rest @ ..] | rest @ [] => command(install, rest),
        _ => bail!("unknown argument {}; put -- before what is passed on\n\n{USAGE}", rest[0]),
    }
}
