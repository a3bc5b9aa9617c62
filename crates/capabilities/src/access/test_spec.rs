//! The tests of a manifest: who may do what, held against the rules before a release is switched to.

use std::fmt;

use kernel::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::trial::{Target, Trial, Verdict};
use super::{Operation, Persona};
use crate::database::Writer;
use crate::rows::{App, TableModel};

/// One test: somebody tries something with a row that `user` owns. A release whose tests fail is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// Who: `anonymous` (no session), `user` (the owner), `other`, `admin`.
    pub r#as: Persona,
    /// What is tried.
    pub r#do: Operation,
    /// On which table, or bucket: `files/photos`.
    pub on: String,
    /// Whether it shall be allowed; a `list` is denied where it does not show the row.
    pub expect: Expect,
    /// Values of the row that it is tried on; the rest is made up. `"owner": "other"` makes it another's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<Map<String, Value>>,
    /// Values of the new row, or the changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Map<String, Value>>,
    /// Rows of other tables that are there meanwhile, for rules with `exists`. `@user`, `@other` and `@admin` stand for
    /// those users' ids, `@row` for that of the row it is tried on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<GivenSpec>,
}

/// A row that is there for a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenSpec {
    /// Its table.
    pub on: String,
    /// Its values; what it needs beside them is made up.
    pub row: Map<String, Value>,
}

/// How many rows a test may be given.
const GIVEN: usize = 20;

/// What a test expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// That it is done.
    Allow,
    /// That it is not.
    Deny,
}

/// Runs the tests of a release inside the open transaction of `db`, which is as it was afterwards.
///
/// # Errors
/// `invalid_input` at the first that fails, or that is about something that is not there: `/tests/2`.
pub(crate) async fn run(db: &mut Writer, app: &App, tests: &[TestSpec]) -> Result<()> {
    for (i, test) in tests.iter().enumerate() {
        test.run(db, app).await.map_err(|e| e.under(&format!("/tests/{i}")))?;
    }
    Ok(())
}

impl TestSpec {
    async fn run(&self, db: &mut Writer, app: &App) -> Result<()> {
        let table = app.guarded(&self.on).ok_or_else(|| {
            Error::invalid("/on", format!("there is no table {:?}", self.on)).hint(
                "tests stay from release to release: give `tests` that are about the tables there are, and the \
                 buckets as files/<bucket>",
            )
        })?;
        let on = Target::Made(self.row.clone().unwrap_or_default());
        let new = self.new.clone().unwrap_or_default();
        if self.given.len() > GIVEN {
            return Err(Error::invalid("/given", format!("a test is given at most {GIVEN} rows")));
        }
        let given = self.given.iter().enumerate().map(|(index, given)| {
            let table = app.table(&given.on).ok_or_else(|| {
                Error::invalid(format!("/given/{index}/on"), format!("there is no table {:?}", given.on))
            })?;
            Ok((&**table, given.row.clone()))
        });
        let given = given.collect::<Result<_>>()?;
        let trial = Trial { table, subject: &self.r#as.subject(), operation: self.r#do, on, new, given };
        let verdict = trial.run(db).await?;
        if verdict.allowed == (self.expect == Expect::Allow) {
            return Ok(());
        }
        let may = if verdict.allowed { "may" } else { "may not" };
        let message =
            format!("the access test fails that {self}: {} {may}, by {}", self.r#as, verdict.words(table));
        Err(Error::invalid("", message).hint("change the access of the table, or what the test expects"))
    }
}

impl fmt::Display for TestSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shall = match self.expect {
            Expect::Allow => "may",
            Expect::Deny => "may not",
        };
        write!(f, "{} {shall} {} {}", self.r#as, self.r#do, self.on)
    }
}

impl Verdict {
    /// What decided: `list: row.owner == auth.uid`.
    pub(crate) fn rule(&self, table: &TableModel) -> String {
        match table.access.of(self.rule_of) {
            Some(rule) => format!("{}: {rule}", self.rule_of),
            None => format!("{}: no rule", self.rule_of),
        }
    }

    /// What decided, and what of it does not hold.
    fn words(&self, table: &TableModel) -> String {
        let rule = self.rule(table);
        match (&self.refused, &self.failing) {
            (Some(refused), _) => refused.clone(),
            (None, Some(failing)) if table.access.of(self.rule_of) != Some(failing) => {
                format!("{rule}, of which {failing} does not hold")
            }
            (None, _) => rule,
        }
    }
}
