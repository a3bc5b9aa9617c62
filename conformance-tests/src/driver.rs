//! A client of another language's SDK, driven line by line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{NodeTool, PythonTool, require};

use crate::ground::Place;

/// Longer than any call takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

const PYTHON: &str = include_str!("../clients/python/drive.py");
const NODE: &str = include_str!("../clients/node/drive.mjs");

/// The door that a client uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Streamable HTTP.
    Http,
    /// The same, at another address than the server's own.
    HttpAt(String),
    /// `steading mcp`, told by variables where the server is.
    Stdio,
    /// `steading mcp`, which finds the server by its data directory and needs no key.
    StdioOfDataDirectory,
}

/// What the client learnt of the server when it connected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Greeting {
    /// The protocol revision that both speak, where the client tells.
    pub protocol: Option<String>,
    /// What the server says of itself.
    pub instructions: Option<String>,
    /// The text of each prompt, by its name.
    pub prompts: BTreeMap<String, String>,
    /// The names of the tools, in order.
    pub tools: Vec<String>,
    /// Those whose output the client cannot check.
    pub without_output_schema: Vec<String>,
}

/// What a client made of one call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// The tool answered, well or not.
    Answered {
        /// `isError`.
        failed: bool,
        /// The structured content, or null.
        structured: Value,
        /// The content blocks.
        content: Vec<Value>,
        /// The progress that was reported, in order.
        steps: Vec<Value>,
    },
    /// The client threw: a protocol error, or an answer that it does not accept.
    Thrown {
        /// Its words.
        thrown: String,
    },
}

/// A running client. Dropping it ends it.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    noise: Option<JoinHandle<String>>,
    _home: tempfile::TempDir,
}

impl Driver {
    /// The Python SDK's client; `mode` is its own word for how to agree on a revision.
    ///
    /// # Errors
    /// Where it does not start or does not connect.
    pub fn python(place: &Place, target: Target, mode: &str) -> anyhow::Result<(Greeting, Self)> {
        Self::python_of(with(described(place, target), "mode", mode.into()))
    }

    /// The same client at any address, with a key.
    ///
    /// # Errors
    /// As there.
    pub fn python_at(url: &str, key: &str, mode: &str) -> anyhow::Result<(Greeting, Self)> {
        Self::python_of(json!({ "url": url, "key": key, "mode": mode }))
    }

    fn python_of(target: Value) -> anyhow::Result<(Greeting, Self)> {
        let home = testkit::temporary()?;
        let mut command = require(PythonTool::install()).command(home.path())?;
        command.args(["-c", PYTHON]);
        Self::start(command, home, target)
    }

    /// The TypeScript SDK's client 1.x.
    ///
    /// # Errors
    /// Where it does not start or does not connect.
    pub fn typescript_1(place: &Place, target: Target) -> anyhow::Result<(Greeting, Self)> {
        Self::typescript(with(described(place, target), "sdk", 1.into()))
    }

    /// The TypeScript SDK's client 2.x; `mode` is its own word for how to agree on a revision.
    ///
    /// # Errors
    /// Where it does not start or does not connect.
    pub fn typescript_2(place: &Place, target: Target, mode: &str) -> anyhow::Result<(Greeting, Self)> {
        Self::typescript(with(with(described(place, target), "sdk", 2.into()), "mode", mode.into()))
    }

    /// The same client over HTTP, where it knows no other revision than `version`.
    ///
    /// # Errors
    /// Where it does not start or does not connect.
    pub fn typescript_2_of(place: &Place, version: &str) -> anyhow::Result<(Greeting, Self)> {
        let target = with(described(place, Target::Http), "sdk", 2.into());
        Self::typescript(with(with(target, "mode", "legacy".into()), "versions", json!([version])))
    }

    fn typescript(target: Value) -> anyhow::Result<(Greeting, Self)> {
        let home = testkit::temporary()?;
        let node = require(NodeTool::install());
        let mut command = node.command("node", home.path())?;
        // A script given as text imports packages from the directory it runs in.
        command.args(["--input-type=module", "--eval", NODE]).current_dir(node.directory());
        Self::start(command, home, target)
    }

