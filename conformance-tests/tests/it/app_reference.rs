//! What presets and filters mean, said once more and in another way: rows in a list, and rules as code.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Who may do what, by the name in a manifest; without one, nobody anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    Private,
    PublicRead,
    AdminWrite,
    AdminOnly,
    Shut,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    Visitor,
    Ann,
    Ben,
    Admin,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub id: String,
    pub owner: Option<Actor>,
    pub values: BTreeMap<&'static str, Value>,
    /// As the app last told it.
    pub etag: String,
}

#[derive(Debug, Clone)]
pub struct Table {
    pub name: &'static str,
    pub preset: Preset,
    pub rows: Vec<Row>,
}

/// The version that a change asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Unasked,
    Current,
    Another,
}

impl Preset {
    pub const ALL: [Self; 5] =
        [Self::Private, Self::PublicRead, Self::AdminWrite, Self::AdminOnly, Self::Shut];

    pub fn access(self) -> Option<&'static str> {
        match self {
            Self::Private => Some("private"),
            Self::PublicRead => Some("public_read"),
            Self::AdminWrite => Some("admin_write"),
            Self::AdminOnly => Some("admin_only"),
            Self::Shut => None,
        }
    }

    pub fn has_owner(self) -> bool {
        matches!(self, Self::Private | Self::PublicRead)
    }

    fn shows(self, row: &Row, to: Actor) -> bool {
        match self {
            Self::Private => row.owner == Some(to),
            Self::PublicRead | Self::AdminWrite => true,
            Self::AdminOnly => to == Actor::Admin,
            Self::Shut => false,
        }
    }

    fn takes_from(self, actor: Actor) -> bool {
        match self {
            Self::Private | Self::PublicRead => actor != Actor::Visitor,
            Self::AdminWrite | Self::AdminOnly => actor == Actor::Admin,
            Self::Shut => false,
        }
    }

    fn gives(self, row: &Row, to: Actor) -> bool {
        if self.has_owner() { row.owner == Some(to) } else { self.takes_from(to) }
    }
}

impl Table {
    /// How a new row fares, whose owner is given or not.
    fn create(&self, actor: Actor, owner: Option<Actor>) -> u16 {
        match self.owner_given(actor, owner) {
            Some(refusal) => refusal,
            None if self.preset.takes_from(actor) => 201,
            None => 403,
        }
    }

    fn get(&self, actor: Actor, id: &str) -> u16 {
        if self.seen(actor, id).is_some() { 200 } else { 404 }
    }

    fn update(&self, actor: Actor, id: &str, owner: Option<Actor>, version: Version) -> u16 {
        self.owner_given(actor, owner).unwrap_or_else(|| self.write(actor, id, version, 200))
    }

    fn delete(&self, actor: Actor, id: &str, version: Version) -> u16 {
        self.write(actor, id, version, 204)
    }

    /// Refused before the table is looked at; none where the owner is left out or who asks.
    fn owner_given(&self, actor: Actor, owner: Option<Actor>) -> Option<u16> {
        match owner {
            None => None,
            Some(_) if !self.preset.has_owner() => Some(400),
            Some(owner) if owner == actor && actor != Actor::Visitor => None,
            Some(_) => Some(403),
        }
    }

    fn write(&self, actor: Actor, id: &str, version: Version, done: u16) -> u16 {
        match self.seen(actor, id) {
            None => 404,
            Some(row) if !self.preset.gives(row, actor) => 403,
            Some(_) if version == Version::Another => 412,
            Some(_) => done,
        }
    }

    fn seen(&self, actor: Actor, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id && self.preset.shows(row, actor))
    }

    /// The rows of a list, in no order.
    pub fn list(&self, actor: Actor, filter: &Filter) -> Vec<&Row> {
        let shown = self.rows.iter().filter(|row| self.preset.shows(row, actor));
        shown.filter(|row| filter.holds(row, actor) == Some(true)).collect()
    }
}

/// One operation on one row, of the table with this number.
#[derive(Debug, Clone)]
pub enum Step {
    Create { table: usize, values: Map<String, Value>, owner: Option<Actor> },
    Get { table: usize, id: String },
    Update { table: usize, id: String, values: Map<String, Value>, owner: Option<Actor>, version: Version },
    Delete { table: usize, id: String, version: Version },
}

