//! `steading call`: calls one tool.

use std::io::Read;

use kernel::{Code, Error};
use serde_json::Value;

use super::client::Client;
use super::output::pretty;
use super::{Context, Failure};

/// Call a tool and print its result
#[derive(Debug, clap::Args)]
pub struct Call {
    /// The tool's name; `steading tools` lists them
    tool: String,
    /// Its input: JSON, @FILE, or - for stdin
    #[arg(default_value = "{}", allow_hyphen_values = true)]
    input: String,
}

impl Call {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let input = read(&self.input)?;
        let mut client = Client::connect(&context).await?;
        let answer = client.tool(&self.tool, &input).await;
        client.close().await;
        context.output.result(&answer?, pretty);
        Ok(())
    }
}

fn read(given: &str) -> Result<Value, Error> {
    let (text, name) = match given.strip_prefix('@') {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Error::new(Code::InvalidInput, format!("{path} cannot be read: {e}")))?;
            (text, path)
        }
        None if given == "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| Error::new(Code::InvalidInput, format!("stdin cannot be read: {e}")))?;
            (text, "stdin")
        }
        None => (given.to_owned(), "the input"),
    };
    serde_json::from_str(&text).map_err(|e| {
        Error::new(Code::InvalidInput, format!("{name} is not JSON: {e}"))
            .hint("pass the tool's input as JSON, as @FILE, or as - for stdin")
    })
}
