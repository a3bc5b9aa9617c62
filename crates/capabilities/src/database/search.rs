//! Full-text indexes: what they are called, how they are made, and how one is known to be ours.

use super::schema::quoted;

/// What the text of every one begins and ends with, but for its name and columns. It holds no text, only which words are
/// in which row, so that rows stay what is asked.
const BEGIN: &str = "CREATE VIRTUAL TABLE ";
const USING: &str = " USING fts5(";
const END: &str = ", content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2')";

/// What the index of the table `table` is called. No name of a table of a manifest has a dot.
pub(crate) fn search_name(table: &str) -> String {
    format!("{table}.search")
}

/// The statement that makes the index of `table` over these columns.
pub(crate) fn create_search(table: &str, columns: &[&str]) -> String {
    format!("{BEGIN}{}{USING}{}{END}", quoted(&search_name(table)), list(columns))
}

/// The statement that takes the rows of `table` into its index.
pub(crate) fn fill_search(table: &str, columns: &[&str]) -> String {
    let (index, list) = (quoted(&search_name(table)), list(columns));
    format!("INSERT INTO {index} (rowid, {list}) SELECT _rowid_, {list} FROM {}", quoted(table))
}

fn list(columns: &[&str]) -> String {
    columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
}

/// The table and the columns of the index that `sql` makes, where it is one of ours to the last character.
pub(super) fn read_search(sql: &str) -> Option<(String, Vec<String>)> {
    let (name, rest) = sql.strip_prefix(BEGIN)?.split_once(USING)?;
    let bare = |quoted: &str| {
        let name = quoted.strip_prefix('"')?.strip_suffix('"')?;
        (!name.is_empty() && !name.contains('"')).then(|| name.to_owned())
    };
    let table = bare(name)?.strip_suffix(".search")?.to_owned();
    let columns: Vec<String> = rest.strip_suffix(END)?.split(", ").map(bare).collect::<Option<_>>()?;
    let same = create_search(&table, &columns.iter().map(String::as_str).collect::<Vec<_>>()) == sql;
    same.then_some((table, columns))
}
