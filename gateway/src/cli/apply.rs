//! `steading apply`: brings an environment to what its `steading.json` says.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use kernel::{Code, Error};
use serde_json::{Value, json};

use super::client::Client;
use super::output::cell;
use super::{Context, Failure, manifest};

/// Bring an environment to what an app's steading.json says
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// The directory that holds steading.json
    #[arg(default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    consent: Consent,
    /// Apply a plan made before, as it was shown
    #[arg(long, value_name = "PLAN", requires = "confirm")]
    plan: Option<String>,
}

/// How the loss of data is agreed to.
#[derive(Debug, clap::Args)]
pub struct Consent {
    /// The confirmation that the plan asked for
    #[arg(long, value_name = "TOKEN")]
    pub confirm: Option<String>,
    /// Accept every loss that the plan names
    #[arg(long, conflicts_with = "confirm")]
    pub yes: bool,
}

impl Apply {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect(&context).await?;
        let applied = self.apply(&mut client, &context).await;
        client.close().await;
        context.output.result(&applied?, |applied| {
            let release = cell(&applied["release"]);
            let url = cell(&applied["url"]);
            match applied["changed"] == true {
                true => format!("Release {release} is live: {url}"),
                false => format!("Nothing changed; release {release} is live: {url}"),
            }
        });
        Ok(())
    }

    async fn apply(&self, client: &mut Client, context: &Context) -> Result<Value, Failure> {
        if let Some(plan) = &self.plan {
            let input = json!({ "plan_id": plan, "confirm": self.consent.confirm });
            return client.tool("app_apply", &input).await;
        }
        let manifest = manifest::read(client, &self.dir, context.output).await?;
        let plan = client.tool("app_plan", &json!({ "manifest": manifest })).await?;
        context.output.progress(&manifest::words(&plan));
        let mut input = json!({ "plan_id": plan["plan_id"] });
        if let Some(token) = plan["confirm"].as_str() {
            input["confirm"] = self.consent.give(token)?.into();
        }
        client.tool("app_apply", &input).await
    }
}

impl Consent {
    /// What to pass as `confirm`, where the platform asks for `token`.
    ///
    /// # Errors
    /// `conflict` where nobody agrees.
    pub fn give(&self, token: &str) -> Result<String, Error> {
        if let Some(given) = &self.confirm {
            return Ok(given.clone());
        }
        if self.yes || (std::io::stdin().is_terminal() && agreed()) {
            return Ok(token.to_owned());
        }
        Err(Error::new(Code::Conflict, "this would lose data, and nobody agreed to it")
            .hint(format!("pass --yes, or --confirm {token}")))
    }
}

fn agreed() -> bool {
    let mut err = std::io::stderr().lock();
    drop(write!(err, "This loses data. Type yes to go on: ").and_then(|()| err.flush()));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
