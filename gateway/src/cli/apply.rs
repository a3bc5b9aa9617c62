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
    /// Accept every loss of data that the plan names
    #[arg(long, conflicts_with = "plan")]
    yes: bool,
    /// Apply a plan that `steading plan` showed, instead of a directory
    #[arg(long, value_name = "PLAN", conflicts_with = "dir")]
    plan: Option<String>,
    /// What that plan wants to hear before it loses data
    #[arg(long, value_name = "TOKEN", requires = "plan")]
    confirm: Option<String>,
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
            let mut input = json!({ "plan_id": plan });
            if let Some(token) = &self.confirm {
                input["confirm"] = token.as_str().into();
            }
            return client.tool("app_apply", &input).await;
        }
        let manifest = manifest::read(client, &self.dir, context.output).await?;
        let plan = client.tool("app_plan", &json!({ "manifest": manifest })).await?;
        context.output.progress(&manifest::words(&plan));
        let mut input = json!({ "plan_id": plan["plan_id"] });
        if let Some(token) = plan["confirm"].as_str() {
            if !self.yes && !asked("This loses data. Type yes to go on: ") {
                let plan = cell(&plan["plan_id"]);
                return Err(Error::new(Code::Conflict, "this would lose data, and nobody agreed to it")
                    .hint(format!("pass --yes, or apply what was shown: --plan {plan} --confirm {token}"))
                    .into());
            }
            input["confirm"] = token.into();
        }
        client.tool("app_apply", &input).await
    }
}

/// Whether a person at the terminal says yes. Without a terminal nobody does.
pub fn asked(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let mut err = std::io::stderr().lock();
    drop(write!(err, "{question}").and_then(|()| err.flush()));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
