//! MCP over stdio: a bridge that carries each line to the HTTP endpoint of a running platform, and its answers back.

pub(crate) mod message;
mod sse;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use http::HeaderValue;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use kernel::{Code, Error, Result, Secret};
use reqwest::{Client, Response, Url};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tool::Selection;

use message::Head;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where lines are carried to.
#[derive(Debug, Clone)]
pub struct Target {
    endpoint: Url,
    key: HeaderValue,
}

impl Target {
    /// The endpoint of the platform at `base_url`, in the environment `env` (a slug or an id), or in the one the
    /// credential is bound to.
    ///
    /// # Errors
    /// `invalid_input` where the address or the key cannot be used.
    pub fn new(base_url: &str, key: &Secret, env: Option<&str>, selection: Selection) -> Result<Self> {
        let wrong = || {
            Error::new(Code::InvalidInput, format!("{base_url:?} is not the address of a platform"))
                .hint("write it like http://127.0.0.1:8787")
        };
        let mut endpoint = Url::parse(base_url).map_err(|_| wrong())?;
        endpoint.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().push("mcp").extend(env);
        endpoint.set_query(match selection {
            Selection::Full => None,
            Selection::Safe => Some("tools=safe"),
            Selection::ReadOnly => Some("tools=readonly"),
        });
        let mut key = HeaderValue::try_from(format!("Bearer {}", key.expose()))
            .map_err(|_| Error::new(Code::InvalidInput, "the key has characters that no key has"))?;
        key.set_sensitive(true);
        Ok(Self { endpoint, key })
    }
}

/// Serves MCP on this process's standard input and output, until the input ends and every answer is written.
///
/// Where it returns before the input has ended, a thread still reads from it and would hold up the end of the
/// tokio runtime: leave the process with `std::process::exit`.
///
/// # Errors
/// `invalid_input` where the address or the key cannot be used; `unavailable` where the output is closed. A
/// platform that cannot be reached is told to the client, in answer to its requests.
pub async fn forward(base_url: &str, key: &Secret, env: Option<&str>, selection: Selection) -> Result<()> {
    let target = Target::new(base_url, key, env, selection)?;
    bridge(target, tokio::io::stdin(), tokio::io::stdout()).await
}

/// Serves MCP on `input` and `output`, one message a line (MCP 2025-11-25 and 2026-07-28, stdio).
///
/// # Errors
/// As [`forward`].
pub async fn bridge<I, O>(target: Target, input: I, output: O) -> Result<()>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin + Send + 'static,
{
    let bridge = Arc::new(Bridge {
        client: client(&target)?,
        target,
        output: tokio::sync::Mutex::new(output),
        closed: CancellationToken::new(),
        state: Mutex::default(),
    });
    let mut input = BufReader::new(input);
    let (mut calls, mut streams) = (JoinSet::new(), JoinSet::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = tokio::select! {
            read = input.read_until(b'\n', &mut line) => read,
            () = bridge.closed.cancelled() => {
                return Err(Error::new(Code::Unavailable, "the client closed standard output"));
            }
        };
        while calls.try_join_next().is_some() {}
        match read {
            Ok(0) => break,
            Ok(_) if line.trim_ascii().is_empty() => {}
            Ok(_) => bridge.take(line.trim_ascii(), &mut calls, &mut streams).await,
            Err(error) => {
                return Err(Error::new(Code::Unavailable, "standard input broke off").source(error));
            }
        }
    }
    while calls.join_next().await.is_some() {}
    streams.abort_all();
    bridge.end_session().await;
    Ok(())
}

fn client(target: &Target) -> Result<Client> {
    // reqwest asks for a provider also where no TLS is spoken; whoever came first has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let loopback = matches!(target.endpoint.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let builder = Client::builder().connect_timeout(CONNECT);
    let builder = if loopback { builder.no_proxy() } else { builder };
    builder.build().map_err(Error::internal)
}

struct Bridge<O> {
    client: Client,
    target: Target,
    output: tokio::sync::Mutex<O>,
    /// Fires when nobody reads what is written.
    closed: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What `initialize` agreed on; requests of 2026-07-28 carry their version themselves.
    version: Option<String>,
    session: Option<String>,
    under_way: HashMap<String, AbortHandle>,
}

