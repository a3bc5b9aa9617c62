//! `steading logs`: what an environment's app did.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Map, Value};

use super::client::Client;
use super::output::cell;
use super::{Context, Failure};

/// How often `--follow` looks.
const POLL: Duration = Duration::from_secs(1);

/// How many lines `--follow` remembers, to tell new ones from those it has shown.
const REMEMBERED: usize = 10_000;

/// Show an environment's logs
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// From this time on: such as 2026-01-31T12:00:00Z, or 15m, 2h, 1d ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines of this level or a more severe one
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Only lines that contain this
    #[arg(long)]
    text: Option<String>,
    /// Only lines of this request
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Keep showing what is added, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// At most this many lines, the newest
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

impl Logs {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect(&context).await?;
        let outcome = tokio::select! {
            outcome = self.show(&mut client, &context) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        client.close().await;
        outcome
    }

    async fn show(&self, client: &mut Client, context: &Context) -> Result<(), Failure> {
        let mut input = Map::new();
        input.insert("limit".to_owned(), self.limit.into());
        let filters = [
            ("since", &self.since),
            ("level", &self.level),
            ("text", &self.text),
            ("request_id", &self.request_id),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                input.insert(name.to_owned(), value.as_str().into());
            }
        }
        if !self.follow {
            let answer = client.tool("logs_query", &input.into()).await?;
            context.output.result(&answer, |answer| lines(answer).map(words).collect::<Vec<_>>().join("\n"));
            return Ok(());
        }
        let mut shown: VecDeque<Value> = VecDeque::new();
        loop {
            let answer = client.tool("logs_query", &input.clone().into()).await?;
            for line in lines(&answer).filter(|line| !shown.contains(line)).cloned().collect::<Vec<_>>() {
                context.output.result(&line, words);
                shown.push_back(line);
            }
            shown.drain(..shown.len().saturating_sub(REMEMBERED));
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The lines of an answer, oldest first, as people read them.
fn lines(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["entries"].as_array().map(Vec::as_slice).unwrap_or_default().iter().rev()
}

fn words(line: &Value) -> String {
    format!("{} {:5} {}", cell(&line["at"]), cell(&line["level"]), cell(&line["message"]))
}
