//! Minted credentials: what each may do, and what it stands on. Never the token itself.

use kernel::{EnvId, Held, KeyId, Networks, RunId, Scope, Scopes, TenantId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::rows::{number, parsed, text, text_or_null, time, time_or_null};
use crate::{Error, Result, Store};

/// One minted credential's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Names the credential without being it.
    pub id: KeyId,
    /// The run it stands for.
    pub run: RunId,
    /// The tenant it acts for.
    pub tenant: TenantId,
    /// The one environment it opens.
    pub env: EnvId,
    /// The key that it stands on.
    pub root: KeyId,
    /// The minted credentials from the root's child down to this one.
    pub path: Vec<KeyId>,
    /// What it may do.
    pub scopes: Scopes,
    /// What it is held to.
    pub held: Held,
    /// Where it is good; anywhere, where nothing is said.
    pub source: Option<Networks>,
    /// When it was minted.
    pub created: Timestamp,
    /// When it ends.
    pub ends: Timestamp,
    /// When it was revoked, if it was.
    pub revoked: Option<Timestamp>,
}

/// How many minted credentials one may stand on: as many as are looked up at once.
const MOST_ABOVE: usize = 3;

/// What became of a row that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Minting {
    /// It is there.
    Made,
    /// What it stands on, or its environment, is not there any more.
    Gone,
    /// The tenant has as many as it may have.
    Full,
    /// As many stand on the first of those that it stands on as may.
    Crowded,
}

/// How many minted credentials may live.
#[derive(Debug, Clone, Copy)]
pub struct MostMinted {
    /// Of one tenant.
    pub of_tenant: u32,
    /// On one that was minted by a key, at whatever depth.
    pub on_one: u32,
}

/// The minted credentials.
pub struct Runs<'a>(pub(crate) &'a Store);

impl Runs<'_> {
    /// Adds one, where fewer live than `most`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn insert(&self, run: &Run, most: MostMinted) -> Result<Minting> {
        let mut write = self.0.begin_write().await?;
        // Those of one tenant take turns: of many at once, each counts those before it.
        sqlx::query("UPDATE tenants SET slug = slug WHERE id = $1")
            .bind(run.tenant.to_string())
            .execute(write.connection())
            .await?;
        let first = run.path.first().filter(|first| **first != run.id);
        let live = sqlx::query(
            "SELECT COUNT(*), COUNT(CASE WHEN path LIKE $3 || ' %' THEN 1 END) FROM runs \
             WHERE tenant = $1 AND ends > $2 AND revoked IS NULL",
        )
        .bind(run.tenant.to_string())
        .bind(run.created.as_micros())
        .bind(first.map(|first| first.to_string()).unwrap_or_default())
        .fetch_one(write.connection())
        .await?;
        if live.try_get::<i64, _>(0)? >= i64::from(most.of_tenant) {
            return Ok(Minting::Full);
        }
        if live.try_get::<i64, _>(1)? >= i64::from(most.on_one) {
            return Ok(Minting::Crowded);
        }
        let parent = run.path.iter().rev().nth(1).unwrap_or(&run.root);
        let done = sqlx::query(
            "INSERT INTO runs (id, run, tenant, env, root, path, depth, scopes, tools, args, source, created, ends) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 \
             WHERE EXISTS (SELECT 1 FROM environments WHERE id = $4 AND tenant = $3 AND state = 'ready') \
             AND (EXISTS (SELECT 1 FROM keys WHERE id = $14 AND revoked IS NULL) \
             OR EXISTS (SELECT 1 FROM runs WHERE id = $14 AND revoked IS NULL))",
        )
        .bind(run.id.to_string())
        .bind(run.run.to_string())
        .bind(run.tenant.to_string())
        .bind(run.env.to_string())
        .bind(run.root.to_string())
        .bind(joined(run.path.iter()))
        .bind(run.path.len() as i64)
        .bind(joined(run.scopes.iter()))
        .bind(run.held.tools().map(joined))
        .bind(run.held.args().map(|args| args.to_string()))
        .bind(run.source.as_ref().map(|source| source.names().join(" ")))
        .bind(run.created.as_micros())
        .bind(run.ends.as_micros())
        .bind(parent.to_string())
        .execute(write.connection())
        .await?;
        if done.rows_affected() != 1 {
            return Ok(Minting::Gone);
        }
        sqlx::query("INSERT INTO minted (id, tenant, parent, created) VALUES ($1, $2, $3, $4)")
            .bind(run.id.to_string())
            .bind(run.tenant.to_string())
            .bind(parent.to_string())
            .bind(run.created.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(Minting::Made)
    }

    /// The credential with this id and all minted ones that it stands on, itself last; empty where one of them is not there.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn chain(&self, id: KeyId) -> Result<Vec<Run>> {
        let row = sqlx::query(
            "SELECT id, run, tenant, env, root, path, scopes, tools, args, source, created, ends, revoked \
             FROM runs WHERE id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(self.0.reader())
        .await?;
        let Some(last) = row.as_ref().map(run).transpose()? else { return Ok(Vec::new()) };
        let above: Vec<KeyId> = last.path.iter().copied().filter(|above| *above != id).collect();
        if above.is_empty() {
            return Ok(vec![last]);
        }
        if above.len() > MOST_ABOVE {
            return Ok(Vec::new());
        }
        let at = |n: usize| above.get(n).copied().unwrap_or(id).to_string();
        let rows = sqlx::query(
            "SELECT id, run, tenant, env, root, path, scopes, tools, args, source, created, ends, revoked \
             FROM runs WHERE id IN ($1, $2, $3) AND id <> $4 ORDER BY depth",
        )
        .bind(at(0))
        .bind(at(1))
        .bind(at(2))
        .bind(id.to_string())
        .fetch_all(self.0.reader())
        .await?;
        let mut chain: Vec<Run> = rows.iter().map(run).collect::<Result<_>>()?;
        if chain.len() != above.len() {
            return Ok(Vec::new());
        }
        chain.push(last);
        Ok(chain)
    }

    /// At most `limit` of a tenant's credentials that live at `now`, made after `after`, oldest first: of one environment
    /// where `env` is given, and those minted below a credential where `below` is.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(
        &self,
        (tenant, env, below): (TenantId, Option<EnvId>, Option<KeyId>),
        now: Timestamp,
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<Run>> {
        let rows = sqlx::query(
            "SELECT id, run, tenant, env, root, path, scopes, tools, args, source, created, ends, revoked \
             FROM runs WHERE tenant = $1 AND id > $2 AND ends > $3 AND revoked IS NULL \
             AND ($4 IS NULL OR env = $4) \
             AND ($5 IS NULL OR root = $5 OR (id <> $5 AND path LIKE '%' || $5 || '%')) \
             AND EXISTS (SELECT 1 FROM keys WHERE keys.id = runs.root AND keys.revoked IS NULL \
             AND (keys.expires IS NULL OR keys.expires > $3)) \
             ORDER BY id LIMIT $6",
        )
        .bind(tenant.to_string())
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(now.as_micros())
        .bind(env.map(|env| env.to_string()))
        .bind(below.map(|id| id.to_string()))
        .bind(i64::from(limit))
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(run).collect()
    }

    /// Revokes one of a tenant's credentials with all that stand on it: of one environment where `env` is given, and only
    /// `below` itself or one that was minted below it, where that is. `false` where there is no such credential; one that
    /// was revoked stays so, and nobody is told again.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn revoke(
        &self,
        (tenant, env, below): (TenantId, Option<EnvId>, Option<KeyId>),
        id: KeyId,
        now: Timestamp,
    ) -> Result<bool> {
        let found = sqlx::query(
            "SELECT root, revoked FROM runs WHERE id = $1 AND tenant = $2 AND ($3 IS NULL OR env = $3) \
             AND ($4 IS NULL OR root = $4 OR path LIKE '%' || $4 || '%')",
        )
        .bind(id.to_string())
        .bind(tenant.to_string())
        .bind(env.map(|env| env.to_string()))
        .bind(below.map(|id| id.to_string()))
        .fetch_optional(self.0.reader())
        .await?;
        let Some(found) = found else { return Ok(false) };
        if time_or_null(&found, "revoked")?.is_some() {
            return Ok(true);
        }
        let mut write = self.0.begin_write().await?;
        write.tell(&id.to_string()).await?;
        // Those that stand on it stand on its key.
        sqlx::query(
            "UPDATE runs SET revoked = $1 WHERE root = $2 AND path LIKE '%' || $3 || '%' AND revoked IS NULL",
        )
        .bind(now.as_micros())
        .bind(text(&found, "root")?)
        .bind(id.to_string())
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(true)
    }

    /// Forgets those that have ended by `before`, by themselves or not; gives how many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, before: Timestamp) -> Result<u64> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query("DELETE FROM runs WHERE ends <= $1 OR revoked <= $1")
            .bind(before.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(done.rows_affected())
    }

    /// The credential that made this one, for as long as that is recorded: also of one that has ended.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn maker(&self, id: KeyId) -> Result<Option<KeyId>> {
        let row = sqlx::query("SELECT parent FROM minted WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.0.reader())
            .await?;
        row.as_ref().map(|row| parsed(row, "parent")).transpose()
    }

    /// Forgets which credentials were made `before`, and by which; gives how many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge_makers(&self, before: Timestamp) -> Result<u64> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query("DELETE FROM minted WHERE created <= $1")
            .bind(before.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(done.rows_affected())
    }
}

