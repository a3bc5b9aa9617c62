//! Taking one's data along, and leaving for good.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use kernel::{Code, Env, Error, Result, Secret, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::account::settle;
use super::address::Address;
use super::factors::Presence;
use super::letters::News;
use super::sessions::{self, Of};
use super::{Asking, Auth, Ending, Inner, Profile, codes, factors, whole};
use crate::access::Guest;
use crate::database::{Role, Writer, quoted};
use crate::rows::{ListQuery, Rows};
use crate::storage::{Condition, Storage};

/// What users have beside their accounts.
#[derive(Clone)]
pub struct Holdings {
    /// Rows.
    pub rows: Rows,
    /// Files.
    pub files: Storage,
}

/// How many bytes of rows one answer has at most.
const BYTES: usize = 16 << 20;

/// A page of rows, of which nothing is looked at.
#[derive(Deserialize)]
struct Page {
    rows: Vec<Box<RawValue>>,
    cursor: Option<String>,
}

/// What a user takes along.
#[derive(Serialize)]
struct Taken {
    user: Profile,
    identities: Value,
    rows: BTreeMap<String, Vec<Box<RawValue>>>,
    files: Vec<Value>,
    mfa: Value,
    passkeys: Value,
}

/// How many rows are removed at once, and how many are looked up for it.
const AT_ONCE: usize = 16;
const LOOKED_UP: u32 = 500;

impl Auth {
    /// The account of an access token's user and the rows that are the user's, by table, as far as the user may list
    /// them, where the user's files are, who vouches for the user, and the second factors without their secrets:
    /// `{"user", "identities", "rows", "files", "mfa", "passkeys"}`.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `too_large` where the rows do not fit into one answer.
    pub async fn export(&self, held: &Holdings, env: &Env, token: &Secret) -> Result<Box<RawValue>> {
        let rows = &held.rows;
        let app = rows.app(env).await?;
        let (guest, profile) = (self.recognize(env, app.auth.mfa, token).await?, self.me(env, token).await?);
        let _turn = self.0.exports.take(env.id(), 1).await?;
        // The database's own text goes on as it is: rows that were taken apart would take many times its size.
        let (mut tables, mut bytes) = (BTreeMap::new(), 0);
        for table in app.tables.values().filter(|table| table.has_owner()) {
            let mut own: Vec<Box<RawValue>> = Vec::new();
            let mut query = ListQuery {
                filter: Some("owner == auth.uid".to_owned()),
                limit: Some(200),
                ..ListQuery::default()
            };
            loop {
                let page = rows.list(&guest, &table.name, &query).await?;
                bytes += page.len();
                if bytes > BYTES {
                    let message = format!("the rows are more than {BYTES} bytes");
                    return Err(Error::new(Code::TooLarge, message)
                        .hint("list them table by table at /_/db/{table} with where=owner == auth.uid"));
                }
                let page: Page = serde_json::from_slice(&page).map_err(Error::internal)?;
                own.extend(page.rows);
                match page.cursor {
                    Some(cursor) => query.cursor = Some(cursor),
                    None => break,
                }
            }
            tables.insert(table.name.clone(), own);
        }
        let mut files = Vec::new();
        for (bucket, path) in self.0.files_of(env, profile.id).await? {
            match held.files.get(&guest, &bucket, &path).await {
                Ok(file) => files.push(json!({
                    "path": file.address(), "size": file.size, "content_type": file.content_type,
                    "created_at": file.created_at,
                })),
                // The rules hide it, or it is gone.
                Err(e) if e.code() == Code::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let identities = self.identities(env, token).await?;
        let factors = self.0.factors_of(env, profile.id).await?;
        let passkeys = self.0.passkeys_of(env, profile.id).await?;
        let (identities, passkeys) = (json!(identities), json!(passkeys));
        let taken = Taken { user: profile, identities, rows: tables, files, mfa: json!(factors), passkeys };
        serde_json::value::to_raw_value(&taken).map_err(Error::internal)
    }

    /// Removes the user of an access token, with the rows and files that are the user's and that the user may remove.
    /// What the app's rules keep stays, and is nobody's from then on.
    ///
    /// # Errors
    /// As [`Auth::change_password`]; where it fails on the way, the account is still there and it can be asked again.
    pub async fn leave(
        &self,
        held: &Holdings,
        asking: &Asking<'_>,
        token: &Secret,
        current: Option<&Secret>,
    ) -> Result<()> {
        let env = asking.env;
        let guest = self.recognize(env, asking.settings.mfa, token).await?;
        let profile = self.me(env, token).await?;
        let email = match &profile.email {
            Some(email) => {
                self.owner(asking, token, current).await?;
                Some(Address::parse("/email", email)?)
            }
            None if profile.anonymous => None,
            None => {
                let known = self.0.known(env, token).await?;
                self.0.present(asking, &known, &Presence::Fresh).await?;
                None
            }
        };
        // From here on nobody else adds rows as this user.
        self.log_out(env, token, Ending::Others).await?;
        let (inner, held, env) = (Arc::clone(&self.0), held.clone(), env.clone());
        let (user, name) = (profile.id, asking.settings.name.clone());
        let domain = asking.domain.map(str::to_owned);
        let told = email.filter(|_| profile.email_verified);
        whole(async move {
            let app = held.rows.app(&env).await?;
            let owned = app.tables.values().filter(|table| table.has_owner());
            let owned: Vec<String> = owned.map(|table| table.name.clone()).collect();
            for table in &owned {
                inner.remove_rows(&held.rows, &guest, table, user).await?;
            }
            for (bucket, path) in inner.files_of(&env, user).await? {
                kept(held.files.delete(&guest, &bucket, &path, Condition::Any).await)?;
            }
            let sender = inner.sender(&env, name.as_deref(), domain.as_deref().into()).await?;
            let mut db = inner.begin(&env).await?;
            let gone = async {
                for table in &owned {
                    disown(&mut db, table, user).await?;
                }
                remove(&mut db, user, profile.email.as_deref()).await?;
                inner.keep(&mut db, told.map(|told| sender.news(&told, News::Gone))).await
            }
            .await;
            let letter = settle(db, gone).await?;
            inner.recognized.forget(|other| other.is_of_user(env.id(), user));
            inner.dispatch(&env, letter);
            Ok(())
        })
        .await
    }
}

impl Inner {
    /// Buckets and paths of a user's files.
    async fn files_of(&self, env: &Env, user: UserId) -> Result<Vec<(String, String)>> {
        let sql = "SELECT bucket, path FROM _steading_object WHERE owner = ?1 ORDER BY bucket, path";
        let found = self.databases.platform_query(env, sql, &[user.to_string().into()]).await?;
        let text = |row: &Vec<Value>, at: usize| row.get(at).and_then(Value::as_str).map(str::to_owned);
        Ok(found.iter().filter_map(|row| Some((text(row, 0)?, text(row, 1)?))).collect())
    }

    /// Removes the rows of a user, one by one like the user would.
    async fn remove_rows(&self, rows: &Rows, guest: &Guest, table: &str, user: UserId) -> Result<()> {
        let sql =
            format!("SELECT id FROM {} WHERE owner = ?1 AND id > ?2 ORDER BY id LIMIT ?3", quoted(table));
        let mut after = String::new();
        loop {
            let params = [user.to_string().into(), after.clone().into(), LOOKED_UP.into()];
            let found = self.databases.platform_query(guest.env(), &sql, &params).await?;
            let ids = found.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned));
            let ids: Vec<String> = ids.collect();
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            let remove = |id: String| {
                let (rows, guest, table) = (rows.clone(), guest.clone(), table.to_owned());
                async move { rows.delete(&guest, &table, &id, None).await }
            };
            let mut removed = futures::stream::iter(ids.into_iter().map(remove)).buffer_unordered(AT_ONCE);
            while let Some(outcome) = removed.next().await {
                kept(outcome)?;
            }
        }
    }
}

