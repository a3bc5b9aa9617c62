//! What presets mean, said once more and in another way: rows in a list, and access as code.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::app_rules::{Rule, Rules, Sight};

/// Who may do what: a preset, nobody anything, or rules of one's own.
#[derive(Debug, Clone)]
pub enum Access {
    Private,
    PublicRead,
    AdminWrite,
    AdminOnly,
    Shut,
    Rules(Box<Rules>),
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
    pub access: Access,
    pub rows: Vec<Row>,
}

/// The version that a change asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Unasked,
    Current,
    Another,
}

impl Actor {
    pub const ALL: [Self; 4] = [Self::Visitor, Self::Ann, Self::Ben, Self::Admin];

    pub fn role(self) -> Option<&'static str> {
        match self {
            Self::Visitor => None,
            Self::Ann | Self::Ben => Some("user"),
            Self::Admin => Some("admin"),
        }
    }
}

impl Row {
    /// With these values, and the columns' defaults for the rest.
    pub fn new(owner: Option<Actor>, values: &Map<String, Value>) -> Self {
        let blank =
            [("title", Value::Null), ("n", Value::Null), ("done", false.into()), ("note", Value::Null)];
        let row = Self { id: String::new(), owner, values: blank.into_iter().collect(), etag: String::new() };
        row.with(values)
    }

    /// The same, but for these values.
    pub fn with(&self, values: &Map<String, Value>) -> Self {
        let mut row = self.clone();
        for (column, value) in &mut row.values {
            if let Some(given) = values.get(*column) {
                value.clone_from(given);
            }
        }
        row
    }
}

fn holds(rule: Option<&Rule>, row: &Row, new: &Row, actor: Actor) -> bool {
    rule.and_then(|rule| rule.holds(&Sight { row, new, actor })) == Some(true)
}

impl Access {
    /// As a manifest writes it.
    pub fn spec(&self) -> Option<Value> {
        match self {
            Self::Private => Some("private".into()),
            Self::PublicRead => Some("public_read".into()),
            Self::AdminWrite => Some("admin_write".into()),
            Self::AdminOnly => Some("admin_only".into()),
            Self::Shut => None,
            Self::Rules(rules) => Some(rules.access()),
        }
    }

    pub fn has_owner(&self) -> bool {
        match self {
            Self::Private | Self::PublicRead => true,
            Self::AdminWrite | Self::AdminOnly | Self::Shut => false,
            Self::Rules(rules) => rules.has_owner(),
        }
    }

    /// Whether there is somebody who lists rows.
    pub fn has_list(&self) -> bool {
        match self {
            Self::Shut => false,
            Self::Rules(rules) => rules.list.is_some(),
            _ => true,
        }
    }

    fn lists(&self, row: &Row, to: Actor) -> bool {
        match self {
            Self::Rules(rules) => holds(rules.list.as_ref(), row, row, to),
            preset => preset.shows(row, to),
        }
    }

    pub fn shows(&self, row: &Row, to: Actor) -> bool {
        match self {
            Self::Private => row.owner == Some(to),
            Self::PublicRead | Self::AdminWrite => true,
            Self::AdminOnly => to == Actor::Admin,
            Self::Shut => false,
            Self::Rules(rules) => holds(rules.get.as_ref(), row, row, to),
        }
    }

    pub fn takes(&self, new: &Row, from: Actor) -> bool {
        match self {
            Self::Private | Self::PublicRead => from != Actor::Visitor,
            Self::AdminWrite | Self::AdminOnly => from == Actor::Admin,
            Self::Shut => false,
            Self::Rules(rules) => holds(rules.create.as_ref(), new, new, from),
        }
    }

    pub fn changes(&self, row: &Row, new: &Row, by: Actor) -> bool {
        match self {
            Self::Private | Self::PublicRead => row.owner == Some(by),
            Self::AdminWrite | Self::AdminOnly => by == Actor::Admin,
            Self::Shut => false,
            Self::Rules(rules) => holds(rules.update.as_ref(), row, new, by),
        }
    }

    fn removes(&self, row: &Row, by: Actor) -> bool {
        match self {
            Self::Rules(rules) => holds(rules.delete.as_ref(), row, row, by),
            preset => preset.changes(row, row, by),
        }
    }
}

impl Table {
    /// The row that somebody makes of these values.
    pub fn made(&self, by: Actor, values: &Map<String, Value>) -> Row {
        let owner = (self.access.has_owner() && by != Actor::Visitor).then_some(by);
        Row::new(owner, values)
    }

    /// The rows of a list, in no order.
    pub fn list(&self, actor: Actor, filter: &Rule) -> Vec<&Row> {
        let listed = self.rows.iter().filter(|row| self.access.lists(row, actor));
        listed.filter(|row| holds(Some(filter), row, row, actor)).collect()
    }

    pub fn seen(&self, actor: Actor, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id && self.access.shows(row, actor))
    }

    /// Refused before the table is looked at; none where the owner is left out or who asks.
    fn owner_given(&self, actor: Actor, owner: Option<Actor>) -> Option<u16> {
        match owner {
            None => None,
            Some(_) if !self.access.has_owner() => Some(400),
            Some(owner) if owner == actor && actor != Actor::Visitor => None,
            Some(_) => Some(403),
        }
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

    /// The table.
    pub fn table(&self) -> usize {
        match self {
            Self::Create { table, .. }
            | Self::Get { table, .. }
            | Self::Update { table, .. }
            | Self::Delete { table, .. } => *table,
        }
    }

    /// The status that should come of it.
    pub fn verdict(&self, tables: &[Table], actor: Actor) -> u16 {
        let table = &tables[self.table()];
        let access = &table.access;
        if let Some(refusal) = self.malformed(tables, actor) {
            return refusal;
        }
        let (id, allowed, version, done) = match self {
            Self::Create { values, .. } => {
                return if access.takes(&table.made(actor, values), actor) { 201 } else { 403 };
            }
            Self::Get { id, .. } => (id, true, Version::Unasked, 200),
            Self::Update { id, values, owner, version, .. } => {
                // Who is named as the owner must be it: rows do not change hands.
                let changes = |row: &Row| {
                    access.changes(row, &row.with(values), actor) && (owner.is_none() || row.owner == *owner)
                };
                (id, table.seen(actor, id).is_some_and(changes), *version, 200)
            }
            Self::Delete { id, version, .. } => {
                (id, table.seen(actor, id).is_some_and(|row| access.removes(row, actor)), *version, 204)
            }
        };
        match table.seen(actor, id) {
            None => 404,
            Some(_) if !allowed => 403,
            Some(_) if version == Version::Another => 412,
            Some(_) => done,
        }
    }

    /// How it is refused by what it says alone; none where it is not.
    pub fn malformed(&self, tables: &[Table], actor: Actor) -> Option<u16> {
        match self {
            Self::Create { table, owner, .. } | Self::Update { table, owner, .. } => {
                tables[*table].owner_given(actor, *owner)
            }
            Self::Get { .. } | Self::Delete { .. } => None,
        }
    }
}
