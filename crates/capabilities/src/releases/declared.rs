//! What declarations of tables and columns say, of ours and of others.

use super::column::{Column, Type};

impl Column {
    /// Whether the file holds both alike: unique values are an index's business, and who sees and changes a column is
    /// not the file's.
    pub(super) fn stores_as(&self, other: &Column) -> bool {
        let Column { unique, hidden, immutable, .. } = *other;
        Column { unique, hidden, immutable, ..self.clone() } == *other
    }
}

/// Whether a table's SQL has a CHECK; one that merely stands in a text or a comment counts too.
pub(super) fn has_check(sql: &str) -> bool {
    let sql = sql.to_ascii_uppercase();
    sql.match_indices("CHECK").any(|(at, word)| {
        let part_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
        !sql[..at].ends_with(part_of_a_name) && sql[at + word.len()..].trim_start().starts_with('(')
    })
}

/// The type of a column by what its declaration says (<https://www.sqlite.org/datatype3.html> §3.1).
pub(super) fn storage_type(declared: &str) -> Type {
    let declared = declared.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    if has(&["INT", "BOOL"]) {
        Type::Int
    } else if has(&["REAL", "FLOA", "DOUB"]) {
        Type::Real
    } else if has(&["BLOB"]) {
        Type::Blob
    } else {
        Type::Text
    }
}

/// A column for people: its short form and what that leaves out.
pub(super) fn words(column: &Column) -> String {
    let mut words = column.to_string();
    if let Some(rule) = column.on_delete {
        words.push_str(&format!(", on delete {}", rule.as_str()));
    }
    if let Some(check) = &column.check {
        words.push_str(&format!(", check {}", check.said));
    }
    for (is, word) in [(column.hidden, ", hidden"), (column.immutable, ", immutable")] {
        words.push_str(if is { word } else { "" });
    }
    words
}

/// A default that the engine told, as it stands in `CREATE TABLE`. An expression is told without the parentheses
/// that it needs; a name is a text there, and would be a column between them.
pub(super) fn in_parentheses(default: &str) -> String {
    let is_name = default.chars().all(|c| c.is_alphanumeric() || c == '_')
        || [('"', '"'), ('`', '`'), ('[', ']')].iter().any(|(open, close)| {
            let inner = default.strip_prefix(*open).and_then(|rest| rest.strip_suffix(*close));
            inner.is_some_and(|inner| !inner.replace(&close.to_string().repeat(2), "").contains(*close))
        });
    if is_name { default.to_owned() } else { format!("({default})") }
}

/// A default without the parentheses that SQLite may or may not report.
pub(super) fn normal(default: Option<&str>) -> Option<String> {
    let mut text = default?.trim();
    while let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        text = inner.trim();
    }
    Some(text.to_owned())
}
