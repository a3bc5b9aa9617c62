//! `steading mcp`: the MCP door over stdio, for clients that start their servers themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use kernel::Error;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::{Context, Failure};

/// The key of `_meta` that names the protocol's version (MCP 2026-07-28).
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// How many answers wait for a slow reader.
const QUEUE: usize = 256;

/// Serve MCP on stdin and stdout
#[derive(Debug, clap::Args)]
pub struct Mcp {
    /// Narrow the tools: readonly, safe or full
    #[arg(long, value_name = "SELECTION", value_parser = ["readonly", "safe", "full"])]
    tools: Option<String>,
}

impl Mcp {
    /// Runs it until stdin ends.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect(&context).await?;
        client.settle_env().await?;
        let mut path = client.mcp_path();
        if let Some(tools) = &self.tools {
            path.push_str(&format!("?tools={tools}"));
        }
        let bridge = Arc::new(Bridge { client, path, session: Mutex::default(), running: Mutex::default() });
        let outcome = tokio::select! {
            outcome = bridge.pass() => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        if let Some(bridge) = Arc::into_inner(bridge) {
            bridge.client.close().await;
        }
        outcome
    }
}

/// Passes messages between stdio, one a line, and the MCP door over HTTP, which does the thinking.
struct Bridge {
    client: Client,
    path: String,
    session: Mutex<Session>,
    running: Mutex<HashMap<String, AbortHandle>>,
}

/// What `initialize` settled, for clients before 2026-07-28.
#[derive(Default, Clone)]
struct Session {
    id: Option<String>,
    version: Option<String>,
}

impl Bridge {
    async fn pass(self: &Arc<Self>) -> Result<(), Failure> {
        let (answers, waiting) = mpsc::channel(QUEUE);
        let writing = tokio::spawn(write(waiting));
        let tasks = TaskTracker::new();
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await.map_err(Error::internal)? {
            if line.trim().is_empty() {
                continue;
            }
            let message = match serde_json::from_str::<Value>(&line) {
                Ok(message) => message,
                Err(e) => {
                    drop(answers.send(failed(&Value::Null, -32700, &format!("not JSON: {e}"))).await);
                    continue;
                }
            };
            if message["method"] == "notifications/cancelled" {
                // Over HTTP, hanging up is how a call is cancelled.
                if let Some(call) = lock(&self.running).remove(&message["params"]["requestId"].to_string()) {
                    call.abort();
                }
            }
            let in_order = message["method"] == "initialize";
            let id = message["id"].clone();
            let (bridge, answers) = (Arc::clone(self), answers.clone());
            let key = id.to_string();
            let task = tasks.spawn(async move {
                bridge.exchange(&message, &line, &answers).await;
                lock(&bridge.running).remove(&message["id"].to_string());
            });
            if in_order {
                // Everything after it depends on what it settles.
                drop(task.await);
            } else if !id.is_null() && !task.is_finished() {
                lock(&self.running).insert(key, task.abort_handle());
            }
        }
        tasks.close();
        tasks.wait().await;
        drop(answers);
        drop(writing.await);
        Ok(())
    }

    /// Sends one message on and writes back whatever it brings.
    async fn exchange(&self, message: &Value, line: &str, answers: &mpsc::Sender<String>) {
        if let Err(failure) = self.try_exchange(message, line, answers).await
            && message.get("method").is_some()
            && message.get("id").is_some()
        {
            drop(answers.send(failed(&message["id"], -32603, &failure.words())).await);
        }
    }

    async fn try_exchange(
        &self,
        message: &Value,
        line: &str,
        answers: &mpsc::Sender<String>,
    ) -> Result<(), Failure> {
        let session = lock(&self.session).clone();
        let mut request = self
            .client
            .request(Method::POST, &self.path)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        let version = message["params"]["_meta"][VERSION].as_str().or(session.version.as_deref());
        if let Some(version) = version {
            request = request.header("mcp-protocol-version", version);
        }
        if let Some(id) = &session.id {
            request = request.header("mcp-session-id", id);
        }
        if let Some(method) = message["method"].as_str() {
            request = request.header("mcp-method", method);
        }
        if let Some(name) = message["params"]["name"].as_str().or(message["params"]["uri"].as_str()) {
            request = request.header("mcp-name", name);
        }
        let response = request.body(line.to_owned()).send().await.map_err(|e| self.client.unreachable(e))?;
        if message["method"] == "initialize"
            && let Some(id) = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok())
        {
            lock(&self.session).id = Some(id.to_owned());
        }
        self.take(response, message, answers).await
    }

    async fn take(
        &self,
        response: Response,
        message: &Value,
        answers: &mpsc::Sender<String>,
    ) -> Result<(), Failure> {
        let status = response.status();
        let streamed = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        if !streamed {
            let body = response.bytes().await.map_err(|e| self.client.unreachable(e))?;
            return match serde_json::from_slice::<Value>(&body) {
                // Protocol errors come with a status of their own and are answers all the same.
                Ok(answer) if answer.get("jsonrpc").is_some() => {
                    self.give(answer, message, answers).await;
                    Ok(())
                }
                _ if status.is_success() => Ok(()),
                _ => Err(Failure::answered(status, &body)),
            };
        }
        let mut events = Events::default();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            for data in events.feed(&chunk.map_err(|e| self.client.unreachable(e))?) {
                if let Ok(answer) = serde_json::from_str(&data) {
                    self.give(answer, message, answers).await;
                }
            }
        }
        Ok(())
    }

    async fn give(&self, answer: Value, message: &Value, answers: &mpsc::Sender<String>) {
        if message["method"] == "initialize"
            && let Some(version) = answer["result"]["protocolVersion"].as_str()
        {
            lock(&self.session).version = Some(version.to_owned());
        }
        drop(answers.send(answer.to_string()).await);
    }
}

async fn write(mut waiting: mpsc::Receiver<String>) {
    let mut out = tokio::io::stdout();
    while let Some(line) = waiting.recv().await {
        let written = async {
            out.write_all(line.as_bytes()).await?;
            out.write_all(b"\n").await?;
            out.flush().await
        };
        if written.await.is_err() {
            // Nobody reads any more.
            return;
        }
    }
}

fn failed(id: &Value, code: i32, message: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the data out of server-sent events (WHATWG HTML §9.2.6), however they are cut.
#[derive(Default)]
struct Events {
    pending: Vec<u8>,
    data: Option<String>,
}

impl Events {
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.pending.extend_from_slice(bytes);
        let mut complete = Vec::new();
        while let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                complete.extend(self.data.take().filter(|data| !data.is_empty()));
            } else if let Some(data) = line.strip_prefix("data:") {
                let data = data.strip_prefix(' ').unwrap_or(data);
                match &mut self.data {
                    Some(before) => *before = format!("{before}\n{data}"),
                    None => self.data = Some(data.to_owned()),
                }
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let stream = b": ping\n\nevent: message\nid: 1\ndata: {\"a\":\"\xc3\xa9\"}\n\ndata:\n\ndata: x\r\ndata: y\r\n\r\n";
        let whole = Events::default().feed(stream);
        assert_eq!(whole, ["{\"a\":\"é\"}", "x\ny"]);
        let mut events = Events::default();
        let bytewise: Vec<_> = stream.chunks(1).flat_map(|byte| events.feed(byte)).collect();
        assert_eq!(bytewise, whole);
    }
}
