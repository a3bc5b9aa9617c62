//! The operator's command that wraps and unwraps data keys, such as one that asks a key management service.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// The longest answer.
const MOST: usize = 16 * 1024;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many run at once.
const AT_ONCE: usize = 4;

/// Why it gave nothing that counts. What it said is not in it: that may be a key.
#[derive(Debug, thiserror::Error)]
pub enum CommandFailed {
    /// It does not start.
    #[error("it does not start")]
    Start(#[source] std::io::Error),
    /// It takes too long.
    #[error("it took longer than {} s", PATIENCE.as_secs())]
    Slow,
    /// It ended with a failure.
    #[error("it failed: {0}")]
    Failed(std::process::ExitStatus),
    /// It wrote more than an answer has.
    #[error("it wrote more than {MOST} bytes")]
    Long,
    /// What it wrote is not what was asked for.
    #[error("it did not write {0}")]
    Garbage(&'static str),
    /// It can be neither written to nor read.
    #[error("it cannot be talked to")]
    Pipe(#[source] std::io::Error),
}

/// The command: a program and its arguments, to which `wrap` or `unwrap` is added.
pub(crate) struct KeyCommand {
    words: Vec<String>,
    turns: Semaphore,
}

impl KeyCommand {
    pub(crate) fn new(words: Vec<String>) -> Self {
        Self { words, turns: Semaphore::new(AT_ONCE) }
    }

    /// The key, wrapped: one line of printable ASCII, which only the command understands.
    pub(crate) async fn wrap(&self, key: &[u8; 32]) -> Result<String, CommandFailed> {
        let given = Zeroizing::new(STANDARD.encode(key));
        let answer = self.ask("wrap", given.as_bytes()).await?;
        let text = std::str::from_utf8(&answer).unwrap_or_default().trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CommandFailed::Garbage("a wrapped key on one line"));
        }
        if text.contains(given.trim_end_matches('=')) {
            return Err(CommandFailed::Garbage("a wrapped key, but the key itself"));
        }
        Ok(text.to_owned())
    }

    /// The key that it has wrapped.
    pub(crate) async fn unwrap(&self, wrapped: &str) -> Result<Zeroizing<[u8; 32]>, CommandFailed> {
        let answer = self.ask("unwrap", wrapped.as_bytes()).await?;
        let garbage = CommandFailed::Garbage("32 bytes as base64");
        let decoded = STANDARD.decode(answer.trim_ascii()).map(Zeroizing::new);
        let bytes = decoded.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        bytes.map(Zeroizing::new).ok_or(garbage)
    }

    async fn ask(&self, verb: &str, given: &[u8]) -> Result<Zeroizing<Vec<u8>>, CommandFailed> {
        let asked = async {
            // It is never closed.
            let _turn = self.turns.acquire().await;
            let mut child = self.start(verb)?;
            let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
            let answer = talk(&mut child, given).await?;
            group.0 = None;
            Ok(answer)
        };
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| CommandFailed::Slow)?
    }

    /// Without a shell, and with nothing of the platform's surroundings but where programs are.
    fn start(&self, verb: &str) -> Result<Child, CommandFailed> {
        let missing = || CommandFailed::Start(std::io::Error::other("it has no words"));
        let (program, arguments) = self.words.split_first().ok_or_else(missing)?;
        Command::new(program)
            .args(arguments)
            .arg(verb)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What it says of a failure may have keys in it.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(CommandFailed::Start)
    }
}

/// What the command has begun, which ends where it gives no answer.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn talk(child: &mut Child, given: &[u8]) -> Result<Zeroizing<Vec<u8>>, CommandFailed> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // Who reads none of it says so by what it answers.
            let _ = stdin.write_all(given).await;
            let _ = stdin.write_all(b"\n").await;
        }
    };
    let read = async {
        // As large as it can get: one that grows leaves copies behind.
        let mut answer = Zeroizing::new(Vec::with_capacity(MOST + 1));
        if let Some(stdout) = stdout {
            stdout.take(MOST as u64 + 1).read_to_end(&mut answer).await.map_err(CommandFailed::Pipe)?;
        }
        if answer.len() > MOST { Err(CommandFailed::Long) } else { Ok(answer) }
    };
    let ((), answer) = tokio::join!(write, read);
    let answer = answer?;
    let status = child.wait().await.map_err(CommandFailed::Pipe)?;
    if status.success() { Ok(answer) } else { Err(CommandFailed::Failed(status)) }
}