/// That the rules keep something, or that other rows need it, is no failure.
fn kept(removed: Result<()>) -> Result<()> {
    match removed {
        Err(e) if !matches!(e.code(), Code::NotFound | Code::Forbidden | Code::Conflict) => Err(e),
        _ => Ok(()),
    }
}

/// Rows that stay are nobody's.
async fn disown(db: &mut Writer, table: &str, user: UserId) -> Result<()> {
    let sql = format!("UPDATE {} SET owner = NULL WHERE owner = ?1", quoted(table));
    db.run(Role::Writer, &sql, &[user.to_string().into()]).await?;
    Ok(())
}

/// Removes what the platform knows of a user.
pub(super) async fn remove(db: &mut Writer, user: UserId, email: Option<&str>) -> Result<()> {
    sessions::end(db, user, Of::All).await?;
    factors::reset(db, user).await?;
    let sql = "SELECT subject FROM _steading_identity WHERE user = ?1 AND provider = 'phone'";
    let numbers = db.run(Role::Platform, sql, &[user.to_string().into()]).await?.rows;
    let numbers: Vec<String> =
        numbers.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect();
    for sql in [
        "DELETE FROM _steading_upload WHERE owner = ?1",
        "DELETE FROM _steading_reply WHERE user = ?1",
        "UPDATE _steading_object SET owner = NULL WHERE owner = ?1",
        "DELETE FROM _steading_identity WHERE user = ?1",
        "DELETE FROM _steading_user WHERE id = ?1",
    ] {
        db.run(Role::Platform, sql, &[user.to_string().into()]).await?;
    }
    for number in numbers {
        codes::forget(db, &Address::stored(&number)?).await?;
        db.run(Role::Platform, "DELETE FROM _steading_mail WHERE email = ?1", &[number.into()]).await?;
    }
    if let Some(email) = email {
        codes::forget(db, &Address::parse("/email", email)?).await?;
        db.run(Role::Platform, "DELETE FROM _steading_mail WHERE email = ?1", &[email.into()]).await?;
    }
    Ok(())
}
