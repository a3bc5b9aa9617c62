//! What is likely wrong with rules that are right in form.

use super::expr::{ColumnRef, Expr, Op, Source};
use super::matrix::Matrix;
use super::{Operation, Persona};
use crate::rows::{TableModel, Type};

/// Parts of names of columns that strangers should not read.
const PERSONAL: [&str; 10] =
    ["email", "phone", "password", "passwd", "secret", "token", "address", "birth", "iban", "ssn"];

/// What is likely wrong with the rules of `table`, a sentence each, worst first. `indexed` are the columns that begin an
/// index; `matrix` is what the rules came to.
pub(crate) fn lint(table: &TableModel, indexed: &[String], matrix: &Matrix) -> Vec<String> {
    let name = &table.name;
    let rule = |operation| table.access.of(operation);
    if Operation::ALL.into_iter().all(|operation| rule(operation).is_none()) {
        return vec![format!("nobody but the app's makers reaches rows of {name}: it has no access")];
    }
    let rule_is_open = |operation| rule(operation).is_some_and(Expr::is_open);
    let may = |who: Persona, what| matrix.get(who.as_str()).is_some_and(|may| may.contains(&what));
    let mut found = Vec::new();
    for operation in [Operation::Create, Operation::Update, Operation::Delete] {
        let Some(rule) = table.access.of(operation) else { continue };
        if operation != Operation::Create && table.access.get.is_none() {
            found.push(format!(
                "nobody may get rows of {name}, and a row that is hidden cannot be {operation}d"
            ));
        } else if rule.is_open() && (operation == Operation::Create || rule_is_open(Operation::Get)) {
            found.push(match rule {
                Expr::Bool(_) => format!("everybody, signed in or not, may {operation} any row of {name}"),
                rule => format!("everybody, signed in or not, may {operation} rows of {name} where {rule}"),
            });
        } else if operation != Operation::Create
            && may(Persona::Other, operation)
            && !rule.columns().iter().any(|column| column.of == Source::Row)
        {
            found.push(format!(
                "every signed-in user may {operation} every row of {name}, also those of others"
            ));
        }
    }
    for operation in [Operation::List, Operation::Get] {
        if !rule_is_open(operation) {
            continue;
        }
        let personal = |column: &&str| PERSONAL.iter().any(|part| column.to_ascii_lowercase().contains(part));
        let columns: Vec<_> =
            table.columns.iter().map(|column| column.name.as_str()).filter(personal).collect();
        if !columns.is_empty() {
            found.push(format!("everybody may {operation} {} of {name}", columns.join(", ")));
            break;
        }
    }
    if Persona::ALL.into_iter().any(|who| may(who, Operation::List) && !may(who, Operation::Get)) {
        found.push(format!("list shows rows of {name} that get does not: lists have every column too"));
    }
    let mut unindexed: Vec<&str> = Vec::new();
    for column in rule(Operation::List).into_iter().flat_map(compared) {
        if !indexed.iter().any(|name| name.eq_ignore_ascii_case(&column.name))
            && !unindexed.contains(&column.name.as_str())
        {
            unindexed.push(&column.name);
        }
    }
    for column in unindexed {
        found.push(format!(
            "list compares {name}.{column}, which has no index: name it in the table's indexes"
        ));
    }
    found
}

impl Expr {
    /// Whether it holds, of some rows at least, whoever asks.
    pub(crate) fn is_open(&self) -> bool {
        *self != Expr::Bool(false) && !self.asks_who()
    }
}

/// The columns of a list's rule by which an index would find rows.
fn compared(expr: &Expr) -> Vec<&ColumnRef> {
    let column = |expr: &'_ Expr| match expr {
        Expr::Column(column) => {
            column.path.is_empty() && !matches!(column.kind, Type::Bool | Type::Json) && column.name != "id"
        }
        _ => false,
    };
    match expr {
        Expr::Compare(Op::Eq, left, right) if **right != Expr::Null && **left != Expr::Null => {
            [left, right].into_iter().filter(|side| column(side)).flat_map(|side| side.columns()).collect()
        }
        Expr::In(of, _) | Expr::Within(of, _) if column(of) => of.columns(),
        Expr::All(parts) | Expr::Any(parts) => parts.iter().flat_map(compared).collect(),
        _ => Vec::new(),
    }
}
