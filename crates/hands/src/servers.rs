//! Programs in a sandbox that speak MCP over their standard input and output, and are spoken to from outside: one of each
//! name, begun by the first call, that goes on for the next until its sandbox ends.
//!
//! Who calls from outside has no session. The handshake of the protocol's older versions is done here, once, and its
//! result is told to whoever asks for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::{Code, Error, Result};
use sandbox::session::{Exec, Process, Reader, Session, Stdin, Writer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::Hand;

/// The protocol's version that is spoken with what is inside.
const PROTOCOL: &str = "2025-11-25";

/// How long a program may take to begin, which may be to install itself.
const BEGINNING: Duration = Duration::from_secs(120);

/// How long it may take to answer.
const ANSWERING: Duration = Duration::from_secs(600);

/// How long it runs; the next call begins another one.
const LIFE: Duration = Duration::from_secs(3_600);

/// How long what it says last is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Programs of one sandbox, questions to one of them that have no answer yet, and bytes of one message.
const PROGRAMS: usize = 16;
const QUESTIONS: usize = 64;
const MESSAGE: u64 = 4 << 20;

/// What a program says last to people, of which so much is told when it ends.
const SAID: usize = 2_000;

/// A program, as agents' settings describe one (`mcpServers`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// What to run.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where; `/workspace` without one.
    #[serde(default)]
    pub cwd: Option<String>,
}

/// The programs of one sandbox. They end with this.
#[derive(Default)]
pub(crate) struct Servers(Mutex<HashMap<String, Place>>);

/// Where the program of a name is, and one at a time may see that it is.
type Place = Arc<AsyncMutex<Option<Arc<Server>>>>;

/// One that runs.
pub struct Server {
    program: Program,
    stdin: AsyncMutex<Writer>,
    /// Who waits for an answer; none where none comes any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>,
    next: AtomicU64,
    /// What it has answered to the handshake.
    greeting: Mutex<Value>,
    /// What it has said to people.
    said: Mutex<String>,
    /// Cancelled when it has said its last.
    over: CancellationToken,
    /// What reads it; it ends with that.
    reading: Mutex<JoinSet<()>>,
}

impl Hand {
    /// The program of that name, begun where it does not run, or does not run like this.
    ///
    /// # Errors
    /// `unavailable` where it does not begin, with what it says; `quota_exceeded` where there are too many.
    pub async fn server(&self, name: &str, program: &Program) -> Result<Arc<Server>> {
        let place = {
            let mut all = self.servers().0.lock().unwrap_or_else(PoisonError::into_inner);
            if !all.contains_key(name) && all.len() >= PROGRAMS {
                let message = format!("{PROGRAMS} programs that speak MCP have run in this sandbox");
                return Err(
                    Error::new(Code::QuotaExceeded, message).hint("a sandbox that has ended begins anew")
                );
            }
            Arc::clone(all.entry(name.to_owned()).or_default())
        };
        let mut place = place.lock().await;
        if let Some(server) = place.as_ref().filter(|it| it.lives() && it.program == *program) {
            return Ok(Arc::clone(server));
        }
        // The old one ends before there is a new one.
        *place = None;
        let server = Server::begin(self, program.clone()).await?;
        *place = Some(Arc::clone(&server));
        Ok(server)
    }
}

