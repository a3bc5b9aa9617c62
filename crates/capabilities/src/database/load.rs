//! Loading rows from CSV, JSON or NDJSON into a table: all of them or none, a bad one named by its line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kernel::Env;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::policy::{Refusal, Role, is_platform};
use super::schema::{self, Column, quoted};
use super::writer::{Durability, Writer};
use super::{Databases, or_cancelled, values};

/// Rows for a table.
#[derive(Debug, Clone)]
pub struct Load {
    /// The table.
    pub table: String,
    /// How the text is written.
    pub format: Format,
    /// The rows.
    pub text: String,
    /// What to do with a row whose key is there.
    pub on_conflict: OnConflict,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// RFC 4180, the first line the columns' names. An empty field is NULL; in a text column that refuses NULL
    /// it is an empty text.
    Csv,
    /// One array of objects.
    Json,
    /// One object on each line.
    Ndjson,
}

/// What to do with a row whose key is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// Load nothing.
    Fail,
    /// Leave the row that is there.
    Skip,
    /// Set the given columns of the row that is there.
    Update,
}

/// What was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Rows that are there now, or are as given.
    pub loaded: u64,
    /// Rows left out because their key was there.
    pub skipped: u64,
}

/// One row: where it was, and its columns' values.
struct Row {
    line: u64,
    fields: Vec<(String, Field)>,
}

/// A value as it was written.
enum Field {
    /// A field of CSV, which has no types.
    Text(String),
    /// A JSON value.
    Json(Value),
}

impl Databases {
    /// Loads rows into a table, as one transaction that waits for the disk. Values are converted to the
    /// columns' declared types where nothing is lost by it.
    ///
    /// # Errors
    /// `Row` naming line and column, or what the engine holds against it; then nothing is loaded.
    pub async fn load(&self, env: &Env, load: &Load, cancel: &CancellationToken) -> Result<Loaded, Error> {
        if is_platform(&load.table) {
            return Err(Error::Refused(Refusal::Platform(load.table.clone())));
        }
        let rows = match load.format {
            Format::Csv => from_csv(&load.text)?,
            Format::Json => from_json(&load.text)?,
            Format::Ndjson => from_ndjson(&load.text)?,
        };
        let mut writer = self.writer(env).await?;
        writer.heed(cancel);
        let watch = writer.lease()?.connection()?.watch();
        let work = async {
            writer.begin(Durability::Full).await?;
            let loaded = insert(&mut writer, load, &rows).await;
            match loaded {
                Ok(_) => writer.commit().await?,
                Err(_) => writer.rollback().await?,
            }
            loaded
        };
        or_cancelled(cancel, &watch, work).await
    }
}

async fn insert(writer: &mut Writer, load: &Load, rows: &[Row]) -> Result<Loaded, Error> {
    let columns = schema::columns(writer.lease()?.connection()?, &load.table).await?;
    if columns.is_empty() {
        return Err(Error::NoTable(load.table.clone()));
    }
    let mut loaded = Loaded { loaded: 0, skipped: 0 };
    let mut batch = Batch::default();
    for row in rows {
        let (names, params) = converted(&load.table, row, &columns)?;
        if !batch.takes(&names) {
            batch.run(writer, load, &mut loaded).await?;
            batch.names = names;
        }
        batch.rows.push((row.line, params));
    }
    batch.run(writer, load, &mut loaded).await?;
    Ok(loaded)
}

/// The columns of a row and their values as parameters.
fn converted<'a>(table: &str, row: &Row, columns: &'a [Column]) -> Result<(Vec<&'a str>, Vec<Value>), Error> {
    let mut names = Vec::with_capacity(row.fields.len());
    let mut params = Vec::with_capacity(row.fields.len());
    for (name, field) in &row.fields {
        let at = |why: String| Error::Row { line: row.line, column: Some(name.clone()), why };
        let column = columns
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| at(format!("{table} has no such column")))?;
        params.push(convert(field, column).map_err(at)?);
        names.push(column.name.as_str());
    }
    Ok((names, params))
}

/// Rows with the same columns, on their way in one statement.
#[derive(Default)]
struct Batch<'a> {
    names: Vec<&'a str>,
    rows: Vec<(u64, Vec<Value>)>,
}

/// Parameters of one statement; the engine takes up to 1,000.
const PARAMETERS: usize = 500;

