//! From JSON to types, with errors that point at what is wrong.

use kernel::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// Reads a `T` out of `value`.
///
/// # Errors
/// `invalid_input` with a JSON pointer (RFC 6901) to the part that is wrong.
pub fn decode<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let pointer = pointer(e.path());
        Error::invalid(pointer, e.into_inner().to_string())
    })
}

fn pointer(path: &Path) -> String {
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_pointer_survives_dots_and_slashes_in_names() {
        let wrong = decode::<BTreeMap<String, Vec<u8>>>(json!({ "a/b.c": [1, "x"] })).unwrap_err();
        assert_eq!(wrong.pointer(), Some("/a~1b.c/1"));
        assert_eq!(wrong.message(), "invalid type: string \"x\", expected u8");
    }
}
