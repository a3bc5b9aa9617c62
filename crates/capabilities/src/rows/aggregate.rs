//! Numbers over rows: counted, added up and compared by the database, over no other rows than a list would have.

use bytes::Bytes;
use kernel::{Code, Error, Result};

use super::encode;
use super::error::told;
use super::given::unknown;
use super::list::{LIMIT, LIMIT_MOST, LIST_BYTES, ListQuery, few_enough, narrowed};
use super::service::Rows;
use super::statement::{self, Statements};
use super::{ColumnModel, TableModel, Type};
use crate::access::{Guest, Sql};
use crate::database::{self, quoted};

/// How many numbers may be asked for, and by how many columns they may be counted apart.
const NUMBERS: usize = 10;
const GROUPS: usize = 4;

/// One number.
struct Number<'a> {
    name: &'a str,
    function: Function,
    column: Option<&'a ColumnModel>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

impl Function {
    const ALL: [(&'static str, Function); 5] = [
        ("count", Function::Count),
        ("sum", Function::Sum),
        ("avg", Function::Avg),
        ("min", Function::Min),
        ("max", Function::Max),
    ];

    fn takes(self, kind: Type) -> bool {
        match self {
            Function::Count => true,
            Function::Sum | Function::Avg => matches!(kind, Type::Int | Type::Real),
            Function::Min | Function::Max => {
                matches!(kind, Type::Int | Type::Real | Type::Text | Type::Timestamp)
            }
        }
    }
}

impl<'a> Number<'a> {
    /// Reads `count()`, `sum(price)`.
    fn parse(name: &'a str, text: &str, table: &'a TableModel) -> Result<Self> {
        let short: String = name.chars().take(64).collect();
        let at = format!("/aggregate/{}", short.replace('~', "~0").replace('/', "~1"));
        let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.len() <= 63
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !plain {
            return Err(Error::invalid(at, "a name is a letter, then letters, digits and _, at most 63"));
        }
        let wrong = |message: String| {
            Error::invalid(at.clone(), message)
                .hint("write count(), count(column), sum(column), avg(column), min(column) or max(column)")
        };
        let word: String = text.chars().take(64).collect();
        let parts = text.trim().strip_suffix(')').and_then(|rest| rest.split_once('('));
        let (function, column) = parts.ok_or_else(|| wrong(format!("{word:?} is no number over rows")))?;
        let known = Function::ALL.into_iter().find(|(known, _)| *known == function.trim());
        let (_, function) = known.ok_or_else(|| wrong(format!("{word:?} is no number over rows")))?;
        let column = match column.trim() {
            "" if function == Function::Count => return Ok(Self { name, function, column: None }),
            "" => return Err(wrong(format!("{word:?} names no column"))),
            name => table.shown_column(name).ok_or_else(|| unknown(table, &at, name))?,
        };
        if !function.takes(column.kind) {
            return Err(wrong(format!(
                "{word:?} does not fit: {} is a {}",
                column.name,
                column.kind.as_str()
            )));
        }
        Ok(Self { name, function, column: Some(column) })
    }

    fn sql(&self) -> String {
        let column = self.column.map_or_else(|| "*".to_owned(), |column| quoted(&column.name));
        let name = match self.function {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Avg => "avg",
            Function::Min => "min",
            Function::Max => "max",
        };
        format!("{name}({column})")
    }

