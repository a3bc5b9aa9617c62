//! What a client says over a WebSocket, and what it is told, as JSON.

use kernel::{Error, Result, Secret};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::judge::Event;

/// A message of a client. The first is `hello`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// Who it is; nobody without a token. Said again, with a newer token of the same user.
    Hello {
        /// An access token.
        token: Option<Secret>,
        /// The publishable key, from pages of another origin.
        key: Option<String>,
    },
    /// Rows it wants to know of.
    Subscribe(Subscribe),
    /// Rows it does not want to know of any more.
    Unsubscribe {
        /// The subscription's name.
        sub: String,
    },
    /// A channel it wants to be in.
    Join(Join),
    /// A channel it does not want to be in any more.
    Leave {
        /// The channel.
        channel: String,
    },
    /// Something for everybody in a channel.
    Broadcast(Broadcast),
    /// What the others in a channel see of it.
    Presence {
        /// The channel.
        channel: String,
        /// The state; none to be unseen.
        state: Option<Map<String, Value>>,
    },
    /// Whether somebody is there.
    Ping,
}

/// Rows that somebody wants to know of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// The table.
    pub table: String,
    /// What the subscription is called in messages; the table's name without it.
    pub sub: Option<String>,
    /// The condition that rows must meet.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    /// The columns, separated by commas; all of them without it.
    pub select: Option<String>,
    /// Where to go on: the `at` of the last message.
    pub after: Option<String>,
}

/// A channel that somebody wants to be in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Its name.
    pub channel: String,
    /// What the others see; nothing without it.
    pub state: Option<Map<String, Value>>,
}

/// Something for everybody in a channel.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broadcast {
    /// The channel's name.
    pub channel: String,
    /// What happens, as the app calls it.
    pub event: String,
    /// Whatever belongs to it.
    #[serde(default)]
    pub data: Value,
    /// Comes back with the answer, where one is wanted.
    pub reference: Option<String>,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// `invalid_input`; what was sent is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |error: serde_json::Error| {
            let words: String = error.to_string().chars().take(200).collect();
            Error::invalid("", words).hint("the documents at /_/openapi.json describe the messages")
        };
        serde_json::from_str(text).map_err(wrong)
    }
}

/// The longest name of a subscription.
const NAME: usize = 100;

impl Subscribe {
    /// The same with a name.
    ///
    /// # Errors
    /// `invalid_input` where the name is empty or too long.
    pub(super) fn name(&self) -> Result<&str> {
        let name = self.sub.as_deref().unwrap_or(&self.table);
        if name.is_empty() || name.len() > NAME {
            return Err(Error::invalid("/sub", format!("a name of a subscription has 1 to {NAME} bytes")));
        }
        Ok(name)
    }
}

/// A problem that does not end the connection; `about` names what it was.
pub(super) fn problem(error: &Error, about: (&str, &str)) -> String {
    let mut problem = json!({ "type": "error", "code": error.code().as_str(), "message": error.message() });
    problem[about.0] = about.1.into();
    if let Some(hint) = error.advice() {
        problem["hint"] = hint.into();
    }
    if let Some(field) = error.pointer() {
        problem["field"] = field.into();
    }
    problem.to_string()
}

pub(super) fn subscribed(sub: &str, table: &str, at: Option<&String>, resumed: Resumed) -> String {
    let resumed = resumed == Resumed::Yes;
    json!({ "type": "subscribed", "sub": sub, "table": table, "resumed": resumed, "at": at }).to_string()
}

/// Whether a subscription goes on where an earlier one has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resumed {
    Yes,
    No,
}

/// Why a client has to list again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// More has changed than is told one by one.
    Much,
    /// What has happened meanwhile is not known any more.
    Lost,
    /// Another release is live, with other rules or columns.
    Release,
    /// The database did not say in time who may know.
    Unavailable,
}

impl Reset {
    const fn as_str(self) -> &'static str {
        match self {
            Reset::Much => "much",
            Reset::Lost => "lost",
            Reset::Release => "release",
            Reset::Unavailable => "unavailable",
        }
    }
}

pub(super) fn reset(sub: &str, table: &str, at: Option<&String>, why: Reset) -> String {
    json!({ "type": "reset", "sub": sub, "table": table, "reason": why.as_str(), "at": at }).to_string()
}

/// An event of a row. The row is JSON already.
pub(super) fn event(sub: &str, table: &str, event: &Event, at: Option<&String>) -> String {
    let (kind, row) = match event {
        Event::Insert(row) => ("insert", row.to_string()),
        Event::Update(row) => ("update", row.to_string()),
        Event::Delete(id) => ("delete", json!({ "id": &**id }).to_string()),
    };
    let (sub, table, at) = (Value::from(sub), Value::from(table), json!(at));
    format!(r#"{{"type":"{kind}","sub":{sub},"table":{table},"row":{row},"at":{at}}}"#)
}
