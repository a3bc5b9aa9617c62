//! Several changes as one: all of them, or none.

use std::sync::Arc;

use bytes::Bytes;
use kernel::{Code, Error, Result};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::change::{self, Change};
use super::error::told;
use super::etag::IfMatch;
use super::given::{changes, new_row};
use super::object::Object;
use super::service::{Rows, Stored, known};
use super::statement::Statements;
use super::{App, TableModel, encode};
use crate::access::{Guest, Operation};
use crate::database::RunRows;

/// How many operations a batch may have.
pub(crate) const OPERATIONS: usize = 50;

/// The most bytes that the rows of a batch may be.
const BYTES: usize = 4 << 20;

/// Several operations, made in order in one transaction.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The operations, at most 50.
    #[serde(deserialize_with = "steps")]
    pub operations: Vec<Step>,
}

fn steps<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<Step>, D::Error> {
    let steps = Vec::<Object<Step>>::deserialize(from)?;
    Ok(steps.into_iter().map(|Object(step)| step).collect())
}

/// One operation on one row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `create`, `get`, `update` or `delete`.
    pub r#do: Operation,
    /// The table.
    pub on: String,
    /// The row; not for `create`.
    pub id: Option<String>,
    /// The values; for `create` and `update`.
    pub new: Option<Map<String, Value>>,
    /// The entity tag that the row must have, or `*`; for `update` and `delete`.
    pub if_match: Option<String>,
}

/// A step, checked.
pub(super) struct Ready<'a> {
    table: &'a TableModel,
    what: What,
}

enum What {
    Read(String),
    Change(Change),
}

impl Rows {
    /// Makes all operations in one transaction, as the JSON of `{"results": [{"status", "row"?, "etag"?}]}`.
    ///
    /// # Errors
    /// That of the first operation that fails, with a pointer to it; nothing has changed then.
    pub async fn batch(&self, guest: &Guest, batch: Batch) -> Result<Bytes> {
        let before = self.app(guest.env()).await?;
        let checked = check(&batch, guest, &before)?;
        let Some(first) = checked.first() else { return Ok(Bytes::from_static(b"{\"results\":[]}")) };
        let table = first.table;
        let mut writer = self
            .databases
            .rows_writer(guest.env(), guest.depth())
            .await
            .map_err(|error| told(error, table))?;
        // As for a change by itself: these are the rules that hold.
        let app = self.app(guest.env()).await?;
        let ready = if Arc::ptr_eq(&before, &app) { checked } else { check(&batch, guest, &app)? };
        writer.begin().await.map_err(|error| told(error, table))?;
        match made(&mut writer, guest, &ready).await {
            Ok(results) => {
                writer.commit().await.map_err(|error| told(error, table))?;
                Ok(results)
            }
            Err(refusal) => {
                writer.rollback().await.map_err(|error| told(error, table))?;
                Err(refusal)
            }
        }
    }
}

pub(super) fn check<'a>(batch: &Batch, guest: &Guest, app: &'a App) -> Result<Vec<Ready<'a>>> {
    if batch.operations.len() > OPERATIONS {
        return Err(Error::invalid("/operations", format!("at most {OPERATIONS} operations at once")));
    }
    let steps = batch.operations.iter().cloned().enumerate();
    steps.map(|(index, step)| step.check(guest, app).map_err(|error| at(index, error))).collect()
}

