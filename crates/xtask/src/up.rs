//! `up`: builds the product, serves, and shows the way in.

use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::setup::Install;
use crate::workspace::{build_product, root, run, say};

/// The command that `up` leaves behind to read the server's ready line.
pub const GREET: &str = "greet";

const EXAMPLE: &str = "examples/hello";

/// Builds and serves. This process becomes the server, so that signals and the exit code are the server's own.
pub fn up(_: Install, arguments: &[&str]) -> anyhow::Result<()> {
    // The profile of the tests: a newcomer waits for one build, and whoever tests has it already.
    let binary = build_product("fast")?;
    let example = root().join(EXAMPLE);
    let deploy = example.is_dir() && std::io::stdin().is_terminal() && agreed()?;
    let mut greeter = Command::new(std::env::current_exe()?);
    greeter.arg(GREET).arg(&binary).stdin(Stdio::piped());
    if deploy {
        greeter.arg(&example);
    }
    let ready_line = greeter.spawn()?.stdin.context("the greeter's input")?;
    let mut serve = Command::new(&binary);
    serve.args(["serve", "--json"]).args(arguments).stdout(ready_line);
    Err(serve.exec()).with_context(|| binary.display().to_string())
}

/// Waits for the server's ready line on standard input, then deploys the example, if there is one to deploy, and
/// prints how to go on.
pub fn greet(words: &[&str]) -> anyhow::Result<()> {
    let (binary, example) = match words {
        [binary] => (binary, None),
        [binary, example] => (binary, Some(example)),
        _ => bail!("greet is for `up` alone"),
    };
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if line.is_empty() {
        // The server has ended and has said why.
        return Ok(());
    }
    let ready: Value = serde_json::from_str(&line).with_context(|| format!("not a ready line: {line}"))?;
    let text = |field: &str| ready[field].as_str().with_context(|| format!("no {field} in the ready line"));
    if let Some(example) = example {
        let key = text("key")?;
        let apply = &mut Command::new(binary);
        apply.arg("apply").arg(example).env("STEADING_URL", text("url")?).env("STEADING_KEY", key);
        run(apply.stdin(Stdio::null()))?;
    }
    say(&guide(binary, text("url")?, text("mcp_url")?, text("data_dir")?, example.is_some()));
    Ok(())
}

fn agreed() -> anyhow::Result<bool> {
    write!(std::io::stderr(), "Deploy the example app ({EXAMPLE}) when it is up? [Y/n] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}

fn guide(binary: &str, url: &str, mcp_url: &str, data_dir: &str, deployed: bool) -> String {
    let program = Path::new(binary);
    let binary =
        std::env::current_dir().ok().and_then(|here| Some(program.strip_prefix(here).ok()?.to_owned()));
    let binary = binary.as_deref().unwrap_or(program).display();
    // Commands look for the server in the working directory unless they are told where it is.
    let here = std::env::current_dir().is_ok_and(|here| here.join(".steading") == Path::new(data_dir));
    let elsewhere = if here { String::new() } else { format!(" --data-dir {data_dir}") };
    let mut guide = format!(
        "\nSteading is up at {url}, its data in {data_dir}.\n\
         Connect an agent:   {binary} connect claude-code{elsewhere}\n\
         MCP endpoint:       {mcp_url}, with the key in {data_dir}/operator.key\n"
    );
    if !deployed && root().join(EXAMPLE).is_dir() {
        guide.push_str(&format!("Deploy the example: {binary} apply {EXAMPLE}{elsewhere}\n"));
    }
    guide.push_str("Ctrl-C stops it.\n");
    guide
}
