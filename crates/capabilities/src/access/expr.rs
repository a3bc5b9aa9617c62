//! What a rule or a filter says, as a tree whose names and types have been checked.

use std::fmt;

use crate::rows::Type;

/// A rule, or a `where`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Real(f64),
    /// A text.
    Text(String),
    /// A text that stands where a time is wanted, in the form that columns hold.
    Time(String),
    /// `null`; only beside `==` and `!=`.
    Null,
    /// A column, or a part of the JSON it holds.
    Column(ColumnRef),
    /// Something of who asks.
    Auth(Auth),
    /// `now()`.
    Now,
    /// `!a`.
    Not(Box<Expr>),
    /// `a && b && …`, two or more.
    All(Vec<Expr>),
    /// `a || b || …`, two or more.
    Any(Vec<Expr>),
    /// `a == b` and its like.
    Compare(Op, Box<Expr>, Box<Expr>),
    /// `a in [b, …]`.
    In(Box<Expr>, Vec<Expr>),
    /// `a in b`, where `b` is a list in a JSON column or a claim.
    Within(Box<Expr>, Box<Expr>),
    /// `startsWith(a, b)`.
    StartsWith(Box<Expr>, Box<Expr>),
    /// `size(a)`: characters of a text, bytes of a blob, elements of a list.
    Size(Box<Expr>),
    /// `exists(table, condition)`. Which rows are looked at is not asked of that table's rules.
    Exists(Box<Lookup>),
}

/// Whether another table has a row of a kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lookup {
    /// The table, as the model writes it.
    pub table: String,
    /// What the row must meet; its columns are [`Source::Inner`].
    pub condition: Expr,
}

/// A column of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ColumnRef {
    pub of: Source,
    /// As the model writes it.
    pub name: String,
    pub kind: Type,
    /// The way into the JSON of the column; only letters, digits and `_`.
    pub path: Vec<String>,
}

/// Which row a column is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The stored row, in a filter: written without a prefix.
    Bare,
    /// The stored row, in a rule.
    Row,
    /// The row as it is going to be.
    New,
    /// A row of the table that `exists` looks into: written without a prefix.
    Inner,
}

/// Something of who asks; null where it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    /// The user's id.
    Uid,
    /// The user's role.
    Role,
    /// The user's address.
    Email,
    /// One of the user's claims, and the way into it.
    Claim(Vec<String>),
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Op {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Op::Eq => "==",
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
        }
    }

    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Op::Eq => "=",
            Op::Ne => "<>",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
        }
    }

    /// Whether it asks for more than sameness.
    pub(crate) const fn orders(self) -> bool {
        !matches!(self, Op::Eq | Op::Ne)
    }
}

/// What kind of value an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Number,
    Text,
    Time,
    Json,
    Blob,
    Null,
    /// A claim, whose value is known when somebody asks.
    Claim,
    /// A part of a JSON column.
    Part,
}

impl Kind {
    /// With its article, for messages.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Kind::Bool => "a bool",
            Kind::Number => "a number",
            Kind::Text => "a text",
            Kind::Time => "a timestamp",
            Kind::Json => "a json",
            Kind::Blob => "a blob",
            Kind::Null => "null",
            Kind::Claim => "a claim",
            Kind::Part => "a part of a json",
        }
    }
}

