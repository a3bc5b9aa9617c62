//! What the database makes of an expression, held against a small reading of the same words in three values.

use std::cmp::Ordering;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kernel::{Env, EnvId, TenantId, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::lookups;
use super::wild::predicate;
use super::*;
use crate::access::expr::{Auth, Kind, Op, Source};
use crate::database::{Databases, Durability, Limits, Role};
use crate::rows::time_text;

static NOW: LazyLock<Value> = LazyLock::new(|| time_text(Timestamp::now()).into());

/// What there is to ask about.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub subject: &'a Subject,
    pub row: Option<&'a Map<String, Value>>,
    pub new: Option<&'a Map<String, Value>>,
    /// The row that is looked at inside of `exists`.
    pub inner: Option<&'a Map<String, Value>>,
}

/// A time in any form that the rows below have.
fn time(text: &str) -> Value {
    let spaced = format!("{}Z", text.replace(' ', "T"));
    Timestamp::parse(text).or_else(|| Timestamp::parse(&spaced)).and_then(time_text).into()
}

pub(super) fn class(value: &Value) -> Option<Kind> {
    match value {
        Value::Bool(_) => Some(Kind::Bool),
        Value::Number(_) => Some(Kind::Number),
        Value::String(_) => Some(Kind::Text),
        _ => None,
    }
}

/// `value` where it is of that kind.
fn only(value: Value, kind: Option<Kind>) -> Value {
    match (kind, &value) {
        (Some(Kind::Time), Value::String(text)) => time(text),
        (Some(kind), value) if class(value) == Some(kind) => value.clone(),
        _ => Value::Null,
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Null, _) | (_, Value::Null) => None,
        _ => panic!("{a} beside {b}"),
    }
}

