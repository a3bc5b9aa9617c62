//! Rules and filters: what is read, what is refused, and what the database makes of them.

mod leaks;
mod lookups;
mod oracle;
mod parsing;
mod wild;

use serde_json::{Map, Value, json};

use super::*;
use crate::rows::{ColumnModel, DefaultValue, TableModel, Type};

fn column(name: &str, kind: Type, default: Option<DefaultValue>) -> ColumnModel {
    ColumnModel {
        name: name.to_owned(),
        kind,
        required: false,
        default,
        references: None,
        unique: false,
        built_in: matches!(name, "id" | "owner" | "created_at" | "updated_at"),
        hidden: false,
        immutable: false,
        check: None,
    }
}

/// A table to look into.
fn members() -> TableModel {
    TableModel {
        name: "members".into(),
        columns: vec![
            column("id", Type::Text, Some(DefaultValue::NewId)),
            column("thing", Type::Text, None),
            column("user", Type::Text, None),
            column("level", Type::Int, None),
            column("active", Type::Bool, None),
            column("tags", Type::Json, None),
            column("until", Type::Timestamp, None),
        ],
        access: Rules::default(),
        unique: Vec::new(),
        paths: Vec::new(),
        searched: false,
    }
}

/// What rules may look into.
fn tables() -> Vec<TableModel> {
    vec![things(), members()]
}

/// A table with a column of each type, and some rows that are hard to get right.
fn things() -> TableModel {
    let constant = |sql: &str| Some(DefaultValue::Constant(sql.to_owned()));
    TableModel {
        name: "Things".into(),
        columns: vec![
            column("id", Type::Text, Some(DefaultValue::NewId)),
            column("owner", Type::Text, None),
            column("title", Type::Text, constant("'it''s'")),
            column("count", Type::Int, constant("7")),
            column("price", Type::Real, None),
            column("done", Type::Bool, constant("0")),
            column("data", Type::Json, constant("'{}'")),
            column("raw", Type::Blob, None),
            column("due", Type::Timestamp, Some(DefaultValue::Now)),
            column("created_at", Type::Timestamp, Some(DefaultValue::Now)),
            column("updated_at", Type::Timestamp, Some(DefaultValue::Now)),
        ],
        access: Rules::default(),
        unique: Vec::new(),
        paths: Vec::new(),
        searched: false,
    }
}

fn user(role: &str, claims: Value) -> Subject {
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    Subject::User(User {
        id: kernel::UserId::new(),
        role: role.into(),
        email: Some("a@example.org".into()),
        claims,
    })
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("{value} is no object") };
    map
}
