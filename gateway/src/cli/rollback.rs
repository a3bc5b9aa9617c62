//! `steading rollback`: returns to an earlier release.

use kernel::{Code, Error};
use serde_json::{Value, json};

use super::client::Client;
use super::output::cell;
use super::{Context, Failure, manifest};

/// Return to an earlier release: schema, site and all
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// The release's number [default: the one before the live one]
    release: Option<u64>,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
}

impl Rollback {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect(&context).await?;
        let outcome = self.roll_back(&mut client).await;
        client.close().await;
        context.output.result(&outcome?, |done| match self.dry_run {
            true => manifest::words(done),
            false => format!("Release {} is live: {}", cell(&done["release"]), cell(&done["url"])),
        });
        Ok(())
    }

    async fn roll_back(&self, client: &mut Client) -> Result<Value, Failure> {
        let release = match self.release {
            Some(release) => release,
            None => previous(client).await?,
        };
        client.tool("app_rollback", &json!({ "release": release, "dry_run": self.dry_run })).await
    }
}

async fn previous(client: &mut Client) -> Result<u64, Failure> {
    let app = client.tool("app_describe", &json!({})).await?;
    match app["release"].as_u64() {
        Some(live) if live > 1 => Ok(live - 1),
        _ => Err(Error::new(Code::Conflict, "there is no earlier release to return to")
            .hint("name the release: steading rollback 3")
            .into()),
    }
}
