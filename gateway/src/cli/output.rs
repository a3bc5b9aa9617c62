//! Results on stdout, progress and problems on stderr; words for people, JSON for programs.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::Failure;
use crate::config::Surroundings;
use crate::telemetry::Colour;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Words and tables.
    Human,
    /// One JSON value a line.
    Json,
}

/// Where a command writes. A reader that has gone away is no error.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    form: Form,
    colour: Colour,
}

impl Output {
    /// An output in that form.
    pub fn new(form: Form, surroundings: &Surroundings) -> Self {
        let colour = if surroundings.no_color { Colour::Never } else { Colour::WhereShown };
        Self { form, colour }
    }

    /// Whether text may be coloured.
    pub fn colour(self) -> Colour {
        self.colour
    }

    /// Writes a result: `words` of it for people, the value itself for programs.
    pub fn result(self, value: &Value, words: impl FnOnce(&Value) -> String) {
        match self.form {
            Form::Human => self.line(words(value).trim_end()),
            Form::Json => self.line(&value.to_string()),
        }
    }

    /// Writes a line to stdout.
    pub fn line(self, text: &str) {
        let mut out = io::stdout().lock();
        drop(writeln!(out, "{text}").and_then(|()| out.flush()));
    }

    /// Tells a person what is going on; programs are not told.
    pub fn progress(self, text: &str) {
        if self.form == Form::Human {
            drop(writeln!(io::stderr().lock(), "{text}"));
        }
    }

    /// Makes text stand out where that can be seen.
    pub fn bold(self, text: &str) -> String {
        if self.colour.on(&io::stdout()) { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Says why a command failed, and how the process ends: words on stderr, or the problem object on stdout.
    pub fn failure(self, failure: &Failure) -> ExitCode {
        match self.form {
            _ if failure.problem().is_null() => {}
            Form::Json => self.line(&failure.problem().to_string()),
            Form::Human => {
                let name = if self.colour.on(&io::stderr()) { "\x1b[1;31merror\x1b[0m" } else { "error" };
                drop(writeln!(io::stderr().lock(), "{name}: {}", failure.words()));
            }
        }
        failure.exit()
    }
}

/// Rows under headings, aligned.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut headings.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A JSON value as one cell: text without quotes, nothing for null.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        other => other.to_string(),
    }
}

/// A JSON value over several lines.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let rows = vec![vec!["a".to_owned(), "b".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["ONE", "TWO"], &rows), "ONE     TWO\na       b\nlonger\n");
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        assert_eq!(cell(&"a\x1b[2Jb\nc".into()), "a [2Jb c");
    }
}
