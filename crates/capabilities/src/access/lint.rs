//! What is likely wrong with rules that are right in form.

use std::collections::BTreeMap;

use super::expr::{Auth, ColumnRef, Expr, Lookup, Op, Source};
use super::matrix::Matrix;
use super::mend::{Mend, owned, owned_all};
use super::{Operation, Persona};
use crate::rows::{BUCKET, TableModel, Type};

/// Parts of names of columns that strangers should not read.
const PERSONAL: [&str; 10] =
    ["email", "phone", "password", "passwd", "secret", "token", "address", "birth", "iban", "ssn"];

/// Tables in lower case, each with the columns that begin an index.
pub(crate) type Indexed = BTreeMap<String, Vec<String>>;

/// One thing that is likely wrong.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    /// What, in a sentence.
    pub message: String,
    /// What would be right instead, where that can be said.
    pub mend: Option<Mend>,
}

/// What is likely wrong with the rules of `table`, or of a bucket that is called `files/photos`, worst first. `matrix` is what the rules came to, where that was
/// tried.
pub(crate) fn lint(table: &TableModel, indexed: &Indexed, matrix: Option<&Matrix>) -> Vec<Finding> {
    let (name, one) = (&table.name, noun(table));
    if Operation::ALL.into_iter().all(|operation| table.access.of(operation).is_none()) {
        let message = format!("nobody but the app's makers reaches {one}s of {name}: it has no access");
        return vec![Finding { message, mend: Some(Mend::Private) }];
    }
    let mut found = about_rules(table, matrix);
    if matrix.is_none() {
        all_at_once(table, &mut found);
    }
    if !is_bucket(table) {
        lookups(table, indexed, &mut found);
    }
    found
}

fn is_bucket(table: &TableModel) -> bool {
    table.name.starts_with(BUCKET)
}

/// What one of those is called that the rules are about.
fn noun(table: &TableModel) -> &'static str {
    if is_bucket(table) { "file" } else { "row" }
}

/// What is likely wrong with who may do what.
fn about_rules(table: &TableModel, matrix: Option<&Matrix>) -> Vec<Finding> {
    let mut found = Vec::new();
    writes(table, matrix, &mut found);
    identities(table, &mut found);
    reads(table, matrix, &mut found);
    found
}

/// Each call that sets rules sets all that is to be mended about them: rules are set as a whole, and one call after the
/// other would undo the one before.
fn all_at_once(table: &TableModel, findings: &mut [Finding]) {
    let mut mended = table.clone();
    // Each round mends something; that something is mended can make another thing wrong, but not for long.
    for _ in 0..2 * Operation::ALL.len() {
        let next = about_rules(&mended, None).into_iter().find_map(|finding| match finding.mend {
            Some(Mend::Rules(rules)) if *rules != mended.access => Some(*rules),
            _ => None,
        });
        match next {
            Some(rules) => mended.access = rules,
            None => break,
        }
    }
    for finding in findings.iter_mut().filter(|finding| matches!(finding.mend, Some(Mend::Rules(_)))) {
        finding.mend = Some(Mend::Rules(Box::new(mended.access.clone())));
    }
}

fn found(to: &mut Vec<Finding>, message: String, mend: Option<Mend>) {
    to.push(Finding { message, mend });
}

/// What is open to more people than is usually meant.
fn writes(table: &TableModel, matrix: Option<&Matrix>, to: &mut Vec<Finding>) {
    let (name, one) = (&table.name, noun(table));
    let open_get = table.access.get.as_ref().is_some_and(Expr::is_open);
    for operation in [Operation::Create, Operation::Update, Operation::Delete] {
        let Some(rule) = table.access.of(operation) else { continue };
        let anybody_signed_in = match matrix {
            Some(matrix) => may(matrix, Persona::Other, operation),
            None => rule.asks_only_whether_signed_in(),
        };
        if operation != Operation::Create && table.access.get.is_none() {
            let message =
                format!("nobody may get {one}s of {name}, and a {one} that is hidden cannot be {operation}d");
            found(to, message, Some(owned_all(table, &[Operation::Get])));
        } else if rule.is_open() && (operation == Operation::Create || open_get) {
            let message = match rule {
                Expr::Bool(_) => format!("everybody, signed in or not, may {operation} any {one} of {name}"),
                rule => format!("everybody, signed in or not, may {operation} {one}s of {name} where {rule}"),
            };
            found(to, message, Some(owned(table, operation)));
        } else if operation != Operation::Create
            && anybody_signed_in
            && !rule.columns().iter().any(|column| column.of == Source::Row)
        {
            let message =
                format!("every signed-in user may {operation} every {one} of {name}, also those of others");
            found(to, message, Some(owned(table, operation)));
        }
    }
}

