//! A file's metadata: a row of the platform's table of objects, and the model that rules know it by.

use kernel::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::media;
use crate::access::{ColumnRef, Expr, New, Op, Operation, Source, Sql, Subject, View};
use crate::database::quoted;
use crate::rows::{ColumnModel, DefaultValue, Statements, TableModel, Type};

/// The platform's table of objects, one row for each file.
pub(crate) const TABLE: &str = "_steading_object";

/// One file, without its content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Object {
    /// Its bucket.
    pub bucket: String,
    /// Where it is in the bucket.
    pub path: String,
    /// How many bytes it has.
    pub size: u64,
    /// Its media type.
    pub content_type: String,
    /// The strong tag of its content, with the quotes.
    pub etag: String,
    /// The id of the user who made it; none where the app's makers or a visitor did.
    pub owner: Option<String>,
    /// What its maker noted.
    pub metadata: Value,
    /// When it was made.
    pub created_at: String,
    /// When its content or its path last changed.
    pub updated_at: String,
    #[serde(skip)]
    pub(super) id: String,
    /// Where its bytes are.
    #[serde(skip)]
    pub(super) content: String,
}

/// The columns, in the order of [`Object::read`].
const COLUMNS: [(&str, Type, Seen); 11] = [
    ("id", Type::Text, Seen::ByUs),
    ("owner", Type::Text, Seen::ByRules),
    ("bucket", Type::Text, Seen::ByUs),
    ("path", Type::Text, Seen::ByRules),
    ("size", Type::Int, Seen::ByRules),
    ("content_type", Type::Text, Seen::ByRules),
    ("etag", Type::Text, Seen::ByUs),
    ("content", Type::Text, Seen::ByUs),
    ("metadata", Type::Json, Seen::ByRules),
    ("created_at", Type::Timestamp, Seen::ByRules),
    ("updated_at", Type::Timestamp, Seen::ByRules),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    ByRules,
    ByUs,
}

/// The table as statements need it.
pub(crate) fn whole() -> TableModel {
    model(|_| true)
}

/// The table as rules may speak of it.
pub(super) fn told() -> TableModel {
    model(|seen| seen == Seen::ByRules)
}

fn model(wanted: impl Fn(Seen) -> bool) -> TableModel {
    let column = |(name, kind, _): &(&str, Type, Seen)| {
        let time = *kind == Type::Timestamp;
        ColumnModel {
            name: (*name).to_owned(),
            kind: *kind,
            required: !matches!(*name, "owner"),
            default: match *name {
                "id" => Some(DefaultValue::NewId),
                "metadata" => Some(DefaultValue::Constant("'{}'".to_owned())),
                _ => time.then_some(DefaultValue::Now),
            },
            references: None,
            unique: *name == "id",
            built_in: time || matches!(*name, "id" | "owner"),
            hidden: false,
            immutable: false,
            check: None,
        }
    };
    let columns = COLUMNS.iter().filter(|(_, _, seen)| wanted(*seen)).map(column).collect();
    TableModel { name: TABLE.to_owned(), columns, ..TableModel::default() }
}

/// Where a file answers, on the app's host.
#[must_use]
pub fn address(bucket: &str, path: &str) -> String {
    format!("/_/files/{bucket}/{}", utf8_percent_encode(path, PATH))
}

/// The characters of a path that stand for themselves in an address.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

impl Object {
    /// A row of all columns, as statements return it.
    pub(super) fn read(row: &[Value]) -> Self {
        let text = |at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            id: text(0),
            owner: row.get(1).and_then(Value::as_str).map(str::to_owned),
            bucket: text(2),
            path: text(3),
            size: row.get(4).and_then(Value::as_u64).unwrap_or_default(),
            content_type: text(5),
            etag: text(6),
            content: text(7),
            metadata: serde_json::from_str(&text(8)).unwrap_or_default(),
            created_at: text(9),
            updated_at: text(10),
        }
    }

    /// When its content last changed.
    #[must_use]
    pub fn modified(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.updated_at)
    }

    /// Whether a browser that opens it by itself may show it; else it is to be a download.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        media::is_shown(&self.content_type)
    }

    /// Where it answers, on the app's host.
    #[must_use]
    pub fn address(&self) -> String {
        address(&self.bucket, &self.path)
    }

    /// Its name without its folders.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// What is at a path, and what may be done with it.
#[derive(Debug)]
pub(super) struct Standing {
    /// What is there, seen or not.
    pub object: Option<Object>,
    /// Whether it is seen.
    pub visible: bool,
    /// Whether it may be changed to what is given.
    pub may_change: bool,
    /// Whether one as it is given may be made.
    pub may_create: bool,
}

/// Reads the object at a path where the subject may.
pub(super) fn get(statements: &Statements<'_>, bucket: &str, path: &str) -> Sql {
    let mut sql = Sql { text: "SELECT ".to_owned(), params: Vec::new() };
    names(&mut sql);
    from(&mut sql, bucket, path);
    sql.text.push_str(" AND (");
    rule(statements, Operation::Get, New::None, &mut sql);
    sql.text.push(')');
    sql
}

