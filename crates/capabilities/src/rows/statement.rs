//! The statements of the data plane: every one asks the rules, and the database decides.

use kernel::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::given::{Given, parameter};
use super::order::{Order, Place};
use super::search::Search;
use super::{ColumnModel, TableModel, time_text};
use crate::access::{Expr, New, Operation, Sql, Subject, View, compile};
use crate::database::quoted;

/// The statements that one subject's requests on one table come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statements<'a> {
    pub table: &'a TableModel,
    pub subject: &'a Subject,
}

/// Which rows are wanted.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub columns: &'a [&'a ColumnModel],
    /// Others that are needed beside them and not shown, behind those of the order.
    pub beside: &'a [&'a ColumnModel],
    pub filter: Option<&'a Expr>,
    /// The words that rows must have.
    pub search: Option<&'a Search>,
    pub order: &'a Order<'a>,
    pub after: Option<&'a Place>,
    /// At most this many.
    pub most: u32,
}

impl Statements<'_> {
    /// Reads the rows that the subject may list, the columns of the order behind those that are wanted.
    pub fn list(&self, wanted: &Wanted<'_>) -> Sql {
        let mut sql = Sql::default();
        sql.text.push_str("SELECT ");
        let columns = wanted.columns.iter().copied().chain(wanted.order.columns());
        names(columns.chain(wanted.beside.iter().copied()), &mut sql);
        self.visible(wanted.filter, wanted.search, &mut sql);
        if let Some(place) = wanted.after {
            sql.text.push_str(" AND (");
            wanted.order.after(place, &mut sql);
            sql.text.push(')');
        }
        sql.text.push_str(" ORDER BY ");
        wanted.order.by(&mut sql);
        limit(wanted.most, &mut sql);
        sql
    }

    /// Appends where the rows come from that the subject may list and that are asked for.
    pub fn visible(&self, filter: Option<&Expr>, search: Option<&Search>, sql: &mut Sql) {
        sql.text.push_str(" FROM ");
        sql.text.push_str(&quoted(&self.table.name));
        sql.text.push_str(" WHERE ");
        self.rule(Operation::List, New::None, sql);
        if let Some(search) = search {
            sql.text.push_str(" AND ");
            search.condition(self.table, sql);
        }
        if let Some(filter) = filter {
            sql.text.push_str(" AND (");
            compile(filter, &self.view(New::None), sql);
            sql.text.push(')');
        }
    }

    /// Reads the rows with these ids that the subject may get: what is shown, then `beside`.
    pub fn gets(&self, ids: &[&str], beside: &[&ColumnModel]) -> Sql {
        let mut sql = Sql::default();
        sql.text.push_str("SELECT ");
        names(self.table.shown().chain(beside.iter().copied()), &mut sql);
        sql.text.push_str(" FROM ");
        sql.text.push_str(&quoted(&self.table.name));
        sql.text.push_str(" WHERE ");
        one_of("id", ids, &mut sql);
        sql.text.push_str(" AND ");
        self.rule(Operation::Get, New::None, &mut sql);
        sql
    }

    /// Reads the rows that refer to these ids by `column` and that the subject may list, at most `most` for each: what is
    /// shown, then `beside`.
    pub fn referring(&self, column: &ColumnModel, ids: &[&str], beside: &[&ColumnModel], most: usize) -> Sql {
        let mut sql = Sql::default();
        let mut all: Vec<&ColumnModel> = Vec::new();
        for column in self.table.shown().chain(beside.iter().copied()) {
            if !all.iter().any(|known| known.name == column.name) {
                all.push(column);
            }
        }
        sql.text.push_str("SELECT ");
        names(self.table.shown().chain(beside.iter().copied()), &mut sql);
        sql.text.push_str(" FROM (SELECT ");
        names(all.into_iter(), &mut sql);
        // No column of an app begins with an underscore.
        sql.text.push_str(", row_number() OVER (PARTITION BY ");
        sql.text.push_str(&quoted(&column.name));
        sql.text.push_str(" ORDER BY \"id\") AS \"_at\" FROM ");
        sql.text.push_str(&quoted(&self.table.name));
        sql.text.push_str(" WHERE ");
        one_of(&column.name, ids, &mut sql);
        sql.text.push_str(" AND ");
        self.rule(Operation::List, New::None, &mut sql);
        sql.text.push_str(") WHERE \"_at\" <= ");
        sql.bind(most.into());
        sql.text.push_str(" ORDER BY \"id\"");
        sql
    }

    /// Finds the id of the row with these values, where the subject may see it.
    pub fn find(&self, columns: &[&ColumnModel], row: &Given) -> Sql {
        let mut sql = Sql::default();
        sql.text.push_str("SELECT \"id\" FROM ");
        sql.text.push_str(&quoted(&self.table.name));
        for (index, column) in columns.iter().enumerate() {
            sql.text.push_str(if index == 0 { " WHERE " } else { " AND " });
            sql.text.push_str(&quoted(&column.name));
            sql.text.push_str(" = ");
            sql.bind(parameter(column.kind, row.get(&column.name).unwrap_or(&Value::Null)));
        }
        sql.text.push_str(" AND ");
        self.rule(Operation::Get, New::None, &mut sql);
        sql
    }

    /// Reads one row, where the subject may.
    pub fn get(&self, id: &str) -> Sql {
        let mut sql = Sql::default();
        sql.text.push_str("SELECT ");
        names(self.table.shown(), &mut sql);
        sql.text.push_str(" FROM ");
        self.one(id, &mut sql);
        sql
    }

    /// Makes a row of this id, where the subject may, and returns it.
    pub fn create(&self, id: &str, new: &Given) -> Sql {
        let mut sql = Sql::default();
        sql.text.push_str("INSERT INTO ");
        sql.text.push_str(&quoted(&self.table.name));
        sql.text.push_str(" (\"id\"");
        let given = || self.table.columns.iter().filter_map(|column| Some((column, new.get(&column.name)?)));
        for (column, _) in given() {
            sql.text.push_str(", ");
            sql.text.push_str(&quoted(&column.name));
        }
        sql.text.push_str(") SELECT ");
        sql.bind(id.into());
        for (column, value) in given() {
            sql.text.push_str(", ");
            sql.bind(parameter(column.kind, value));
        }
        sql.text.push_str(" WHERE ");
        self.rule(Operation::Create, New::Created(new), &mut sql);
        self.returning(&mut sql);
        sql
    }

    /// Changes a row, where the subject may see it and change it so, and returns it.
    pub fn update(&self, id: &str, changes: &Given) -> Sql {
        let mut sql = Sql::default();
        let table = quoted(&self.table.name);
        sql.text.push_str("UPDATE ");
        sql.text.push_str(&table);
        sql.text.push_str(" SET ");
        for column in &self.table.columns {
            // It stays as it is: that it is the same was checked, or is below.
            let Some(value) = changes.get(&column.name).filter(|_| !self.keeps(column)) else { continue };
            sql.text.push_str(&quoted(&column.name));
            sql.text.push_str(" = ");
            sql.bind(parameter(column.kind, value));
            sql.text.push_str(", ");
        }
        // Later than it was, always: then the row's tag is another too, and the table's trigger has nothing to do
        // after the row was returned.
        let now = time_text(Timestamp::now()).unwrap_or_default();
        sql.text.push_str("\"updated_at\" = max(");
        sql.bind(now.into());
        sql.text.push_str(
            ", ifnull(strftime('%Y-%m-%dT%H:%M:%fZ', \"updated_at\", '+0.001 seconds'), '')) WHERE ",
        );
        self.id(id, &mut sql);
        sql.text.push_str(" AND ");
        self.rule(Operation::Get, New::None, &mut sql);
        sql.text.push_str(" AND ");
        self.rule(Operation::Update, New::Changed(changes), &mut sql);
        let kept = self.table.columns.iter().filter(|column| self.keeps(column));
        for (column, value) in kept.filter_map(|column| Some((column, changes.get(&column.name)?))) {
            sql.text.push_str(" AND ");
            sql.text.push_str(&quoted(&column.name));
            sql.text.push_str(" IS ");
            sql.bind(parameter(column.kind, value));
        }
        self.returning(&mut sql);
        sql
    }

    /// Removes a row, where the subject may see it and remove it, and returns it.
    pub fn delete(&self, id: &str) -> Sql {
        let mut sql = Sql::default();
        sql.text.push_str("DELETE FROM ");
        self.one(id, &mut sql);
        sql.text.push_str(" AND ");
        self.rule(Operation::Delete, New::None, &mut sql);
        self.returning(&mut sql);
        sql
    }

    /// Whether the column keeps its value when the row changes: only the app's own server changes owners and what is
    /// immutable.
    pub fn keeps(&self, column: &ColumnModel) -> bool {
        (column.built_in || column.immutable) && *self.subject != Subject::Service
    }

    /// The one row with this id, where the subject may read it.
    fn one(&self, id: &str, sql: &mut Sql) {
        sql.text.push_str(&quoted(&self.table.name));
        sql.text.push_str(" WHERE ");
        self.id(id, sql);
        sql.text.push_str(" AND ");
        self.rule(Operation::Get, New::None, sql);
    }

    fn id(&self, id: &str, sql: &mut Sql) {
        sql.text.push_str("\"id\" = ");
        sql.bind(Value::from(id));
    }

    fn rule(&self, operation: Operation, new: New<'_>, sql: &mut Sql) {
        sql.text.push('(');
        self.table.access.compile(operation, &self.view(new), sql);
        sql.text.push(')');
    }

    fn view<'a>(&'a self, new: New<'a>) -> View<'a> {
        View { table: self.table, subject: self.subject, new }
    }

    fn returning(&self, sql: &mut Sql) {
        sql.text.push_str(" RETURNING ");
        names(self.table.shown(), sql);
    }
}

/// An id for a new row. Those made here sort as they were made, within a millisecond too.
pub(crate) fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// Appends that there are at most so many. The number is part of the text: the engine plans by it, and would compile the
/// statement again each time that it is bound.
pub(super) fn limit(most: u32, sql: &mut Sql) {
    sql.text.push_str(&format!(" LIMIT {most}"));
}

fn one_of(column: &str, values: &[&str], sql: &mut Sql) {
    sql.text.push_str(&quoted(column));
    sql.text.push_str(" IN (");
    for (index, value) in values.iter().enumerate() {
        sql.text.push_str(if index == 0 { "" } else { ", " });
        sql.bind((*value).into());
    }
    sql.text.push(')');
}

pub(super) fn names<'a>(columns: impl Iterator<Item = &'a ColumnModel>, sql: &mut Sql) {
    for (index, column) in columns.enumerate() {
        sql.text.push_str(if index == 0 { "" } else { ", " });
        sql.text.push_str(&quoted(&column.name));
    }
}
