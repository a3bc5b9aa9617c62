//! Where the repository is, and how its commands are run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// The repository's own directory. Cargo says at run time which package runs: a target directory that several
/// clones share holds one program for all of them, so the place where it was compiled would be the wrong one.
pub fn root() -> PathBuf {
    let package = variable("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    package.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this program's only settings are the ones that cargo hands it"
)]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// A cargo command at the repository's root, with the cargo that runs this program.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(variable("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Tells the user what happens; results alone go to standard output.
pub fn say(message: &str) {
    // A closed stderr has no reader to tell.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Runs a command in the foreground, after showing it.
///
/// # Errors
/// Where it does not start, or ends with anything but success.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let line = words.join(" ");
    say(&format!("$ {line}"));
    let status = command.status().with_context(|| line.clone())?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// Runs a quiet command and gives what it printed.
///
/// # Errors
/// Where it does not start, or ends with anything but success.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| name.clone())?;
    ensure!(output.status.success(), "{name}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// What `cargo metadata` says of the workspace's own crates.
///
/// # Errors
/// Where cargo refuses the workspace.
pub fn metadata() -> anyhow::Result<Value> {
    let text = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    Ok(serde_json::from_str(&text)?)
}

/// Builds the product with a profile, and gives the path of the binary `steading`.
///
/// # Errors
/// Where it does not compile.
pub fn build_product(profile: &str) -> anyhow::Result<PathBuf> {
    run(&mut cargo(&["build", "--locked", "--profile", profile, "-p", "gateway", "--bin", "steading"]))?;
    let metadata = metadata()?;
    let target = metadata["target_directory"].as_str().context("no target directory")?;
    // Cargo keeps what the profile `dev` makes under another name.
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(Path::new(target).join(directory).join("steading"))
}
