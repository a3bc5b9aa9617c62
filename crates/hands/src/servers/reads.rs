//! What programs of one sandbox say, line by line: bounded in memory, and no faster than it costs the gateway little.

use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

/// The most bytes of one line.
pub(super) const LONGEST: u64 = 4 << 20;

/// What is longer than this, in bytes, is long; so many such lines of one sandbox are in memory at once.
const LONG: u64 = 256 << 10;
const LONG_AT_ONCE: usize = 2;

/// How long a long line may take to come, and a line for a program until it has read it.
const PATIENCE: Duration = Duration::from_secs(60);

/// After how many bytes of a sandbox its programs are not read for a moment.
const PIECE: u64 = 16 << 10;
pub(super) const REST: Duration = Duration::from_millis(1);

/// Whose turn it is among the programs of a sandbox.
pub struct Reads {
    long: Semaphore,
    /// Of all programs of a sandbox one line at a time is looked at: that work is not counted as their own.
    looking: Mutex<()>,
    pub patience: Duration,
}

impl Default for Reads {
    fn default() -> Self {
        Self::new(PATIENCE)
    }
}

/// Why there are no more lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMore {
    /// There is nothing more to come.
    End,
    /// The line is longer than any may be, or its end does not come.
    TooLong,
}

impl Reads {
    pub fn new(patience: Duration) -> Self {
        Self { long: Semaphore::new(LONG_AT_ONCE), looking: Mutex::default(), patience }
    }

    /// Gives each line of `from` to `take`, until there are no more or `take` wants none.
    pub async fn each(
        &self,
        mut from: impl AsyncBufRead + Unpin,
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> NoMore {
        loop {
            let (line, turn) = match self.line(&mut from).await {
                Ok(line) => line,
                Err(no_more) => return no_more,
            };
            let _looking = self.looking.lock().await;
            if take(&line).is_none() {
                return NoMore::End;
            }
            let pieces = 1 + line.len() as u64 / PIECE;
            drop((line, turn));
            sleep(REST * u32::try_from(pieces).unwrap_or(u32::MAX)).await;
        }
    }

    async fn line(
        &self,
        from: &mut (impl AsyncBufRead + Unpin),
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), NoMore> {
        let mut line = Vec::new();
        let is_whole = |line: &Vec<u8>| line.last() == Some(&b'\n');
        let _ = from.take(LONG).read_until(b'\n', &mut line).await;
        if is_whole(&line) {
            return Ok((line, None));
        }
        if (line.len() as u64) < LONG {
            return Err(NoMore::End);
        }
        let turn = self.long.acquire().await.map_err(|_| NoMore::End)?;
        let _ = timeout(self.patience, from.take(LONGEST - LONG).read_until(b'\n', &mut line)).await;
        if is_whole(&line) { Ok((line, Some(turn))) } else { Err(NoMore::TooLong) }
    }
}
