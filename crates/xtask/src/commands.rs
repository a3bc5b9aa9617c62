//! The commands that build, test and check.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use testkit::{NodeTool, PythonTool};

use crate::setup::{self, Install};
use crate::workspace::{build_product, cargo, metadata, root, run, say};

/// What `steading generate` writes below the repository, and what `gen --check` compares.
const GENERATED: [&str; 5] =
    ["tool-schemas", "docs/openapi.json", "docs/tools.md", "docs/errors.md", "steading.example.toml"];

/// Runs every test against the real engines, the built product among them.
pub fn test(install: Install, arguments: &[&str]) -> anyhow::Result<()> {
    let mut test = prepared(install, "test")?;
    // Cargo would let `--workspace` win over a package that somebody names.
    if !arguments.iter().any(|argument| argument.starts_with("-p") || argument.starts_with("--package")) {
        test.arg("--workspace");
    }
    run(test.args(arguments))
}

/// Everything that a change must pass.
pub fn ci() -> anyhow::Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    layers()?;
    tidy()?;
    check_generated()?;
    if cargo(&["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        run(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        say("cargo-deny is not installed: licences and bans are not checked");
    }
    test(Install::Missing, &[])
}

/// Runs the benchmarks whose names contain `filter`.
pub fn bench(filter: &[&str]) -> anyhow::Result<()> {
    let mut bench = prepared(Install::Missing, "bench")?;
    run(bench.arg("--workspace").args(filter))
}

/// Runs the tests that take long by design.
pub fn soak(minutes: &str) -> anyhow::Result<()> {
    setup::ensure(Install::Missing)?;
    let binary = build_product("fast")?;
    let mut soak = cargo(&["test", "--locked", "-p", "conformance-tests", "--profile", "fast"]);
    soak.args(["--", "--ignored", "--nocapture", "soak"]);
    run(soak.env("STEADING_BIN", binary).env("STEADING_SOAK_MINUTES", minutes))
}

/// Checks that dependencies point down.
pub fn layers() -> anyhow::Result<()> {
    report("layers", &crate::layers::check(&crate::layers::graph(&metadata()?)?))
}

/// Checks the files' own rules.
pub fn tidy() -> anyhow::Result<()> {
    report("tidy", &crate::tidy::check()?)
}

/// Writes what is generated into the repository.
pub fn generate() -> anyhow::Result<()> {
    generate_into(&root())
}

/// Fails where what is committed is not what would be generated.
pub fn check_generated() -> anyhow::Result<()> {
    let fresh = metadata()?["target_directory"].as_str().map(|target| Path::new(target).join("generated"));
    let fresh = fresh.context("no target directory")?;
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    std::fs::create_dir_all(&fresh)?;
    generate_into(&fresh)?;
    for name in GENERATED {
        let differs = !Command::new("diff")
            .args(["--recursive", "--unified", "--new-file"])
            .args([root().join(name), fresh.join(name)])
            .status()
            .context("diff")?
            .success();
        if differs {
            bail!("{name} is not what the code generates: run `cargo xtask gen` and commit the result");
        }
    }
    Ok(())
}

/// The product generates it: only there do the tools, the errors and the configuration meet.
fn generate_into(directory: &Path) -> anyhow::Result<()> {
    let mut generate = cargo(&["run", "--locked", "--quiet", "-p", "gateway", "--bin", "steading", "--"]);
    run(generate.args(["generate", "--dir"]).arg(directory))?;
    let absent: Vec<&str> = GENERATED.into_iter().filter(|name| !directory.join(name).exists()).collect();
    if !absent.is_empty() {
        bail!("`steading generate` did not write {}", absent.join(", "));
    }
    Ok(())
}

/// A cargo command with the engines installed and the product built for it.
fn prepared(install: Install, command: &str) -> anyhow::Result<Command> {
    setup::ensure(install)?;
    // The clients wait for the network and the product for the processor.
    let (clients, binary) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| -> anyhow::Result<()> {
            NodeTool::install()?;
            PythonTool::install()?;
            Ok(())
        });
        let binary = build_product("fast");
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
