//! Why somebody may do something with a row, or may not.

use kernel::{Error, Result, UserId};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::compile::{New, Sql, View};
use super::trial::{Target, Trial};
use super::{Operation, Persona, Subject, User};
use crate::auth::{seen, seen_sql};
use crate::database::{Role, Writer, quoted};
use crate::rows::{App, BUCKET, TableModel};

/// Up to how many rows are counted.
const COUNTED: u64 = 10_000;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The table, or the bucket as `files/photos`.
    pub on: String,
    /// What is tried.
    pub operation: Operation,
    /// By whom.
    pub who: Who,
    /// On which row that is there, or on the file at which path; on a made one without it.
    pub id: Option<String>,
    /// Values of the made row.
    pub row: Map<String, Value>,
    /// The values of a new row, or changes.
    pub new: Map<String, Value>,
}

/// Who tries it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Who {
    /// Somebody made up; `user` is the owner of the row.
    Persona(Persona),
    /// One of the app's users.
    User(UserId),
}

/// Whether it is allowed, and why.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Explanation {
    /// Whether it is done; for a list, whether the row is in it.
    pub allowed: bool,
    /// The rule that decides. A row that `get` hides is neither changed nor removed.
    pub rule: String,
    /// The smallest part of it that does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// What the rules do not say by themselves: that the row has no owner, or why it is refused whatever they say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many rows that are there are in the list, counted up to 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visible: Option<u64>,
    /// The statement that the database decides by.
    pub sql: String,
    /// What its `?` stand for.
    #[schemars(schema_with = "params")]
    pub params: Vec<Value>,
}

/// What a statement's parameters can be; official clients warn of a schema that says nothing.
fn params(_: &mut SchemaGenerator) -> Schema {
    let types = ["null", "boolean", "number", "string", "object"].map(|name| json!({ "type": name }));
    json_schema!({ "type": "array", "items": { "anyOf": types } })
}

/// Answers `question` inside the open transaction of `db`, which is as it was afterwards.
///
/// # Errors
/// `not_found` for the table, the row or the user; `invalid_input` for values that do not fit.
pub(crate) async fn explain(db: &mut Writer, app: &App, question: Question) -> Result<Explanation> {
    let table = app.guarded(&question.on).ok_or_else(|| {
        Error::not_found(format!("table {:?} in the release", question.on))
            .field("/on")
            .hint("app_describe lists the tables, and the buckets, which are asked for as files/<bucket>")
    })?;
    let Question { on, operation, who, new, row, id } = question;
    let bucket = on.strip_prefix(BUCKET);
    let id = match (bucket, id) {
        (Some(bucket), Some(path)) => Some(object(db, bucket, &path).await?),
        (_, id) => id,
    };
    let subject = subject(db, table, who, id.as_deref()).await?;
    let on = id.map_or(Target::Made(row), Target::Stored);
    let visible = match operation {
        Operation::List => Some(visible(db, table, bucket, &subject).await?),
        _ => None,
    };
    let verdict = Trial { table, subject: &subject, operation, on, new, given: Vec::new() }.run(db).await?;
    Ok(Explanation {
        allowed: verdict.allowed,
        rule: verdict.rule(table),
        failing: verdict.failing.map(|expr| expr.to_string()),
        reason: verdict.refused,
        visible,
        sql: verdict.sql.text,
        params: verdict.sql.params,
    })
}

async fn subject(db: &mut Writer, table: &TableModel, who: Who, id: Option<&str>) -> Result<Subject> {
    match (who, id) {
        (Who::User(user), _) => {
            let known = known(db, user).await?;
            known.ok_or_else(|| {
                Error::not_found(format!("user {user}")).field("/as").hint("auth_users lists them")
            })
        }
        (Who::Persona(Persona::User), Some(id)) if table.has_owner() => {
            let sql = format!("SELECT \"owner\" FROM {} WHERE \"id\" = ?1", quoted(&table.name));
            let rows = db.run(table.role(), &sql, &[id.into()]).await?.rows;
            let owner = rows.first().and_then(|row| row.first()?.as_str()?.parse::<UserId>().ok());
            let Some(owner) = owner else { return Ok(Persona::User.subject()) };
            let stranger = User { id: owner, role: "user".to_owned(), email: None, claims: Map::new() };
            Ok(known(db, owner).await?.unwrap_or(Subject::User(stranger)))
        }
        (Who::Persona(persona), _) => Ok(persona.subject()),
    }
}

/// The id of the file at a path.
async fn object(db: &mut Writer, bucket: &str, path: &str) -> Result<String> {
    let sql = "SELECT id FROM _steading_object WHERE bucket = ?1 AND path = ?2";
    let rows = db.run(Role::Platform, sql, &[bucket.into(), path.into()]).await?.rows;
    let id = rows.first().and_then(|row| row.first()?.as_str().map(str::to_owned));
    id.ok_or_else(|| Error::not_found(format!("such file in {bucket}")).field("/id"))
}

/// One of the app's users, as rules see it.
async fn known(db: &mut Writer, user: UserId) -> Result<Option<Subject>> {
    let rows = db.run(Role::Platform, &seen_sql(), &[user.to_string().into()]).await?.rows;
    Ok(rows.first().map(|row| Subject::User(seen(user, row).0)))
}

async fn visible(
    db: &mut Writer,
    table: &TableModel,
    bucket: Option<&str>,
    subject: &Subject,
) -> Result<u64> {
    let mut sql = Sql {
        text: format!("SELECT count(*) FROM (SELECT 1 FROM {} WHERE ", quoted(&table.name)),
        params: vec![],
    };
    if let Some(bucket) = bucket {
        sql.text.push_str("\"bucket\" = ");
        sql.bind(bucket.into());
        sql.text.push_str(" AND ");
    }
    sql.text.push('(');
    table.access.compile(Operation::List, &View { table, subject, new: New::None }, &mut sql);
    sql.text.push_str(&format!(") LIMIT {COUNTED})"));
    let rows = db.run(table.role(), &sql.text, &sql.params).await?.rows;
    Ok(rows.first().and_then(|row| row.first()?.as_u64()).unwrap_or_default())
}
