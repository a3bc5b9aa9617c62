//! `steading secret`: values that can be written and never read.

use std::io::{IsTerminal, Read, Write};

use clap::Subcommand;
use kernel::{Code, Error};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use super::client::Client;
use super::{Context, Failure};

/// Set secrets
#[derive(Debug, clap::Args)]
pub struct Secret {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set a secret to what is typed or piped in; there is no way to pass it as an argument, where others see it
    Set {
        /// Its name
        name: String,
        /// Only for what sandboxes send to this host, where they have a placeholder; may be given more than once
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
    },
}

impl Secret {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let Command::Set { name, hosts } = self.command;
        let value = value(&name)?;
        let mut client = Client::connect(&context).await?;
        let mut input = json!({ "name": name, "value": value.expose() });
        if !hosts.is_empty() {
            input["hosts"] = hosts.into();
        }
        let answer = client.tool("secret_set", &input).await;
        client.close().await;
        context.output.result(&answer?, |_| format!("{name} is set."));
        Ok(())
    }
}

fn value(name: &str) -> Result<kernel::Secret, Error> {
    let unreadable =
        |e: std::io::Error| Error::new(Code::InvalidInput, format!("the value cannot be read: {e}"));
    let mut text = String::new();
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        drop(write!(std::io::stderr(), "Value of {name}: ").and_then(|()| std::io::stderr().flush()));
        let _unseen = Unseen::begin().map_err(unreadable)?;
        stdin.read_line(&mut text).map_err(unreadable)?;
        drop(writeln!(std::io::stderr()));
    } else {
        stdin.read_to_string(&mut text).map_err(unreadable)?;
    }
    // The end of the line is the terminal's, or `echo`'s, and not part of the value.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(Error::invalid("/value", "the value is empty").hint("pipe it in, or type it when asked"));
    }
    Ok(kernel::Secret::new(text))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Unseen(rustix::termios::Termios);

impl Unseen {
    fn begin() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &unseen)?;
        Ok(Self(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // Nothing is left to do where the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