/// Columns that say whose a row is, and that whoever writes the row may set.
fn identities(table: &TableModel, to: &mut Vec<Finding>) {
    let (name, one) = (&table.name, noun(table));
    let rules = || Operation::ALL.into_iter().filter_map(|operation| table.access.of(operation));
    let mut columns: Vec<&ColumnRef> = Vec::new();
    for column in rules().flat_map(whose) {
        if !columns.iter().any(|known| known.name == column.name && known.path == column.path) {
            columns.push(column);
        }
    }
    for column in columns {
        let Some(model) = table.column(&column.name).filter(|model| !model.built_in) else { continue };
        let is_it = |c: &ColumnRef| c.of == Source::New && c.name == column.name && c.path == column.path;
        let asks = |rule: &Expr| rule.columns().into_iter().any(is_it);
        let named = full(column);
        if let Some(rule) = table.access.create.as_ref().filter(|rule| !asks(rule)) {
            let message = format!(
                "who creates a {one} of {name} may do so in another's name: create does not ask new.{named}"
            );
            let new = Expr::Column(ColumnRef { of: Source::New, ..column.clone() });
            let mend = rule.and(Expr::Compare(Op::Eq, new.into(), Expr::Auth(Auth::Uid).into()));
            found(to, message, Some(Mend::rule(table, Operation::Create, mend)));
        }
        if let Some(rule) = table.access.update.as_ref().filter(|rule| !asks(rule) && !model.immutable) {
            let message = format!(
                "who updates a {one} of {name} may give it to another: update does not ask new.{named}, and {named} is \
                 not immutable"
            );
            let new = Expr::Column(ColumnRef { of: Source::New, ..column.clone() });
            let mend = rule.and(Expr::Compare(Op::Eq, new.into(), Expr::Column(column.clone()).into()));
            found(to, message, Some(Mend::rule(table, Operation::Update, mend)));
        }
    }
}

/// What is shown to more people than is usually meant.
fn reads(table: &TableModel, matrix: Option<&Matrix>, to: &mut Vec<Finding>) {
    let (name, one) = (&table.name, noun(table));
    let open = |operation| table.access.of(operation).is_some_and(Expr::is_open);
    let shown: Vec<Operation> =
        [Operation::List, Operation::Get].into_iter().filter(|operation| open(*operation)).collect();
    if let Some(operation) = shown.first() {
        let personal = |column: &&str| PERSONAL.iter().any(|part| column.to_ascii_lowercase().contains(part));
        let columns: Vec<_> = table.shown().map(|column| column.name.as_str()).filter(personal).collect();
        if !columns.is_empty() {
            let message = format!("everybody may {operation} {} of {name}", columns.join(", "));
            found(to, message, Some(owned_all(table, &shown)));
        }
    }
    let wider = match matrix {
        Some(matrix) => Persona::ALL
            .into_iter()
            .any(|who| may(matrix, who, Operation::List) && !may(matrix, who, Operation::Get)),
        None => open(Operation::List) && !open(Operation::Get),
    };
    if wider {
        let message = format!("list shows {one}s of {name} that get does not: lists have every column too");
        let mend = match table.access.get.clone() {
            Some(get) => Mend::rule(table, Operation::List, get),
            None => owned_all(table, &[Operation::List]),
        };
        found(to, message, Some(mend));
    }
}

