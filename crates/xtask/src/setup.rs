//! Brings the machine what tests need beyond Rust and a C compiler, through apt.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, bail};
use testkit::Engine;

use crate::workspace::{run, say};

/// What to do about packages that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// Install them.
    Missing,
    /// Say which, and go on without.
    OnlyTell,
}

/// Makes every engine that tests start present, or says what would be installed.
///
/// # Errors
/// Where a package cannot be installed, with what to do instead.
pub fn ensure(install: Install) -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    for engine in &missing {
        say(&format!("{engine} is missing: {} (package {})", engine.purpose(), engine.packages().join(", ")));
    }
    let packages: Vec<&str> = missing.iter().flat_map(|engine| engine.packages()).copied().collect();
    if install == Install::OnlyTell {
        say(&format!("nothing is installed; tests fail until somebody runs: {}", advice(&packages)));
        return Ok(());
    }
    install_with_apt(&packages).with_context(|| format!("install by hand: {}", packages.join(" ")))?;
    let still: Vec<String> = self::missing().iter().map(ToString::to_string).collect();
    if !still.is_empty() {
        bail!("installed, and still not usable: {}", still.join(", "));
    }
    Ok(())
}

fn missing() -> Vec<Engine> {
    Engine::ALL.into_iter().filter(|engine| !engine.is_present()).collect()
}

fn install_with_apt(packages: &[&str]) -> anyhow::Result<()> {
    if Command::new("apt-get").arg("--version").output().is_err() {
        bail!("this machine has no apt-get");
    }
    if !is_root()? {
        say("installing packages needs root: sudo may ask for your password");
    }
    let update = || run(&mut apt(&["update"])?);
    // Mirrors fail for a moment more often than they fail for good.
    update().or_else(|_| update()).context("the package lists cannot be fetched")?;
    run(apt(&["install", "--yes", "--no-install-recommends"])?.args(packages))
}

fn apt(arguments: &[&str]) -> anyhow::Result<Command> {
    // Under sudo too it is `env` that sets the variable: sudo itself may be told not to let any through.
    let mut command = Command::new(if is_root()? { "env" } else { "sudo" });
    if !is_root()? {
        command.arg("env");
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]).args(arguments);
    Ok(command)
}

fn advice(packages: &[&str]) -> String {
    let sudo = if is_root().unwrap_or(false) { "" } else { "sudo " };
    format!("{sudo}apt-get install --no-install-recommends {}", packages.join(" "))
}

fn is_root() -> anyhow::Result<bool> {
    Ok(std::fs::metadata("/proc/self")?.uid() == 0)
}