impl Case<'_> {
    fn row_of(&self, of: Source) -> Option<&Map<String, Value>> {
        match of {
            Source::New => self.new,
            Source::Inner => self.inner,
            Source::Bare | Source::Row => self.row,
        }
    }

    pub fn raw(&self, expr: &Expr) -> Value {
        match expr {
            Expr::Bool(value) => json!(value),
            Expr::Int(value) => json!(value),
            Expr::Real(value) => json!(value),
            Expr::Text(text) | Expr::Time(text) => json!(text),
            Expr::Null => Value::Null,
            Expr::Now => NOW.clone(),
            Expr::Column(column) => {
                let row = self.row_of(column.of);
                let value = row.and_then(|row| row.get(&column.name)).cloned().unwrap_or_default();
                let value =
                    column.path.iter().fold(value, |value, key| value.get(key).cloned().unwrap_or_default());
                match (column.kind, &value) {
                    (Type::Timestamp, Value::String(text)) if column.of != Source::Bare => time(text),
                    _ => value,
                }
            }
            Expr::Auth(auth) => {
                let Subject::User(user) = self.subject else { return Value::Null };
                match auth {
                    Auth::Uid => json!(user.id),
                    Auth::Role => json!(user.role),
                    Auth::Email => json!(user.email),
                    Auth::Claim(path) => {
                        json!(user.claims).pointer(&format!("/{}", path.join("/"))).cloned().into()
                    }
                }
            }
            Expr::Size(of) => match (self.raw(of), of.kind()) {
                (Value::String(text), _) if !text.contains('\0') => json!(text.chars().count()),
                (Value::Array(list), _) => json!(list.len()),
                (Value::Object(blob), Kind::Blob) => {
                    json!(STANDARD.decode(blob["base64"].as_str().unwrap()).unwrap().len())
                }
                _ => Value::Null,
            },
            predicate => json!(self.holds(predicate)),
        }
    }

    /// The kind, of a claim the one that its value has.
    pub fn kind(&self, expr: &Expr) -> Option<Kind> {
        match expr.kind() {
            Kind::Claim => class(&self.raw(expr)),
            Kind::Part | Kind::Json | Kind::Blob | Kind::Null => None,
            kind => Some(kind),
        }
    }

    /// The value beside something of that kind.
    pub fn beside(&self, expr: &Expr, kind: Option<Kind>) -> Value {
        match expr.kind() {
            Kind::Claim | Kind::Part => only(self.raw(expr), kind),
            _ => self.raw(expr),
        }
    }

    pub fn holds(&self, expr: &Expr) -> Option<bool> {
        match expr {
            Expr::Not(of) => self.holds(of).map(|holds| !holds),
            Expr::All(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| self.holds(part)).collect();
                if parts.contains(&Some(false)) {
                    Some(false)
                } else {
                    parts.into_iter().collect::<Option<Vec<_>>>().map(|_| true)
                }
            }
            Expr::Any(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| self.holds(part)).collect();
                if parts.contains(&Some(true)) {
                    Some(true)
                } else {
                    parts.into_iter().collect::<Option<Vec<_>>>().map(|_| false)
                }
            }
            Expr::Compare(op, left, right) => {
                if **left == Expr::Null || **right == Expr::Null {
                    let of = if **left == Expr::Null { right } else { left };
                    // A text that is no time is something all the same.
                    let there = match &**of {
                        Expr::Column(column) if column.path.is_empty() => {
                            let row = self.row_of(column.of);
                            row.and_then(|row| row.get(&column.name)).is_some_and(|value| !value.is_null())
                        }
                        of => !self.raw(of).is_null(),
                    };
                    return Some(there == (*op == Op::Ne));
                }
                if left.kind() == Kind::Part && right.kind() == Kind::Part {
                    let (left, right) = (self.raw(left), self.raw(right));
                    let same = class(&left)? == class(&right)? && order(&left, &right)?.is_eq();
                    return Some(same == (*op == Op::Eq));
                }
                let left_value = self.beside(left, self.kind(right).or(self.kind(left)));
                let right_value = self.beside(right, self.kind(left).or(self.kind(right)));
                let order = order(&left_value, &right_value)?;
                Some(match op {
                    Op::Eq => order.is_eq(),
                    Op::Ne => order.is_ne(),
                    Op::Lt => order.is_lt(),
                    Op::Le => order.is_le(),
                    Op::Gt => order.is_gt(),
                    Op::Ge => order.is_ge(),
                })
            }
            Expr::In(of, list) => {
                let all: Vec<&Expr> = std::iter::once(&**of).chain(list).collect();
                let fixed = all.iter().filter(|e| e.kind() != Kind::Claim).find_map(|e| self.kind(e));
                let kind = fixed.or_else(|| all.iter().find_map(|e| self.kind(e)));
                let of = self.beside(of, kind);
                let same: Vec<_> = list
                    .iter()
                    .map(|item| order(&of, &self.beside(item, kind)).map(Ordering::is_eq))
                    .collect();
                if same.contains(&Some(true)) {
                    Some(true)
                } else {
                    same.into_iter().collect::<Option<Vec<_>>>().map(|_| false)
                }
            }
            Expr::Within(of, list) => {
                let claimed = list.kind() == Kind::Claim;
                let Value::Array(list) = self.raw(list) else { return None };
                let kind = self.kind(of).or_else(|| list.iter().find_map(class).filter(|_| claimed));
                let of = self.beside(of, kind);
                if of.is_null() {
                    return None;
                }
                Some(
                    list.into_iter()
                        .map(|item| only(item, kind))
                        .any(|item| order(&of, &item) == Some(Ordering::Equal)),
                )
            }
            Expr::StartsWith(text, start) => {
                let text = self.beside(text, Some(Kind::Text));
                let start = self.beside(start, Some(Kind::Text));
                Some(text.as_str()?.starts_with(start.as_str()?))
            }
            Expr::Exists(lookup) => self.exists(lookup),
            other => self.beside(other, Some(Kind::Bool)).as_bool(),
        }
    }
}

pub(super) fn subjects() -> Vec<Subject> {
    let claims = json!({ "n": 5, "t": "a", "b": true, "list": ["a", "5", 5, null, "it's"], "numbers": [1, 5.0, "a"],
        "when": "2026-01-02T04:04:05+01:00", "mixed": { "x": 1 }, "deep": { "er": "admin" }, "empty": [] });
    vec![
        Subject::Visitor,
        user("user", claims),
        user("admin", json!({ "n": "5", "t": 5, "list": "a", "when": "soon" })),
    ]
}

