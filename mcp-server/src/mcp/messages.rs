//! Messages that come by another way than the door: each is answered by itself, by the same protocol.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kernel::{CallId, Caller, Code, Error, Result};
use rmcp::ServerHandler;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use serde_json::{Map, Value};
use tool::{Host, Selection};

use super::handler::Handler;
use super::{PAGE, Visit, json_bytes};
use crate::doors::Doors;
use crate::stdio::message::Head;

/// The revision of a message that does not say it: what was agreed on is not kept between messages.
const REVISION: &str = "2025-11-25";

/// Answers messages one by one.
pub(crate) struct Messages<P: Host>(StreamableHttpService<Handler<P, Alone>, LocalSessionManager>);

/// Nothing beside the tools.
struct Alone(&'static str);

impl ServerHandler for Alone {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::default()).with_instructions(self.0)
    }
}

impl<P: Host> Messages<P> {
    /// Answers from the registry of `doors`, and says `instructions` of itself.
    pub(crate) fn new(doors: Arc<Doors<P>>, instructions: &'static str) -> Self {
        let handler = Handler::new(doors, Alone(instructions), PAGE);
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            // There is no browser that could be made to call here.
            .disable_allowed_hosts()
            .disable_allowed_origins();
        Self(StreamableHttpService::new(move || Ok(handler.clone()), Arc::default(), config))
    }

    /// The answer to a message of `caller`; a notification has none.
    ///
    /// # Errors
    /// `invalid_input` where it is no message that has one answer.
    pub(crate) async fn answer(
        &self,
        caller: Arc<Caller>,
        mut message: Map<String, Value>,
    ) -> Result<Option<Value>> {
        // Steps would come before the answer, which is one.
        if let Some(meta) = message.get_mut("params").and_then(|params| params.get_mut("_meta"))
            && let Some(meta) = meta.as_object_mut()
        {
            meta.remove("progressToken");
        }
        let sent = json_bytes(&message.into());
        let unreadable = |_| Error::new(Code::InvalidInput, "the body is no JSON-RPC message");
        let head = Head::of(&sent).map_err(unreadable)?;
        let mut request = Request::post("/mcp").body(Full::new(sent)).map_err(Error::internal)?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("bridge"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        for (name, value) in head.headers(Some(REVISION)) {
            headers.insert(name, value);
        }
        let visit = Visit { caller, selection: Selection::Full, id: CallId::new() };
        request.extensions_mut().insert(visit);
        let (parts, body) = self.0.handle(request).await.into_parts();
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if parts.status == StatusCode::ACCEPTED {
            return Ok(None);
        }
        if kind.starts_with("text/event-stream") {
            return Err(Error::new(Code::InvalidInput, "there are no streams here")
                .hint("send requests that have one answer"));
        }
        let said: Bytes = body.collect().await.map_or_else(|never| match never {}, |all| all.to_bytes());
        if kind.starts_with("application/json") {
            return serde_json::from_slice(&said).map(Some).map_err(Error::internal);
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        if parts.status.is_server_error() {
            return Err(Error::internal(said));
        }
        Err(Error::new(Code::InvalidInput, said.trim_start_matches("Bad Request: ").to_lowercase()))
    }
}