impl Expr {
    /// The kind of value that it gives.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Expr::Int(_) | Expr::Real(_) | Expr::Size(_) => Kind::Number,
            Expr::Text(_) | Expr::Auth(Auth::Uid | Auth::Role | Auth::Email) => Kind::Text,
            Expr::Time(_) | Expr::Now => Kind::Time,
            Expr::Null => Kind::Null,
            Expr::Auth(Auth::Claim(_)) => Kind::Claim,
            Expr::Column(column) if !column.path.is_empty() => Kind::Part,
            Expr::Column(column) => match column.kind {
                Type::Bool => Kind::Bool,
                Type::Int | Type::Real => Kind::Number,
                Type::Text => Kind::Text,
                Type::Timestamp => Kind::Time,
                Type::Json => Kind::Json,
                Type::Blob => Kind::Blob,
            },
            Expr::Bool(_)
            | Expr::Not(_)
            | Expr::All(_)
            | Expr::Any(_)
            | Expr::Compare(..)
            | Expr::In(..)
            | Expr::Within(..)
            | Expr::StartsWith(..)
            | Expr::Exists(_) => Kind::Bool,
        }
    }

    /// The expressions that it is made of.
    pub(crate) fn parts(&self) -> Vec<&Expr> {
        match self {
            Expr::Bool(_)
            | Expr::Int(_)
            | Expr::Real(_)
            | Expr::Text(_)
            | Expr::Time(_)
            | Expr::Null
            | Expr::Column(_)
            | Expr::Auth(_)
            | Expr::Now => Vec::new(),
            Expr::Not(of) | Expr::Size(of) => vec![of],
            Expr::All(parts) | Expr::Any(parts) => parts.iter().collect(),
            Expr::Compare(_, left, right) | Expr::Within(left, right) | Expr::StartsWith(left, right) => {
                vec![left, right]
            }
            Expr::In(of, list) => std::iter::once(&**of).chain(list).collect(),
            Expr::Exists(lookup) => vec![&lookup.condition],
        }
    }

    /// Every column that it names.
    pub(crate) fn columns(&self) -> Vec<&ColumnRef> {
        match self {
            Expr::Column(column) => vec![column],
            other => other.parts().into_iter().flat_map(Expr::columns).collect(),
        }
    }

    /// Whether its value stands in its text.
    pub(crate) const fn is_constant(&self) -> bool {
        matches!(
            self,
            Expr::Bool(_)
                | Expr::Int(_)
                | Expr::Real(_)
                | Expr::Text(_)
                | Expr::Time(_)
                | Expr::Null
                | Expr::Now
        )
    }

    /// Whether it asks who asks.
    pub(crate) fn asks_who(&self) -> bool {
        matches!(self, Expr::Auth(_)) || self.parts().into_iter().any(Expr::asks_who)
    }

    /// Whether it asks for the address of who asks.
    pub(crate) fn asks_address(&self) -> bool {
        *self == Expr::Auth(Auth::Email) || self.parts().into_iter().any(Expr::asks_address)
    }

    /// What binds tighter has a higher number.
    const fn level(&self) -> u8 {
        match self {
            Expr::Any(_) => 1,
            Expr::All(_) => 2,
            Expr::Compare(..) | Expr::In(..) | Expr::Within(..) => 3,
            Expr::Not(_) => 4,
            _ => 5,
        }
    }

    /// Between parentheses where it binds less than `level`.
    fn within(&self, level: u8) -> impl fmt::Display {
        std::fmt::from_fn(
            move |f| if self.level() < level { write!(f, "({self})") } else { write!(f, "{self}") },
        )
    }
}

impl fmt::Display for Expr {
    /// As a manifest writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Expr], with: &str, level: u8| {
            for (i, part) in parts.iter().enumerate() {
                write!(f, "{}{}", if i > 0 { with } else { "" }, part.within(level))?;
            }
            Ok(())
        };
        match self {
            Expr::Bool(value) => write!(f, "{value}"),
            Expr::Int(value) => write!(f, "{value}"),
            Expr::Real(value) => write!(f, "{value:?}"),
            Expr::Text(text) | Expr::Time(text) => {
                f.write_str(&serde_json::Value::from(text.as_str()).to_string())
            }
            Expr::Null => f.write_str("null"),
            Expr::Column(column) => write!(f, "{column}"),
            Expr::Auth(auth) => write!(f, "{auth}"),
            Expr::Now => f.write_str("now()"),
            Expr::Not(of) => write!(f, "!{}", of.within(4)),
            Expr::All(parts) => joined(f, parts, " && ", 3),
            Expr::Any(parts) => joined(f, parts, " || ", 2),
            Expr::Compare(op, left, right) => {
                write!(f, "{} {} {}", left.within(4), op.as_str(), right.within(4))
            }
            Expr::In(of, list) => {
                write!(f, "{} in [", of.within(4))?;
                joined(f, list, ", ", 0)?;
                f.write_str("]")
            }
            Expr::Within(of, list) => write!(f, "{} in {}", of.within(4), list.within(4)),
            Expr::StartsWith(text, start) => write!(f, "startsWith({text}, {start})"),
            Expr::Size(of) => write!(f, "size({of})"),
            Expr::Exists(lookup) => write!(f, "exists({}, {})", lookup.table, lookup.condition),
        }
    }
}

impl fmt::Display for ColumnRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.of {
            Source::Bare | Source::Inner => "",
            Source::Row => "row.",
            Source::New => "new.",
        })?;
        f.write_str(&self.name)?;
        self.path.iter().try_for_each(|key| write!(f, ".{key}"))
    }
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auth::Uid => f.write_str("auth.uid"),
            Auth::Role => f.write_str("auth.role"),
            Auth::Email => f.write_str("auth.email"),
            Auth::Claim(path) => write!(f, "auth.claims.{}", path.join(".")),
        }
    }
}
