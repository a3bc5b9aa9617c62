//! Rows found by words: what somebody types, as a question to the full-text index that cannot be anything else.

use kernel::{Error, Result};

use super::TableModel;
use crate::access::Sql;
use crate::database::{quoted, search_name};

/// How long a search may be, in characters, and how many words it may have.
const LONGEST: usize = 200;
const WORDS: usize = 10;

/// Words that a row must have, all of them; the last one may be the beginning of a word.
#[derive(Debug)]
pub(crate) struct Search {
    query: String,
}

impl Search {
    /// Reads what somebody has typed. Nothing in it has a meaning but letters and digits.
    ///
    /// # Errors
    /// `invalid_input` at `/search`, where the table is not searched, or the text is none to search for.
    pub fn parse(text: &str, table: &TableModel) -> Result<Self> {
        let wrong = |message: String| Error::invalid("/search", message);
        if !table.searched {
            return Err(wrong(format!("{} has no full-text index", table.name))
                .hint("name columns in the table's `search`"));
        }
        if text.chars().count() > LONGEST {
            return Err(wrong(format!("a search has at most {LONGEST} characters")));
        }
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        if words.is_empty() || words.len() > WORDS {
            return Err(wrong(format!("a search has 1 to {WORDS} words")));
        }
        // Each is a text of its own to the index; only the last one, where no blank ends it, is a beginning.
        let whole = text.ends_with(|c: char| !c.is_alphanumeric());
        let mut query = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" AND ");
        query.push_str(if whole { "" } else { "*" });
        Ok(Self { query })
    }

    /// Appends the condition that a row of `table` has the words.
    pub fn condition(&self, table: &TableModel, sql: &mut Sql) {
        let index = quoted(&search_name(&table.name));
        let table = quoted(&table.name);
        sql.text.push_str(&format!("{table}._rowid_ IN (SELECT rowid FROM {index} WHERE {index} MATCH "));
        sql.bind(self.query.as_str().into());
        sql.text.push(')');
    }
}
