//! Rows, read and changed by whom the rules let.

use std::sync::Arc;

use crate::database::Databases;

/// The rows of every environment's app.
#[derive(Clone)]
pub struct Rows {
    #[expect(dead_code, reason = "the operations come with it")]
    databases: Arc<Databases>,
}

impl Rows {
    /// Rows in `databases`.
    #[must_use]
    pub const fn new(databases: Arc<Databases>) -> Self {
        Self { databases }
    }
}
