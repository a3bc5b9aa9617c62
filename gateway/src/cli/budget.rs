//! `steading budget`: how much may be spent on models, and what is left.

use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::output::{cell, table};
use super::{Context, Failure};

/// List, set and delete budgets for models
#[derive(Debug, clap::Args)]
pub struct Budget {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the budgets of the tenant, with what is left
    List {
        /// All that bounds the environment of --env, instead
        #[arg(long)]
        bound: bool,
    },
    /// Set a budget, in the place of one for the same unit and period
    Set {
        /// The most that may be spent: tokens, or millionths of the operator's currency
        most: u64,
        /// What it counts
        #[arg(long, value_enum, default_value_t = Unit::Tokens)]
        unit: Unit,
        /// How long it lasts, in UTC
        #[arg(long, value_enum, default_value_t = Period::Day)]
        period: Period,
        /// For the environment of --env, instead of the whole tenant
        #[arg(long)]
        bound: bool,
    },
    /// Delete a budget; what was spent is not forgotten
    Delete {
        /// Its id, bud_…
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unit {
    Tokens,
    Micro,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Period {
    Day,
    Month,
}

impl Budget {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let env = context.surroundings.env.clone().unwrap_or_else(|| "default".to_owned());
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = self.command.run(&mut client, &env).await;
        client.close().await;
        let (answer, words) = outcome?;
        context.output.result(&answer, words);
        Ok(())
    }
}

type Words = fn(&Value) -> String;

impl Command {
    async fn run(self, client: &mut Client, env: &str) -> Result<(Value, Words), Failure> {
        match self {
            Command::List { bound: false } => Ok((client.pages("/v1/budgets", "budgets").await?, listed)),
            Command::List { bound: true } => {
                let env: String = url::form_urlencoded::byte_serialize(env.as_bytes()).collect();
                let path = format!("/v1/budgets?env={env}");
                Ok((client.call(Method::GET, &path, None).await?, listed))
            }
            Command::Set { most, unit, period, bound } => {
                let mut body = json!({ "most": most, "unit": name(unit), "period": name(period) });
                if bound {
                    body["env"] = env.into();
                }
                let set = client.call(Method::PUT, "/v1/budgets", Some(&body)).await?;
                Ok((set, |set| format!("{}: {} of {} left", cell(&set["id"]), set["left"], set["most"])))
            }
            Command::Delete { id } => {
                let path = format!("/v1/budgets/{}", segment(&id));
                Ok((client.call(Method::DELETE, &path, None).await?, |_| "Deleted.".to_owned()))
            }
        }
    }
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|it| it.get_name().to_owned()).unwrap_or_default()
}

fn listed(answer: &Value) -> String {
    let columns = ["id", "env", "unit", "period", "most", "left", "set_by"];
    let budgets = answer["budgets"].as_array().into_iter().flatten();
    let rows: Vec<_> = budgets.map(|it| columns.map(|name| cell(&it[name])).to_vec()).collect();
    table(&["ID", "ENVIRONMENT", "UNIT", "PERIOD", "MOST", "LEFT", "SET BY"], &rows)
}
