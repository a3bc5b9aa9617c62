//! Parts of JSON columns as SQL: what is there, and whether it is of the class that is wanted.

use std::fmt::Write as _;

use super::compile::{Class, Compiler, Sql, as_time};
use super::expr::{ColumnRef, Op};

impl Compiler<'_> {
    /// A part of a JSON column, null where it is not of the class that is wanted.
    pub(super) fn part(&self, column: &ColumnRef, want: Option<Class>, sql: &mut Sql) {
        let Some(want) = want else { return sql.push("NULL") };
        if want == Class::Time {
            return as_time(sql, |sql| self.part(column, Some(Class::Text), sql));
        }
        sql.push("CASE WHEN json_type(");
        self.value(column, sql);
        let _ = write!(sql.text, ", {}) IN {} THEN json_extract(", path(column), want.json_types());
        self.value(column, sql);
        let _ = write!(sql.text, ", {}) END", path(column));
    }

    /// Whether a part of a JSON column is a truth value, a number or text.
    pub(super) fn is_scalar(&self, part: &ColumnRef, sql: &mut Sql) {
        sql.push("json_type(");
        self.value(part, sql);
        let _ = write!(sql.text, ", {}) IN ('true', 'false', 'integer', 'real', 'text')", path(part));
    }

    /// Whether two parts of JSON columns are the same. Unknown where one of them is no truth value, number or text.
    pub(super) fn parts(&self, op: Op, left: &ColumnRef, right: &ColumnRef, sql: &mut Sql) {
        let asked = |name: &str, column: &ColumnRef, sql: &mut Sql| {
            sql.push(name);
            self.value(column, sql);
            let _ = write!(sql.text, ", {})", path(column));
        };
        sql.push("(CASE WHEN ");
        self.is_scalar(left, sql);
        sql.push(" AND ");
        self.is_scalar(right, sql);
        sql.push(" THEN ((");
        asked("json_type(", left, sql);
        sql.push(" IN ('true', 'false')) = (");
        asked("json_type(", right, sql);
        sql.push(" IN ('true', 'false')) AND ");
        asked("json_extract(", left, sql);
        sql.push(" = ");
        asked("json_extract(", right, sql);
        sql.push(if op == Op::Eq { ") END)" } else { ") = 0 END)" });
    }
}

/// The way into a column's JSON, as an SQL literal. The parser lets nothing into it that needs care.
pub(super) fn path(column: &ColumnRef) -> String {
    let keys = column.path.iter().map(|key| format!(".\"{key}\""));
    format!("'${}'", keys.collect::<String>())
}
