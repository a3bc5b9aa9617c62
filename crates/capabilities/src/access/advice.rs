//! What is written here for what other languages and platforms write.

use super::lexer::Token;
use super::parse::Wrong;

/// What stands here for a word of another language.
pub(super) fn foreign(token: &Token) -> Option<&'static str> {
    let Token::Name(word) = token else { return None };
    Some(match word.to_ascii_lowercase().as_str() {
        "and" => "&&",
        "or" => "||",
        "not" => "!",
        "is" => "== null, or != null",
        "like" | "ilike" | "matches" => "startsWith(text, start)",
        _ => return None,
    })
}

/// Whether other platforms name the column for a row's user so.
pub(super) fn is_for_a_user(name: &str) -> bool {
    let name: String = name.chars().filter(|c| *c != '_').collect();
    let names = ["user", "userid", "uid", "author", "authorid", "owner", "ownerid", "createdby"];
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The refusal of a function that there is not.
pub(super) fn unknown_function(name: &str, at: usize) -> Wrong {
    let wrong = Wrong::new(at, format!("there is no function {name:?}"))
        .hint("functions are now, size, startsWith, exists");
    match name {
        // CloudBase's, which reads a document by its id.
        "get" => wrong.hint("write exists(table, id == row.list && owner == auth.uid)"),
        "contains" | "has" | "includes" => {
            wrong.hint("write value in list; of a text only startsWith, size and == are asked")
        }
        _ => wrong,
    }
}