impl Step {
    /// The same step, once these rows have another version than its own.
    pub fn after(&self, changed: &[&str]) -> Self {
        let mut step = self.clone();
        if let Self::Update { id, version, .. } | Self::Delete { id, version, .. } = &mut step
            && *version == Version::Current
            && changed.contains(&id.as_str())
        {
            *version = Version::Another;
        }
        step
    }

    /// The status that should come of it.
    pub fn verdict(&self, tables: &[Table], actor: Actor) -> u16 {
        match self {
            Self::Create { table, owner, .. } => tables[*table].create(actor, *owner),
            Self::Get { table, id } => tables[*table].get(actor, id),
            Self::Update { table, id, owner, version, .. } => {
                tables[*table].update(actor, id, *owner, *version)
            }
            Self::Delete { table, id, version } => tables[*table].delete(actor, id, *version),
        }
    }

    /// Whether it is refused by what it says alone.
    pub fn is_malformed(&self, tables: &[Table], actor: Actor) -> bool {
        match self {
            Self::Create { table, owner, .. } | Self::Update { table, owner, .. } => {
                tables[*table].owner_given(actor, *owner).is_some()
            }
            Self::Get { .. } | Self::Delete { .. } => false,
        }
    }
}

/// A filter, and what it means: unknown is neither true nor false.
#[derive(Debug, Clone)]
pub enum Filter {
    Constant(bool),
    Compare(&'static str, &'static str, Value),
    Absent(&'static str, bool),
    StartsWith(&'static str, &'static str),
    Longer(&'static str, usize),
    In(&'static str, Vec<Value>),
    Mine,
    Not(Box<Filter>),
    All(Box<Filter>, Box<Filter>),
    Any(Box<Filter>, Box<Filter>),
}

impl Filter {
    /// As a request writes it.
    pub fn text(&self) -> String {
        match self {
            Self::Constant(value) => value.to_string(),
            Self::Compare(column, operator, value) => format!("{column} {operator} {value}"),
            Self::Absent(column, absent) => format!("{column} {} null", if *absent { "==" } else { "!=" }),
            Self::StartsWith(column, start) => format!("startsWith({column}, {})", json!(start)),
            Self::Longer(column, size) => format!("size({column}) > {size}"),
            Self::In(column, values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                format!("{column} in [{}]", values.join(", "))
            }
            Self::Mine => "owner == auth.uid".to_owned(),
            Self::Not(of) => format!("!({})", of.text()),
            Self::All(one, other) => format!("({}) && ({})", one.text(), other.text()),
            Self::Any(one, other) => format!("({}) || ({})", one.text(), other.text()),
        }
    }

    /// Whether it holds for a row; none where that is unknown.
    pub fn holds(&self, row: &Row, actor: Actor) -> Option<bool> {
        let text = |column: &str| row.values[column].as_str();
        match self {
            Self::Constant(value) => Some(*value),
            Self::Compare(column, operator, value) => {
                let order = order(&row.values[column], value)?;
                Some(match *operator {
                    "==" => order.is_eq(),
                    "!=" => order.is_ne(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            Self::Absent(column, absent) => Some(row.values[column].is_null() == *absent),
            Self::StartsWith(column, start) => Some(text(column)?.starts_with(start)),
            Self::Longer(column, size) => Some(text(column)?.chars().count() > *size),
            Self::In(column, values) => {
                let value = Some(&row.values[column]).filter(|value| !value.is_null())?;
                Some(values.contains(value))
            }
            Self::Mine if row.owner.is_none() || actor == Actor::Visitor => None,
            Self::Mine => Some(row.owner == Some(actor)),
            Self::Not(of) => of.holds(row, actor).map(|holds| !holds),
            Self::All(one, other) => match (one.holds(row, actor), other.holds(row, actor)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Any(one, other) => match (one.holds(row, actor), other.holds(row, actor)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }
}

/// How two values of one type compare; unknown where one is not there.
pub fn order(one: &Value, other: &Value) -> Option<Ordering> {
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