impl Batch<'_> {
    fn takes(&self, names: &[&str]) -> bool {
        self.names == names && !names.is_empty() && (self.rows.len() + 1) * names.len() <= PARAMETERS
    }

    async fn run(&mut self, writer: &mut Writer, load: &Load, loaded: &mut Loaded) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let all: Vec<Value> = rows.iter().flat_map(|(_, params)| params.iter().cloned()).collect();
        let sql = statement(&load.table, &self.names, rows.len(), load.on_conflict);
        let changed = match writer.run(Role::Writer, &sql, &all).await {
            Ok(outcome) => outcome.changed,
            Err(error) if error.is_of_a_row() => self.run_singly(writer, load, &rows).await?,
            Err(error) => return Err(error),
        };
        loaded.loaded += changed;
        loaded.skipped += (rows.len() as u64).saturating_sub(changed);
        Ok(())
    }

    /// One by one, to find the row that does not go in; the statement before has been undone.
    async fn run_singly(
        &self,
        writer: &mut Writer,
        load: &Load,
        rows: &[(u64, Vec<Value>)],
    ) -> Result<u64, Error> {
        let sql = statement(&load.table, &self.names, 1, load.on_conflict);
        let mut changed = 0;
        for (line, params) in rows {
            let outcome = writer.run(Role::Writer, &sql, params).await.map_err(|error| {
                if error.is_of_a_row() {
                    Error::Row { line: *line, column: None, why: error.to_string() }
                } else {
                    error
                }
            })?;
            changed += outcome.changed;
        }
        Ok(changed)
    }
}

impl Error {
    /// Whether a row's values are to blame.
    const fn is_of_a_row(&self) -> bool {
        matches!(
            self,
            Error::Duplicate(_)
                | Error::Value(_)
                | Error::Check(_)
                | Error::ForeignKey
                | Error::ValueTooBig
                | Error::Statement { .. }
        )
    }
}

fn statement(table: &str, names: &[&str], rows: usize, on_conflict: OnConflict) -> String {
    let table = quoted(table);
    if names.is_empty() {
        return format!("INSERT INTO {table} DEFAULT VALUES");
    }
    let columns = names.iter().map(|name| quoted(name)).collect::<Vec<_>>();
    let row = format!("({})", vec!["?"; names.len()].join(", "));
    let values = vec![row; rows].join(", ");
    let conflict = match on_conflict {
        OnConflict::Fail => String::new(),
        OnConflict::Skip => " ON CONFLICT DO NOTHING".to_owned(),
        OnConflict::Update => {
            let sets = columns.iter().map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>();
            format!(" ON CONFLICT DO UPDATE SET {}", sets.join(", "))
        }
    };
    format!("INSERT INTO {table} ({}) VALUES {values}{conflict}", columns.join(", "))
}

fn from_csv(text: &str) -> Result<Vec<Row>, Error> {
    let bad = |error: csv::Error| match error.position() {
        Some(position) => Error::Row { line: position.line(), column: None, why: csv_words(&error) },
        None => Error::Data { format: "CSV", why: csv_words(&error) },
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let header = reader.headers().map_err(bad)?.clone();
    if header.iter().all(|name| name.trim().is_empty()) {
        return Err(Error::Data { format: "CSV", why: "the first line must name the columns".to_owned() });
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let line = record.position().map_or(0, csv::Position::line);
        let fields = header
            .iter()
            .zip(&record)
            .map(|(name, field)| (name.trim().to_owned(), Field::Text(field.to_owned())))
            .collect();
        rows.push(Row { line, fields });
    }
    Ok(rows)
}

fn csv_words(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields, and the first line names {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
        _ => "not readable".to_owned(),
    }
}

fn from_json(text: &str) -> Result<Vec<Row>, Error> {
    let elements: Vec<Value> = serde_json::from_str(text).map_err(|error| Error::Data {
        format: "JSON",
        why: format!("an array of objects is expected: {error}"),
    })?;
    (1..).zip(elements).map(|(line, element)| from_object(line, element)).collect()
}

fn from_ndjson(text: &str) -> Result<Vec<Row>, Error> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(line, text)| {
            let element = serde_json::from_str(text).map_err(|error| Error::Row {
                line,
                column: None,
                why: format!("not valid JSON: {error}"),
            })?;
            from_object(line, element)
        })
        .collect()
}

fn from_object(line: u64, element: Value) -> Result<Row, Error> {
    let Value::Object(object) = element else {
        return Err(Error::Row { line, column: None, why: "an object is expected".to_owned() });
    };
    Ok(Row { line, fields: object.into_iter().map(|(name, value)| (name, Field::Json(value))).collect() })
}

