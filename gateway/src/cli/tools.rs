//! `steading tools`: what can be called.

use reqwest::Method;
use serde_json::Value;

use super::client::{Client, segment};
use super::output::{cell, pretty, table};
use super::{Context, Failure};

/// List the tools, or show one with its schemas
#[derive(Debug, clap::Args)]
pub struct Tools {
    /// The tool to show
    name: Option<String>,
}

impl Tools {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect(&context).await?;
        let path = match &self.name {
            Some(name) => format!("/v1/tools/{}", segment(name)),
            None => "/v1/tools".to_owned(),
        };
        let answer = client.call(Method::GET, &path, None).await;
        client.close().await;
        context.output.result(&answer?, if self.name.is_some() { show } else { list });
        Ok(())
    }
}

fn list(answer: &Value) -> String {
    let rows: Vec<_> = answer["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|tool| vec![cell(&tool["name"]), effect(&tool["annotations"]).to_owned(), cell(&tool["title"])])
        .collect();
    table(&["NAME", "EFFECT", "WHAT IT DOES"], &rows)
}

fn effect(annotations: &Value) -> &'static str {
    let hint = |name: &str| annotations[name] == true;
    match () {
        () if hint("readOnlyHint") => "read",
        () if hint("destructiveHint") => "destroy",
        () if hint("idempotentHint") => "idempotent",
        () => "write",
    }
}

fn show(tool: &Value) -> String {
    format!(
        "{}: {}\n\n{}\n\nInput:\n{}\n\nOutput:\n{}",
        cell(&tool["name"]),
        cell(&tool["title"]),
        cell(&tool["description"]),
        pretty(&tool["input_schema"]),
        pretty(&tool["output_schema"]),
    )
}
