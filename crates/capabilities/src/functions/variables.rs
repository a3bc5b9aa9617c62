//! Variables of an app and of its functions.

use std::collections::BTreeMap;

use kernel::{Code, Error, Result};

use crate::hosting::pointer_escape;

/// The longest name, in bytes.
const NAME: usize = 100;

/// The longest value, and all names and values together, in bytes.
const VALUE: usize = 32 << 10;
const ALL: usize = 64 << 10;

/// Names that say how a process runs, and what such names begin with.
const RESERVED: [&str; 3] = ["PATH", "HOME", "NODE_OPTIONS"];
const OURS: [&str; 3] = ["STEADING_", "BUN_", "LD_"];

/// Refuses what cannot be variables, with the place of the first.
pub(crate) fn check(variables: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in variables {
        // The pointer to a name without bounds would be as long.
        if !is_name(name) {
            let name: String = name.chars().take(80).collect();
            let message = format!("{name:?} cannot be the name of a variable");
            return Err(Error::invalid(format!("/{}", pointer_escape(&name)), message)
                .hint("use a letter or _, then letters, digits and _, at most 100"));
        }
        let at = format!("/{name}");
        if is_reserved(name) {
            let message = format!("{name} is kept for what runs the functions");
            return Err(Error::invalid(at, message).hint("choose another name"));
        }
        if value.len() > VALUE {
            let message = format!("{name} has {} bytes; the limit is {VALUE} for each variable", value.len());
            return Err(Error::new(Code::TooLarge, message).field(at).hint("keep it in a bucket or a table"));
        }
        if value.contains('\0') {
            return Err(Error::invalid(
                at,
                format!("{name} has a NUL character, which no variable can have"),
            ));
        }
    }
    bounded(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// Refuses more of them than one function may have.
pub(crate) fn bounded<'a>(variables: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    let bytes: usize = variables.map(|(name, value)| name.len() + value.len()).sum();
    if bytes <= ALL {
        return Ok(());
    }
    let message = format!("the variables have {bytes} bytes; the limit is {ALL} with those of the app");
    Err(Error::new(Code::TooLarge, message).field("").hint("keep what is large in a bucket or a table"))
}

/// Whether a variable of this name would say how the process runs.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || OURS.iter().any(|ours| name.starts_with(ours))
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
