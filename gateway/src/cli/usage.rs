//! `steading usage`: what was used.

use reqwest::Method;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::client::Client;
use super::output::{cell, table};
use super::{Context, Failure};

/// Show what the tenant, or the environment of --env, has used
#[derive(Debug, clap::Args)]
pub struct Usage {
    /// From then on: a time such as 2026-01-31T12:00:00Z, or an age such as 7d
    #[arg(long, default_value = "1d", value_name = "TIME")]
    since: String,
}

impl Usage {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut query = Serializer::new(String::new());
        query.append_pair("since", &self.since);
        query.extend_pairs(context.surroundings.env.as_deref().map(|env| ("env", env)));
        let path = format!("/v1/usage?{}", query.finish());
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = client.call(Method::GET, &path, None).await;
        client.close().await;
        context.output.result(&outcome?, shown);
        Ok(())
    }
}

fn shown(used: &Value) -> String {
    let columns = ["tool", "calls", "errors", "ms"];
    let calls = used["calls"].as_array().into_iter().flatten();
    let rows: Vec<_> = calls.map(|it| columns.map(|name| cell(&it[name])).to_vec()).collect();
    let model = &used["model"];
    let mut words = table(&["TOOL", "CALLS", "ERRORS", "MS"], &rows);
    if model["calls"] != 0 {
        let (calls, tokens, micro) = (cell(&model["calls"]), cell(&model["tokens"]), cell(&model["micro"]));
        words.push_str(&format!("\n{calls} requests to models: {tokens} tokens, {micro} millionths"));
    }
    words
}
