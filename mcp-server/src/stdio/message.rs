//! The little of a JSON-RPC message that carrying it over HTTP needs.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

/// The first revision whose requests describe themselves (MCP 2026-07-28, Streamable HTTP).
const MODERN: &str = "2026-07-28";

/// What the bridge reads of a message; the rest is carried unread.
#[derive(Deserialize)]
pub(crate) struct Head {
    id: Option<Value>,
    method: Option<String>,
    #[serde(default)]
    params: Params,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Params {
    name: Option<Value>,
    uri: Option<Value>,
    request_id: Option<Value>,
    #[serde(rename = "_meta")]
    meta: Value,
}

impl Head {
    pub(crate) fn of(line: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }

    pub(crate) fn method(&self) -> &str {
        self.method.as_deref().unwrap_or_default()
    }

    /// The id, where the message waits for an answer.
    pub(crate) fn request_id(&self) -> Option<&Value> {
        self.id.as_ref().filter(|_| self.method.is_some())
    }

    /// The request that this message cancels.
    pub(crate) fn cancels(&self) -> Option<&Value> {
        self.params.request_id.as_ref().filter(|_| self.method() == "notifications/cancelled")
    }

    /// Whether the message is of a revision without sessions.
    pub(crate) fn is_modern(&self) -> bool {
        self.own_version().is_some_and(|version| version >= MODERN)
    }

    fn own_version(&self) -> Option<&str> {
        self.params.meta.get("io.modelcontextprotocol/protocolVersion")?.as_str()
    }

    /// The headers that repeat the body (MCP 2026-07-28, Streamable HTTP, Standard Headers); `agreed` is the
    /// version that `initialize` settled. No tool of the platform asks for headers of its own.
    pub(crate) fn headers(&self, agreed: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        let mut add = |name: &'static str, value: &str| {
            if let Ok(value) = header_value(value) {
                headers.push((HeaderName::from_static(name), value));
            }
        };
        // The first message settles the version and cannot name it yet.
        if let Some(version) = self.own_version().or(agreed).filter(|_| self.method() != "initialize") {
            add("mcp-protocol-version", version);
        }
        if self.is_modern() {
            add("mcp-method", self.method());
            let named = match self.method() {
                "tools/call" | "prompts/get" => self.params.name.as_ref(),
                "resources/read" => self.params.uri.as_ref(),
                _ => None,
            };
            if let Some(name) = named.and_then(Value::as_str) {
                add("mcp-name", name);
            }
        }
        headers
    }
}

/// A text as a header's value; what a header cannot hold travels in base64 (MCP 2026-07-28, Header Value Encoding).
fn header_value(text: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
    if plain && !text.starts_with("=?base64?") {
        return HeaderValue::from_str(text);
    }
    HeaderValue::try_from(format!("=?base64?{}?=", BASE64_STANDARD.encode(text)))
}

/// Whether `message` is the answer to the request `id`.
pub(crate) fn answers(message: &[u8], id: &Value) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        id: Option<Value>,
        method: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Answer>(message)
        .is_ok_and(|answer| answer.method.is_none() && answer.id.as_ref() == Some(id))
}

/// An error in answer to the request `id` (JSON-RPC 2.0 §5.1), with the problem document where there is one.
pub(crate) fn failure(id: &Value, code: i32, message: &str, problem: Option<&Value>) -> String {
    let mut error = json!({ "code": code, "message": message });
    if let Some(problem) = problem {
        error["data"] = problem.clone();
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string()
}

/// The message without line breaks, which JSON allows between its tokens.
pub(crate) fn one_line(message: &[u8]) -> Vec<u8> {
    message.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect()
}
