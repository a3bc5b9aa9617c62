//! The rows of an app's tables, as its users reach them: by rules, never by SQL of theirs.

mod kind;
mod model;
mod service;

pub use kind::Type;
pub(crate) use kind::time_text;
pub use model::{App, AuthSettings, ColumnModel, DefaultValue, Method, TableModel};
pub use service::Rows;
