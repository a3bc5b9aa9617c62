//! The rows of an app's tables, as its users reach them: by rules, never by SQL of theirs.

mod aggregate;
mod batch;
mod change;
mod csv;
mod encode;
mod error;
mod etag;
mod expand;
mod given;
mod kind;
mod list;
mod model;
mod object;
mod once;
mod order;
mod put;
mod search;
mod service;
mod statement;
mod typescript;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Step};
pub use csv::Table;
pub use etag::IfMatch;
pub use kind::Type;
pub use list::ListQuery;
pub use model::{
    App, AuthSettings, ColumnModel, Confirm, DefaultValue, Method, Mfa, PhoneAdapter, SignUp, TableModel,
    Theme,
};
pub use once::{Key, Reply, Write};
pub use put::Target;
pub use service::{LiveApps, Rows, Stored};
pub use typescript::typescript;

pub(crate) use model::BUCKET;

pub(crate) use encode::object as encode_row;
pub(crate) use given::{changes, new_row, parameter};
pub(crate) use kind::time_text;
pub(crate) use list::selected;
pub(crate) use order::Order;
pub(crate) use statement::{Statements, Wanted, new_id};
