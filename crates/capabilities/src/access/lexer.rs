//! The words of rules and filters.

use super::parse::Wrong;

/// One word.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name, also `true`, `null`, `in`.
    Name(String),
    /// A whole number, without a sign.
    Int(i64),
    /// A number with a fraction or an exponent, without a sign.
    Real(f64),
    /// A text between quotes.
    Text(String),
    /// An operator or a bracket.
    Sign(&'static str),
    /// Nothing follows.
    End,
}

impl Token {
    /// How a message names it.
    pub(super) fn words(&self) -> String {
        match self {
            Token::Name(name) => format!("`{}`", short(name)),
            Token::Int(number) => format!("`{number}`"),
            Token::Real(number) => format!("`{number:?}`"),
            Token::Text(text) => format!("the text {:?}", short(text)),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end".to_owned(),
        }
    }
}

/// Enough of a text to know it again.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Longer signs before those they begin with.
const SIGNS: [&str; 16] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "-"];

/// Signs of other languages, and what is written here.
const FOREIGN: [(&str, &str); 6] = [
    ("=", "=="),
    ("&", "&&"),
    ("|", "||"),
    ("`", "double quotes around a text"),
    ("?", "the condition alone: it is true or false by itself"),
    ("@", "auth.uid for who asks, row.… for the row"),
];

/// Splits `text` into words, each with the byte where it begins; the last one is the end.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Wrong> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, length) = if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            (Token::Name(rest[..length].to_owned()), length)
        } else if first.is_ascii_digit() {
            number(rest, at)?
        } else if first == '"' || first == '\'' {
            quoted(rest, first, at)?
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            let foreign = FOREIGN.into_iter().find(|(theirs, _)| rest.starts_with(theirs));
            let wrong = Wrong::new(at, format!("{first:?} has no meaning here"));
            return Err(match foreign {
                Some((_, ours)) => wrong.hint(format!("write {ours}")),
                None => wrong,
            });
        };
        tokens.push((at, token));
        at += length;
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn number(rest: &str, at: usize) -> Result<(Token, usize), Wrong> {
    let digits = |from: usize| rest.as_bytes()[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let byte = |at: usize| rest.as_bytes().get(at).copied().unwrap_or(0);
    let mut length = digits(0);
    let mut whole = true;
    if byte(length) == b'.' && byte(length + 1).is_ascii_digit() {
        length += 1 + digits(length + 1);
        whole = false;
    }
    if matches!(byte(length), b'e' | b'E') {
        let sign = usize::from(matches!(byte(length + 1), b'+' | b'-'));
        if byte(length + 1 + sign).is_ascii_digit() {
            length += 1 + sign + digits(length + 1 + sign);
            whole = false;
        }
    }
    if byte(length).is_ascii_alphabetic() || byte(length) == b'_' {
        return Err(Wrong::new(at, "a number ends in a letter here"));
    }
    let text = &rest[..length];
    let large = || Wrong::new(at, "this number is too large");
    let token = if whole {
        Token::Int(text.parse().map_err(|_| large())?)
    } else {
        Token::Real(text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(large)?)
    };
    Ok((token, length))
}

fn quoted(rest: &str, quote: char, at: usize) -> Result<(Token, usize), Wrong> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        if c == quote {
            return Ok((Token::Text(text), i + 1));
        }
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match chars.next().map(|(_, c)| c) {
            Some(c @ ('"' | '\'' | '\\' | '/')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('u') => {
                let code = (0..4).try_fold(0, |code, _| Some(code * 16 + chars.next()?.1.to_digit(16)?));
                code.and_then(char::from_u32)
                    .ok_or_else(|| Wrong::new(at + i, "\\u takes four hexadecimal digits of one character"))?
            }
            _ => {
                return Err(Wrong::new(at + i, "there is no such escape: \\\\ \\\" \\' \\n \\r \\t \\uXXXX"));
            }
        });
    }
    Err(Wrong::new(at, "this text has no end: a quote is missing"))
}
