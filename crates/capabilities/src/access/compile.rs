//! From an expression to a condition in SQL: values are bound, names come from the model, unknown stays unknown.

use std::cell::OnceCell;
use std::fmt::Write as _;

use kernel::Timestamp;
use serde_json::{Map, Value};

use super::expr::{Auth, ColumnRef, Expr, Kind, Op, Source};
use super::json::path;
use super::lookup::INNER;
use super::subject::Subject;
use crate::database::quoted;
use crate::rows::{DefaultValue, TableModel, Type, time_text};

/// A piece of SQL with the values of its bare parameters, in order of appearance.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sql {
    pub text: String,
    pub params: Vec<Value>,
}

impl Sql {
    /// Appends a parameter.
    pub(crate) fn bind(&mut self, value: Value) {
        self.text.push('?');
        self.params.push(value);
    }

    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

/// What an expression is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub table: &'a TableModel,
    pub subject: &'a Subject,
    pub new: New<'a>,
}

/// The row as it is going to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum New<'a> {
    /// There is none.
    None,
    /// A new row of these values, by the model's names of columns; the rest are the columns' defaults.
    Created(&'a Map<String, Value>),
    /// The stored row with these values; the rest stays as it is.
    Changed(&'a Map<String, Value>),
}

/// Appends `expr` as a condition that is 1, 0 or null. Columns are written `"table"."column"`, so that the table
/// must be in scope under its own name, but for [`New::Created`], which needs none.
pub(crate) fn compile(expr: &Expr, view: &View<'_>, sql: &mut Sql) {
    Compiler { view, names: Names::OfTable, now: OnceCell::new() }.condition(expr, sql);
}

/// As [`compile`], with the names of columns alone: for where the table is the only one there is.
pub(super) fn compile_alone(expr: &Expr, view: &View<'_>, sql: &mut Sql) {
    Compiler { view, names: Names::Alone, now: OnceCell::new() }.condition(expr, sql);
}

pub(super) struct Compiler<'a> {
    view: &'a View<'a>,
    names: Names,
    /// One time for all that an expression asks of it.
    now: OnceCell<Value>,
}

/// How the columns of the table are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    OfTable,
    Alone,
}

/// What a value whose kind is not known beforehand must be, to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Bool,
    Number,
    Text,
    Time,
}

impl Class {
    /// The names that JSON's values of this class have for the engine.
    pub(super) const fn json_types(self) -> &'static str {
        match self {
            Class::Bool => "('true', 'false')",
            Class::Number => "('integer', 'real')",
            Class::Text | Class::Time => "('text')",
        }
    }
}

/// Texts are the same where their bytes are, also where SQL has given a column another collation.
const fn collation(class: Option<Class>) -> &'static str {
    match class {
        Some(Class::Text) => " COLLATE BINARY",
        _ => "",
    }
}

/// A time in any form that the engine reads, in the form that columns hold; null for what is no time. The engine would
/// also read numbers, and "now".
pub(super) fn as_time(sql: &mut Sql, text: impl Fn(&mut Sql)) {
    sql.push("CASE WHEN ");
    text(sql);
    sql.push(" GLOB '[0-9][0-9][0-9][0-9]-[0-9]*' THEN strftime('%Y-%m-%dT%H:%M:%fZ', ");
    text(sql);
    sql.push(") END");
}