fn joined(names: impl IntoIterator<Item = impl ToString>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
}

/// Networks as one text of a row has them. What cannot be read is an error: less would be more.
pub(crate) fn networks(row: &AnyRow, column: &'static str) -> Result<Option<Networks>> {
    let Some(text) = text_or_null(row, column)? else { return Ok(None) };
    let read = Networks::of(text.split(' ').filter(|name| !name.is_empty()));
    let wrong =
        |name: &str| Error::Unreadable { what: column, source: format!("{name:?} is no network").into() };
    read.map(Some).map_err(wrong)
}

fn run(row: &AnyRow) -> Result<Run> {
    let unreadable =
        |what| move |source: Box<dyn std::error::Error + Send + Sync>| Error::Unreadable { what, source };
    let words =
        |text: String| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let args = text_or_null(row, "args")?.map(|text| serde_json::from_str(&text)).transpose();
    let args: Option<serde_json::Value> = args.map_err(|error| unreadable("args")(error.into()))?;
    let held = Held::read(text_or_null(row, "tools")?.map(words), args.as_ref());
    let path = text(row, "path")?;
    let path: Result<Vec<KeyId>, _> = path.split(' ').map(str::parse).collect();
    Ok(Run {
        id: parsed(row, "id")?,
        run: parsed(row, "run")?,
        tenant: parsed(row, "tenant")?,
        env: parsed(row, "env")?,
        root: parsed(row, "root")?,
        path: path.map_err(|error| unreadable("path")(error.into()))?,
        // A scope that this program does not know (any more) gives nothing.
        scopes: text(row, "scopes")?.split(' ').filter_map(|scope| scope.parse::<Scope>().ok()).collect(),
        held: held.map_err(|error| unreadable("args")(error.into()))?,
        source: networks(row, "source")?,
        created: time(row, "created")?,
        ends: Timestamp::from_micros(number(row, "ends")?),
        revoked: time_or_null(row, "revoked")?,
    })
}
