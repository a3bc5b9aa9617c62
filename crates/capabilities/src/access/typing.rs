//! Which values may stand together: a rule that compares what never compares is refused, not unknown for ever.

use kernel::Timestamp;

use super::expr::{Expr, Kind, Op};
use super::parse::{Parsed, Wrong};
use crate::rows::time_text;

/// Refuses what is neither true nor false.
pub(super) fn predicate(expr: &Expr, at: usize) -> Parsed<()> {
    match expr.kind() {
        Kind::Bool | Kind::Claim | Kind::Part => Ok(()),
        kind => Err(Wrong::new(at, format!("{expr} is {}, which is neither true nor false", kind.words()))
            .hint("compare it with something")),
    }
}

/// Whether two kinds can be equal.
pub(super) fn alike(a: Kind, b: Kind) -> bool {
    a == b || a == Kind::Claim || b == Kind::Claim
}

pub(super) fn compare(op: Op, left: Expr, right: Expr, at: usize) -> Parsed {
    let (left, right) = (as_time(left, &right, at)?, right);
    let (right, left) = (as_time(right, &left, at)?, left);
    let (l, r) = (left.kind(), right.kind());
    if l == Kind::Null || r == Kind::Null {
        if op.orders() {
            return Err(Wrong::new(at, format!("null has no order: {} does not fit", op.as_str())));
        }
        let of = if l == Kind::Null { &right } else { &left };
        if !matches!(of, Expr::Column(_) | Expr::Auth(_)) {
            return Err(Wrong::new(at, format!("{of} is never null: ask a column, or something of auth")));
        }
        return Ok(Expr::Compare(op, Box::new(left), Box::new(right)));
    }
    for (kind, of) in [(l, &left), (r, &right)] {
        if matches!(kind, Kind::Json | Kind::Blob) {
            let wrong = Wrong::new(at, format!("{of} is {}, which compares with null only", kind.words()));
            return Err(if kind == Kind::Json {
                wrong.hint(format!("compare a part of it: {of}.name"))
            } else {
                wrong
            });
        }
    }
    let known = |kind: Kind| !matches!(kind, Kind::Claim | Kind::Part);
    if known(l) && known(r) && l != r {
        let message = format!("{left} is {} and {right} is {}: they do not compare", l.words(), r.words());
        return Err(Wrong::new(at, message));
    }
    if op.orders() && (l == Kind::Bool || r == Kind::Bool || !(known(l) || known(r))) {
        return Err(Wrong::new(at, format!("{left} and {right} have no order: use == or !=")));
    }
    Ok(Expr::Compare(op, Box::new(left), Box::new(right)))
}

/// A text beside a time is a time.
fn as_time(expr: Expr, other: &Expr, at: usize) -> Parsed {
    match expr {
        Expr::Text(text) if other.kind() == Kind::Time => {
            let time = Timestamp::parse(&text).and_then(time_text);
            time.map(Expr::Time).ok_or_else(|| {
                Wrong::new(at, format!("{other} is a timestamp and {text:?} is none"))
                    .hint("write it like \"2030-01-31T12:00:00Z\"")
            })
        }
        expr => Ok(expr),
    }
}

pub(super) fn within(of: Expr, list: Expr, at: usize) -> Parsed {
    if !matches!(list.kind(), Kind::Json | Kind::Part | Kind::Claim) {
        let message = format!("{list} is {}, not a list", list.kind().words());
        return Err(Wrong::new(at, message).hint("a list is [a, b], a json column, or a claim"));
    }
    let fits = match of.kind() {
        Kind::Bool | Kind::Number | Kind::Text | Kind::Claim => true,
        Kind::Time | Kind::Part => list.kind() == Kind::Claim,
        Kind::Json | Kind::Blob | Kind::Null => false,
    };
    if !fits {
        return Err(Wrong::new(
            at,
            format!("{of} is {}: it cannot be looked for in {list}", of.kind().words()),
        ));
    }
    Ok(Expr::Within(Box::new(of), Box::new(list)))
}

pub(super) fn starts_with(text: Expr, start: Expr, at: usize) -> Parsed {
    for part in [&text, &start] {
        if !matches!(part.kind(), Kind::Text | Kind::Claim | Kind::Part) {
            return Err(Wrong::new(
                at,
                format!("startsWith takes texts, and {part} is {}", part.kind().words()),
            ));
        }
    }
    Ok(Expr::StartsWith(Box::new(text), Box::new(start)))
}

pub(super) fn size(of: Expr, at: usize) -> Parsed {
    match of.kind() {
        Kind::Text | Kind::Blob | Kind::Json | Kind::Part => Ok(Expr::Size(Box::new(of))),
        kind => {
            Err(Wrong::new(at, format!("size takes a text, a blob or a list, and {of} is {}", kind.words())))
        }
    }
}
