//! Letters that no server was there to send, as rows of the environment's own database.

use kernel::{Env, Error, Result, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::Letter;
use crate::database::{Databases, Role, Writer};

/// How many letters an environment keeps.
const MOST: u32 = 100;

/// A letter in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Kept {
    /// The address it would go to.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
    /// When it was written.
    pub at: Timestamp,
}

/// Puts a letter into the outbox in the open transaction; the oldest goes where there would be too many.
pub(crate) async fn keep(db: &mut Writer, letter: &Letter) -> Result<()> {
    let sql = "DELETE FROM _steading_mail WHERE id NOT IN \
               (SELECT id FROM _steading_mail ORDER BY id DESC LIMIT ?1)";
    db.run(Role::Platform, sql, &[(MOST - 1).into()]).await?;
    let sql = "INSERT INTO _steading_mail (id, email, subject, text, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let params: [Value; 5] = [
        Uuid::now_v7().to_string().into(),
        letter.to.clone().into(),
        letter.subject.clone().into(),
        letter.text.expose().into(),
        Timestamp::now().as_micros().into(),
    ];
    db.run(Role::Platform, sql, &params).await?;
    Ok(())
}

/// The letters in the outbox whose address contains `to`, newest first.
pub(crate) async fn kept(
    databases: &Databases,
    env: &Env,
    to: Option<&str>,
    limit: u32,
) -> Result<Vec<Kept>> {
    let sql = "SELECT email, subject, text, created_at FROM _steading_mail \
               WHERE (?1 IS NULL OR instr(email, ?1) > 0) ORDER BY id DESC LIMIT ?2";
    let rows = databases.platform_query(env, sql, &[to.into(), limit.clamp(1, MOST).into()]).await?;
    let read = |row: &Vec<Value>| {
        let text = |at: usize| Some(row.get(at)?.as_str()?.to_owned());
        let at = Timestamp::from_micros(row.get(3)?.as_i64()?);
        Some(Kept { to: text(0)?, subject: text(1)?, text: text(2)?, at })
    };
    rows.iter()
        .map(|row| read(row).ok_or_else(|| Error::internal("a row of a mail cannot be read")))
        .collect()
}
