//! Rows, read and changed by whom the rules let.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use kernel::{Code, Env, Error, Result};
use serde_json::{Map, Value};

use super::change::{self, Change};
use super::error::told;
use super::etag::IfMatch;
use super::expand;
use super::given::{changes, new_row};
use super::statement::Statements;
use super::{App, TableModel};
use crate::access::Guest;
use crate::database::{self, Databases, RowsTurn, RowsWriter};

/// Who knows the app of an environment's live release. A release that is still on trial is not it: nobody reads or
/// writes by rules that may never hold.
pub trait LiveApps: Send + Sync + 'static {
    /// The app; an empty one before the first release. Asked for each request, so it answers from memory.
    fn app<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Arc<App>>>;
}

/// The rows of every environment's app. Clones share everything.
#[derive(Clone)]
pub struct Rows {
    pub(super) databases: Arc<Databases>,
    live: Arc<dyn LiveApps>,
}

/// A row as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// The row as a JSON object, columns in the order of the table.
    pub json: Bytes,
    /// Its strong entity tag, with the quotes.
    pub etag: String,
}

impl Rows {
    /// Rows in `databases`, of the apps that `live` knows.
    #[must_use]
    pub fn new(databases: Arc<Databases>, live: Arc<dyn LiveApps>) -> Self {
        Self { databases, live }
    }

    /// Who knows the apps of live releases.
    #[must_use]
    pub fn live(&self) -> &dyn LiveApps {
        &*self.live
    }

