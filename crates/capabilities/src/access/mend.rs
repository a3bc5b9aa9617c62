//! What would be right in place of what is likely wrong: as the very call that makes it so.

use serde_json::{Map, Value, json};

use super::expr::{Expr, Source};
use super::rules::{is_admin, owns};
use super::{Operation, Rules};
use crate::database::quoted;
use crate::rows::{BUCKET, TableModel};

/// What would be right.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mend {
    /// An access, where there is none.
    Private,
    /// Other rules.
    Rules(Box<Rules>),
    /// An index.
    Index {
        /// On this table.
        table: String,
        /// Of this column.
        column: String,
    },
}

impl Mend {
    /// The rules of `table` with another one for an operation.
    pub(super) fn rule(table: &TableModel, operation: Operation, rule: Expr) -> Mend {
        let mut rules = table.access.clone();
        *rules.of_mut(operation) = Some(rule);
        Mend::Rules(Box::new(rules))
    }

    /// The call that makes it so, for a table, or for a bucket as `files/photos`.
    pub(crate) fn call(&self, table: &str) -> String {
        let set = |access: Value| match table.strip_prefix(BUCKET) {
            Some(bucket) => format!("storage_bucket {}", json!({ "name": bucket, "access": access })),
            None => format!("access_set {}", json!({ "table": table, "access": access })),
        };
        match self {
            Mend::Private => set(json!("private")),
            Mend::Rules(rules) => set(rules.written().into()),
            Mend::Index { table, column } => {
                let name = quoted(&format!("{table}.{column}.idx"));
                let sql =
                    format!("CREATE INDEX IF NOT EXISTS {name} ON {} ({})", quoted(table), quoted(column));
                format!("db_execute {}", json!({ "sql": sql }))
            }
        }
    }
}

/// The rules of `table` with this operation left to who owns a row, or to admins where rows have no owner.
pub(super) fn owned(table: &TableModel, operation: Operation) -> Mend {
    let of = if operation == Operation::Create { Source::New } else { Source::Row };
    Mend::rule(table, operation, if table.has_owner() { owns(of) } else { is_admin() })
}

/// The rules of `table` with these operations left to who owns a row, or to admins where rows have no owner.
pub(super) fn owned_all(table: &TableModel, operations: &[Operation]) -> Mend {
    let mut rules = table.access.clone();
    for operation in operations {
        *rules.of_mut(*operation) = Some(if table.has_owner() { owns(Source::Row) } else { is_admin() });
    }
    Mend::Rules(Box::new(rules))
}

impl Rules {
    /// As a manifest writes them.
    fn written(&self) -> Map<String, Value> {
        let rules = Operation::ALL.into_iter().filter_map(|operation| Some((operation, self.of(operation)?)));
        rules.map(|(operation, rule)| (operation.to_string(), rule.to_string().into())).collect()
    }
}

impl Expr {
    /// This, and `other` too.
    pub(super) fn and(&self, other: Expr) -> Expr {
        let mut parts = match self {
            Expr::Bool(true) => Vec::new(),
            Expr::All(parts) => parts.clone(),
            one => vec![one.clone()],
        };
        parts.push(other);
        match <[Expr; 1]>::try_from(parts) {
            Ok([one]) => one,
            Err(parts) => Expr::All(parts),
        }
    }
}