    fn start(
        mut command: Command,
        home: tempfile::TempDir,
        target: Value,
    ) -> anyhow::Result<(Greeting, Self)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
        let mut input = child.stdin.take().context("a pipe")?;
        // Not as an argument: the key is in it.
        writeln!(input, "{target}")?;
        let output = child.stdout.take().context("a pipe")?;
        let mut errors = child.stderr.take().context("a pipe")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let noise = std::thread::spawn(move || {
            let mut noise = String::new();
            // A pipe that breaks has said all it will.
            let _ = errors.read_to_string(&mut noise);
            noise
        });
        let mut driver = Self { child, input: Some(input), lines, noise: Some(noise), _home: home };
        let greeting = driver.read()?;
        let greeting = serde_json::from_str(&greeting).with_context(|| greeting.clone())?;
        Ok((greeting, driver))
    }

    /// Calls a tool and asks for progress.
    ///
    /// # Errors
    /// Where the client itself ends or hangs.
    pub fn call(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Said> {
        let request = json!({ "tool": tool, "arguments": arguments, "progress": true });
        let input = self.input.as_mut().context("the client has been told to end")?;
        writeln!(input, "{request}")?;
        let line = self.read()?;
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    /// Calls a tool that must succeed, and gives its structured content, which is what the text says too.
    ///
    /// # Errors
    /// Where the tool fails, or where text and structure differ.
    pub fn output(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Value> {
        match self.call(tool, arguments)? {
            Said::Answered { failed: false, structured, content, .. } => {
                let text = text(&content)?;
                anyhow::ensure!(text == structured, "{tool}: the text {text} is not {structured}");
                Ok(structured)
            }
            other => bail!("{tool}: {other:?}"),
        }
    }

    /// Calls a tool that must fail, and gives the problem.
    ///
    /// # Errors
    /// Where it succeeds, or fails in another way than by a problem in text alone.
    pub fn problem(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Value> {
        match self.call(tool, arguments)? {
            Said::Answered { failed: true, structured: Value::Null, content, .. } => text(&content),
            other => bail!("{tool}: {other:?}"),
        }
    }

    /// Ends the client as its user would, and gives what it said on standard error.
    ///
    /// # Errors
    /// Where it does not end well.
    pub fn end(mut self) -> anyhow::Result<String> {
        drop(self.input.take());
        let child = &mut self.child;
        let status = testkit::eventually(PATIENCE, || child.try_wait().ok().flatten());
        anyhow::ensure!(status.is_some_and(|status| status.success()), "the client ended with {status:?}");
        Ok(self.noise())
    }

    fn read(&mut self) -> anyhow::Result<String> {
        self.lines.recv_timeout(PATIENCE).map_err(|e| {
            // It may have ended already; either way it says nothing more.
            let _ = self.child.kill();
            anyhow::anyhow!("no line from the client ({e}):\n{}", self.noise())
        })
    }

    fn noise(&mut self) -> String {
        self.noise.take().and_then(|noise| noise.join().ok()).unwrap_or_default()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The server that it may have started ends with its pipe.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one text block of an answer, which is JSON.
fn text(content: &[Value]) -> anyhow::Result<Value> {
    let [block] = content else { bail!("not one block: {content:?}") };
    Ok(serde_json::from_str(block["text"].as_str().context("not text")?)?)
}

fn described(place: &Place, target: Target) -> Value {
    let ready = place.steading.ready();
    let mut arguments = vec!["mcp".to_owned(), "--env".to_owned(), place.slug.clone()];
    let variables = match target {
        Target::Http => return json!({ "url": place.mcp_url(), "key": ready.key }),
        Target::HttpAt(url) => return json!({ "url": format!("{url}/mcp/{}", place.slug), "key": ready.key }),
        Target::Stdio => json!({ "STEADING_URL": ready.url, "STEADING_KEY": ready.key }),
        Target::StdioOfDataDirectory => {
            arguments.extend(["--data-dir".to_owned(), ready.data_dir.display().to_string()]);
            json!({})
        }
    };
    json!({ "command": place.binary(), "args": arguments, "variables": variables })
}

fn with(mut target: Value, name: &str, value: Value) -> Value {
    target[name] = value;
    target
}
