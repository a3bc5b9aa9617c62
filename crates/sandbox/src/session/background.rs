//! Commands in the background: they outlive whoever began them, and end with the sandbox.

use hand::wire::{Event, Exit, Mode, Reply, Request, Running};

use super::stream::{Reader, Stream, Writer, reply};
use super::{Error, Exec, Result, Session, done};

impl Session {
    /// Runs a program in the background, and returns its handle when it runs. `output` has no meaning: what it writes,
    /// on either channel, is kept. Without a `timeout` it runs until it ends.
    ///
    /// # Errors
    /// As [`Session::exec`]; where too many run already.
    pub async fn spawn(&self, exec: Exec) -> Result<u32> {
        self.ask(&Request::Exec(exec.into_wire(Mode::Background)), |reply| match reply {
            Reply::Began(handle) => Some(handle),
            _ => None,
        })
        .await
    }

    /// The commands in the background, the oldest first; those that have ended are there until they are forgotten, by
    /// [`Session::forget`] or for want of room.
    ///
    /// # Errors
    /// Where the sandbox is gone.
    pub async fn processes(&self) -> Result<Vec<Running>> {
        self.ask(&Request::Processes, |reply| match reply {
            Reply::Processes(processes) => Some(processes),
            _ => None,
        })
        .await
    }

    /// What a command in the background writes, from byte `from` of all it has written, or from the oldest that is kept.
    /// Who reads too slowly misses what is kept no longer.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn attach(&self, handle: u32, from: u64) -> Result<Attachment> {
        let mut stream = self.mux.open_stream(&Request::Attach { handle, from })?;
        match stream.event().await {
            Ok(Event::Attached { from }) => {
                // Whoever reads too slowly is told from where it goes on, again and again, which nobody listens to.
                stream.deaf();
                Ok(Attachment { from, stream })
            }
            Ok(_) | Err(Ok(_)) => Err(Error::Protocol("it does not say from where it reads")),
            Err(Err(error)) => Err(error),
        }
    }

    /// Sends a signal, by number, to a command in the background and to all it has begun; `SIGKILL` ends all of them.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` where there is no such signal.
    pub async fn kill(&self, handle: u32, signal: i32) -> Result<()> {
        self.ask(&Request::Kill { handle, signal }, done).await
    }

    /// Forgets a command in the background that has ended.
    ///
    /// # Errors
    /// `NotFound`; `Busy` where it, or something it has begun, still runs.
    pub async fn forget(&self, handle: u32) -> Result<()> {
        self.ask(&Request::Forget { handle }, done).await
    }
}

/// A way to a command in the background. Dropping it is nothing to the command.
#[derive(Debug)]
pub struct Attachment {
    from: u64,
    stream: Stream,
}

impl Attachment {
    /// The offset of the first byte that [`Attachment::output`] gives, in all that was written.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.from
    }

    /// What it writes, until its end; once.
    pub fn output(&mut self) -> Option<Reader> {
        self.stream.stdout.take()
    }

    /// Its standard input, where it has one. Two who write at once are refused.
    #[must_use]
    pub fn stdin(&self) -> Writer {
        self.stream.writer()
    }

    /// Waits for its end. Output that nobody has taken by then is thrown away.
    ///
    /// # Errors
    /// Where the sandbox ends first, or the command is forgotten.
    pub async fn wait(&mut self) -> Result<Exit> {
        self.stream.stdout = None;
        reply(&mut self.stream, |reply| match reply {
            Reply::Exited(exit) => Some(exit),
            _ => None,
        })
        .await
    }
}
