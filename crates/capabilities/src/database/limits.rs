//! The bounds of an environment's database.

use std::time::Duration;

/// How many values one statement may have.
pub(crate) const PARAMETERS: usize = 1_000;

/// Bounds for one process and for each of its environments.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Environments whose databases are open at once. Each takes at most two connections that write, one for the
    /// data plane, and [`Limits::readers`] that read.
    pub open: usize,
    /// Connections that read, for each open environment.
    pub readers: u32,
    /// How long an environment stays open without use.
    pub idle: Duration,
    /// How long one statement may run.
    pub statement: Duration,
    /// How long one statement of a migration, or one load, may run.
    pub migration: Duration,
    /// How long a call waits for its turn: for a connection, or for the one writer.
    pub turn: Duration,
    /// The largest database, in pages of 4,096 bytes.
    pub pages: u32,
    /// The largest text, blob or row, in bytes.
    pub value_bytes: usize,
    /// The longest SQL text, in bytes.
    pub sql_bytes: usize,
    /// How much memory the engine may take on while one statement runs, in bytes. Sorting and temporary tables
    /// are in memory, so this bounds them too.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open: 64,
            readers: 3,
            idle: Duration::from_secs(10),
            statement: Duration::from_secs(5),
            migration: Duration::from_secs(60),
            turn: Duration::from_secs(10),
            pages: 1 << 18,
            value_bytes: 2_000_000,
            sql_bytes: 1_000_000,
            memory_bytes: 128 << 20,
        }
    }
}
