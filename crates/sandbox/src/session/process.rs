//! A command that runs.

use hand::wire::{Event, Exit, Reply, Size, Tell};
use tokio::io::AsyncWriteExt;

use super::stream::{Reader, Stream, Writer, reply};
use super::{Error, Result};

/// A command that runs. Dropped before its end it is killed, with all it has begun.
#[derive(Debug)]
pub struct Process {
    stream: Stream,
    pid: i32,
    stdin: Writer,
}

impl Process {
    pub(super) async fn started(mut stream: Stream) -> Result<Self> {
        match stream.event().await {
            Ok(Event::Started { pid }) => Ok(Self { pid, stdin: stream.writer(), stream }),
            Ok(_) | Err(Ok(_)) => Err(Error::Protocol("it does not say that the command runs")),
            Err(Err(error)) => Err(error),
        }
    }

    /// Its process id inside.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its standard input; with a terminal, what is typed.
    pub fn stdin(&mut self) -> &mut Writer {
        &mut self.stdin
    }

    /// Another way to the same standard input, for who writes while somebody else waits.
    #[must_use]
    pub fn stdin_writer(&self) -> Writer {
        self.stream.writer()
    }

    /// Says that no more standard input comes.
    pub async fn close_stdin(&mut self) {
        // Shutting down only sends a frame.
        let _ = self.stdin.shutdown().await;
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<Reader> {
        self.stream.stdout.take()
    }

    /// Its standard error, once.
    pub fn stderr(&mut self) -> Option<Reader> {
        self.stream.stderr.take()
    }

    /// Sends a signal, by number, to the command's process group.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.stream.tell(Tell::Signal(signal))
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn resize(&self, size: Size) -> Result<()> {
        self.stream.tell(Tell::Resize(size))
    }

    /// The last of its output and of its standard error, where they are kept: of a command whose output is capped.
    ///
    /// # Errors
    /// Where it has ended.
    pub async fn last(&mut self) -> Result<(String, String)> {
        self.stream.tell(Tell::Last)?;
        match self.stream.event().await {
            Ok(Event::Last { stdout, stderr }) => Ok((stdout, stderr)),
            Ok(_) => Err(Error::Protocol("it does not say what the last of the output is")),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Waits for its end. Output that nobody has taken by then is thrown away.
    ///
    /// # Errors
    /// Where the sandbox ends first.
    pub async fn wait(&mut self) -> Result<Exit> {
        self.stream.stdout = None;
        self.stream.stderr = None;
        self.end().await
    }

    /// Waits for its end, which does not come before its output is read or dropped.
    pub(super) async fn end(&mut self) -> Result<Exit> {
        reply(&mut self.stream, |reply| match reply {
            Reply::Exited(exit) => Some(exit),
            _ => None,
        })
        .await
    }
}
