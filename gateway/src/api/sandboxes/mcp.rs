//! Programs in a sandbox that speak MCP over their standard input and output, at an address of their own (MCP, Streamable
//! HTTP, without sessions). There is nothing to set up but the file that agents know them from.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::response::IntoResponse as _;
use hands::{Hand, Message, Program};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use kernel::{Code, Error, Result};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tool::Effect;

use super::asked::{Answer, Asked};
use super::lines::Still;
use crate::api::unbroken;

/// The file that names them.
const FILE: &str = "/workspace/.mcp.json";

/// The most of it that is read, in bytes.
const LARGEST: u32 = 256 << 10;

/// What agents keep in that file, as far as it is of interest here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    #[serde(default)]
    mcp_servers: BTreeMap<String, Box<RawValue>>,
}

/// One that runs in the sandbox.
#[derive(Deserialize)]
struct Named {
    command: String,
}

/// The programs that the file names.
pub async fn list(asked: Asked) -> Answer {
    let work = async {
        let known = known(&asked.hand().await?).await?;
        let command = |it: &RawValue| Some(serde_json::from_str::<Named>(it.get()).ok()?.command);
        let servers: Vec<_> = known
            .iter()
            .filter_map(|(name, it)| Some(json!({ "name": name, "command": command(it)? })))
            .collect();
        Ok(json!({ "servers": servers }))
    };
    asked.told("sandboxes.mcp_servers", Effect::Read, work).await
}

/// Takes a message to one of them; what is a request is answered, as long as who asks may still do so.
pub async fn speak(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (headers, body) = asked.text(request, Message::LARGEST).await?;
        let work = async {
            let message = Message::read(&body)?;
            drop(body);
            let hand = asked.hand().await?;
            let (speaker, name) = (hand.speaker()?, asked.part("server"));
            let program = named(&hand, name).await?;
            speaker.speak(name, &program, &message).await
        };
        let work = Still::new(&asked.api, headers, &asked.caller).during(work);
        Ok(match asked.act("sandboxes.mcp", Effect::Write, work).await? {
            Some(message) => (StatusCode::OK, [(CONTENT_TYPE, "application/json")], message).into_response(),
            None => StatusCode::ACCEPTED.into_response(),
        })
    })
    .await
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
    serde_json::from_str(program.get()).map_err(|error| {
        Error::new(Code::InvalidInput, format!("{FILE}: mcpServers.{name}: {error}"))
            .hint("one that runs in the sandbox has a command, and may have args, env and cwd")
    })
}

/// What the file says.
async fn known(hand: &Hand) -> Result<BTreeMap<String, Box<RawValue>>> {
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
