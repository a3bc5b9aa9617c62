//! One program that speaks MCP, while it runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use kernel::{Code, Error, Result};
use sandbox::session::{Exec, Session, Stdin};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Program;
use super::message::{Answer, Message, Word};
use super::reads::{NoMore, Reads};

/// The protocol's version that is spoken with what is inside.
const PROTOCOL: &str = "2025-11-25";

/// How long a program may take to begin, which may be to install itself.
const BEGINNING: Duration = Duration::from_secs(120);

/// How long it runs; the next call begins another one.
const LIFE: Duration = Duration::from_secs(3_600);

/// How long what it says last is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Lines that wait until it reads them.
const LINES: usize = 4;

/// What it says of itself, in bytes, which is kept as long as it runs.
const GREETING: usize = 64 << 10;

/// What it says last to people, of which so much is told when it ends.
const SAID: usize = 2_000;

const ENDED: &str = "has ended";

/// One that runs, until this goes.
pub struct Server {
    pub program: Program,
    /// What it is to read.
    lines: mpsc::Sender<String>,
    /// Who waits for an answer, or why none comes any more.
    waiting: Mutex<Result<HashMap<u64, Waiting>, &'static str>>,
    next: AtomicU64,
    /// What it has answered to the handshake.
    greeting: OnceLock<String>,
    /// What it has said to people.
    said: Mutex<String>,
    /// Cancelled when it has said its last.
    over: CancellationToken,
    /// What writes to it and reads it.
    working: Mutex<JoinSet<()>>,
}

/// Somebody who waits for an answer.
struct Waiting {
    /// What they call what they have asked.
    given: String,
    answer: oneshot::Sender<Answer>,
}

/// The ends of a program's standard input, output and error.
pub struct Ends<I, O, E> {
    pub stdin: I,
    pub stdout: O,
    pub stderr: E,
}

impl Server {
    /// Begins one.
    ///
    /// # Errors
    /// `invalid_input` where it cannot be run; `unavailable` where it does not speak MCP, with what it says.
    pub async fn begin(session: &Session, program: Program, reads: Arc<Reads>) -> Result<Arc<Self>> {
        let mut exec = Exec::argv(std::iter::once(&program.command).chain(&program.args));
        (exec.env, exec.cwd) = (program.env.clone(), program.cwd.clone());
        (exec.stdin, exec.timeout) = (Stdin::Stream, Some(LIFE));
        let begun = session.exec(exec).await.map_err(Error::from);
        let mut process = begun.map_err(|error| match error.code() {
            Code::Unavailable | Code::Internal => error,
            _ => Error::new(Code::InvalidInput, format!("{:?}: {}", program.command, error.message()))
                .hint("the command has to be there in the sandbox"),
        })?;
        let (Some(stdout), Some(stderr)) = (process.stdout(), process.stderr()) else {
            return Err(Error::internal("a command without outputs"));
        };
        let ends = Ends { stdin: process.stdin_writer(), stdout, stderr };
        Self::greeted(program, ends, process, reads).await
    }

    /// What is spoken to over these ends, once it has greeted; `keep` is dropped when nobody speaks with it any more.
    pub async fn greeted(
        program: Program,
        ends: Ends<
            impl AsyncWrite + Send + Unpin + 'static,
            impl AsyncRead + Send + Unpin + 'static,
            impl AsyncRead + Send + Unpin + 'static,
        >,
        keep: impl Send + 'static,
        reads: Arc<Reads>,
    ) -> Result<Arc<Self>> {
        let (lines, to_be_written) = mpsc::channel(LINES);
        let server = Arc::new(Self {
            program,
            lines,
            waiting: Mutex::new(Ok(HashMap::new())),
            next: AtomicU64::new(1),
            greeting: OnceLock::new(),
            said: Mutex::default(),
            over: CancellationToken::new(),
            working: Mutex::default(),
        });
        let Ends { stdin, stdout, stderr } = ends;
        // Nothing of this keeps the program: that ends when nobody has it any more.
        let (weak, over) = (Arc::downgrade(&server), server.over.clone());
        {
            let mut working = server.working.lock().unwrap_or_else(PoisonError::into_inner);
            let (heard, silent) = (weak.clone(), over.clone());
            working.spawn(async move {
                hear(stderr, &heard).await;
                silent.cancel();
            });
            working.spawn(async move {
                let how = tokio::select! {
                    how = write(stdin, to_be_written, reads.patience) => how,
                    how = read(stdout, &weak, &reads) => how,
                };
                if let Some(server) = weak.upgrade() {
                    server.leave(how);
                }
                let _ = timeout(LAST_WORDS, over.cancelled()).await;
                drop(keep);
                over.cancel();
            });
        }
        server.shake_hands().await?;
        Ok(server)
    }

