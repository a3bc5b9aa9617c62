//! The rows of an app's tables, as its users reach them: by rules, never by SQL of theirs.

mod batch;
mod change;
mod encode;
mod error;
mod etag;
mod given;
mod kind;
mod model;
mod order;
mod service;
mod statement;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Step};
pub use etag::IfMatch;
pub use kind::Type;
pub use model::{App, AuthSettings, ColumnModel, DefaultValue, Method, TableModel};
pub use service::{ListQuery, LiveApps, Rows, Stored};

pub(crate) use model::BUCKET;

pub(crate) use given::{changes, new_row, parameter};
pub(crate) use kind::time_text;
pub(crate) use order::Order;
pub(crate) use statement::{Statements, Wanted};
