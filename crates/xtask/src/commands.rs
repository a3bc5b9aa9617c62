//! The commands that build, test and check.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use testkit::{NodeTool, PythonTool};

use crate::generated;
use crate::setup::{self, Install};
use crate::steady;
use crate::workspace::{build_product, cargo, metadata, run, run_within, say};

/// How long the tests may take, on two cores and with all of them to be compiled first; a third of it is usual.
const TESTS: Duration = Duration::from_secs(45 * 60);

/// How long the benchmarks may take, all of them, and the tests that take long beside the minutes that are said.
const BENCHES: Duration = Duration::from_secs(2 * 60 * 60);
const SOAKS: Duration = Duration::from_secs(4 * 60 * 60);

/// Runs every test against the real engines, the built product among them.
pub fn test(install: Install, arguments: &[&str]) -> anyhow::Result<()> {
    // The profile of the tests themselves: nothing is compiled twice.
    let mut test = prepared(install, "test", "dev")?;
    if arguments.is_empty() {
        // A whole run says all that fails, not the first crate's.
        test.args(["--workspace", "--no-fail-fast"]);
        return steady::run(TESTS, test);
    }
    // Cargo would let `--workspace` win over a package that somebody names.
    if !arguments.iter().any(|argument| argument.starts_with("-p") || argument.starts_with("--package")) {
        test.args(["--workspace", "--no-fail-fast"]);
    }
    run_within(TESTS, test.args(arguments))
}

/// Everything that a change must pass.
pub fn ci() -> anyhow::Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    layers()?;
    tidy()?;
    generated::check()?;
    if cargo(&["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        // Advisories need a database from the network; `cargo deny check` alone looks at them too.
        run(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        say("cargo-deny is not installed: licences and bans are not checked");
    }
    test(Install::Missing, &[])
}

/// Runs the benchmarks whose names contain `filter`.
pub fn bench(filter: &[&str]) -> anyhow::Result<()> {
    // The product as it is shipped: optimised as a whole a request takes two thirds of the processor time.
    let mut bench = prepared(Install::Missing, "bench", "release")?;
    // What measures it.
    bench.args(["--profile", "fast", "--workspace"]);
    for name in if filter.is_empty() { &[""] } else { filter } {
        bench.arg("--bench").arg(format!("*{name}*"));
    }
    run_within(BENCHES, &mut bench)
}

/// Runs the tests that take long by design.
pub fn soak(minutes: &str) -> anyhow::Result<()> {
    let wanted: u32 = minutes.parse().context("the minutes of a soak")?;
    setup::ensure(Install::Missing)?;
    let binary = build_product("fast")?;
    let mut soak = cargo(&["test", "--locked", "--no-fail-fast", "-p", "conformance-tests", "-p", "sandbox"]);
    soak.args(["--", "--ignored", "--nocapture", "soak"]);
    let limit = SOAKS + 2 * wanted * Duration::from_secs(60);
    run_within(limit, soak.env("STEADING_BIN", binary).env("STEADING_SOAK_MINUTES", minutes))
}

/// Checks that dependencies point down.
pub fn layers() -> anyhow::Result<()> {
    report("layers", &crate::layers::check(&crate::layers::graph(&metadata()?)?))
}

/// Checks the files' own rules.
pub fn tidy() -> anyhow::Result<()> {
    report("tidy", &crate::tidy::check()?)
}

/// A cargo command with the engines installed and the product built for it.
fn prepared(install: Install, command: &str, profile: &str) -> anyhow::Result<Command> {
    setup::ensure(install)?;
    // The clients wait for the network and the product for the processor.
    let (clients, binary) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| -> anyhow::Result<()> {
            NodeTool::install()?;
            PythonTool::install()?;
            Ok(())
        });
        let binary = build_product(profile);
        (clients.join(), binary)
    });
    let binary = binary?;
    match clients {
        Ok(Err(error)) if install == Install::OnlyTell => say(&format!("without the clients: {error:#}")),
        Ok(result) => result.context("the clients that the tests drive")?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    let mut cargo = cargo(&[command, "--locked"]);
    cargo.env("STEADING_BIN", binary);
    Ok(cargo)
}

fn report(name: &str, broken: &[String]) -> anyhow::Result<()> {
    for line in broken {
        say(line);
    }
    if !broken.is_empty() {
        bail!("{name}: {} to mend", broken.len());
    }
    say(&format!("{name}: in order"));
    Ok(())
}