    /// The type of the value.
    fn kind(&self) -> Type {
        match (self.function, self.column) {
            (Function::Min | Function::Max | Function::Sum, Some(column)) => column.kind,
            (Function::Avg, _) => Type::Real,
            _ => Type::Int,
        }
    }
}

impl Rows {
    /// `{"groups": [{column…, name…}], "more"?}`.
    pub(super) async fn aggregate(
        &self,
        guest: &Guest,
        table: &TableModel,
        query: &ListQuery,
    ) -> Result<Bytes> {
        let beside = [
            ("select", query.select.is_some()),
            ("cursor", query.cursor.is_some()),
            ("expand", query.expand.is_some()),
        ];
        if let Some((name, _)) = beside.into_iter().find(|(_, given)| *given) {
            return Err(Error::invalid(format!("/{name}"), format!("aggregate takes no {name}")));
        }
        let limit = query.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MOST).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit is 1 to {LIMIT_MOST}")));
        }
        let asked = query.aggregate.iter().flatten();
        let numbers: Vec<Number<'_>> =
            asked.map(|(name, text)| Number::parse(name, text, table)).collect::<Result<_>>()?;
        if numbers.is_empty() || numbers.len() > NUMBERS {
            return Err(Error::invalid("/aggregate", format!("ask for 1 to {NUMBERS} numbers"))
                .hint("such as {\"total\": \"sum(price)\", \"rows\": \"count()\"}"));
        }
        let groups = groups(table, query, &numbers)?;
        let (filter, search) = narrowed(table, query)?;
        let mut sql = Sql { text: "SELECT ".to_owned(), params: Vec::new() };
        let columns: Vec<String> = groups.iter().map(|column| quoted(&column.name)).collect();
        let all: Vec<String> = columns.iter().cloned().chain(numbers.iter().map(Number::sql)).collect();
        sql.text.push_str(&all.join(", "));
        Statements { table, subject: guest.subject() }.visible(filter.as_ref(), search.as_ref(), &mut sql);
        if !columns.is_empty() {
            sql.text.push_str(&format!(" GROUP BY {}", columns.join(", ")));
            let order = order(query.order.as_deref(), &groups, &numbers)?;
            sql.text.push_str(&format!(" ORDER BY {}", order.join(", ")));
        } else if query.order.is_some() {
            return Err(Error::invalid("/order", "there is one answer: nothing to order"));
        }
        statement::limit(limit + 1, &mut sql);
        few_enough(sql.params.len())?;
        let read =
            self.databases.list_rows(guest.env(), &guest.clients(), sql.text, sql.params, LIST_BYTES).await;
        let read = read.map_err(|error| match error {
            database::Error::Statement { message, .. } if message.contains("overflow") => {
                Error::new(Code::InvalidInput, "a sum is beyond 64 bits").field("/aggregate")
            }
            error => told(error, table),
        })?;
        let mut json = b"{\"groups\":[".to_vec();
        for (index, row) in read.iter().take(limit as usize).enumerate() {
            json.extend_from_slice(if index > 0 { b"," } else { b"" });
            encode::open_object(&groups, &row, &mut json).map_err(|error| told(error, table))?;
            for (at, number) in numbers.iter().enumerate() {
                json.push(if groups.len() + at == 0 { b'{' } else { b',' });
                json.extend_from_slice(format!("\"{}\":", number.name).as_bytes());
                let cell = row.cell(groups.len() + at);
                encode::value(number.kind(), cell, &mut json).map_err(|error| told(error, table))?;
            }
            json.push(b'}');
        }
        let more = read.is_cut() || read.iter().len() > limit as usize;
        json.extend_from_slice(if more { b"],\"more\":true}" } else { b"]}" });
        Ok(json.into())
    }
}

fn groups<'t>(
    table: &'t TableModel,
    query: &ListQuery,
    numbers: &[Number<'_>],
) -> Result<Vec<&'t ColumnModel>> {
    let mut groups: Vec<&ColumnModel> = Vec::new();
    for (index, name) in query.group.iter().flatten().enumerate() {
        let at = format!("/group/{index}");
        let column = table.shown_column(name).ok_or_else(|| unknown(table, &at, name))?;
        let message = if matches!(column.kind, Type::Json | Type::Blob) {
            format!("rows cannot be counted apart by {}, a {}", column.name, column.kind.as_str())
        } else if groups.iter().any(|known| known.name == column.name) {
            format!("{} is named twice", column.name)
        } else if numbers.iter().any(|number| number.name == column.name) {
            format!("{} is the name of a number, too", column.name)
        } else if index >= GROUPS {
            format!("at most {GROUPS} columns can be named")
        } else {
            groups.push(column);
            continue;
        };
        return Err(Error::invalid(at, message));
    }
    Ok(groups)
}

/// What comes after `ORDER BY`: numbers and columns by their places, all columns at the end.
fn order(text: Option<&str>, groups: &[&ColumnModel], numbers: &[Number<'_>]) -> Result<Vec<String>> {
    let names: Vec<&str> = groups
        .iter()
        .map(|column| column.name.as_str())
        .chain(numbers.iter().map(|number| number.name))
        .collect();
    let mut order = Vec::new();
    for word in text.into_iter().flat_map(|text| text.split(',')).map(str::trim) {
        let (name, turn) = word.strip_prefix('-').map_or((word, ""), |name| (name, " DESC"));
        let place = names.iter().position(|known| *known == name).ok_or_else(|| {
            let name: String = name.chars().take(64).collect();
            Error::invalid("/order", format!("there is no {name:?} here"))
                .hint(format!("order by one of {}", names.join(", ")))
        })?;
        order.push(format!("{}{turn}", place + 1));
    }
    order.extend((1..=groups.len()).map(|place| place.to_string()));
    Ok(order)
}
