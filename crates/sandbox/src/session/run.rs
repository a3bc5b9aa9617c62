//! A whole command at once: what went in, what came out, cut to what somebody can read.

use std::time::Duration;

use hand::wire::{Exit, Kept, Outcome, Output, Stdin};
use tokio::io::AsyncWriteExt;

use super::{Exec, Result, Session};

/// How a command is run to its end.
#[derive(Debug, Clone)]
pub struct Run {
    /// The command; its `stdin` and `output` are set by this.
    pub exec: Exec,
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// Bytes that are kept from the beginning of each channel.
    pub head: u32,
    /// Bytes that are kept from its end; together at most [`hand::wire::MAX_HEAD_AND_TAIL`].
    pub tail: u32,
}

/// Who is told of a command while it runs.
pub struct Watched<'a> {
    /// How often.
    pub every: Duration,
    /// Takes the last of standard output and of standard error, at most [`hand::wire::MAX_LAST`] bytes of each.
    pub say: &'a mut (dyn FnMut(&str, &str) + Send),
}

/// How a command went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// Its standard output.
    pub stdout: Text,
    /// Its standard error.
    pub stderr: Text,
}

/// Output, or the two ends of it. What is no UTF-8 is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// Its beginning: all of it, where nothing is left out.
    pub head: String,
    /// Bytes that are left out.
    pub omitted: u64,
    /// Its end, where something is.
    pub tail: String,
    /// The file inside that holds all of it, where something is left out and there was room.
    pub file: Option<String>,
    /// Bytes of that file; fewer than were written where it would have grown too large.
    pub file_bytes: u64,
}

impl Session {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// As [`Session::exec`]. A command that fails, or is ended because its time is over, is no error.
    pub async fn run(&self, run: Run) -> Result<Ran> {
        self.run_watched(run, None).await
    }

    /// Runs a command to its end, and says the last of what it writes meanwhile.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_watched(&self, run: Run, mut watched: Option<Watched<'_>>) -> Result<Ran> {
        let Run { mut exec, stdin, head, tail } = run;
        exec.output = Output::Capped { head, tail };
        exec.stdin = if stdin.is_empty() { Stdin::Empty } else { Stdin::Stream };
        let mut process = self.exec(exec).await?;
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let mut writer = process.stdin_writer();
        let most = head as usize + tail as usize;
        let read = |reader: Option<super::Reader>| async move {
            match reader {
                Some(reader) => reader.all(most).await,
                None => Vec::new(),
            }
        };
        let write = async {
            // A command that does not read its input is none the worse.
            let _ = writer.write_all(&stdin).await;
            let _ = writer.shutdown().await;
        };
        let end = async {
            let Some(Watched { every, say }) = &mut watched else { return process.end().await };
            let mut ticks = tokio::time::interval(*every);
            ticks.tick().await;
            loop {
                tokio::select! {
                    end = process.end() => return end,
                    _ = ticks.tick() => {}
                }
                // Where it has ended meanwhile, there is no more to say.
                if let Ok((stdout, stderr)) = process.last().await {
                    say(&stdout, &stderr);
                }
            }
        };
        let (stdout, stderr, (), exit) = tokio::join!(read(stdout), read(stderr), write, end);
        let Exit { outcome, stdout: all_stdout, stderr: all_stderr } = exit?;
        let text = |bytes: Vec<u8>, kept| Text::new(&bytes, head as usize, kept);
        Ok(Ran { outcome, stdout: text(stdout, all_stdout), stderr: text(stderr, all_stderr) })
    }
}

impl Text {
    /// `bytes` are the first `head` bytes, if there are as many, and then the last.
    fn new(bytes: &[u8], head: usize, kept: Kept) -> Self {
        let Kept { bytes: total, file, file_bytes } = kept;
        if bytes.len() as u64 >= total {
            return Self { head: String::from_utf8_lossy(bytes).into_owned(), ..Self::default() };
        }
        let (head, tail) = bytes.split_at(head.min(bytes.len()));
        let (head, tail) = (whole_start(head), whole_end(tail));
        Self {
            head: String::from_utf8_lossy(head).into_owned(),
            omitted: total - (head.len() + tail.len()) as u64,
            tail: String::from_utf8_lossy(tail).into_owned(),
            file,
            file_bytes,
        }
    }
}

/// Without a character at its end that is cut.
fn whole_start(bytes: &[u8]) -> &[u8] {
    // A character has four bytes at most, the first of which is no continuation.
    for (back, byte) in bytes.iter().rev().enumerate().take(4) {
        let size = match byte {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            0x80..=0xBF => continue,
            _ => return bytes,
        };
        return if size > back + 1 { &bytes[..bytes.len() - back - 1] } else { bytes };
    }
    bytes
}

/// Without a character at its beginning that is cut.
fn whole_end(bytes: &[u8]) -> &[u8] {
    let cut = bytes.iter().take(3).take_while(|byte| (0x80..=0xBF).contains(*byte)).count();
    &bytes[cut..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_through_characters_leaves_whole_ones() {
        let all = "aé€😀".as_bytes();
        for head in 0..=all.len() {
            for tail in 0..=(all.len() - head) {
                if head + tail == all.len() {
                    continue;
                }
                let sent = [&all[..head], &all[all.len() - tail..]].concat();
                let text = Text::new(&sent, head, Kept { bytes: all.len() as u64, ..Kept::default() });
                let (start, end) = ("aé€😀".split_at(text.head.len()).0, text.tail.clone());
                assert_eq!(text.head, start, "head {head} tail {tail}");
                assert!("aé€😀".ends_with(&end), "head {head} tail {tail}: {end:?}");
                assert_eq!(text.omitted as usize, all.len() - text.head.len() - text.tail.len());
                assert!(head - text.head.len() < 4 && tail - text.tail.len() < 4);
            }
        }
    }

    #[test]
    fn what_is_no_text_is_kept_as_far_as_it_can_be() {
        let text = Text::new(&[0xFF, b'a', 0x80], 3, Kept { bytes: 3, ..Kept::default() });
        assert_eq!(text, Text { head: "\u{FFFD}a\u{FFFD}".to_owned(), ..Text::default() });
    }
}