/// Reads the object at a path, seen or not, with the rules' answers to a change to `given` and to the making of `owned`;
/// no row where there is none.
pub(super) fn standing(
    statements: &Statements<'_>,
    bucket: &str,
    path: &str,
    given: &Map<String, Value>,
    owned: &Map<String, Value>,
) -> Sql {
    let mut sql = Sql { text: "SELECT ".to_owned(), params: Vec::new() };
    names(&mut sql);
    let asked = [
        (Operation::Get, New::None),
        (Operation::Update, New::Changed(given)),
        (Operation::Create, New::Created(owned)),
    ];
    for (operation, new) in asked {
        sql.text.push_str(", (");
        rule(statements, operation, new, &mut sql);
        sql.text.push(')');
    }
    from(&mut sql, bucket, path);
    sql
}

/// Asks whether an object like `given` may be made.
pub(super) fn creating(statements: &Statements<'_>, given: &Map<String, Value>) -> Sql {
    let mut sql = Sql { text: "SELECT (".to_owned(), params: Vec::new() };
    rule(statements, Operation::Create, New::Created(given), &mut sql);
    sql.text.push(')');
    sql
}

impl Standing {
    /// Of the answer of [`standing`].
    pub fn there(row: &[Value]) -> Self {
        let holds = |at: usize| row.get(COLUMNS.len() + at).and_then(Value::as_i64) == Some(1);
        let object = Some(Object::read(row));
        Self { object, visible: holds(0), may_change: holds(1), may_create: holds(2) }
    }

    /// Of the answer of [`creating`].
    pub fn absent(row: &[Value]) -> Self {
        let may_create = row.first().and_then(Value::as_i64) == Some(1);
        Self { object: None, visible: false, may_change: false, may_create }
    }
}

/// That an object is in that bucket, its path begins with `prefix` and comes after `after`.
pub(super) fn within(bucket: &str, prefix: &str, after: Option<&str>) -> Expr {
    let compare = |op: Op, name: &str, value: &str| {
        let column =
            ColumnRef { of: Source::Bare, name: name.to_owned(), kind: Type::Text, path: Vec::new() };
        Expr::Compare(op, Box::new(Expr::Column(column)), Box::new(Expr::Text(value.to_owned())))
    };
    let mut parts = vec![compare(Op::Eq, "bucket", bucket)];
    if !prefix.is_empty() {
        parts.push(compare(Op::Ge, "path", prefix));
        if let Some(end) = after_all(prefix) {
            parts.push(compare(Op::Lt, "path", &end));
        }
    }
    if let Some(after) = after {
        parts.push(compare(Op::Gt, "path", after));
    }
    if parts.len() == 1 { parts.remove(0) } else { Expr::All(parts) }
}

/// The first text after all that begin with `prefix`, as the engine compares them; none where there is no such.
fn after_all(prefix: &str) -> Option<String> {
    let mut text: Vec<char> = prefix.chars().collect();
    while let Some(last) = text.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            text.push(next);
            return Some(text.into_iter().collect());
        }
    }
    None
}

fn rule(statements: &Statements<'_>, operation: Operation, new: New<'_>, sql: &mut Sql) {
    let Statements { table, subject } = *statements;
    table.access.compile(operation, &View { table, subject, new }, sql);
}

fn names(sql: &mut Sql) {
    for (index, (name, ..)) in COLUMNS.iter().enumerate() {
        sql.text.push_str(if index == 0 { "" } else { ", " });
        sql.text.push_str(&quoted(name));
    }
}

fn from(sql: &mut Sql, bucket: &str, path: &str) {
    sql.text.push_str(&format!(" FROM {} WHERE \"bucket\" = ", quoted(TABLE)));
    sql.bind(bucket.into());
    sql.text.push_str(" AND \"path\" = ");
    sql.bind(path.into());
}

/// The values of a file as its row has them, but for those that the statement sets by itself.
pub(super) fn given(
    bucket: &str,
    path: &str,
    content_type: &str,
    metadata: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let mut given = Map::new();
    given.insert("bucket".to_owned(), bucket.into());
    given.insert("path".to_owned(), path.into());
    given.insert("content_type".to_owned(), content_type.into());
    if let Some(metadata) = metadata {
        given.insert("metadata".to_owned(), Value::Object(metadata.clone()));
    }
    given
}

/// Adds whose the new file is.
pub(super) fn owned(mut given: Map<String, Value>, subject: &Subject) -> Map<String, Value> {
    given.insert("owner".to_owned(), subject.uid().into());
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_prefix_is_between_it_and_its_end() {
        for (prefix, end) in [
            ("a", Some("b")),
            ("a/", Some("a0")),
            ("az", Some("a{")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
        ] {
            assert_eq!(after_all(prefix).as_deref(), end, "{prefix:?}");
        }
    }
}