/// Rows that are looked for without an index.
fn lookups(table: &TableModel, indexed: &Indexed, to: &mut Vec<Finding>) {
    let has_index = |table: &str, column: &str| {
        let columns = indexed.get(&table.to_ascii_lowercase());
        column == "id" || columns.is_some_and(|all| all.iter().any(|it| it.eq_ignore_ascii_case(column)))
    };
    let name = &table.name;
    let mut named: Vec<String> = Vec::new();
    let list = table.access.list.iter();
    for column in list.flat_map(|rule| compared(rule, Source::Row)) {
        let full = full(column);
        let is_found =
            if column.path.is_empty() { has_index(name, &full) } else { table.paths.contains(&full) };
        if is_found || named.contains(&full) {
            continue;
        }
        let message =
            format!("list compares {name}.{full}, which has no index: name it in the table's indexes");
        // Rules look a part of a JSON column up only where the manifest has its index.
        let is_whole = column.path.is_empty();
        let mend = is_whole.then(|| Mend::Index { table: name.clone(), column: full.clone() });
        found(to, message, mend);
        named.push(full);
    }
    let mut seen: Vec<&Lookup> = Vec::new();
    for (operation, lookup) in Operation::ALL.into_iter().flat_map(|operation| {
        table.access.of(operation).into_iter().flat_map(Expr::lookups).map(move |lookup| (operation, lookup))
    }) {
        let columns = compared(&lookup.condition, Source::Inner);
        let other = &lookup.table;
        if columns.iter().any(|column| has_index(other, &column.name)) || seen.contains(&lookup) {
            continue;
        }
        seen.push(lookup);
        // What compares nothing no index helps.
        let Some(column) = columns.first() else { continue };
        let mend = Some(Mend::Index { table: other.clone(), column: column.name.clone() });
        let message = format!(
            "{operation} of {name} looks through all of {other}: no column that it compares has an index"
        );
        found(to, message, mend);
    }
}

fn may(matrix: &Matrix, who: Persona, operation: Operation) -> bool {
    matrix.get(who.as_str()).is_some_and(|may| may.contains(&operation))
}

/// The columns that a rule holds against who asks.
fn whose(expr: &Expr) -> Vec<&ColumnRef> {
    match expr {
        Expr::Compare(Op::Eq, left, right) => match (&**left, &**right) {
            (Expr::Column(column), Expr::Auth(Auth::Uid)) | (Expr::Auth(Auth::Uid), Expr::Column(column))
                if column.of == Source::Row =>
            {
                vec![column]
            }
            _ => Vec::new(),
        },
        Expr::All(parts) | Expr::Any(parts) => parts.iter().flat_map(whose).collect(),
        _ => Vec::new(),
    }
}

impl Expr {
    /// Whether it holds, of some rows at least, whoever asks.
    pub(crate) fn is_open(&self) -> bool {
        *self != Expr::Bool(false) && !self.asks_who()
    }

    /// Whether it asks nothing of who asks but that there is somebody.
    pub(crate) fn asks_only_whether_signed_in(&self) -> bool {
        match self {
            Expr::Compare(Op::Ne, left, right) => {
                let pair = [&**left, &**right];
                pair.contains(&&Expr::Null) && pair.contains(&&Expr::Auth(Auth::Uid))
            }
            Expr::All(parts) => parts.iter().all(Expr::asks_only_whether_signed_in),
            Expr::Any(parts) => parts.iter().any(Expr::asks_only_whether_signed_in),
            _ => false,
        }
    }

    /// Its looks into other tables.
    fn lookups(&self) -> Vec<&Lookup> {
        match self {
            Expr::Exists(lookup) => vec![lookup],
            other => other.parts().into_iter().flat_map(Expr::lookups).collect(),
        }
    }
}

/// The columns of those rows by which an index would find them; of stored rows parts of JSON columns too.
fn compared(expr: &Expr, of: Source) -> Vec<&ColumnRef> {
    let column = |expr: &'_ Expr| match expr {
        Expr::Column(column) => {
            let fits = of == Source::Inner || column.name != "id";
            column.of == of
                && column.path.is_empty()
                && !matches!(column.kind, Type::Bool | Type::Json)
                && fits
        }
        _ => false,
    };
    let part = |expr: &Expr, other: &Expr| match expr {
        Expr::Column(column) => {
            column.of == of
                && of == Source::Row
                && !column.path.is_empty()
                && matches!(other, Expr::Auth(_) | Expr::Text(_) | Expr::Int(_) | Expr::Real(_))
        }
        _ => false,
    };
    match expr {
        Expr::Compare(Op::Eq, left, right) if **right != Expr::Null && **left != Expr::Null => {
            let sides = [(left, right), (right, left)].into_iter();
            let sides = sides.filter(|(side, other)| column(side) || part(side, other));
            sides.flat_map(|(side, _)| side.columns()).collect()
        }
        Expr::In(value, _) | Expr::Within(value, _) if column(value) => value.columns(),
        Expr::All(parts) | Expr::Any(parts) => parts.iter().flat_map(|part| compared(part, of)).collect(),
        _ => Vec::new(),
    }
}

/// `name`, or `name.path`.
fn full(column: &ColumnRef) -> String {
    std::iter::once(&column.name).chain(&column.path).map(String::as_str).collect::<Vec<_>>().join(".")
}
