//! Programs in a sandbox that speak MCP over their standard input and output, at an address of their own (MCP, Streamable
//! HTTP, without sessions). There is nothing to set up but the file that agents know them from.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::response::IntoResponse as _;
use hands::{Hand, Program};
use http::StatusCode;
use kernel::{Code, Error, Result};

use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;

use super::asked::{Answer, Asked};
use crate::api::{answer, unbroken};

/// The file that names them.
const FILE: &str = "/workspace/.mcp.json";

/// The most of it that is read, in bytes.
const LARGEST: u32 = 256 << 10;

/// What agents keep in that file, as far as it is of interest here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    #[serde(default)]
    mcp_servers: BTreeMap<String, Value>,
}

/// The programs that the file names.
pub async fn list(asked: Asked) -> Answer {
    let work = async {
        let known = known(&asked.hand().await?).await?;
        let servers: Vec<_> = known
            .iter()
            .filter_map(|(name, it)| Some(json!({ "name": name, "command": it.get("command")? })))
            .collect();
        Ok(json!({ "servers": servers }))
    };
    asked.told("sandboxes.mcp_servers", Effect::Read, work).await
}

/// Takes a message to one of them; what is a request is answered.
pub async fn speak(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (_, message) = asked.input(request).await?;
        let work = async {
            let message = checked(message)?;
            let hand = asked.hand().await?;
            let server =
                hand.server(asked.part("server"), &named(&hand, asked.part("server")).await?).await?;
            let Some(id) = message.get("id").cloned() else { return Ok(None) };
            Ok(Some(match message["method"].as_str() {
                Some("initialize") => json!({ "jsonrpc": "2.0", "id": id, "result": server.greeting() }),
                _ => server.ask(message).await?,
            }))
        };
        Ok(match asked.act("sandboxes.mcp", Effect::Write, work).await? {
            Some(message) => answer(StatusCode::OK, &message),
            None => StatusCode::ACCEPTED.into_response(),
        })
    })
    .await
}

/// A request or a notification.
fn checked(message: Value) -> Result<Value> {
    let is_one = message["jsonrpc"] == "2.0" && message["method"].is_string();
    let has_id = message.get("id").is_none_or(|id| id.is_string() || id.is_number());
    if is_one && has_id {
        return Ok(message);
    }
    Err(Error::new(Code::InvalidInput, "the body is no request and no notification of JSON-RPC 2.0")
        .hint("send one message at a time, as an MCP client does"))
}

async fn named(hand: &Hand, name: &str) -> Result<Program> {
    let mut known = known(hand).await?;
    let Some(program) = known.remove(name) else {
        let wanted: String = name.chars().take(64).collect();
        let there = known.into_keys().take(20).collect::<Vec<_>>().join(", ");
        return Err(Error::not_found(format!("MCP server {wanted:?} in {FILE}")).hint(
            match there.as_str() {
                "" => format!(
                    r#"write {FILE}: {{"mcpServers":{{"name":{{"command":"npx","args":["-y","…"]}}}}}}"#
                ),
                there => format!("there is {there}"),
            },
        ));
    };
    serde_json::from_value(program).map_err(|error| {
        Error::new(Code::InvalidInput, format!("{FILE}: mcpServers.{name}: {error}"))
            .hint("one that runs in the sandbox has a command, and may have args, env and cwd")
    })
}

/// What the file says.
async fn known(hand: &Hand) -> Result<BTreeMap<String, Value>> {
    let text = match hand.files().read(FILE, 0, LARGEST).await {
        Ok((_, text)) => text,
        Err(error) => {
            return match Error::from(error) {
                error if error.code() == Code::NotFound => Ok(BTreeMap::new()),
                error => Err(error),
            };
        }
    };
    let known: Known = serde_json::from_slice(&text)
        .map_err(|error| Error::new(Code::InvalidInput, format!("{FILE}: {error}")))?;
    Ok(known.mcp_servers)
}
