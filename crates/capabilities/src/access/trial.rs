//! Trying an operation as somebody: the statement that would be served, in a transaction, undone at once.

use kernel::{Code, Error, Result, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::compile::{New, Sql, View, compile};
use super::expr::{ColumnRef, Expr, Op, Source};
use super::{Operation, Persona, Subject};
use crate::database::{self, Role, Writer, quoted};
use crate::rows::{
    Order, Statements, TableModel, Type, Wanted, changes, new_id, new_row, parameter, time_text,
};

/// What is tried, and on which row.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    pub table: &'a TableModel,
    pub subject: &'a Subject,
    pub operation: Operation,
    pub on: Target,
    /// The values of the new row, or the changes.
    pub new: Map<String, Value>,
    /// Rows of other tables that are there meanwhile.
    pub given: Vec<(&'a TableModel, Map<String, Value>)>,
}

/// The row on which an operation is tried.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// One that is there.
    Stored(String),
    /// One that is made for the trial, of these values, owned by [`Persona::User`] where they do not say it.
    Made(Map<String, Value>),
}

/// What has come of a trial.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub allowed: bool,
    /// The operation whose rule decided: a row that cannot be read is neither changed nor removed.
    pub rule_of: Operation,
    /// The smallest part of the rule that does not hold, where it is refused by a rule.
    pub failing: Option<Expr>,
    /// Why it was refused before any rule was asked, or what the rule does not say of the row.
    pub refused: Option<String>,
    /// The statement; none where it was refused before.
    pub sql: Sql,
}

