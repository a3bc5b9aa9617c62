//! Who may do what with rows: rules, what they mean to the database, and who asks.

mod advice;
mod check;
mod compile;
mod explain;
mod expr;
mod json;
mod lexer;
mod lint;
mod lookup;
mod matrix;
mod mend;
mod names;
mod parse;
mod persona;
mod preset;
mod rules;
mod spec;
mod subject;
mod test_spec;
mod trial;
mod typing;

#[cfg(test)]
mod tests;

pub use explain::{Explanation, Question, Who};
pub use matrix::Matrix;
pub use persona::Persona;
pub use preset::{CloudBase, Preset};
pub use rules::Rules;
pub use spec::{AccessSpec, RulesSpec};
pub use subject::{Guest, Subject, User};
pub use test_spec::{Expect, GivenSpec, TestSpec};

pub(crate) use compile::{New, Sql, View, compile};
pub(crate) use explain::explain;
pub(crate) use expr::{Auth, ColumnRef, Expr, Op, Source};
pub(crate) use lint::{Finding, Indexed, lint};
pub(crate) use matrix::matrix;
pub(crate) use mend::Mend;
pub(crate) use test_spec::run as run_tests;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done with rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Many rows are read.
    List,
    /// One row is read by its id.
    Get,
    /// A row is made.
    Create,
    /// A row is changed.
    Update,
    /// A row is removed.
    Delete,
}

impl Operation {
    /// Every operation, in the order of the contract.
    pub const ALL: [Operation; 5] =
        [Operation::List, Operation::Get, Operation::Create, Operation::Update, Operation::Delete];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::List => "list",
            Operation::Get => "get",
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Operation::ALL.into_iter().find(|operation| operation.as_str() == text).ok_or(())
    }
}
