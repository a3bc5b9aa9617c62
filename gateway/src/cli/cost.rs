//! `steading cost`: what is counted, what it costs, and what it comes to.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::client::Client;
use super::output::{cell, table};
use super::{Context, Failure};

/// Show what was used in a month and what it costs, and what would be; set prices
#[derive(Debug, clap::Args)]
pub struct Cost {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the tenant, or the environment of --env, has used in a month, and what it comes to
    Statement {
        /// The month, as 2026-11 [default: this one]
        #[arg(long)]
        month: Option<String>,
    },
    /// Show what so many environments would cost in a month at today's prices; without more they are idle
    Estimate {
        /// How many environments
        #[arg(long)]
        envs: u64,
        /// Calls of tools and routes, of each in a month
        #[arg(long, default_value_t)]
        calls: u64,
        /// Requests of visitors, of each
        #[arg(long, default_value_t)]
        visits: u64,
        /// GiB of answers that visitors read, of each
        #[arg(long, default_value_t)]
        egress_gib: f64,
        /// Hours of a processor, of each
        #[arg(long, default_value_t)]
        cpu_hours: f64,
        /// GiB-hours of memory, of each
        #[arg(long, default_value_t)]
        memory_gib_hours: f64,
        /// GiB that each keeps
        #[arg(long, default_value_t)]
        storage_gib: f64,
    },
    /// List what is counted, and what it costs
    Prices,
    /// Set what a meter costs, in millionths of the currency
    Price {
        /// The meter
        meter: String,
        /// Millionths of the currency, for what `cost prices` says that it is of
        micro: u64,
        /// From the hour of this time on, as 2027-01-01T00:00:00Z [default: this hour]
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
}

type Words = fn(&Value) -> String;

impl Cost {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = self.command.run(&mut client, &context).await;
        client.close().await;
        let (answer, words) = outcome?;
        context.output.result(&answer, words);
        Ok(())
    }
}

impl Command {
    async fn run(self, client: &mut Client, context: &Context) -> Result<(Value, Words), Failure> {
        let mut query = Serializer::new(String::new());
        Ok(match self {
            Self::Statement { month } => {
                query.extend_pairs(month.map(|month| ("month", month)));
                query.extend_pairs(context.surroundings.env.as_deref().map(|env| ("env", env)));
                let path = format!("/v1/statements?{}", query.finish());
                (client.call(Method::GET, &path, None).await?, stated)
            }
            Self::Estimate { envs, calls, visits, egress_gib, cpu_hours, memory_gib_hours, storage_gib } => {
                for (name, number) in [("envs", envs), ("calls", calls), ("visits", visits)] {
                    query.append_pair(name, &number.to_string());
                }
                for (name, number) in [
                    ("egress_gib", egress_gib),
                    ("cpu_hours", cpu_hours),
                    ("memory_gib_hours", memory_gib_hours),
                    ("storage_gib", storage_gib),
                ] {
                    query.append_pair(name, &number.to_string());
                }
                let path = format!("/v1/costs/estimate?{}", query.finish());
                (client.call(Method::GET, &path, None).await?, estimated)
            }
            Self::Prices => (client.call(Method::GET, "/v1/meters", None).await?, listed),
            Self::Price { meter, micro, since } => {
                let mut body = json!({ "meter": meter, "micro": micro });
                if let Some(since) = since {
                    body["since"] = since.into();
                }
                (client.call(Method::PUT, "/v1/meters", Some(&body)).await?, |it| {
                    let (meter, of) = (cell(&it["meter"]), cell(&it["priced_by"]));
                    format!("{meter}: {} for each {of}, from {} on", money(&it["micro"]), cell(&it["since"]))
                })
            }
        })
    }
}

/// Millionths as people write them; nothing where there is no price.
fn money(micro: &Value) -> String {
    match micro.as_u64() {
        Some(micro) => format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000),
        None => "-".to_owned(),
    }
}

fn stated(statement: &Value) -> String {
    let rows: Vec<_> = statement["lines"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| {
            let of = if it["model"].is_string() { cell(&it["model"]) } else { cell(&it["meter"]) };
            vec![cell(&it["env"]), of, cell(&it["amount"]), cell(&it["unit"]), money(&it["micro"])]
        })
        .collect();
    let of = if statement["final"] == true { "in all" } else { "so far" };
    format!(
        "from {} to {}\n{}\n{} {of}",
        cell(&statement["from"]),
        cell(&statement["to"]),
        table(&["ENVIRONMENT", "OF", "AMOUNT", "UNIT", "COST"], &rows),
        money(&statement["total_micro"])
    )
}

fn estimated(estimate: &Value) -> String {
    let lines = estimate["lines"].as_array().into_iter().flatten();
    let rows: Vec<_> = lines
        .map(|it| vec![cell(&it["meter"]), cell(&it["amount"]), cell(&it["in"]), money(&it["micro"])])
        .collect();
    format!(
        "{} environments in a month; an empty one keeps {} bytes\n{}\n{} in all",
        cell(&estimate["envs"]),
        cell(&estimate["empty_environment_bytes"]),
        table(&["OF", "AMOUNT", "IN", "COST"], &rows),
        money(&estimate["total_micro"])
    )
}

fn listed(answer: &Value) -> String {
    let meters = answer["meters"].as_array().into_iter().flatten();
    let rows: Vec<_> =
        meters.map(|it| vec![cell(&it["meter"]), cell(&it["priced_by"]), money(&it["micro"])]).collect();
    table(&["METER", "PRICE OF", "PRICE"], &rows)
}