impl Trial<'_> {
    /// Tries it inside the open transaction of `db`, which is as it was afterwards.
    ///
    /// # Errors
    /// `invalid_input` below `/row` or `/new`; `not_found` at `/id`; `conflict` at `/row` where the row cannot be
    /// made.
    pub(crate) async fn run(mut self, db: &mut Writer) -> Result<Verdict> {
        db.run(Role::Platform, "SAVEPOINT trial", &[]).await?;
        // A made row may refer to rows that nobody made.
        db.run(Role::Platform, "PRAGMA defer_foreign_keys = ON", &[]).await?;
        let verdict = self.decide(db).await;
        if !db.is_open() {
            let name = &self.table.name;
            let message = format!("a trigger of {name} rolls back all there is, rules cannot be tried on it");
            return Err(Error::new(Code::Conflict, message)
                .hint("let the trigger RAISE(ABORT, …), which undoes its own statement and no more"));
        }
        db.run(Role::Platform, "ROLLBACK TO trial", &[]).await?;
        db.run(Role::Platform, "RELEASE trial", &[]).await?;
        db.run(Role::Platform, "PRAGMA defer_foreign_keys = OFF", &[]).await?;
        verdict
    }

    async fn decide(&mut self, db: &mut Writer) -> Result<Verdict> {
        let id = match &self.on {
            _ if self.operation == Operation::Create => String::new(),
            Target::Stored(id) => {
                let found = self.condition(db, &Expr::Bool(true), id, New::None).await?;
                if found.is_none() {
                    return Err(Error::not_found(format!("such row in {}", self.table.name)).field("/id"));
                }
                id.clone()
            }
            Target::Made(row) => self.make(db, self.table, row.clone()).await.map_err(|e| e.under("/row"))?,
        };
        for (index, (table, row)) in std::mem::take(&mut self.given).into_iter().enumerate() {
            let row = Persona::name_users(row, &id);
            self.make(db, table, row).await.map_err(|e| e.under(&format!("/given/{index}/row")))?;
        }
        self.new = Persona::name_users(std::mem::take(&mut self.new), &id);
        let (table, subject) = (self.table, self.subject);
        let statements = Statements { table, subject };
        Persona::name_owner(&mut self.new);
        let given = match self.operation {
            Operation::Create => {
                let mut row = std::mem::take(&mut self.new);
                fill(table, &mut row);
                new_row(table, subject, row)
            }
            Operation::Update => changes(table, subject, std::mem::take(&mut self.new)),
            Operation::List | Operation::Get | Operation::Delete => Ok(Map::new()),
        };
        let given = match given {
            Ok(given) => given,
            Err(refusal) if refusal.code() == Code::Forbidden => {
                let refused = Some(refusal.message().to_owned());
                let (rule_of, sql) = (self.operation, Sql::default());
                return Ok(Verdict { allowed: false, rule_of, failing: None, refused, sql });
            }
            Err(error) => return Err(error.under("/new")),
        };
        let sql = match self.operation {
            Operation::List => {
                let columns: Vec<_> = table.columns.iter().take(1).collect();
                let order = Order::parse(None, table)?;
                let filter = is(&id);
                let filter = Some(&filter);
                statements.list(&Wanted {
                    columns: &columns,
                    beside: &[],
                    filter,
                    search: None,
                    order: &order,
                    after: None,
                    most: 1,
                })
            }
            Operation::Get => statements.get(&id),
            Operation::Create => statements.create(&new_id(), &given),
            Operation::Update => statements.update(&id, &given),
            Operation::Delete => statements.delete(&id),
        };
        let allowed = match db.run(table.role(), &sql.text, &sql.params).await {
            Ok(outcome) => !outcome.rows.is_empty(),
            // The engine asks rules before it asks whether values fit.
            Err(
                database::Error::Duplicate(_)
                | database::Error::ForeignKey
                | database::Error::Value(_)
                | database::Error::Check(_),
            ) => true,
            Err(error) => return Err(error.into()),
        };
        let mut verdict = Verdict { allowed, rule_of: self.operation, failing: None, refused: None, sql };
        if !allowed {
            self.blame(db, &id, &given, &mut verdict).await?;
        }
        Ok(verdict)
    }

    /// Makes a row of `row` and of whatever else it needs; returns its id.
    async fn make(&self, db: &mut Writer, table: &TableModel, row: Map<String, Value>) -> Result<String> {
        let mut row = Persona::name_users(row, "");
        Persona::name_owner(&mut row);
        let mut row = changes(table, &Subject::Service, row)?;
        fill(table, &mut row);
        if table.has_owner() {
            row.entry("owner").or_insert_with(|| Persona::User.id().into());
        }
        let id = Uuid::now_v7().to_string();
        // Rows that are in the way go, for as long as the trial takes.
        let mut sql =
            Sql { text: format!("INSERT OR REPLACE INTO {} (\"id\"", quoted(&table.name)), params: vec![] };
        let given = || table.columns.iter().filter_map(|column| Some((column, row.get(&column.name)?)));
        for (column, _) in given() {
            sql.text.push_str(", ");
            sql.text.push_str(&quoted(&column.name));
        }
        sql.text.push_str(") VALUES (");
        sql.bind(id.as_str().into());
        for (column, value) in given() {
            sql.text.push_str(", ");
            sql.bind(parameter(column.kind, value));
        }
        sql.text.push(')');
        let cannot = |why: &dyn std::fmt::Display| {
            let message = format!("no row can be made in {} to try rules on: {why}", table.name);
            Error::new(Code::Conflict, message).field("").hint("give values that fit as `row`")
        };
        match db.run(table.role(), &sql.text, &sql.params).await {
            Ok(_) => {}
            Err(
                error @ (database::Error::Duplicate(_)
                | database::Error::ForeignKey
                | database::Error::Value(_)
                | database::Error::Check(_)),
            ) => return Err(cannot(&error)),
            Err(error) => return Err(error.into()),
        }
        // Of a row that is not there every rule would deny everything.
        let sql = format!("SELECT 1 FROM {} WHERE \"id\" = ?", quoted(&table.name));
        match db.run(table.role(), &sql, &[id.as_str().into()]).await?.rows.is_empty() {
            false => Ok(id),
            true => Err(cannot(&"a trigger leaves it out or takes it away")),
        }
    }

    /// Finds the rule that does not hold, and the smallest part of it that does not.
    async fn blame(
        &self,
        db: &mut Writer,
        id: &str,
        given: &Map<String, Value>,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let first = match self.operation {
            Operation::Update | Operation::Delete => Operation::Get,
            operation => operation,
        };
        for operation in [first, self.operation] {
            verdict.rule_of = operation;
            let Some(rule) = self.table.access.of(operation) else { return Ok(()) };
            let new = match operation {
                Operation::Create => New::Created(given),
                Operation::Update => New::Changed(given),
                Operation::List | Operation::Get | Operation::Delete => New::None,
            };
            if self.condition(db, rule, id, new).await?.unwrap_or_default() {
                continue;
            }
            let mut failing = rule;
            'deeper: while let Expr::All(parts) = failing {
                for part in parts {
                    if !self.condition(db, part, id, new).await?.unwrap_or_default() {
                        failing = part;
                        continue 'deeper;
                    }
                }
                break;
            }
            verdict.failing = Some(failing.clone());
            let owner = owner();
            if failing.columns().into_iter().any(|column| *column == owner) {
                let nobody = Expr::Compare(Op::Eq, Box::new(Expr::Column(owner)), Box::new(Expr::Null));
                let orphan = self.condition(db, &nobody, id, New::None).await?.unwrap_or_default();
                verdict.refused = orphan.then(|| "the row has no owner".to_owned());
            }
            return Ok(());
        }
        verdict.refused = Some("rows do not change hands, and immutable columns stay as they are".to_owned());
        Ok(())
    }

    /// Whether `expr` holds of the row with that id; none where there is no such row.
    async fn condition(&self, db: &mut Writer, expr: &Expr, id: &str, new: New<'_>) -> Result<Option<bool>> {
        let view = View { table: self.table, subject: self.subject, new };
        let mut sql = Sql { text: "SELECT (".to_owned(), params: Vec::new() };
        compile(expr, &view, &mut sql);
        sql.text.push(')');
        if !matches!(new, New::Created(_)) {
            sql.text.push_str(&format!(" FROM {} WHERE \"id\" = ", quoted(&self.table.name)));
            sql.bind(id.into());
        }
        let rows = db.run(self.table.role(), &sql.text, &sql.params).await?.rows;
        Ok(rows.first().and_then(|row| row.first()).map(|value| value.as_i64() == Some(1)))
    }
}

fn owner() -> ColumnRef {
    ColumnRef { of: Source::Row, name: "owner".to_owned(), kind: Type::Text, path: Vec::new() }
}

fn is(id: &str) -> Expr {
    let column = ColumnRef { of: Source::Bare, name: "id".to_owned(), kind: Type::Text, path: Vec::new() };
    Expr::Compare(Op::Eq, Box::new(Expr::Column(column)), Box::new(Expr::Text(id.to_owned())))
}

/// Adds a value for each column that needs one and has none.
fn fill(table: &TableModel, row: &mut Map<String, Value>) {
    let needs = |c: &&crate::rows::ColumnModel| c.required && c.default.is_none() && !c.built_in;
    for column in table.columns.iter().filter(needs) {
        let random = Uuid::new_v4();
        let number = random.as_u128() as u32;
        let value = match column.kind {
            Type::Text if column.unique || column.references.is_some() => json!(random.to_string()),
            Type::Text => json!("example"),
            Type::Int | Type::Real => json!(if column.unique { number } else { 1 }),
            Type::Bool => json!(false),
            Type::Json => json!({}),
            Type::Blob => json!({ "base64": "" }),
            Type::Timestamp => time_text(Timestamp::now()).into(),
        };
        row.entry(column.name.as_str()).or_insert(value);
    }
}
