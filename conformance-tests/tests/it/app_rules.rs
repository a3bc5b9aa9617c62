//! Rules and filters, said once more and in another way: as trees that are walked with a row in the hand.

use std::cmp::Ordering;

use serde_json::{Value, json};

use crate::app_reference::{Actor, Row};

/// Which row a column is of: the one that a filter looks at, the stored one, or the one to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Bare,
    Row,
    New,
}

/// A column of a row.
pub type Column = (Of, &'static str);

/// A condition. What is unknown is neither true nor false.
#[derive(Debug, Clone)]
pub enum Rule {
    Constant(bool),
    Compare(Column, &'static str, Value),
    /// Two columns of one name, of the stored row and of the one to be.
    Kept(&'static str, bool),
    Absent(Column, bool),
    StartsWith(Column, &'static str),
    Longer(Column, usize),
    In(Column, Vec<Value>),
    Mine(Of),
    Role(&'static str),
    SignedIn,
    Not(Box<Rule>),
    All(Box<Rule>, Box<Rule>),
    Any(Box<Rule>, Box<Rule>),
}

/// What a rule is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The stored row; that to be, where there is none yet.
    pub row: &'a Row,
    /// The row to be; the stored one, where there is no other.
    pub new: &'a Row,
    /// Who asks.
    pub actor: Actor,
}

/// A rule for each operation; nobody does what has none.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub list: Option<Rule>,
    pub get: Option<Rule>,
    pub create: Option<Rule>,
    pub update: Option<Rule>,
    pub delete: Option<Rule>,
}

impl Rules {
    fn each(&self) -> [(&'static str, Option<&Rule>); 5] {
        let Self { list, get, create, update, delete } = self;
        let named =
            [("list", list), ("get", get), ("create", create), ("update", update), ("delete", delete)];
        named.map(|(name, rule)| (name, rule.as_ref()))
    }

    /// As a manifest writes them.
    pub fn access(&self) -> Value {
        self.each().into_iter().filter_map(|(name, rule)| Some((name, rule?.text()))).collect()
    }

    /// Whether rows have an owner: a rule mentions one.
    pub fn has_owner(&self) -> bool {
        self.each().into_iter().any(|(_, rule)| rule.is_some_and(|rule| rule.text().contains(".owner")))
    }
}

impl Of {
    fn prefix(self) -> &'static str {
        match self {
            Self::Bare => "",
            Self::Row => "row.",
            Self::New => "new.",
        }
    }
}

impl Sight<'_> {
    fn row(&self, of: Of) -> &Row {
        if of == Of::New { self.new } else { self.row }
    }

    fn value(&self, (of, column): Column) -> &Value {
        &self.row(of).values[column]
    }
}

impl Rule {
    /// As a manifest or a request writes it.
    pub fn text(&self) -> String {
        let name = |(of, column): &Column| format!("{}{column}", of.prefix());
        match self {
            Self::Constant(value) => value.to_string(),
            Self::Compare(column, operator, value) => format!("{} {operator} {value}", name(column)),
            Self::Kept(column, kept) => {
                format!("new.{column} {} row.{column}", if *kept { "==" } else { "!=" })
            }
            Self::Absent(column, absent) => {
                format!("{} {} null", name(column), if *absent { "==" } else { "!=" })
            }
            Self::StartsWith(column, start) => format!("startsWith({}, {})", name(column), json!(start)),
            Self::Longer(column, size) => format!("size({}) > {size}", name(column)),
            Self::In(column, values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                format!("{} in [{}]", name(column), values.join(", "))
            }
            Self::Mine(of) => format!("{}owner == auth.uid", of.prefix()),
            Self::Role(role) => format!("auth.role == {}", json!(role)),
            Self::SignedIn => "auth.uid != null".to_owned(),
            Self::Not(of) => format!("!({})", of.text()),
            Self::All(one, other) => format!("({}) && ({})", one.text(), other.text()),
            Self::Any(one, other) => format!("({}) || ({})", one.text(), other.text()),
        }
    }

    /// Whether it is true; none where that is unknown.
    pub fn holds(&self, sight: &Sight<'_>) -> Option<bool> {
        let actor = sight.actor;
        match self {
            Self::Constant(value) => Some(*value),
            Self::Compare(column, operator, value) => {
                let order = order(sight.value(*column), value)?;
                Some(match *operator {
                    "==" => order.is_eq(),
                    "!=" => order.is_ne(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            Self::Kept(column, kept) => {
                let order = order(sight.value((Of::New, column)), sight.value((Of::Row, column)))?;
                Some(order.is_eq() == *kept)
            }
            Self::Absent(column, absent) => Some(sight.value(*column).is_null() == *absent),
            Self::StartsWith(column, start) => Some(sight.value(*column).as_str()?.starts_with(start)),
            Self::Longer(column, size) => Some(sight.value(*column).as_str()?.chars().count() > *size),
            Self::In(column, values) => {
                let value = Some(sight.value(*column)).filter(|value| !value.is_null())?;
                Some(values.contains(value))
            }
            Self::Mine(_) if actor == Actor::Visitor => None,
            Self::Mine(of) => sight.row(*of).owner.map(|owner| owner == actor),
            Self::Role(role) => actor.role().map(|own| own == *role),
            Self::SignedIn => Some(actor != Actor::Visitor),
            Self::Not(of) => of.holds(sight).map(|holds| !holds),
            Self::All(one, other) => match (one.holds(sight), other.holds(sight)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Any(one, other) => match (one.holds(sight), other.holds(sight)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }
}

/// How two values of one type compare; unknown where one is not there.
fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (Value::Bool(one), Value::Bool(other)) => Some(one.cmp(other)),
        (Value::Number(one), Value::Number(other)) => one.as_i64().partial_cmp(&other.as_i64()),
        _ => None,
    }
}

/// Which of two values comes first in a list: what is not there, then by order.
pub fn place(one: &Value, other: &Value) -> Ordering {
    order(one, other).unwrap_or_else(|| (!one.is_null()).cmp(&!other.is_null()))
}
