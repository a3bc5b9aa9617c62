//! Email addresses and phone numbers, as accounts are known by them.

use std::fmt;

use kernel::{Error, Result};
use unicode_normalization::UnicodeNormalization as _;

/// RFC 5321 §4.5.3.1, in bytes.
const LONGEST: usize = 254;
const LONGEST_LOCAL: usize = 64;
const LONGEST_LABEL: usize = 63;

/// How many digits a phone number has (E.164 §6.2.1); shorter ones are of services, and cost.
const PHONE: usize = 15;
const SHORTEST_PHONE: usize = 7;

/// What may stand before the @ beside letters and digits (RFC 5322 §3.2.3); quoted forms are left out.
const SIGNS: &str = ".!#$%&'*+/=?^_`{|}~-";

/// An address in the one form in which it is stored and compared: trimmed, composed (NFC), in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Address(String);

impl Address {
    /// Reads an address that somebody has typed.
    ///
    /// # Errors
    /// `invalid_input` at `field` where it is none that mail could reach. What was typed is not repeated.
    pub fn parse(field: &str, typed: &str) -> Result<Self> {
        // Lower case may be longer than what it comes from, but not by more than this.
        if typed.len() > 4 * LONGEST {
            return Err(refusal(field));
        }
        let folded: String = typed.trim().nfc().collect::<String>().to_lowercase().nfc().collect();
        let plausible = folded.len() <= LONGEST
            && folded.rsplit_once('@').is_some_and(|(local, domain)| is_local(local) && is_domain(domain));
        if plausible { Ok(Self(folded)) } else { Err(refusal(field)) }
    }

    /// Reads a phone number that somebody has typed (E.164): somewhere else where one person can be reached, and never
    /// the same text as an email address.
    ///
    /// # Errors
    /// `invalid_input` at `field` where it is none.
    pub fn phone(field: &str, typed: &str) -> Result<Self> {
        let signs = typed.chars().filter(|c| !c.is_whitespace() && !"-().".contains(*c)).take(PHONE + 2);
        let number: String = signs.collect();
        let digits = number.strip_prefix('+').unwrap_or_default();
        let plausible = (SHORTEST_PHONE..=PHONE).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_digit())
            && !digits.starts_with('0');
        if plausible && typed.len() <= LONGEST {
            return Ok(Self(number));
        }
        Err(Error::invalid(field, "this is not a phone number")
            .hint("write it with its country: +49 151 23456789"))
    }

    /// Reads what [`Address::as_str`] gave.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub fn stored(text: &str) -> Result<Self> {
        if text.starts_with('+') && !text.contains('@') {
            Self::phone("", text)
        } else {
            Self::parse("", text)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

fn refusal(field: &str) -> Error {
    Error::invalid(field, "this is not an email address").hint("write it as name@example.org")
}

fn is_local(text: &str) -> bool {
    let dots = !text.starts_with('.') && !text.ends_with('.') && !text.contains("..");
    (1..=LONGEST_LOCAL).contains(&text.len())
        && dots
        && text.chars().all(|c| c.is_alphanumeric() || SIGNS.contains(c))
}

fn is_domain(text: &str) -> bool {
    text.split('.').all(|label| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(typed: &str) -> Option<String> {
        Address::parse("/email", typed).ok().map(|address| address.0)
    }

    #[test]
    fn a_number_has_its_country_and_one_form() {
        let read = |typed: &str| Address::phone("/phone", typed).ok().map(|number| number.0);
        assert_eq!(read(" +49 (151) 234-567.89 ").as_deref(), Some("+4915123456789"));
        assert_eq!(read("+4915123456789"), read("+49 151 23456789"));
        for bad in [
            "",
            "+",
            "4915123456789",
            "015123456789",
            "+0151234567",
            "+123456",
            "+1234567890123456",
            "++4915123456",
            "+49151x3456789",
            "+49\u{661}51234567",
            "+4915123456@x.org",
            &format!("+49151{}", " ".repeat(300)),
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        // No number is an address, and the other way round.
        assert!(Address::parse("", "+4915123456789").is_err());
        assert_eq!(Address::stored("+49151@example.org").unwrap().0, "+49151@example.org");
        assert_eq!(Address::stored("+4915123456789").unwrap().0, "+4915123456789");
    }

    #[test]
    fn one_address_has_one_form() {
        assert_eq!(read(" Ada.Lovelace+x@Example.ORG\n").as_deref(), Some("ada.lovelace+x@example.org"));
        // Composed and decomposed, upper and lower case.
        assert_eq!(read("JOSE\u{301}@ex\u{e4}mple.org"), read("jos\u{e9}@exa\u{308}mple.org"));
        assert_eq!(read("ΣΊΣΥΦΟΣ@example.org"), read("σίσυφος@example.org"));
        assert_eq!(read("名前@例え.jp").as_deref(), Some("名前@例え.jp"));
        assert_eq!(read("a@localhost").as_deref(), Some("a@localhost"));
    }

    #[test]
    fn what_mail_could_not_reach_is_refused() {
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long = format!("a@{}", vec!["b".repeat(60); 5].join("."));
        for bad in [
            "",
            "@",
            "a",
            "a@",
            "@b",
            "a b@c.d",
            "a@b@c.d",
            "a@b..c",
            "a@.b",
            "a@-b.c",
            "a@b-.c",
            ".a@b.c",
            "a..b@c.d",
            "a@b.c\0",
            "a\u{200b}@b.c",
            "a@b\u{202e}.c",
            "\"a b\"@c.d",
            "<a@b.c>",
            "a@[127.0.0.1]",
            "a,b@c.d",
            &long_local,
            &long,
            &"a".repeat(1 << 20),
        ] {
            assert_eq!(read(bad), None, "{bad:.80}");
        }
    }
}
