//! The other spellings in which a value is still the same to whoever reads it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use kernel::Secret;

/// What is shorter is found in any text that is spelled so.
const SHORTEST: usize = 8;
/// Longer ones are looked for as they are.
const LONGEST: usize = 4 * 1024;

/// The value in base64, wherever it stands in what is spelled so; in an address; and in JSON.
pub(crate) fn disguises(value: &str) -> Vec<Secret> {
    if !(SHORTEST..=LONGEST).contains(&value.len()) {
        return Vec::new();
    }
    let mut all: Vec<String> = Vec::new();
    for before in 0..3 {
        for engine in [&STANDARD, &URL_SAFE] {
            let bytes = [&b"\0\0"[..before], value.as_bytes()].concat();
            let text = engine.encode(&bytes);
            // Signs at both ends are made of what stands beside it, too.
            let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
            all.extend(text.get(first..last).map(str::to_owned));
        }
    }
    for space in ["%20", "+"] {
        let encoded = in_address(value, space);
        all.push(encoded.to_lowercase());
        all.push(encoded);
    }
    let quoted = serde_json::Value::from(value).to_string();
    all.push(quoted[1..quoted.len() - 1].to_owned());
    all.sort_unstable();
    all.dedup();
    // The lower case of hexadecimal signs alone is another spelling.
    all.retain(|text| text != value && (text.contains('%') || *text != value.to_lowercase()));
    all.sort_by_key(|text| std::cmp::Reverse(text.len()));
    all.into_iter().map(Secret::new).collect()
}

fn in_address(value: &str, space: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(byte.into()),
            b' ' => text.push_str(space),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str, text: &str) -> bool {
        disguises(value).iter().any(|disguise| text.contains(disguise.expose()))
    }

    #[test]
    fn it_is_found_wherever_it_stands_in_base64() {
        let value = "p?ssw~rd>with/signs";
        for before in ["", "u", "us", "use", "user"] {
            for after in ["", "x", "xy"] {
                let whole = format!("{before}{value}{after}");
                for engine in [&STANDARD, &URL_SAFE] {
                    assert!(found(value, &engine.encode(&whole)), "{whole}");
                }
            }
        }
        assert!(!found(value, &STANDARD.encode("something else that is long enough")));
    }

    #[test]
    fn it_is_found_in_addresses_and_in_json() {
        let value = "a b/c\"d\n+efgh";
        for text in [
            "https://x.example/?q=a%20b%2Fc%22d%0A%2Befgh",
            "q=a+b%2Fc%22d%0A%2Befgh",
            r#"{"k":"a b/c\"d\n+efgh"}"#,
        ] {
            assert!(found(value, text), "{text}");
        }
        assert!(disguises("short").is_empty());
        assert!(!found("Plain-Value", "plain-value"), "another case is another value");
    }
}
