//! One piece of work with files: a process inside, its lines, its bytes, and why it failed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hand::wire::{
    self, Cause, Failure, FileRequest, MAX_LINE, Mode, Outcome, Output, Program, Request, Stdin, Terminal,
};
use serde::de::DeserializeOwned;

use super::stream::{Reader, Writer};
use super::{Error, Process, Result, Session};

/// The most bytes that are read of why it failed.
const MAX_FAILURE: usize = 16 << 10;

/// One piece of work. Dropped before its end it is given up.
#[derive(Debug)]
pub struct Work {
    process: Process,
    stdout: Reader,
    stderr: Option<Reader>,
    /// Bytes that have come and are not taken.
    rest: BytesMut,
    end: Option<Result<()>>,
}

impl Work {
    /// Begins it. Without a `timeout` it goes on until it ends.
    pub async fn begin(
        session: &Session,
        request: FileRequest,
        stdin: Stdin,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let exec = wire::Exec {
            program: Program::Files(request),
            cwd: None,
            env: BTreeMap::new(),
            terminal: Terminal::None,
            stdin,
            timeout_ms: timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            mode: Mode::Foreground(Output::Stream),
        };
        let mut process = Process::started(session.mux.open_stream(&Request::Exec(exec))?).await?;
        let (Some(stdout), stderr @ Some(_)) = (process.stdout(), process.stderr()) else {
            return Err(Error::Closed);
        };
        Ok(Self { process, stdout, stderr, rest: BytesMut::new(), end: None })
    }

    pub fn stdin(&self) -> Writer {
        self.process.stdin_writer()
    }

    /// The next line; `None` where the work is done.
    pub async fn line<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(newline) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(newline + 1);
                let parsed = serde_json::from_slice(&line);
                return parsed.map(Some).map_err(|_| Error::Protocol("it sends a line that is none"));
            }
            if self.rest.len() > MAX_LINE {
                return Err(Error::Protocol("it sends a line without end"));
            }
            match self.stdout.chunk().await {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None if self.rest.is_empty() => return self.end().await.map(|()| None),
                None => return self.end().await.and(Err(Error::Protocol("it sends half a line"))),
            }
        }
    }

    /// The one line that there is.
    pub async fn only_line<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line().await?.ok_or(Error::Protocol("it sends no line"))?;
        self.end().await?;
        Ok(line)
    }

    /// At most `most` of the next bytes; `None` where the work is done.
    pub async fn some(&mut self, most: usize) -> Result<Option<Bytes>> {
        let Some(mut bytes) = self.bytes().await? else { return Ok(None) };
        if bytes.len() > most {
            self.rest.extend_from_slice(&bytes.split_off(most));
        }
        Ok(Some(bytes))
    }

    /// The next bytes; `None` where the work is done.
    pub async fn bytes(&mut self) -> Result<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Ok(Some(self.rest.copy_to_bytes(self.rest.len())));
        }
        match self.stdout.chunk().await {
            Some(chunk) => Ok(Some(chunk)),
            None => self.end().await.map(|()| None),
        }
    }

    /// Waits for its end. May be asked again.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn end(&mut self) -> Result<()> {
        if self.end.is_none() {
            let stderr = self.stderr.take();
            let failure = match stderr {
                Some(stderr) => stderr.all(MAX_FAILURE).await,
                None => Vec::new(),
            };
            let exit = self.process.end().await?;
            self.end = Some(match exit.outcome {
                Outcome::Code(0) => Ok(()),
                Outcome::TimedOut => refused(Cause::TimedOut, "the work with files took too long".to_owned()),
                Outcome::Signal(signal) => {
                    refused(Cause::Broken, format!("the work with files was ended by signal {signal}"))
                }
                Outcome::Code(_) => match serde_json::from_slice(&failure) {
                    Ok(failure) => Err(Error::Refused(failure)),
                    Err(_) => Err(Error::Protocol("it does not say why work with files failed")),
                },
            });
        }
        self.end.clone().unwrap_or(Err(Error::Closed))
    }
}

fn refused<T>(cause: Cause, message: String) -> Result<T> {
    Err(Error::Refused(Failure { cause, message }))
}
