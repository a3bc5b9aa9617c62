//! `exists`: what is looked for, what the database finds, and what a small reading of the same words does.

use proptest::prelude::*;

use super::oracle::{Case, class};
use super::wild::{any_of, claims, column, flat, operand, size};
use super::*;
use crate::access::expr::{Auth, Kind, Lookup, Op, Source};
use crate::database::{Role, Writer};

const INNER: &[Source] = &[Source::Inner];

/// Rows that are hard to get right.
fn rows() -> Vec<Map<String, Value>> {
    let row = |id: &str, thing: Option<&str>, user: Option<&str>, rest: Value| {
        let mut row = object(json!({ "id": id, "thing": thing, "user": user, "level": null, "active": null,
            "tags": null, "until": null }));
        row.extend(object(rest));
        row
    };
    vec![
        row("a", Some("1"), Some("a"), json!({ "level": 5, "active": true, "tags": ["a", 5, null] })),
        row("b", Some("2"), None, json!({ "level": 0, "until": "2026-01-02T03:04:05.000Z", "tags": "a" })),
        row("c", None, Some("5"), json!({ "level": 7, "active": false, "until": "2026-01-02 03:04:05" })),
        row(
            "d",
            Some("2"),
            Some("admin"),
            json!({ "level": -1, "active": true, "until": "someday", "tags": [] }),
        ),
        row("e", None, None, json!({ "tags": { "n": 5, "t": "a", "b": true, "none": null } })),
        row("f", None, None, json!({ "tags": { "n": "5", "t": "A", "b": false, "none": [1] } })),
    ]
}

/// Makes the table and its rows.
pub(super) async fn fill(db: &mut Writer) {
    let sql = "CREATE TABLE members (id TEXT NOT NULL PRIMARY KEY, thing TEXT, user TEXT COLLATE NOCASE, level INTEGER, \
               active INTEGER, tags TEXT CHECK (json_valid(tags)), until TEXT) STRICT";
    db.run(Role::Platform, sql, &[]).await.unwrap();
    for row in rows() {
        let values: Vec<Value> = members()
            .columns
            .iter()
            .map(|column| match &row[&column.name] {
                Value::Null => Value::Null,
                value if column.kind == Type::Json => json!(value.to_string()),
                value => value.clone(),
            })
            .collect();
        db.run(Role::Platform, "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?)", &values).await.unwrap();
    }
}

/// Whether an expression looks into another table.
pub(super) fn looks(expr: &Expr) -> bool {
    matches!(expr, Expr::Exists(_)) || expr.parts().into_iter().any(looks)
}

impl Case<'_> {
    /// Found; else unknown where anything is that was asked before any row was looked at.
    pub fn exists(&self, lookup: &Lookup) -> Option<bool> {
        let rows = rows();
        if rows.iter().any(|row| Case { inner: Some(row), ..*self }.holds(&lookup.condition) == Some(true)) {
            return Some(true);
        }
        if self.asks_in_vain(&lookup.condition, Some(Kind::Bool)) { None } else { Some(false) }
    }

    fn asks_in_vain(&self, expr: &Expr, kind: Option<Kind>) -> bool {
        if !expr.columns().iter().any(|column| column.of == Source::Inner) {
            let known = match expr.kind() {
                Kind::Bool => self.holds(expr).is_some(),
                _ => !self.beside(expr, kind).is_null(),
            };
            return !known && *expr != Expr::Null;
        }
        match expr {
            Expr::Not(of) => self.asks_in_vain(of, Some(Kind::Bool)),
            Expr::All(parts) | Expr::Any(parts) => {
                parts.iter().any(|part| self.asks_in_vain(part, Some(Kind::Bool)))
            }
            Expr::Compare(_, left, right) if left.kind() == Kind::Part && right.kind() == Kind::Part => {
                let outer = |part: &&Expr| part.columns().iter().all(|column| column.of != Source::Inner);
                [&**left, right].into_iter().filter(outer).any(|part| class(&self.raw(part)).is_none())
            }
            Expr::Compare(_, left, right) if **left != Expr::Null && **right != Expr::Null => {
                let (of_left, of_right) = (self.kind(left), self.kind(right));
                self.asks_in_vain(left, of_right.or(of_left))
                    || self.asks_in_vain(right, of_left.or(of_right))
            }
            Expr::In(of, list) => {
                let all: Vec<&Expr> = std::iter::once(&**of).chain(list).collect();
                let fixed = all.iter().filter(|e| e.kind() != Kind::Claim).find_map(|e| self.kind(e));
                let kind = fixed.or_else(|| all.iter().find_map(|e| self.kind(e)));
                all.into_iter().any(|part| self.asks_in_vain(part, kind))
            }
            Expr::Within(of, list) => {
                let outer = !list.columns().iter().any(|column| column.of == Source::Inner);
                self.asks_in_vain(of, self.kind(of)) || (outer && !self.raw(list).is_array())
            }
            Expr::StartsWith(text, start) => {
                self.asks_in_vain(text, Some(Kind::Text)) || self.asks_in_vain(start, Some(Kind::Text))
            }
            _ => false,
        }
    }
}