impl Server {
    async fn begin(session: &Session, program: Program) -> Result<Arc<Self>> {
        let mut exec = Exec::argv(std::iter::once(&program.command).chain(&program.args));
        (exec.env, exec.cwd) = (program.env.clone(), program.cwd.clone());
        (exec.stdin, exec.timeout) = (Stdin::Stream, Some(LIFE));
        let begun = session.exec(exec).await.map_err(Error::from);
        let mut process = begun.map_err(|error| match error.code() {
            Code::Unavailable | Code::Internal => error,
            _ => Error::new(Code::InvalidInput, format!("{:?}: {}", program.command, error.message()))
                .hint("the command has to be there in the sandbox"),
        })?;
        let outputs = (process.stdout(), process.stderr());
        let server = Arc::new(Self {
            program,
            stdin: AsyncMutex::new(process.stdin_writer()),
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
            greeting: Mutex::default(),
            said: Mutex::default(),
            over: CancellationToken::new(),
            reading: Mutex::default(),
        });
        let (Some(stdout), Some(stderr)) = outputs else {
            return Err(Error::internal("a command without outputs"));
        };
        // What reads does not keep the program: that ends when nobody has it any more.
        let (weak, over) = (Arc::downgrade(&server), server.over.clone());
        let reading = async move {
            let messages = async {
                read(stdout, &weak).await;
                if let Some(server) = weak.upgrade() {
                    server.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
                }
            };
            let words = async {
                let mut stderr = stderr;
                while let Some(chunk) = stderr.chunk().await {
                    let Some(server) = weak.upgrade() else { return };
                    server.heard(&String::from_utf8_lossy(&chunk));
                }
            };
            tokio::join!(messages, words);
            over.cancel();
            ended(process).await;
        };
        server.reading.lock().unwrap_or_else(PoisonError::into_inner).spawn(reading);
        let greeting = json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {
                "protocolVersion": PROTOCOL, "capabilities": {},
                "clientInfo": { "name": "steading", "version": env!("CARGO_PKG_VERSION") },
            },
        });
        let greeted = timeout(BEGINNING, server.ask(greeting)).await;
        let answer = greeted.map_err(|_| {
            server.gone(&format!("has not answered the handshake within {} s", BEGINNING.as_secs()))
        })??;
        if answer.get("result").is_none() {
            return Err(server.gone("refuses the handshake"));
        }
        *server.greeting.lock().unwrap_or_else(PoisonError::into_inner) = answer["result"].clone();
        server.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
        Ok(server)
    }

    /// What it has answered to the handshake: who it is, and what it can do.
    #[must_use]
    pub fn greeting(&self) -> Value {
        self.greeting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer to a request, with the id that the request has.
    ///
    /// # Errors
    /// `unavailable` where the program has ended; `timeout`; `rate_limited` where too many wait for it.
    pub async fn ask(&self, mut request: Value) -> Result<Value> {
        let answer = self.answered(&mut request).await;
        if answer.as_ref().is_err_and(|error| error.code() == Code::Unavailable) {
            // What it says last says why, and comes another way than its answers.
            let _ = timeout(LAST_WORDS, self.over.cancelled()).await;
            return Err(self.gone("has ended"));
        }
        answer
    }

    async fn answered(&self, request: &mut Value) -> Result<Value> {
        let (id, (send, receive)) = (self.next.fetch_add(1, Ordering::SeqCst), oneshot::channel());
        let given = std::mem::replace(&mut request["id"], id.into());
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(waiting) = waiting.as_mut() else { return Err(self.gone("has ended")) };
            if waiting.len() >= QUESTIONS {
                let message = format!("{QUESTIONS} requests wait for this program");
                return Err(Error::new(Code::RateLimited, message).retry_after(Duration::from_secs(1)));
            }
            waiting.insert(id, send);
        }
        let _waits = Waits { server: self, id };
        self.write(request).await?;
        let answer = timeout(ANSWERING, receive)
            .await
            .map_err(|_| Error::new(Code::Timeout, format!("no answer within {} s", ANSWERING.as_secs())))?;
        let mut answer = answer.map_err(|_| self.gone("has ended"))?;
        answer["id"] = given;
        Ok(answer)
    }

    async fn write(&self, message: &Value) -> Result<()> {
        let mut stdin = self.stdin.lock().await;
        let line = format!("{message}\n");
        stdin.write_all(line.as_bytes()).await.map_err(|_| self.gone("has ended"))
    }

    fn lives(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn gone(&self, how: &str) -> Error {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned();
        let said = if said.is_empty() { String::new() } else { format!("; it says: {said}") };
        Error::new(Code::Unavailable, format!("{:?} {how}{said}", self.program.command))
            .hint("try it in the sandbox: it has to speak MCP over its standard input and output")
    }

    fn heard(&self, text: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(text);
        let from = said.ceil_char_boundary(said.len().saturating_sub(SAID));
        said.drain(..from);
    }

    /// Takes what it says: an answer to who waits for it. It asks nothing of anybody here, which is what it was told.
    async fn take(&self, message: Value) {
        let id = message.get("id").cloned().unwrap_or_default();
        if message.get("method").is_some() {
            if !id.is_null() {
                let nobody = json!({ "code": -32601, "message": "nobody here answers that" });
                // It may just have ended.
                let _ = self.write(&json!({ "jsonrpc": "2.0", "id": id, "error": nobody })).await;
            }
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = id.as_u64().and_then(|id| waiting.as_mut()?.remove(&id));
        if let Some(waits) = waits {
            // Whoever asked may have gone.
            let _ = waits.send(message);
        }
    }
}

/// Somebody who waits for an answer, until this goes.
struct Waits<'a> {
    server: &'a Server,
    id: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = self.server.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().and_then(|waiting| waiting.remove(&self.id));
    }
}

/// Reads its messages, until it ends or says what is none.
async fn read(stdout: Reader, server: &std::sync::Weak<Server>) {
    let mut lines = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = (&mut lines).take(MESSAGE).read_until(b'\n', &mut line).await.unwrap_or_default();
        if count == 0 || line.last() != Some(&b'\n') {
            return;
        }
        let Some(server) = server.upgrade() else { return };
        match serde_json::from_slice(&line) {
            Ok(message) => server.take(message).await,
            // Some greet people on their standard output before they begin.
            Err(_) => server.heard(&String::from_utf8_lossy(&line)),
        }
    }
}

/// Keeps it until it has ended.
async fn ended(mut process: Process) {
    let _ = process.wait().await;
}
