//! Where the repository is, and how its commands are run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
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
    let line = shown(command);
    say(&format!("$ {line}"));
    let status = command.status().with_context(|| line.clone())?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What is run with an end has this variable, and all that it starts.
const MARK: &str = "STEADING_XTASK_RUN";

/// As [`run`], with an end: what has not ended in `limit` is killed, with all that it started.
///
/// # Errors
/// As [`run`], and where it takes longer.
pub fn run_within(limit: Duration, command: &mut Command) -> anyhow::Result<()> {
    let (name, start) = (shown(command), Instant::now());
    say(&format!("$ {name}"));
    // What is given to init has it, too.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mark = format!("{}-{}", std::process::id(), since.as_nanos());
    let mut child = command.env(MARK, &mark).spawn().with_context(|| name.clone())?;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{name}: {status}");
            return Ok(());
        }
        if start.elapsed() >= limit {
            let mut all = descendants(child.id());
            all.push(child.id());
            let marked = marked(&format!("{MARK}={mark}"));
            all.extend(marked.into_iter().filter(|pid| *pid != std::process::id()));
            let pids = all.iter().map(u32::to_string);
            Command::new("kill").arg("-KILL").args(pids).status().context("kill")?;
            child.wait()?;
            bail!("{name}: no end after {} minutes; what hangs has no result above", limit.as_secs() / 60);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The processes that a process has started, and those that they have.
fn descendants(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let own: Vec<u32> = lists
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    own.iter().flat_map(|pid| descendants(*pid)).chain(own.iter().copied()).collect()
}

/// The processes that have this among their variables, of those that may be looked at.
fn marked(variable: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        variables.split(|byte| *byte == 0).any(|it| it == variable.as_bytes())
    };
    all.filter(has).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_ended_with_all_that_it_started() {
        let marker = format!("{}.25", 100_000 + std::process::id());
        let mut endless = Command::new("sh");
        // One that is left to init, too.
        endless.args(["-c", "(setsid sleep $0 &); sh -c 'sleep $0; true' $0 & wait", &marker]);
        let error = run_within(Duration::from_secs(1), &mut endless).unwrap_err();
        assert!(error.to_string().contains("no end"), "{error:#}");
        let left = Command::new("pgrep").args(["-f", &format!("sleep {marker}")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "");
        run_within(Duration::from_secs(60), &mut Command::new("true")).unwrap();
        assert!(run_within(Duration::from_secs(60), &mut Command::new("false")).is_err());
    }
}