/// A lookup as wild as the grammar lets it be.
pub(super) fn lookup(of: &'static [Source]) -> BoxedStrategy<Expr> {
    let inner = |kind: Kind| match kind {
        Kind::Number => {
            prop_oneof![column(INNER, &["level"]), size(column(INNER, &["tags", "user"]))].boxed()
        }
        Kind::Time => column(INNER, &["until"]),
        Kind::Bool => column(INNER, &["active"]),
        _ => column(INNER, &["thing", "user"]),
    };
    let kinds = any_of(&[Kind::Text, Kind::Number, Kind::Time, Kind::Bool]);
    let ops = any_of(&[Op::Eq, Op::Eq, Op::Ne, Op::Lt, Op::Ge]);
    let compare = (kinds, ops, any::<bool>()).prop_flat_map(move |(kind, op, turned)| {
        let op = if kind == Kind::Bool && op.orders() { Op::Eq } else { op };
        // A new row's id is not known.
        let id = match of.contains(&Source::Row) {
            true => column(&[Source::Row], &["id", "owner"]),
            false => column(of, &["owner"]),
        };
        let other = match kind {
            Kind::Text => prop_oneof![2 => id, 2 => operand(kind, of), 1 => claims()].boxed(),
            kind => prop_oneof![3 => operand(kind, of), 1 => claims(), 1 => inner(kind)].boxed(),
        };
        (inner(kind), other).prop_map(move |(inner, other)| {
            let (left, right) = if turned { (other, inner) } else { (inner, other) };
            Expr::Compare(op, Box::new(left), Box::new(right))
        })
    });
    let names = &["tags.n", "tags.t", "tags.b", "tags.none"];
    let part = column(of, &["data.n", "data.t", "data.b", "data.list", "data.when", "data.none"]);
    let part = prop_oneof![3 => part, 1 => column(INNER, names)];
    let parts =
        (any::<bool>(), column(INNER, names), part, any::<bool>()).prop_map(|(is, inner, other, turned)| {
            let (left, right) = if turned { (other, inner) } else { (inner, other) };
            Expr::Compare(if is { Op::Eq } else { Op::Ne }, Box::new(left), Box::new(right))
        });
    let null = (any::<bool>(), column(INNER, &["user", "tags", "until"])).prop_map(|(is, of)| {
        Expr::Compare(if is { Op::Eq } else { Op::Ne }, Box::new(of), Box::new(Expr::Null))
    });
    let within = prop_oneof![
        (prop_oneof![operand(Kind::Text, of), operand(Kind::Number, of)], column(INNER, &["tags"])),
        (column(INNER, &["user", "level"]), prop_oneof![claims(), column(of, &["data", "data.list"])]),
    ]
    .prop_map(|(of, list)| Expr::Within(Box::new(of), Box::new(list)));
    let listed = (column(INNER, &["user"]), prop::collection::vec(operand(Kind::Text, of), 1..3))
        .prop_map(|(of, list)| Expr::In(Box::new(of), list));
    let starts = (column(INNER, &["user"]), operand(Kind::Text, of))
        .prop_map(|(text, start)| Expr::StartsWith(Box::new(text), Box::new(start)));
    let who = any_of(&[Auth::Uid, Auth::Email])
        .prop_map(|auth| Expr::Compare(Op::Ne, Box::new(Expr::Auth(auth)), Box::new(Expr::Null)));
    let leaf = prop_oneof![6 => compare, 2 => parts, 1 => null, 1 => within, 1 => listed, 1 => starts, 1 => who,
        1 => inner(Kind::Bool), 1 => claims()];
    let tree = leaf.prop_recursive(2, 6, 3, |inner| {
        let many = || prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            many().prop_map(|parts| flat(parts, true)),
            many().prop_map(|parts| flat(parts, false)),
            inner.prop_map(|of| Expr::Not(Box::new(of))),
        ]
    });
    tree.prop_map(|condition| Expr::Exists(Box::new(Lookup { table: "members".to_owned(), condition })))
        .boxed()
}
