//! `exists(table, condition)` as SQL: a look into another table, whose own rules are not asked.

use std::fmt::Write as _;

use super::compile::{Class, Compiler, Sql};
use super::expr::{Expr, Lookup, Source};
use super::json::path;
use crate::database::quoted;

/// What the table is called that is looked into. No table of a manifest is, so that the rule's own row can be told from
/// a row of the same table.
pub(super) const INNER: &str = "\"_inner\"";

impl Compiler<'_> {
    pub(super) fn found(&self, lookup: &Lookup, sql: &mut Sql) {
        let _ = write!(sql.text, "EXISTS (SELECT 1 FROM {} AS {INNER} WHERE ", quoted(&lookup.table));
        self.condition(&lookup.condition, sql);
        sql.push(")");
    }

    /// `exists(…)` in three values: where no row is found, it is unknown as soon as anything is that the condition asks
    /// of the rule's own row, of its new values, or of who asks.
    pub(super) fn exists(&self, lookup: &Lookup, sql: &mut Sql) {
        let mut asked = Vec::new();
        self.asked(&lookup.condition, Some(Class::Bool), &mut asked);
        sql.push("(CASE WHEN ");
        self.found(lookup, sql);
        sql.push(" THEN 1 ");
        let any = !asked.is_empty();
        for (i, part) in asked.into_iter().enumerate() {
            sql.push(if i > 0 { " OR (" } else { "WHEN (" });
            sql.text.push_str(&part.text);
            sql.params.extend(part.params);
            sql.push(") IS NULL");
        }
        sql.push(if any { " THEN NULL ELSE 0 END)" } else { "ELSE 0 END)" });
    }

    /// The parts of a condition inside `exists` that have a value before any row is looked at.
    fn asked(&self, expr: &Expr, want: Option<Class>, to: &mut Vec<Sql>) {
        if !expr.columns().iter().any(|column| column.of == Source::Inner) {
            if !expr.is_constant() {
                let mut part = Sql::default();
                self.emit(expr, want, &mut part);
                to.push(part);
            }
            return;
        }
        match expr {
            Expr::Not(of) => self.asked(of, Some(Class::Bool), to),
            Expr::All(parts) | Expr::Any(parts) => {
                parts.iter().for_each(|part| self.asked(part, Some(Class::Bool), to));
            }
            Expr::Compare(_, left, right) if **left != Expr::Null && **right != Expr::Null => {
                if let (Expr::Column(left), Expr::Column(right)) = (&**left, &**right)
                    && !left.path.is_empty()
                    && !right.path.is_empty()
                {
                    to.extend([left, right].into_iter().filter(|part| part.of != Source::Inner).map(
                        |part| {
                            let mut sql = Sql::default();
                            sql.push("CASE WHEN ");
                            self.is_scalar(part, &mut sql);
                            sql.push(" THEN 1 END");
                            sql
                        },
                    ));
                    return;
                }
                let (of_left, of_right) = (self.class(left), self.class(right));
                self.asked(left, of_right, to);
                self.asked(right, of_left, to);
            }
            Expr::In(of, list) => {
                let class = self.common_class(of, list);
                std::iter::once(&**of).chain(list).for_each(|part| self.asked(part, class, to));
            }
            Expr::Within(of, list) => {
                let class = self.class(of);
                self.asked(of, class, to);
                let is_list = match &**list {
                    Expr::Column(column) if column.of != Source::Inner => {
                        let mut part = Sql::default();
                        part.push("CASE WHEN json_type(");
                        self.value(column, &mut part);
                        let _ = write!(part.text, ", {}) = 'array' THEN 1 END", path(column));
                        Some(part)
                    }
                    Expr::Auth(auth) if !self.auth(auth).is_array() => {
                        Some(Sql { text: "NULL".to_owned(), params: Vec::new() })
                    }
                    _ => None,
                };
                to.extend(is_list);
            }
            Expr::StartsWith(text, start) => {
                self.asked(text, Some(Class::Text), to);
                self.asked(start, Some(Class::Text), to);
            }
            _ => {}
        }
    }
}