    async fn shake_hands(&self) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let hello = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{PROTOCOL}","capabilities":{{}},"clientInfo":{{"name":"steading","version":"{version}"}}}}}}"#
        );
        let hello = Message::read(hello.as_bytes())?;
        let greeted = timeout(BEGINNING, self.ask(&hello)).await.map_err(|_| {
            self.gone(&format!("has not answered the handshake within {} s", BEGINNING.as_secs()))
        })??;
        match greeted {
            Answer::Result(text) if text.len() <= GREETING => {
                let _ = self.greeting.set(text);
            }
            Answer::Result(_) => {
                return Err(self.gone(&format!("answers the handshake with more than {GREETING} bytes")));
            }
            _ => return Err(self.gone("refuses the handshake")),
        }
        let initialized = Message::read(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)?;
        self.write(initialized.line(None)).await
    }

    /// What it answers; nothing to a notification.
    ///
    /// # Errors
    /// `unavailable` where it has ended, or does not read; `conflict` where the request is cancelled.
    pub async fn speak(&self, message: &Message) -> Result<Option<String>> {
        let Some(id) = message.id() else {
            self.tell(message).await?;
            return Ok(None);
        };
        let answer = match (message.method(), self.greeting.get()) {
            ("initialize", Some(greeting)) => Answer::Result(greeting.clone()),
            _ => self.ask(message).await?,
        };
        let (member, text) = match answer {
            Answer::Result(text) => ("result", text),
            Answer::Error(text) => ("error", text),
            Answer::Cancelled => {
                return Err(Error::new(Code::Conflict, "the request is cancelled")
                    .hint("send it again if it is needed"));
            }
        };
        Ok(Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{text}}}"#)))
    }

    /// Passes a notification on. What each client says when it begins is said once; what is cancelled is what the one who
    /// waits for it calls so.
    async fn tell(&self, message: &Message) -> Result<()> {
        match (message.method(), message.cancels()) {
            ("notifications/initialized", _) => Ok(()),
            ("notifications/cancelled", given) => match given.and_then(|given| self.cancelled(&given)) {
                Some(id) => {
                    let params = format!(r#"{{"requestId":{id}}}"#);
                    let line = format!(
                        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{params}}}\n"
                    );
                    self.write(line).await
                }
                None => Ok(()),
            },
            _ => self.write(message.line(None)).await,
        }
    }

    /// Tells who waits for what they call `given` that nothing comes, and says what that is called here. Where several do
    /// nobody knows who is meant.
    fn cancelled(&self, given: &str) -> Option<u64> {
        let mut waiting = self.waiting();
        let waiting = waiting.as_mut().ok()?;
        let mut those = waiting.iter().filter(|(_, it)| it.given == given).map(|(id, _)| *id);
        let id = those.next().filter(|_| those.next().is_none())?;
        let _ = waiting.remove(&id)?.answer.send(Answer::Cancelled);
        Some(id)
    }

    async fn ask(&self, request: &Message) -> Result<Answer> {
        let (id, (send, receive)) = (self.next.fetch_add(1, Ordering::SeqCst), oneshot::channel());
        let given = request.id().unwrap_or_default().to_owned();
        let is_there = self.waiting().as_mut().ok().map(|waiting| {
            waiting.insert(id, Waiting { given, answer: send });
        });
        let _waits = Waits { server: self, id };
        let answer = async {
            is_there?;
            self.lines.send(request.line(Some(id))).await.ok()?;
            receive.await.ok()
        };
        match answer.await {
            Some(answer) => Ok(answer),
            None => Err(self.ended().await),
        }
    }

    async fn write(&self, line: String) -> Result<()> {
        match self.lines.send(line).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await),
        }
    }

    /// Why it answers no more. What it says last says so, and comes another way than its answers.
    async fn ended(&self) -> Error {
        let _ = timeout(LAST_WORDS, self.over.cancelled()).await;
        let how = self.waiting().as_ref().err().copied();
        self.gone(how.unwrap_or(ENDED))
    }

    /// Whether it answers.
    pub fn lives(&self) -> bool {
        self.waiting().is_ok()
    }

    /// Ends it, whoever waits for it.
    pub fn end(&self) {
        self.leave(ENDED);
        self.working.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.over.cancel();
    }

    /// Lets nobody wait any more.
    fn leave(&self, how: &'static str) {
        let mut waiting = self.waiting();
        if waiting.is_ok() {
            *waiting = Err(how);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Result<HashMap<u64, Waiting>, &'static str>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self, how: &str) -> Error {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned();
        let said = if said.is_empty() { String::new() } else { format!("; it says: {said}") };
        Error::new(Code::Unavailable, format!("{:?} {how}{said}", self.program.command))
            .hint("try it in the sandbox: it has to speak MCP over its standard input and output")
    }

    fn heard(&self, text: &[u8]) {
        let last = &text[text.len().saturating_sub(SAID)..];
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(&String::from_utf8_lossy(last));
        let from = said.ceil_char_boundary(said.len().saturating_sub(SAID));
        said.drain(..from);
    }

    /// Takes what it says: an answer to who waits for it. It asks nothing of anybody here, which is what it is told,
    /// unless it does not read what it was told before.
    fn take(&self, line: &[u8]) {
        match Word::read(line) {
            Some(Word::Answer(id, answer)) => {
                let waits = self.waiting().as_mut().ok().and_then(|waiting| waiting.remove(&id));
                if let Some(waits) = waits {
                    // Whoever asked may have gone.
                    let _ = waits.answer.send(answer);
                }
            }
            Some(Word::Question(id)) => {
                let nobody = r#"{"code":-32601,"message":"nobody here answers that"}"#;
                let _ =
                    self.lines.try_send(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{nobody}}}\n"));
            }
            Some(Word::Remark) => {}
            // Some greet people on their standard output before they begin.
            None => self.heard(line),
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
        if let Ok(waiting) = self.server.waiting().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

/// Writes what it is to read; returns why that cannot be done any more.
async fn write(
    mut stdin: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<String>,
    patience: Duration,
) -> &'static str {
    while let Some(line) = lines.recv().await {
        match timeout(patience, stdin.write_all(line.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return ENDED,
            Err(_) => return "does not read its standard input",
        }
    }
    ENDED
}

/// Reads its messages; returns why there are no more.
async fn read(stdout: impl AsyncRead + Unpin, server: &Weak<Server>, reads: &Reads) -> &'static str {
    let take = |line: &[u8]| server.upgrade().map(|server| server.take(line));
    match reads.each(BufReader::new(stdout), take).await {
        NoMore::End => ENDED,
        NoMore::TooLong => "says a line that is too long, or does not end it",
    }
}

/// Listens to what it says to people.
async fn hear(mut stderr: impl AsyncRead + Unpin, server: &Weak<Server>) {
    let mut text = [0; 4 << 10];
    while let Ok(count @ 1..) = stderr.read(&mut text).await {
        let Some(server) = server.upgrade() else { return };
        server.heard(&text[..count]);
        drop(server);
        // What it complains about takes no more of anybody's time than what it says.
        tokio::time::sleep(super::reads::REST).await;
    }
}
