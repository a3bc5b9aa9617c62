//! The rules of a table: one for each operation, and what the presets say.

use super::compile::{Sql, View, compile};
use super::expr::{Auth, ColumnRef, Expr, Op, Source};
use super::{Operation, Preset, Subject};
use crate::rows::Type;

/// Who may do what with a table's rows; nobody does what has no rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    pub(crate) list: Option<Expr>,
    pub(crate) get: Option<Expr>,
    pub(crate) create: Option<Expr>,
    pub(crate) update: Option<Expr>,
    pub(crate) delete: Option<Expr>,
}

impl Rules {
    /// The rule of an operation.
    pub(crate) fn of(&self, operation: Operation) -> Option<&Expr> {
        match operation {
            Operation::List => self.list.as_ref(),
            Operation::Get => self.get.as_ref(),
            Operation::Create => self.create.as_ref(),
            Operation::Update => self.update.as_ref(),
            Operation::Delete => self.delete.as_ref(),
        }
    }

    /// The place of an operation's rule.
    pub(crate) fn of_mut(&mut self, operation: Operation) -> &mut Option<Expr> {
        match operation {
            Operation::List => &mut self.list,
            Operation::Get => &mut self.get,
            Operation::Create => &mut self.create,
            Operation::Update => &mut self.update,
            Operation::Delete => &mut self.delete,
        }
    }

    /// Appends the condition under which `view.subject` may do `operation`: always for the app's own server, never
    /// without a rule.
    pub(crate) fn compile(&self, operation: Operation, view: &View<'_>, sql: &mut Sql) {
        match (view.subject, self.of(operation)) {
            (Subject::Service, _) => sql.text.push('1'),
            (_, Some(rule)) => compile(rule, view, sql),
            (_, None) => sql.text.push('0'),
        }
    }
}

impl Preset {
    /// What it says, spelled out.
    pub(crate) fn rules(self) -> Rules {
        let (reads, writes) = match self {
            Preset::Private => (owns(Source::Row), owns(Source::Row)),
            Preset::PublicRead => (Expr::Bool(true), owns(Source::Row)),
            Preset::AdminWrite => (Expr::Bool(true), is_admin()),
            Preset::AdminOnly => (is_admin(), is_admin()),
        };
        let (creates, updates) = if self.has_owner() {
            (owns(Source::New), Expr::All(vec![owns(Source::Row), owns(Source::New)]))
        } else {
            (is_admin(), is_admin())
        };
        Rules {
            list: Some(reads.clone()),
            get: Some(reads),
            create: Some(creates),
            update: Some(updates),
            delete: Some(writes),
        }
    }
}

pub(super) fn owns(of: Source) -> Expr {
    let owner = ColumnRef { of, name: "owner".to_owned(), kind: Type::Text, path: Vec::new() };
    Expr::Compare(Op::Eq, Box::new(Expr::Column(owner)), Box::new(Expr::Auth(Auth::Uid)))
}

pub(super) fn is_admin() -> Expr {
    Expr::Compare(Op::Eq, Box::new(Expr::Auth(Auth::Role)), Box::new(Expr::Text("admin".to_owned())))
}