/// What a declared type takes, after the engine's own rules (<https://www.sqlite.org/datatype3.html> §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Text,
    Blob,
    Real,
    Number,
    Boolean,
    Any,
}

fn kind(declared: &str) -> Kind {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Kind::Integer
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Kind::Text
    } else if has("BLOB") {
        Kind::Blob
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Kind::Real
    } else if has("BOOL") {
        Kind::Boolean
    } else if has("NUM") || has("DEC") {
        Kind::Number
    } else {
        Kind::Any
    }
}

/// The value for the column, as a parameter.
fn convert(field: &Field, column: &Column) -> Result<Value, String> {
    if column.generated {
        return Err("is computed and cannot be given".to_owned());
    }
    let kind = kind(&column.kind);
    match field {
        Field::Text(text) if text.is_empty() && kind == Kind::Text && column.not_null => Ok(Value::from("")),
        Field::Text(text) if text.is_empty() => Ok(Value::Null),
        Field::Text(text) => from_text(text, kind).ok_or_else(|| unfit(&Value::from(text.as_str()), kind)),
        Field::Json(value) => from_value(value, kind).ok_or_else(|| unfit(value, kind)),
    }
}

fn from_text(text: &str, kind: Kind) -> Option<Value> {
    let trimmed = text.trim();
    match kind {
        Kind::Text => Some(Value::from(text)),
        Kind::Any => Some(number(trimmed).unwrap_or_else(|| Value::from(text))),
        Kind::Integer => trimmed.parse::<i64>().ok().map(Value::from).or_else(|| truth(trimmed)),
        Kind::Boolean => truth(trimmed).or_else(|| number(trimmed)),
        Kind::Real => trimmed.parse::<f64>().ok().filter(|real| real.is_finite()).map(Value::from),
        Kind::Number => number(trimmed),
        Kind::Blob => STANDARD
            .decode(trimmed)
            .is_ok()
            .then(|| Value::Object(Map::from_iter([("base64".to_owned(), trimmed.into())]))),
    }
}

/// A text that is a number and reads back as the same text: `007` and `1e3` stay texts.
fn number(text: &str) -> Option<Value> {
    let integer = text.parse::<i64>().ok().filter(|integer| integer.to_string() == text).map(Value::from);
    let real = || text.parse::<f64>().ok().filter(|real| real.is_finite() && real.to_string() == text);
    integer.or_else(|| real().map(Value::from))
}

fn truth(text: &str) -> Option<Value> {
    ["false", "true"].iter().position(|word| word.eq_ignore_ascii_case(text)).map(Value::from)
}

fn from_value(value: &Value, kind: Kind) -> Option<Value> {
    match (kind, value) {
        (_, Value::Null) => Some(Value::Null),
        (Kind::Any, Value::Object(object)) if values::blob(object).is_ok() => Some(value.clone()),
        (Kind::Any | Kind::Text, Value::Array(_) | Value::Object(_)) => Some(Value::from(value.to_string())),
        (Kind::Any, value) => Some(value.clone()),
        (Kind::Text, Value::Bool(_) | Value::Number(_)) => Some(Value::from(value.to_string())),
        (Kind::Text, Value::String(_)) => Some(value.clone()),
        (Kind::Blob, Value::Object(object)) => values::blob(object).ok().map(|_| value.clone()),
        (Kind::Blob, _) => None,
        (_, Value::Bool(truth)) => Some(Value::from(i64::from(*truth))),
        (Kind::Integer, Value::Number(number)) => {
            let whole = |real: &f64| real.fract() == 0.0 && real.abs() < 9e15;
            number.as_i64().or_else(|| number.as_f64().filter(whole).map(|real| real as i64)).map(Value::from)
        }
        (_, Value::Number(number)) => (!number.is_u64() || number.is_i64()).then(|| value.clone()),
        (_, Value::String(text)) => from_text(text, kind),
        (_, Value::Array(_) | Value::Object(_)) => None,
    }
}

fn unfit(value: &Value, kind: Kind) -> String {
    let shown: String = value.to_string().chars().take(40).collect();
    let expected = match kind {
        Kind::Integer => "a whole number",
        Kind::Real | Kind::Number => "a number",
        Kind::Boolean => "true or false",
        Kind::Blob => "base64",
        Kind::Text | Kind::Any => "a text",
    };
    format!("{shown} is not {expected}")
}