/// Rows that are hard to get right: nothing, zero characters, numbers as texts, times in other forms.
pub(super) fn rows(subjects: &[Subject]) -> Vec<Map<String, Value>> {
    let owner = |i: usize| subjects[i].uid();
    let row = |id: &str, owner: Option<String>, rest: Value| {
        let mut row = object(
            json!({ "id": id, "owner": owner, "title": null, "count": null, "price": null, "done": null,
            "data": null, "raw": null, "due": null, "created_at": "2026-01-02T03:04:05.000Z", "updated_at": "2026-01-02T03:04:05.000Z" }),
        );
        row.extend(object(rest));
        row
    };
    vec![
        row("1", None, json!({})),
        row(
            "2",
            owner(1),
            json!({ "title": "a", "count": 5, "price": 5.0, "done": true, "due": "2026-01-02T03:04:05.000Z",
            "data": { "n": 5, "t": "a", "b": true, "list": ["a", 5, "5", null, true], "when": "2026-01-02T03:04:05Z", "none": null } }),
        ),
        row(
            "3",
            owner(2),
            json!({ "title": "a\0bcdef", "count": 1, "price": -1.0, "done": false, "due": "2026-01-02 03:04:05",
            "data": { "n": "5", "t": 5, "b": 1, "list": "a", "when": "soon" }, "raw": { "base64": "AAEC" } }),
        ),
        row(
            "4",
            owner(2),
            json!({ "title": "", "count": 0, "price": 0.0, "done": false, "due": "someday", "data": ["a", 1, false], "raw": { "base64": "" } }),
        ),
        row(
            "5",
            owner(1),
            json!({ "title": "ééé", "count": 7, "price": 1.5, "done": true, "due": "2099-01-01T00:00:00.000Z", "data": { "list": [], "t": "", "b": "true" } }),
        ),
        row("6", Some("5".into()), json!({ "title": "5", "data": "a", "count": -1 })),
    ]
}

pub(super) struct Ground {
    _directory: tempfile::TempDir,
    pub databases: Databases,
    pub env: Env,
    pub runtime: tokio::runtime::Runtime,
}

impl Ground {
    pub fn new(rows: &[Map<String, Value>]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let databases = Databases::new(directory.path().to_owned(), Limits::default());
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            databases.create(env.id()).await.unwrap();
            let mut db = databases.writer(&env).await.unwrap();
            db.begin(Durability::Normal).await.unwrap();
            let sql = "CREATE TABLE things (id TEXT NOT NULL PRIMARY KEY, owner TEXT, title TEXT COLLATE NOCASE, count INTEGER, \
                       price REAL, done INTEGER, data TEXT CHECK (json_valid(data)), raw BLOB, due TEXT, \
                       created_at TEXT, updated_at TEXT) STRICT";
            db.run(Role::Platform, sql, &[]).await.unwrap();
            lookups::fill(&mut db).await;
            for row in rows {
                let text = |value: &Value| if value.is_null() { Value::Null } else { json!(value.to_string()) };
                let values: Vec<_> = things().columns.iter()
                    .map(|c| if c.kind == Type::Json { text(&row[&c.name]) } else { row[&c.name].clone() })
                    .collect();
                let sql = "INSERT INTO things VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
                db.run(Role::Platform, sql, &values).await.unwrap();
            }
            db.commit().await.unwrap();
        });
        Self { _directory: directory, databases, env, runtime }
    }

    fn write(&self, sql: &str) {
        self.runtime.block_on(async {
            let mut db = self.databases.writer(&self.env).await.unwrap();
            db.begin(Durability::Normal).await.unwrap();
            db.run(Role::Platform, sql, &[]).await.unwrap();
            db.commit().await.unwrap();
        });
    }

    fn ask(&self, sql: &Sql, from: &str) -> Vec<Option<bool>> {
        let text = format!("SELECT {} {from}", sql.text);
        let answer = self.runtime.block_on(self.databases.platform_query(&self.env, &text, &sql.params));
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {text}"));
        answer.iter().map(|row| row[0].as_i64().map(|value| value != 0)).collect()
    }
}

/// What counts of an answer: where a rule looks into another table, whether it holds; false is as good as unknown.
fn told(expr: &Expr, answer: Option<bool>) -> Option<bool> {
    if lookups::looks(expr) { Some(answer == Some(true)) } else { answer }
}