    /// The app of the environment's live release; an empty one before the first.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn app(&self, env: &Env) -> Result<Arc<App>> {
        self.live.app(env).await
    }

    /// The row with this id.
    ///
    /// # Errors
    /// `not_found` where there is none that `guest` may read.
    pub async fn get(&self, guest: &Guest, table: &str, id: &str) -> Result<Stored> {
        self.get_expanded(guest, table, id, None).await
    }

    /// As [`Rows::get`], with the rows that `expand` names; the tag is of the row alone.
    ///
    /// # Errors
    /// As [`Rows::get`]; `invalid_input` at `/expand`.
    pub async fn get_expanded(
        &self,
        guest: &Guest,
        table: &str,
        id: &str,
        expand: Option<&str>,
    ) -> Result<Stored> {
        let app = self.app(guest.env()).await?;
        match self.get_of(&app, guest, table, id, expand).await {
            Err(error) => {
                let now = self.switched(guest.env(), &app, error).await?;
                self.get_of(&now, guest, table, id, expand).await
            }
            found => found,
        }
    }

    async fn get_of(
        &self,
        app: &App,
        guest: &Guest,
        table: &str,
        id: &str,
        expand: Option<&str>,
    ) -> Result<Stored> {
        let table = known(app, table)?;
        let nodes = expand.map(|text| expand::parse(text, table, app)).transpose()?.unwrap_or_default();
        let beside = expand::beside(&nodes, table);
        let sql = Statements { table, subject: guest.subject() }.gets(&[id], &beside);
        let read = self.databases.read_rows(guest.env(), sql.text, sql.params, usize::MAX).await;
        let rows = read.map_err(|error| told(error, table))?;
        let row = rows.iter().next().ok_or_else(|| change::hidden(table))?;
        let mut stored = change::stored(table, &row).map_err(|error| told(error, table))?;
        if !nodes.is_empty() {
            let parents = [expand::Parent::of(&row, table.shown().count(), &nodes)];
            let expanded = self.expand(app, guest, &nodes, &parents, &mut expand::Budget::default()).await?;
            let mut json = stored.json.to_vec();
            json.pop();
            expanded.iter().for_each(|expanded| json.extend_from_slice(expanded));
            json.push(b'}');
            stored.json = json.into();
        }
        Ok(stored)
    }

    /// The app that has taken the place of `before` since; or `error`, where it is not of that switch: a table that was
    /// read as the earlier release had it is not there like that any more.
    pub(super) async fn switched(&self, env: &Env, before: &Arc<App>, error: Error) -> Result<Arc<App>> {
        if error.code() != Code::Unavailable {
            return Err(error);
        }
        let now = self.app(env).await?;
        if Arc::ptr_eq(before, &now) { Err(error) } else { Ok(now) }
    }

    /// Makes a row of these values and returns it.
    ///
    /// # Errors
    /// `invalid_input` with a pointer to the column, `forbidden` where the rules refuse, `conflict` with a row that
    /// is there.
    pub async fn create(&self, guest: &Guest, table: &str, row: Map<String, Value>) -> Result<Stored> {
        let change = |table: &TableModel| Ok(Change::create(new_row(table, guest.subject(), row.clone())?));
        let row = self.alone(guest, table, change).await?;
        row.ok_or_else(|| Error::internal("a row that was made is not returned"))
    }

    /// Changes these values of a row and returns it.
    ///
    /// # Errors
    /// `not_found` where the row is hidden, `forbidden` where the rules refuse, 412 where `if_match` does not hold;
    /// else as [`Rows::create`].
    pub async fn update(
        &self,
        guest: &Guest,
        table: &str,
        id: &str,
        row: Map<String, Value>,
        if_match: Option<IfMatch>,
    ) -> Result<Stored> {
        let change = |table: &TableModel| {
            let changes = changes(table, guest.subject(), row.clone())?;
            Ok(Change::Update { id: id.to_owned(), changes, if_match: if_match.clone() })
        };
        let row = self.alone(guest, table, change).await?;
        row.ok_or_else(|| Error::internal("a row that was changed is not returned"))
    }

    /// Removes a row.
    ///
    /// # Errors
    /// As [`Rows::update`]; `conflict` where other rows refer to it.
    pub async fn delete(
        &self,
        guest: &Guest,
        table: &str,
        id: &str,
        if_match: Option<IfMatch>,
    ) -> Result<()> {
        let change = |_: &TableModel| Ok(Change::Delete { id: id.to_owned(), if_match: if_match.clone() });
        self.alone(guest, table, change).await.map(drop)
    }

    /// Makes one change by itself, in a transaction of several statements only where it needs one.
    async fn alone(
        &self,
        guest: &Guest,
        name: &str,
        prepare: impl Fn(&TableModel) -> Result<Change>,
    ) -> Result<Option<Stored>> {
        // What is wrong with the request is said before anybody waits for a turn.
        let before = self.app(guest.env()).await?;
        let table = known(&before, name)?;
        let mut change = prepare(table)?;
        let turn = Turn::take(&self.databases, guest, &change).await.map_err(|error| told(error, table))?;
        // No release is switched to while we have the turn, so that these are the rules that hold.
        let app = self.app(guest.env()).await?;
        let table = known(&app, name)?;
        if !Arc::ptr_eq(&before, &app) {
            change = prepare(table)?;
        }
        let statements = Statements { table, subject: guest.subject() };
        let mut writer = match turn {
            Turn::Shared(mut turn) => return change::make(&mut turn, &statements, &change).await,
            Turn::Whole(writer) => *writer,
        };
        writer.begin().await.map_err(|error| told(error, table))?;
        match change::make(&mut writer, &statements, &change).await {
            Ok(row) => {
                writer.commit().await.map_err(|error| told(error, table))?;
                Ok(row)
            }
            Err(refusal) => {
                writer.rollback().await.map_err(|error| told(error, table))?;
                Err(refusal)
            }
        }
    }
}

/// What a change by itself is made in.
enum Turn {
    /// A statement that is a transaction of its own.
    Shared(RowsTurn),
    /// Several statements of one transaction.
    Whole(Box<RowsWriter>),
}

impl Turn {
    async fn take(databases: &Databases, guest: &Guest, change: &Change) -> Result<Self, database::Error> {
        let (env, depth) = (guest.env(), guest.depth());
        match change.is_conditional() {
            true => databases.rows_writer(env, depth).await.map(Box::new).map(Turn::Whole),
            false => databases.rows_turn(env, depth).await.map(Turn::Shared),
        }
    }
}

/// The table of that name.
pub(super) fn known<'a>(app: &'a App, name: &str) -> Result<&'a Arc<TableModel>> {
    app.table(name).ok_or_else(|| Error::new(Code::NotFound, "there is no such table"))
}
