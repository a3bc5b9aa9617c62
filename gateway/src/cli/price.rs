//! `steading price`: what models cost, for the operator of the platform.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{cell, table};
use super::{Context, Failure};

/// List and set the prices of models
#[derive(Debug, clap::Args)]
pub struct Price {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the prices
    List,
    /// Set a price, in millionths of the currency by the million tokens
    Set {
        /// The model, as its provider calls it
        model: String,
        /// Tokens that are sent
        #[arg(long)]
        input: u64,
        /// Those of them that the provider has seen before [default: as the others]
        #[arg(long)]
        cached_input: Option<u64>,
        /// Tokens that come back
        #[arg(long)]
        output: u64,
        /// From when on, as 2027-01-01T00:00:00Z [default: now]
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
}

impl Price {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = match &self.command {
            Command::List => client.pages("/v1/prices", "prices").await,
            Command::Set { model, input, cached_input, output, since } => {
                let mut body = json!({ "model": model, "input": input, "output": output });
                if let Some(cached_input) = cached_input {
                    body["cached_input"] = (*cached_input).into();
                }
                if let Some(since) = since {
                    body["since"] = since.as_str().into();
                }
                client.call(Method::PUT, "/v1/prices", Some(&body)).await
            }
        };
        client.close().await;
        context.output.result(&outcome?, |answer| match &self.command {
            Command::List => listed(answer),
            Command::Set { .. } => {
                format!("{} costs that from {} on", cell(&answer["model"]), cell(&answer["since"]))
            }
        });
        Ok(())
    }
}

fn listed(answer: &Value) -> String {
    let columns = ["model", "since", "input", "cached_input", "output"];
    let prices = answer["prices"].as_array().into_iter().flatten();
    let rows: Vec<_> = prices.map(|it| columns.map(|name| cell(&it[name])).to_vec()).collect();
    table(&["MODEL", "SINCE", "INPUT", "CACHED INPUT", "OUTPUT"], &rows)
}
