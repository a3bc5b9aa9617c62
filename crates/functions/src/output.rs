//! What a function's process writes: lines of the runner's, which carry its mark, and everything else, which is the
//! function's own text. Neither is believed.

use serde::Deserialize;

use crate::error::Failure;

/// What the runner's lines begin with, before the mark.
const BEGIN: u8 = 0x1e;

/// The longest line, in bytes; what is over is another one.
const LONGEST: usize = 16 << 10;

/// How much a line of a log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// The usual course.
    Info,
    /// Works, but should not be so.
    Warn,
    /// Something failed.
    Error,
}

/// One line of a function's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// The request that it says it is of.
    #[serde(default)]
    pub rid: Option<String>,
    /// What it says.
    pub text: String,
    /// How many characters were left out.
    #[serde(default)]
    pub cut: u64,
}

impl Line {
    /// One of the platform's own.
    #[must_use]
    pub fn said(level: Level, text: String) -> Self {
        Self { level, rid: None, text, cut: 0 }
    }
}

/// What the runner says of itself.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// It listens.
    Ready(serde_json::Map<String, serde_json::Value>),
    /// It does not, and why.
    Failed(Box<Failure>),
}

/// A piece of output.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Of the log.
    Line(Line),
    /// Of the runner.
    Said(Said),
}

/// Takes bytes as they come and gives pieces.
pub struct Pieces {
    mark: Vec<u8>,
    waiting: Vec<u8>,
    /// What lines are that are none of the runner's.
    level: Level,
}

impl Pieces {
    /// Of a channel whose runner has been given `mark`; other lines matter as much as `level` says.
    pub fn new(mark: &str, level: Level) -> Self {
        let mut begin = vec![BEGIN];
        begin.extend_from_slice(mark.as_bytes());
        begin.push(b' ');
        Self { mark: begin, waiting: Vec::new(), level }
    }

    /// What comes of `bytes` and those before.
    pub fn take(&mut self, bytes: &[u8], mut give: impl FnMut(Piece)) {
        self.waiting.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(length) = self.waiting[begin..].iter().position(|byte| *byte == b'\n') {
            self.line(&self.waiting[begin..begin + length], &mut give);
            begin += length + 1;
        }
        self.waiting.drain(..begin);
        if self.waiting.len() > LONGEST {
            let rest = std::mem::take(&mut self.waiting);
            self.line(&rest, &mut give);
        }
    }

    /// What is left at the end.
    pub fn end(&mut self, mut give: impl FnMut(Piece)) {
        let rest = std::mem::take(&mut self.waiting);
        self.line(&rest, &mut give);
    }

    fn line(&self, line: &[u8], give: &mut impl FnMut(Piece)) {
        let framed = line.windows(self.mark.len()).position(|part| part == self.mark);
        let (own, ours) = match framed {
            Some(at) => (&line[..at], Some(&line[at + self.mark.len()..])),
            None => (line, None),
        };
        if !own.is_empty() {
            let text = String::from_utf8_lossy(own).into_owned();
            give(Piece::Line(Line { level: self.level, rid: None, text, cut: 0 }));
        }
        let Some(ours) = ours else { return };
        if let Ok(line) = serde_json::from_slice(ours) {
            give(Piece::Line(line));
        } else if let Ok(said) = serde_json::from_slice(ours) {
            give(Piece::Said(said));
        } else {
            let text = String::from_utf8_lossy(ours).into_owned();
            give(Piece::Line(Line { level: self.level, rid: None, text, cut: 0 }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(chunks: &[&[u8]]) -> Vec<Piece> {
        let (mut all, mut pieces) = (Vec::new(), Pieces::new("mark", Level::Info));
        for chunk in chunks {
            pieces.take(chunk, |piece| all.push(piece));
        }
        pieces.end(|piece| all.push(piece));
        all
    }

    fn plain(text: &str) -> Piece {
        Piece::Line(Line { level: Level::Info, rid: None, text: text.to_owned(), cut: 0 })
    }

    #[test]
    fn lines_of_the_runner_are_told_from_the_functions_own_wherever_they_are_cut() {
        let all = b"own\nhalf\x1emark {\"t\":1,\"level\":\"warn\",\"rid\":\"r1\",\"text\":\"careful\",\"cut\":3}\n\
                    \x1emark {\"ready\":{\"runtime\":\"bun\"}}\n\x1eother {\"ready\":{}}\n\x1emark none\nlast";
        let warned = Piece::Line(Line {
            level: Level::Warn,
            rid: Some("r1".to_owned()),
            text: "careful".to_owned(),
            cut: 3,
        });
        let ready = serde_json::json!({ "runtime": "bun" }).as_object().unwrap().clone();
        let expected = [
            plain("own"),
            plain("half"),
            warned,
            Piece::Said(Said::Ready(ready)),
            plain("\u{1e}other {\"ready\":{}}"),
            plain("none"),
            plain("last"),
        ];
        assert_eq!(pieces(&[all]), expected);
        for cut in 1..all.len() {
            assert_eq!(pieces(&[&all[..cut], &all[cut..]]), expected, "{cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let long = vec![b'x'; LONGEST + 1];
        let all = pieces(&[&long, b"y\n"]);
        assert_eq!(all, [plain(&"x".repeat(LONGEST + 1)), plain("y")]);
        assert_eq!(pieces(&[b"\xff\n"]), [plain("\u{fffd}")]);
    }
}