impl Compiler<'_> {
    /// `expr` where it only counts whether it holds: false and unknown need not be told apart.
    pub(super) fn condition(&self, expr: &Expr, sql: &mut Sql) {
        let (parts, with) = match expr {
            Expr::All(parts) => (parts, " AND "),
            Expr::Any(parts) => (parts, " OR "),
            Expr::Exists(lookup) => return self.found(lookup, sql),
            Expr::Compare(op, left, right) if self.is_indexed(left, right) => {
                return self.indexed(*op, left, right, sql);
            }
            other => return self.emit(other, Some(Class::Bool), sql),
        };
        sql.push("(");
        for (i, part) in parts.iter().enumerate() {
            sql.push(if i > 0 { with } else { "" });
            self.condition(part, sql);
        }
        sql.push(")");
    }

    /// Whether an index finds rows by this part of a JSON column.
    fn is_indexed(&self, part: &Expr, value: &Expr) -> bool {
        let Expr::Column(column) = part else { return false };
        let known = matches!(column.of, Source::Bare | Source::Row)
            && !column.path.is_empty()
            && self
                .view
                .table
                .paths
                .iter()
                .any(|path| *path == format!("{}.{}", column.name, column.path.join(".")));
        known
            && !value.columns().iter().any(|other| other.of == column.of)
            && matches!(self.class(value), Some(Class::Text | Class::Number))
    }

    /// A comparison with an indexed part, as the index has it; and as it is meant, which says nothing else but also asks
    /// of what kind the part is.
    fn indexed(&self, op: Op, part: &Expr, value: &Expr, sql: &mut Sql) {
        let class = self.class(value);
        sql.push("(");
        self.stored(part, sql);
        let _ = write!(sql.text, " {} ", op.sql());
        self.emit(value, class, sql);
        sql.push(" AND ");
        self.emit(
            &Expr::Compare(op, Box::new(part.clone()), Box::new(value.clone())),
            Some(Class::Bool),
            sql,
        );
        sql.push(")");
    }

    pub(super) fn emit(&self, expr: &Expr, want: Option<Class>, sql: &mut Sql) {
        match expr {
            Expr::Bool(value) => sql.push(if *value { "1" } else { "0" }),
            Expr::Int(value) => sql.bind((*value).into()),
            Expr::Real(value) => sql.bind((*value).into()),
            Expr::Text(text) | Expr::Time(text) => sql.bind(text.as_str().into()),
            Expr::Null => sql.push("NULL"),
            Expr::Now => sql.bind(self.now()),
            Expr::Auth(auth) => {
                let value = self.auth(auth);
                match fitting(&value, want.or(class_of(&value))) {
                    Value::Null => sql.push("NULL"),
                    value => sql.bind(value),
                }
            }
            Expr::Column(column) if column.path.is_empty() => self.column(column, sql),
            Expr::Column(column) => self.part(column, want, sql),
            Expr::Not(of) => {
                sql.push("(NOT ");
                self.emit(of, Some(Class::Bool), sql);
                sql.push(")");
            }
            Expr::All(parts) => self.joined(parts, " AND ", sql),
            Expr::Any(parts) => self.joined(parts, " OR ", sql),
            Expr::Compare(op, left, right) => match (&**left, &**right) {
                (of, Expr::Null) | (Expr::Null, of) => {
                    sql.push("(");
                    self.stored(of, sql);
                    sql.push(if *op == Op::Eq { " IS NULL)" } else { " IS NOT NULL)" });
                }
                (Expr::Column(left), Expr::Column(right))
                    if !left.path.is_empty() && !right.path.is_empty() =>
                {
                    self.parts(*op, left, right, sql);
                }
                (left, right) => {
                    sql.push("(");
                    let (class, other) = (self.class(left), self.class(right));
                    self.emit(left, other, sql);
                    sql.push(collation(class.or(other)));
                    let _ = write!(sql.text, " {} ", op.sql());
                    self.emit(right, class, sql);
                    sql.push(")");
                }
            },
            Expr::In(of, list) => {
                let class = self.common_class(of, list);
                sql.push("(");
                self.emit(of, class, sql);
                sql.push(collation(class));
                sql.push(" IN (");
                for (i, item) in list.iter().enumerate() {
                    sql.push(if i > 0 { ", " } else { "" });
                    self.emit(item, class, sql);
                }
                sql.push("))");
            }
            Expr::Within(of, list) => self.within_list(of, list, sql),
            Expr::StartsWith(text, start) => {
                sql.push("(instr(");
                self.emit(text, Some(Class::Text), sql);
                sql.push(", ");
                self.emit(start, Some(Class::Text), sql);
                sql.push(") = 1)");
            }
            Expr::Size(of) => self.size(of, sql),
            Expr::Exists(lookup) => self.exists(lookup, sql),
        }
    }

    fn joined(&self, parts: &[Expr], with: &str, sql: &mut Sql) {
        sql.push("(");
        for (i, part) in parts.iter().enumerate() {
            sql.push(if i > 0 { with } else { "" });
            self.emit(part, Some(Class::Bool), sql);
        }
        sql.push(")");
    }

    /// `of` as it is, whatever it is, for a comparison with null.
    fn stored(&self, of: &Expr, sql: &mut Sql) {
        match of {
            Expr::Auth(auth) => sql.bind(match self.auth(auth) {
                Value::Null => Value::Null,
                _ => Value::Bool(true),
            }),
            Expr::Column(column) if column.path.is_empty() => self.value(column, sql),
            Expr::Column(column) => {
                sql.push("json_extract(");
                self.value(column, sql);
                let _ = write!(sql.text, ", {})", path(column));
            }
            other => self.emit(other, None, sql),
        }
    }

    /// A whole column, comparable with its like.
    fn column(&self, column: &ColumnRef, sql: &mut Sql) {
        // What callers' SQL has written may be a time in another form, of which a rule must not be wrong. A filter
        // leaves the column alone, so that an index helps; it only narrows.
        if column.kind == Type::Timestamp && column.of != Source::Bare {
            as_time(sql, |sql| self.value(column, sql));
        } else {
            self.value(column, sql);
        }
    }

    /// The value of a whole column.
    pub(super) fn value(&self, column: &ColumnRef, sql: &mut Sql) {
        let given = match (column.of, self.view.new) {
            (Source::New, New::Created(new) | New::Changed(new)) => new.get(&column.name),
            _ => None,
        };
        match (column.of, self.view.new) {
            (Source::New, _) if given.is_some() => match given.map(|value| stored_form(column.kind, value)) {
                Some(Value::Null) | None => sql.push("NULL"),
                Some(value) => sql.bind(value),
            },
            (Source::New, New::None) => sql.push("NULL"),
            (Source::New, New::Created(_)) => {
                match self.view.table.column(&column.name).map(|c| &c.default) {
                    Some(Some(DefaultValue::Constant(literal))) => sql.push(literal),
                    Some(Some(DefaultValue::Now)) => sql.bind(self.now()),
                    _ => sql.push("NULL"),
                }
            }
            (Source::New, New::Changed(_)) if column.name == "updated_at" => {
                sql.bind(self.now());
            }
            (Source::Row | Source::Bare, New::Created(_)) => sql.push("NULL"),
            (Source::Inner, _) => {
                let _ = write!(sql.text, "{}.{}", INNER, quoted(&column.name));
            }
            _ if self.names == Names::Alone => sql.push(&quoted(&column.name)),
            _ => {
                let _ = write!(sql.text, "{}.{}", quoted(&self.view.table.name), quoted(&column.name));
            }
        }
    }

    /// `of in list`. Unknown where there is no list or nothing to look for, also where the list is empty.
    fn within_list(&self, of: &Expr, list: &Expr, sql: &mut Sql) {
        sql.push("(CASE WHEN ");
        match list {
            Expr::Column(column) => {
                let Some(class) = self.class(of) else { return sql.push("0 THEN 0 END)") };
                self.emit(of, Some(class), sql);
                sql.push(" IS NOT NULL AND json_type(");
                self.value(column, sql);
                let _ = write!(sql.text, ", {}) = 'array' THEN ", path(column));
                self.emit(of, Some(class), sql);
                sql.push(collation(Some(class)));
                sql.push(" IN (SELECT \"value\" FROM json_each(");
                self.value(column, sql);
                let _ =
                    write!(sql.text, ", {}) WHERE \"type\" IN {}) END)", path(column), class.json_types());
            }
            Expr::Auth(auth) => {
                let Value::Array(items) = self.auth(auth) else { return sql.push("0 THEN 0 END)") };
                let class = self.class(of).or_else(|| items.iter().find_map(class_of));
                self.emit(of, class, sql);
                sql.push(" IS NOT NULL THEN ");
                self.emit(of, class, sql);
                sql.push(collation(class));
                sql.push(" IN (");
                let items = items.iter().map(|item| fitting(item, class)).filter(|item| !item.is_null());
                for (i, item) in items.enumerate() {
                    sql.push(if i > 0 { ", " } else { "" });
                    sql.bind(item);
                }
                sql.push(") END)");
            }
            _ => sql.push("0 THEN 0 END)"),
        }
    }

    fn size(&self, of: &Expr, sql: &mut Sql) {
        match of {
            Expr::Column(column) if column.kind == Type::Json => {
                sql.push("CASE WHEN json_type(");
                self.value(column, sql);
                let _ = write!(sql.text, ", {}) = 'array' THEN json_array_length(", path(column));
                self.value(column, sql);
                let _ = write!(sql.text, ", {}) ELSE ", path(column));
                characters(sql, |sql| self.part(column, Some(Class::Text), sql));
                sql.push(" END");
            }
            Expr::Column(column) if column.kind == Type::Blob => {
                sql.push("length(");
                self.value(column, sql);
                sql.push(")");
            }
            text => characters(sql, |sql| self.emit(text, Some(Class::Text), sql)),
        }
    }

    /// What `of` and the items have to be: what the columns and constants among them are, else what the claims are.
    pub(super) fn common_class(&self, of: &Expr, list: &[Expr]) -> Option<Class> {
        let all = || std::iter::once(of).chain(list);
        let fixed = |expr: &&Expr| expr.kind() != Kind::Claim;
        all().filter(fixed).find_map(|e| self.class(e)).or_else(|| all().find_map(|e| self.class(e)))
    }

    /// The class of a value, where it can be said before the database is asked.
    pub(super) fn class(&self, expr: &Expr) -> Option<Class> {
        match expr.kind() {
            Kind::Bool => Some(Class::Bool),
            Kind::Number => Some(Class::Number),
            Kind::Text => Some(Class::Text),
            Kind::Time => Some(Class::Time),
            Kind::Claim => match expr {
                Expr::Auth(auth) => class_of(&self.auth(auth)),
                _ => None,
            },
            Kind::Json | Kind::Blob | Kind::Null | Kind::Part => None,
        }
    }

    fn now(&self) -> Value {
        self.now.get_or_init(|| time_text(Timestamp::now()).into()).clone()
    }

    pub(super) fn auth(&self, auth: &Auth) -> Value {
        let Subject::User(user) = self.view.subject else { return Value::Null };
        match auth {
            Auth::Uid => user.id.to_string().into(),
            Auth::Role => user.role.as_str().into(),
            Auth::Email => user.email.clone().into(),
            Auth::Claim(path) => {
                let mut keys = path.iter();
                let first = keys.next().and_then(|key| user.claims.get(key));
                keys.fold(first, |value, key| value?.get(key)).cloned().unwrap_or(Value::Null)
            }
        }
    }
}

