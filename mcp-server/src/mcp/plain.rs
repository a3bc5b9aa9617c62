//! The short way for what agents send most: a `tools/call` that the protocol has nothing to object to.
//!
//! rmcp runs a service of its own for each request, which costs several times what a small call does. A request
//! that is in any way unusual is left to it; what a plain one gets is what rmcp would give, which a test holds.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use kernel::{Error, Result};
use rmcp::model::CallToolResult;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::handler::IDEMPOTENCY_KEY;

/// A plain call.
pub(super) struct Plain {
    /// The request's id.
    pub id: Value,
    /// The tool.
    pub name: String,
    /// Its input.
    pub arguments: Map<String, Value>,
    /// The caller's idempotency key.
    pub idempotency_key: Option<String>,
    revision: Revision,
}

/// What the revisions tell apart in a plain call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Revision {
    /// 2025-06-18 and 2025-11-25.
    Earlier,
    /// 2026-07-28, which says of itself what it is in each request.
    Stateless,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    jsonrpc: String,
    id: Value,
    method: String,
    params: Params,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default, rename = "_meta")]
    meta: Map<String, Value>,
}

const METHOD: &str = "tools/call";
const STATELESS: &str = "2026-07-28";
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const CLIENT: &str = "io.modelcontextprotocol/clientInfo";

impl Plain {
    /// The call in a request, if it is a plain one.
    pub(super) fn read(parts: &Parts, body: &[u8]) -> Option<Self> {
        let headers = &parts.headers;
        let accept = one(headers, ACCEPT.as_str())?;
        let takes = accept.contains("application/json") && accept.contains("text/event-stream");
        if parts.method != Method::POST
            || one(headers, CONTENT_TYPE.as_str())? != "application/json"
            || !takes
        {
            return None;
        }
        let said = |name: &str| headers.contains_key(name);
        if said("mcp-session-id")
            || said("last-event-id")
            || headers.keys().any(|name| name.as_str().starts_with("mcp-param-"))
        {
            return None;
        }
        let message: Message = serde_json::from_slice(body).ok()?;
        let Params { name, arguments, mut meta } = message.params;
        let known = message.jsonrpc == "2.0" && message.method == METHOD;
        let revision =
            match (headers.contains_key("mcp-protocol-version"), one(headers, "mcp-protocol-version")) {
                (false, _) | (true, Some("2025-06-18" | "2025-11-25")) => {
                    (!said("mcp-method") && !said("mcp-name")).then_some(Revision::Earlier)?
                }
                (true, Some(STATELESS)) => {
                    let described = meta.remove(VERSION)? == STATELESS
                        && meta.remove(CAPABILITIES)?.is_object()
                        && meta.remove(CLIENT).is_none_or(|client| client.is_object());
                    let agrees = one(headers, "mcp-method")? == METHOD && one(headers, "mcp-name")? == name;
                    (described && agrees).then_some(Revision::Stateless)?
                }
                _ => return None,
            };
        let idempotency_key = match meta.remove(IDEMPOTENCY_KEY) {
            None => None,
            Some(Value::String(key)) => Some(key),
            Some(_) => return None,
        };
        let id = message.id;
        (known && meta.is_empty() && (id.is_string() || id.is_i64())).then_some(Self {
            id,
            name,
            arguments,
            idempotency_key,
            revision,
        })
    }

    /// The answer to it.
    ///
    /// # Errors
    /// `internal` where the result cannot be written.
    pub(super) fn answer(&self, result: &CallToolResult) -> Result<Response> {
        let result = serde_json::to_string(result).map_err(Error::internal)?;
        // Before 2026-07-28 results do not say of which type they are.
        let result = match (self.revision, result.strip_prefix(r#"{"resultType":"complete","#)) {
            (Revision::Earlier, Some(fields)) => format!("{{{fields}"),
            _ => result,
        };
        let message = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.id);
        let mut response = Response::new(Body::from(message));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

/// A header that was sent once, as text.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (first, more) = (values.next()?, values.next());
    first.to_str().ok().filter(|_| more.is_none())
}