pub(super) async fn made(writer: &mut impl RunRows, guest: &Guest, ready: &[Ready<'_>]) -> Result<Bytes> {
    let mut json = b"{\"results\":[".to_vec();
    for (index, Ready { table, what }) in ready.iter().enumerate() {
        let statements = Statements { table, subject: guest.subject() };
        let (status, row) = match what {
            What::Read(id) => (200, change::read(writer, &statements, id).await.map(Some)),
            What::Change(change) => {
                let status = match change {
                    Change::Create { .. } => 201,
                    Change::Update { .. } => 200,
                    Change::Delete { .. } => 204,
                };
                (status, change::make(writer, &statements, change).await)
            }
        };
        let row = row.map_err(|error| at(index, below_new(what, error)))?;
        if index > 0 {
            json.push(b',');
        }
        result(status, row.filter(|_| status != 204), &mut json).map_err(|error| told(error, table))?;
        if json.len() > BYTES {
            let message = format!("the rows of the batch are more than {BYTES} bytes");
            return Err(at(index, Error::new(Code::TooLarge, message).hint("send fewer operations at once")));
        }
    }
    json.extend_from_slice(b"]}");
    Ok(json.into())
}

/// The results of a batch that was made before: what it read is read again, by today's rules. What may not be read any more
/// is 404, beside changes that were made all the same.
pub(super) async fn told_again(
    rows: &mut impl RunRows,
    guest: &Guest,
    app: &App,
    batch: &Batch,
    body: String,
) -> Result<Bytes> {
    let reads = |step: &Step| step.r#do == Operation::Get;
    if !batch.operations.iter().any(reads) {
        return Ok(body.into());
    }
    let made: Made<'_> = serde_json::from_str(&body).map_err(Error::internal)?;
    let mut json = b"{\"results\":[".to_vec();
    for (index, (step, before)) in batch.operations.iter().zip(made.results).enumerate() {
        if index > 0 {
            json.push(b',');
        }
        if !reads(step) {
            json.extend_from_slice(before.get().as_bytes());
            continue;
        }
        let read = match known(app, &step.on) {
            Ok(table) => {
                let statements = Statements { table, subject: guest.subject() };
                change::read(rows, &statements, step.id.as_deref().unwrap_or_default()).await
            }
            Err(gone) => Err(gone),
        };
        let (status, row) = match read {
            Ok(row) => (200, Some(row)),
            Err(hidden) if matches!(hidden.code(), Code::NotFound | Code::Forbidden) => (404, None),
            Err(error) => return Err(at(index, error)),
        };
        result(status, row, &mut json).map_err(Error::from)?;
    }
    json.extend_from_slice(b"]}");
    Ok(json.into())
}

#[derive(Deserialize)]
struct Made<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

fn result(status: u16, row: Option<Stored>, to: &mut Vec<u8>) -> Result<(), crate::database::Error> {
    to.extend_from_slice(format!("{{\"status\":{status}").as_bytes());
    if let Some(row) = row {
        to.extend_from_slice(b",\"row\":");
        to.extend_from_slice(&row.json);
        to.extend_from_slice(b",\"etag\":");
        encode::json(&row.etag, to)?;
    }
    to.push(b'}');
    Ok(())
}

impl Step {
    fn check<'a>(self, guest: &Guest, app: &'a App) -> Result<Ready<'a>> {
        let Step { r#do, on, id, new, if_match } = self;
        if r#do == Operation::List {
            let error = Error::invalid("/do", "a batch does not list");
            return Err(error.hint("list rows with GET /_/db/{table}"));
        }
        let table = known(app, &on).map_err(|error| error.field("/on"))?;
        let refuse = |field: &str, given: bool, why: &str| match given {
            true => Err(Error::invalid(format!("/{field}"), format!("{field} {why} {do}"))),
            false => Ok(()),
        };
        let has_id = r#do != Operation::Create;
        refuse("id", id.is_some() != has_id, if has_id { "is needed for" } else { "is not for" })?;
        let has_new = matches!(r#do, Operation::Create | Operation::Update);
        refuse("new", new.is_some() != has_new, if has_new { "is needed for" } else { "is not for" })?;
        let has_tag = matches!(r#do, Operation::Update | Operation::Delete);
        refuse("if_match", if_match.is_some() && !has_tag, "is not for")?;
        let (id, new) = (id.unwrap_or_default(), new.unwrap_or_default());
        let if_match = if_match.as_deref().map(IfMatch::parse);
        let under = |error: Error| error.under("/new");
        let what = match r#do {
            Operation::Get | Operation::List => What::Read(id),
            Operation::Create => {
                What::Change(Change::create(new_row(table, guest.subject(), new).map_err(under)?))
            }
            Operation::Update => {
                let changes = changes(table, guest.subject(), new).map_err(under)?;
                What::Change(Change::Update { id, changes, if_match })
            }
            Operation::Delete => What::Change(Change::Delete { id, if_match }),
        };
        Ok(Ready { table, what })
    }
}

/// A column that the engine objects to is one of the values given.
fn below_new(what: &What, error: Error) -> Error {
    let of_values = matches!(what, What::Change(Change::Create { .. } | Change::Update { .. }));
    match error.pointer() {
        Some(pointer) if of_values && pointer != "/if_match" => error.under("/new"),
        _ => error,
    }
}

fn at(index: usize, error: Error) -> Error {
    error.under(&format!("/operations/{index}"))
}