/// How many characters a text has. The engine's own length ends at a zero character: a text with one is of no size.
fn characters(sql: &mut Sql, text: impl Fn(&mut Sql)) {
    sql.push("CASE WHEN instr(");
    text(sql);
    sql.push(", char(0)) = 0 THEN length(");
    text(sql);
    sql.push(") END");
}

fn class_of(value: &Value) -> Option<Class> {
    match value {
        Value::Bool(_) => Some(Class::Bool),
        Value::Number(_) => Some(Class::Number),
        Value::String(_) => Some(Class::Text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `value` where it is of the class `want`, else null: the engine would compare 5 with '5' by the column's type.
fn fitting(value: &Value, want: Option<Class>) -> Value {
    match (want, value) {
        (Some(Class::Time), Value::String(text)) => Timestamp::parse(text).and_then(time_text).into(),
        (Some(want), value) if class_of(value) == Some(want) => bindable(value),
        _ => Value::Null,
    }
}

/// A number that the engine has no place for is none.
fn bindable(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.as_i64().is_none() => {
            number.as_f64().map_or(Value::Null, Value::from)
        }
        other => other.clone(),
    }
}

/// A given value as the column of that type holds it; null where it does not fit.
fn stored_form(kind: Type, value: &Value) -> Value {
    match (kind, value) {
        (Type::Json, Value::Null) => Value::Null,
        (Type::Json, value) => value.to_string().into(),
        (Type::Blob, Value::Object(_)) => value.clone(),
        (Type::Text, Value::String(_)) | (Type::Bool, Value::Bool(_)) => value.clone(),
        (Type::Int, Value::Number(number)) => number.as_i64().into(),
        (Type::Real, Value::Number(number)) => number.as_f64().into(),
        (Type::Timestamp, Value::String(_)) => fitting(value, Some(Class::Time)),
        _ => Value::Null,
    }
}