fn agree(cases: u32, of: &'static [Source], check: impl Fn(&Expr) -> Result<(), TestCaseError>) {
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner.run(&predicate(of), |expr| check(&expr)).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_database_reads_a_filter_as_its_words_say() {
    let (subjects, table) = (subjects(), things());
    let rows = rows(&subjects);
    let ground = Ground::new(&rows);
    agree(1500, &[Source::Bare], |expr| {
        let text = expr.to_string();
        match Expr::parse_where(&text, &table) {
            Ok(read) => prop_assert_eq!(read.to_string(), text.as_str()),
            Err(error) => prop_assert!(error.message().contains("at most"), "{text}: {error}"),
        }
        for subject in &subjects {
            let mut sql = Sql::default();
            compile(expr, &View { table: &table, subject, new: New::None }, &mut sql);
            let expected: Vec<_> = rows
                .iter()
                .map(|row| Case { subject, row: Some(row), new: None, inner: None }.holds(expr))
                .collect();
            prop_assert_eq!(
                ground.ask(&sql, "FROM things ORDER BY id"),
                expected,
                "{} for {:?}: {:?}",
                text,
                subject,
                sql
            );
        }
        Ok(())
    });
}

#[test]
fn the_database_reads_a_rule_as_its_words_say() {
    let (subjects, table) = (subjects(), things());
    let rows = rows(&subjects);
    let ground = Ground::new(&rows);
    let patches = [
        json!({}),
        json!({ "owner": subjects[1].uid(), "title": "a\0b", "data": ["a", 5], "due": "2026-01-02T04:04:05+01:00", "price": 5 }),
        json!({ "owner": null, "title": null, "count": 1, "done": true, "data": { "n": 1, "t": "a", "list": [1] }, "raw": { "base64": "AA==" } }),
    ]
    .map(object);
    agree(600, &[Source::Row, Source::New], |expr| {
        let text = expr.to_string();
        match Expr::parse_rule(&text, &table, &tables(), Operation::Update) {
            Ok(read) => prop_assert_eq!(read.to_string(), text),
            Err(error) => prop_assert!(error.message().contains("at most"), "{text}: {error}"),
        }
        for (subject, patch) in subjects.iter().flat_map(|s| patches.iter().map(move |p| (s, p))) {
            let mut sql = Sql::default();
            compile(expr, &View { table: &table, subject, new: New::Changed(patch) }, &mut sql);
            let expected: Vec<_> = rows
                .iter()
                .map(|row| {
                    let mut new = row.clone();
                    new.extend(patch.clone());
                    told(expr, Case { subject, row: Some(row), new: Some(&new), inner: None }.holds(expr))
                })
                .collect();
            let answer = ground.ask(&sql, "FROM things ORDER BY id");
            prop_assert_eq!(
                answer.into_iter().map(|answer| told(expr, answer)).collect::<Vec<_>>(),
                expected,
                "{} for {:?} {:?}: {:?}",
                expr,
                subject,
                patch,
                sql
            );
        }
        Ok(())
    });
    agree(600, &[Source::New], |expr| {
        for (subject, patch) in subjects.iter().flat_map(|s| patches.iter().map(move |p| (s, p))) {
            let mut sql = Sql::default();
            compile(expr, &View { table: &table, subject, new: New::Created(patch) }, &mut sql);
            let mut new = object(
                json!({ "title": "it's", "count": 7, "done": false, "data": {}, "due": *NOW, "created_at": *NOW }),
            );
            new.extend(patch.clone());
            let expected =
                vec![told(expr, Case { subject, row: None, new: Some(&new), inner: None }.holds(expr))];
            let answer = ground.ask(&sql, "");
            prop_assert_eq!(
                answer.into_iter().map(|answer| told(expr, answer)).collect::<Vec<_>>(),
                expected,
                "{} for {:?} {:?}: {:?}",
                expr,
                subject,
                patch,
                sql
            );
        }
        Ok(())
    });
}

#[test]
fn an_index_finds_the_rows_of_a_rule_and_a_filter() {
    let subjects = subjects();
    let table = TableModel { access: Preset::Private.rules(), ..things() };
    let ground = Ground::new(&rows(&subjects));
    let sql = "CREATE INDEX by_owner ON things (owner, created_at)";
    ground.write(sql);
    let mut sql = Sql { text: "EXPLAIN QUERY PLAN SELECT id FROM things WHERE ".to_owned(), params: vec![] };
    let view = View { table: &table, subject: &subjects[1], new: New::None };
    table.access.compile(Operation::List, &view, &mut sql);
    sql.text.push_str(" AND ");
    compile(&Expr::parse_where("created_at > '2026-01-01T00:00:00Z'", &table).unwrap(), &view, &mut sql);
    let plan = ground
        .runtime
        .block_on(ground.databases.platform_query(&ground.env, &sql.text, &sql.params))
        .unwrap();
    assert_eq!(plan[0][3], json!("SEARCH things USING INDEX by_owner (owner=? AND created_at>?)"));
}
