//! What an app may call itself: it stands in front of people, in mails of the platform's own server too.

use kernel::{Error, Result};

/// In characters.
const LONGEST: usize = 60;

/// What turns a name into a way elsewhere.
const LINKS: [&str; 2] = ["://", "www."];

/// Whether an app may be called so: one line of 1 to 60 characters that show as they are written, and no link.
pub(crate) fn is_title(name: &str) -> bool {
    check(name).is_ok()
}

/// Refuses what is no name of an app.
pub(super) fn check(name: &str) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::invalid("/name", why).hint("the name is what people call the app, as \"Guest book\""))
    };
    let length = name.chars().count();
    if length > LONGEST {
        return refuse(format!("the app's name has {length} characters and may have at most {LONGEST}"));
    }
    if name.trim() != name || name.is_empty() {
        return refuse("the app's name neither is empty nor begins or ends with a space".to_owned());
    }
    if let Some(bad) = name.chars().find(|c| is_unseen(*c)) {
        let message =
            format!("the app's name is one line of visible characters, without {}", bad.escape_unicode());
        return refuse(message);
    }
    let folded = name.to_ascii_lowercase();
    match LINKS.into_iter().find(|link| folded.contains(link)) {
        Some(link) => refuse(format!("the app's name is no link: it cannot contain {link}")),
        None => Ok(()),
    }
}

/// Control characters, ends of lines, marks of direction, and what has no width and no part in writing.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_that_shows_as_it_is_written() {
        let longest = "ü".repeat(60);
        for name in
            ["Shop", "Ada's \"Shop\" & Söhne", "مقهى", "客户 №1", "👩‍🚀", "می‌خواهم", "node.js", &longest]
        {
            assert_eq!(check(name).map_err(|error| error.message().to_owned()), Ok(()), "{name}");
        }
        let bad = [
            "",
            " ",
            "Shop ",
            "a\nb",
            "a\r\nBcc: b@c.de",
            "a\u{0}b",
            "a\u{2028}b",
            "\u{202e}pohS",
            "a\u{2066}b",
            "a\u{200f}b",
            "a\u{200b}b",
            "a\u{85}b",
            "Locked: https://evil.example",
            "Go to WWW.evil.example",
        ];
        for name in bad {
            let refused = check(name).unwrap_err();
            assert_eq!(refused.pointer(), Some("/name"), "{name:?}");
            assert!(!is_title(name));
        }
        assert_eq!(
            check(&"a".repeat(61)).unwrap_err().message(),
            "the app's name has 61 characters and may have at most 60"
        );
        assert_eq!(
            check("a\nb").unwrap_err().message(),
            "the app's name is one line of visible characters, without \\u{a}"
        );
    }
}
