//! What the door reads and mends of the transport itself (MCP 2025-11-25 and 2026-07-28, Streamable HTTP).

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use kernel::{CallId, Code, Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::json_bytes;
use crate::auth;
use web::problem;

/// The session a request belongs to, or the one an answer opens.
pub(super) fn session_of(headers: &HeaderMap) -> Result<Option<&str>> {
    auth::text(headers, "mcp-session-id")
}

/// The id of the request that a `notifications/cancelled` names.
pub(super) fn cancelled(body: &[u8]) -> Option<Value> {
    const METHOD: &[u8] = b"notifications/cancelled";
    #[derive(Deserialize)]
    struct Notification {
        method: String,
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        request_id: Value,
    }
    // A notification is short; large bodies are calls.
    if body.len() > 4096 || !body.windows(METHOD.len()).any(|part| part == METHOD) {
        return None;
    }
    let read: Notification = serde_json::from_slice(body).ok()?;
    (read.method.as_bytes() == METHOD).then_some(read.params.request_id)
}

/// Whether a body opens a session, or might: one that cannot be read for certain counts.
pub(super) fn opens_session(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Message {
        method: String,
    }
    serde_json::from_slice::<Message>(body).map_or(true, |message| message.method == "initialize")
}

/// Lets a client in that says it takes anything, or says nothing: `curl` does.
pub(super) fn accept_what_is_sent(headers: &mut HeaderMap) {
    let takes_all = match headers.get(ACCEPT) {
        None => true,
        Some(value) => value.to_str().is_ok_and(|text| text.trim() == "*/*"),
    };
    if takes_all {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    }
}

/// Whether rmcp refused with a line of text.
pub(super) fn is_plain_refusal<B>(response: &http::Response<B>) -> bool {
    (response.status().is_client_error() || response.status().is_server_error())
        && !response.headers().contains_key(CONTENT_TYPE)
}

/// That refusal in our words. rmcp calls a body it cannot read a media type it does not know.
pub(super) fn refusal(refused: &Parts, said: &[u8], id: CallId, sent: &[u8]) -> Response {
    let status = refused.status;
    let said = String::from_utf8_lossy(said);
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE && said.starts_with("fail to deserialize") {
        return unreadable(sent);
    }
    let error = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Error::new(Code::InvalidInput, "the body must be JSON")
            .hint("send the header Content-Type: application/json"),
        StatusCode::NOT_ACCEPTABLE => {
            Error::new(Code::InvalidInput, "the client does not take the answers of this endpoint")
                .hint("send the header Accept: application/json, text/event-stream")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            return problem::method_not_allowed(id, refused.headers.get(ALLOW).cloned());
        }
        StatusCode::NOT_FOUND => super::no_session(),
        status if status.is_server_error() => Error::internal(said.into_owned()),
        _ => Error::new(Code::InvalidInput, said.trim_start_matches("Bad Request: ").to_lowercase()),
    };
    problem::log_internal(&error, id);
    problem::refusal(status, id, &error)
}

/// A body that is no message (JSON-RPC 2.0 §5.1).
fn unreadable(sent: &[u8]) -> Response {
    let (code, id, message) = match serde_json::from_slice::<Value>(sent) {
        Err(error) => (-32700, Value::Null, format!("parse error: {error}")),
        Ok(Value::Array(_)) => {
            (-32600, Value::Null, "invalid request: batches are not part of MCP".to_owned())
        }
        Ok(value) => {
            let id = value.get("id").filter(|id| id.is_string() || id.is_number()).cloned();
            (-32600, id.unwrap_or_default(), "invalid request: not a JSON-RPC 2.0 message".to_owned())
        }
    };
    let error = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } });
    let mut response = Response::new(Body::from(json_bytes(&error)));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
