//! Changing who may do what with one table, and asking why.

use kernel::{Code, Env, Error, Result};
use tokio_util::sync::CancellationToken;

use super::column::{Column, OnDelete};
use super::goal::Goal;
use super::manifest::Table;
use super::rehearsal::{Rehearsal, Release, rehearse};
use super::{Applied, Releases, lossy};
use crate::access::{self, AccessSpec, Explanation, Matrix, Operation, Question};
use crate::database::{Durability, Writer};

/// What a change of access has come to, or would come to.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessSet {
    /// The release that is current, and what was done.
    pub applied: Applied,
    /// Who may do what with a row that `user` owns; empty where none can be made up.
    pub matrix: Matrix,
    /// What is likely wrong with it.
    pub lint: Vec<String>,
}

impl Releases {
    /// Makes a release whose table of that name has this access, and else is the current one.
    ///
    /// # Errors
    /// `invalid_input` below `/access`; `not_found` or `conflict` at `/table`, where no manifest has the table; as
    /// [`Releases::apply`].
    pub async fn set_access(
        &self,
        env: &Env,
        table: &str,
        access: AccessSpec,
        cancel: &CancellationToken,
    ) -> Result<AccessSet> {
        let (db, rehearsal, matrix, lint) = self.try_access(env, table, access, cancel).await?;
        let applied = self.finish(env, db, rehearsal, cancel).await?;
        Ok(AccessSet { applied, matrix, lint })
    }

    /// What [`Releases::set_access`] would do; nothing has changed afterwards.
    ///
    /// # Errors
    /// As [`Releases::set_access`].
    pub async fn plan_access(
        &self,
        env: &Env,
        table: &str,
        access: AccessSpec,
        cancel: &CancellationToken,
    ) -> Result<AccessSet> {
        let (mut db, rehearsal, matrix, lint) = self.try_access(env, table, access, cancel).await?;
        db.rollback().await?;
        Ok(AccessSet { applied: rehearsal.planned(), matrix, lint })
    }

    async fn try_access(
        &self,
        env: &Env,
        table: &str,
        access: AccessSpec,
        cancel: &CancellationToken,
    ) -> Result<(Writer, Rehearsal, Matrix, Vec<String>)> {
        let mut db = self.writer(env, cancel).await?;
        let goal = Goal::Access { table: table.to_owned(), access };
        let rehearsal = rehearse(&mut db, &goal, "").await?;
        let judged = judge(&mut db, &rehearsal, table).await;
        if judged.is_err() {
            db.rollback().await?;
        }
        let (matrix, lint) = judged?;
        Ok((db, rehearsal, matrix, lint))
    }

    /// Why somebody may do something with a row, or may not, by the rules of the current release.
    ///
    /// # Errors
    /// `not_found` for the table, the row or the user; `invalid_input` for values that do not fit.
    pub async fn explain(
        &self,
        env: &Env,
        question: Question,
        cancel: &CancellationToken,
    ) -> Result<Explanation> {
        let mut db = self.writer(env, cancel).await?;
        db.begin(Durability::Normal).await?;
        let explained = async {
            let app = Release::current(&mut db).await?.app()?;
            access::explain(&mut db, &app, question).await
        }
        .await;
        db.rollback().await?;
        explained
    }
}

async fn judge(db: &mut Writer, rehearsal: &Rehearsal, name: &str) -> Result<(Matrix, Vec<String>)> {
    if rehearsal.losses().next().is_some() {
        return Err(lossy(rehearsal.losses())
            .field("/table")
            .hint("apply the manifest with app_plan and app_apply"));
    }
    let tables = rehearsal.release.tables()?;
    let table = tables.iter().find(|table| table.name.as_str().eq_ignore_ascii_case(name));
    let table = table.ok_or_else(|| Error::new(Code::NotFound, format!("there is no table {name}")))?;
    let model = table.model();
    let (matrix, untried) = match access::matrix(db, &model).await {
        Ok(matrix) => (matrix, None),
        // What the app's own SQL wants of rows is more than can be made up.
        Err(e) if e.pointer() == Some("/row") => {
            (Matrix::new(), Some(format!("who may do what was not tried: {}", e.message())))
        }
        Err(e) => return Err(e.field("/table")),
    };
    let first = |(columns, _): &(Vec<super::names::ColumnName>, bool)| Some(columns.first()?.to_string());
    let indexed =
        tables.iter().map(|table| (table.name.folded(), table.indexes.iter().filter_map(first).collect()));
    let found = access::lint(&model, &indexed.collect(), Some(&matrix));
    let lint = untried.into_iter().chain(found.into_iter().map(|finding| finding.message));
    let lint = lint.chain(beyond_rules(table, &tables)).collect();
    Ok((matrix, lint))
}

/// What a deletion does to rows of other tables: references act without asking the rules there.
fn beyond_rules<'a>(table: &'a Table, tables: &'a [Table]) -> impl Iterator<Item = String> + 'a {
    let deletes = table.rules.of(Operation::Delete).is_some();
    let refers = move |column: &&Column| {
        deletes && column.references.as_ref().is_some_and(|to| to.folded() == table.name.folded())
    };
    let columns = tables.iter().flat_map(move |other| {
        other.columns.iter().filter(refers).map(move |column| (other.name.as_str(), column))
    });
    columns.filter_map(move |(other, column)| {
        let (name, by) = (&table.name, &column.name);
        match column.on_delete? {
            OnDelete::Cascade => Some(format!(
                "who deletes a row of {name} deletes the rows of {other} whose {by} it is, also those of others"
            )),
            OnDelete::SetNull => Some(format!(
                "who deletes a row of {name} empties {by} of the rows of {other} that have it, also those of others"
            )),
            OnDelete::Restrict => None,
        }
    })
}
