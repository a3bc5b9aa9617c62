//! Who reads what the platform counts, as settings.

use kernel::Secret;

use super::value::{Kind, Value};

/// The fewest characters of a token: nobody guesses it.
const LEAST: usize = 16;

/// Who reads what the platform counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// What opens `/metrics` and nothing else; only the operator's key does where none is set.
    pub token: ScrapeToken,
}

/// A token that is good for `/metrics` alone. It is never shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrapeToken(pub Option<Secret>);

impl Value for ScrapeToken {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        // As a header carries it.
        if text.len() < LEAST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("must have {LEAST} characters of ASCII at least, without spaces"));
        }
        Ok(Self(Some(Secret::new(text))))
    }

    fn show(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_could_be_guessed_or_sent_by_no_header_is_refused() {
        assert_eq!(ScrapeToken::read(""), Ok(ScrapeToken(None)));
        let long = "0123456789abcdef";
        let token = ScrapeToken::read(long).unwrap();
        assert_eq!(token.0.as_ref().map(Secret::expose), Some(long));
        assert_eq!(token.show(), "");
        for wrong in ["0123456789abcde", "0123456789 abcdef", "0123456789abcdef\n", "0123456789abcdefä"] {
            let refused = "must have 16 characters of ASCII at least, without spaces";
            assert_eq!(ScrapeToken::read(wrong), Err(refused.to_owned()), "{wrong:?}");
        }
    }
}