impl<O: AsyncWrite + Unpin + Send + 'static> Bridge<O> {
    /// One line of the client. Requests run beside each other; the rest is carried in order.
    async fn take(self: &Arc<Self>, line: &[u8], calls: &mut JoinSet<()>, streams: &mut JoinSet<()>) {
        let head = match Head::of(line) {
            Ok(head) => head,
            Err(error) => {
                let message = format!("parse error: {error}");
                return self.write(message::failure(&Value::Null, -32700, &message, None).as_bytes()).await;
            }
        };
        if let Some(id) = head.request_id() {
            let (bridge, line, id) = (Arc::clone(self), line.to_vec(), id.clone());
            let name = id.to_string();
            // A subscription ends with its client, and is not waited for.
            let set = if head.method() == "subscriptions/listen" { streams } else { calls };
            // Under the lock, so that a quick answer does not take out what is not yet in.
            let mut state = self.state();
            let entry = name.clone();
            let running = set.spawn(async move {
                bridge.request(&id, &head, line).await;
                bridge.state().under_way.remove(&entry);
            });
            state.under_way.insert(name, running);
            return;
        }
        let initialized = head.method() == "notifications/initialized";
        if let Some(request) = head.cancels() {
            let running = self.state().under_way.remove(&request.to_string());
            if self.state().session.is_some() {
                self.tell(&head, line.to_vec()).await;
            }
            // Where there is no session, the connection that breaks off is what cancels.
            if let Some(running) = running {
                running.abort();
            }
            return;
        }
        self.tell(&head, line.to_vec()).await;
        if initialized && self.state().session.is_some() {
            let bridge = Arc::clone(self);
            streams.spawn(async move { bridge.listen().await });
        }
    }

    /// A request: whatever comes of it, its client gets an answer.
    async fn request(&self, id: &Value, head: &Head, line: Vec<u8>) {
        let failure = match self.post(head, line).await {
            Ok(response) => match self.carry_back(id, head, response).await {
                Ok(()) => return,
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        let problem = failure.problem.as_ref();
        self.write(message::failure(id, -32000, &failure.message, problem).as_bytes()).await;
    }

    /// A notification, or an answer to the server: nobody waits for what comes of it.
    async fn tell(&self, head: &Head, line: Vec<u8>) {
        let said = match self.post(head, line).await {
            Ok(response) if response.status().is_success() => return,
            Ok(response) => Failure::of(response).await,
            Err(failure) => failure,
        };
        tracing::warn!(error = said.message, method = head.method(), "a message was not delivered");
    }

    async fn post(&self, head: &Head, line: Vec<u8>) -> Result<Response, Failure> {
        let mut request = self
            .client
            .post(self.target.endpoint.clone())
            .header(AUTHORIZATION, self.target.key.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream");
        let (version, session) = {
            let state = self.state();
            (state.version.clone(), state.session.clone())
        };
        for (name, value) in head.headers(version.as_deref()) {
            request = request.header(name, value);
        }
        if let Some(session) = session.filter(|_| !head.is_modern()) {
            request = request.header("mcp-session-id", session);
        }
        request.body(line).send().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let origin = self.target.endpoint.origin().ascii_serialization();
        tracing::debug!(error = error as &dyn std::error::Error, "no answer");
        Failure::new(if error.is_connect() {
            format!("steading at {origin} cannot be reached: start it with `steading serve`")
        } else {
            format!(
                "the connection to steading at {origin} broke off before the answer; the outcome is not known"
            )
        })
    }

    /// Writes what the server answers, as it comes.
    async fn carry_back(&self, id: &Value, head: &Head, response: Response) -> Result<(), Failure> {
        let opened =
            response.headers().get("mcp-session-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let initializes = head.method() == "initialize";
        match kind.as_str() {
            "application/json" => {
                let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
                if initializes {
                    self.agree(&body, opened);
                }
                self.write(&body).await;
                Ok(())
            }
            "text/event-stream" => {
                let (mut events, mut chunks) = (sse::Events::default(), response.bytes_stream());
                let mut answered = false;
                while let Some(chunk) = chunks.next().await {
                    let chunk = chunk.map_err(|error| self.unreachable(&error))?;
                    for data in events.push(&chunk) {
                        if message::answers(&data, id) {
                            answered = true;
                            if initializes {
                                self.agree(&data, opened.clone());
                            }
                        }
                        self.write(&data).await;
                    }
                }
                if answered {
                    Ok(())
                } else {
                    Err(Failure::new("steading ended the call without an answer".into()))
                }
            }
            _ => Err(Failure::of(response).await),
        }
    }

    /// Remembers what the answer to `initialize` settles.
    fn agree(&self, answer: &[u8], session: Option<String>) {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let mut state = self.state();
        state.version = answer["result"]["protocolVersion"].as_str().map(str::to_owned);
        state.session = session;
    }

    /// What the server says of its own accord, in a session.
    async fn listen(&self) {
        let (Some(session), version) = ({
            let state = self.state();
            (state.session.clone(), state.version.clone())
        }) else {
            return;
        };
        let mut request = self
            .client
            .get(self.target.endpoint.clone())
            .header(AUTHORIZATION, self.target.key.clone())
            .header(ACCEPT, "text/event-stream")
            .header("mcp-session-id", session);
        if let Some(version) = version {
            request = request.header("mcp-protocol-version", version);
        }
        let Ok(response) = request.send().await.and_then(Response::error_for_status) else { return };
        let (mut events, mut chunks) = (sse::Events::default(), response.bytes_stream());
        while let Some(Ok(chunk)) = chunks.next().await {
            for data in events.push(&chunk) {
                self.write(&data).await;
            }
        }
    }

    async fn end_session(&self) {
        let Some(session) = self.state().session.take() else { return };
        let request = self
            .client
            .delete(self.target.endpoint.clone())
            .header(AUTHORIZATION, self.target.key.clone())
            .header("mcp-session-id", session);
        if let Err(error) = request.send().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the session was not ended");
        }
    }

    /// Writes one message as one line.
    async fn write(&self, message: &[u8]) {
        let mut line = message::one_line(message);
        line.push(b'\n');
        let mut output = self.output.lock().await;
        let written = async {
            output.write_all(&line).await?;
            output.flush().await
        };
        if written.await.is_err() {
            self.closed.cancel();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a message got no answer of MCP.
struct Failure {
    message: String,
    problem: Option<Value>,
}

impl Failure {
    const fn new(message: String) -> Self {
        Self { message, problem: None }
    }

    /// What an answer says that is not MCP: a problem document, or a stranger's page.
    async fn of(response: Response) -> Self {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let problem: Option<Value> = serde_json::from_slice(&body).ok().filter(|v: &Value| v.is_object());
        let Some(message) = problem.as_ref().and_then(|problem| problem["message"].as_str()) else {
            return Self::new(format!("the server answered {status} and no MCP message: is it steading?"));
        };
        let hint = problem.as_ref().and_then(|problem| problem["hint"].as_str());
        Self { message: [Some(message), hint].into_iter().flatten().collect::<Vec<_>>().join(": "), problem }
    }
}
