//! Checks of columns: conditions that the table itself holds every row to, whoever writes it.

use serde_json::Value;

use super::compile::{New, Sql, View, compile_alone};
use super::{Expr, Subject};
use crate::rows::TableModel;

impl Expr {
    /// This check as it stands in `CHECK (…)`, where nothing can be bound. What is unknown passes there: that a value
    /// is missing is for `required` to say.
    pub(crate) fn check_sql(&self, table: &TableModel) -> String {
        let mut sql = Sql::default();
        compile_alone(self, &View { table, subject: &Subject::Visitor, new: New::None }, &mut sql);
        inlined(&sql)
    }
}

/// `sql` with its parameters in their places. Its text has a question mark for each of them and no other: names have
/// none, and the only texts in it are ours.
fn inlined(sql: &Sql) -> String {
    let mut parts = sql.text.split('?');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (part, value) in parts.zip(&sql.params) {
        text.push_str(&literal(value));
        text.push_str(part);
    }
    text
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => "NULL".to_owned(),
        Value::Bool(value) => i32::from(*value).to_string(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.to_string(),
            // The engine reads it back as the same number.
            None => format!("{:?}", number.as_f64().unwrap_or_default()),
        },
        // A zero character would end the statement.
        Value::String(text) => {
            let parts: Vec<_> =
                text.split('\0').map(|part| format!("'{}'", part.replace('\'', "''"))).collect();
            format!("({})", parts.join(" || char(0) || "))
        }
    }
}
