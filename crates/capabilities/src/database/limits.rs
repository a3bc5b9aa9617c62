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
    /// The largest database that still takes rows, in pages of 4,096 bytes. [`Room::Reserve`] is beyond it.
    pub pages: u32,
    /// The largest text, blob or row, in bytes.
    pub value_bytes: usize,
    /// The longest SQL text, in bytes.
    pub sql_bytes: usize,
    /// How much memory the engine may take on while one statement runs, in bytes. Sorting and temporary tables
    /// are in memory, so this bounds them too.
    pub memory_bytes: u64,
}

impl Limits {
    /// The largest database that still takes rows, in bytes.
    pub(super) fn database_bytes(&self) -> u64 {
        u64::from(self.pages) * PAGE
    }
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

/// How many pages so many bytes are.
pub(super) fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE).unwrap_or(u32::MAX - 1)
}

/// The bytes of a page.
const PAGE: u64 = 4_096;

/// How many pages a database has, and how many of them hold nothing.
pub(super) const PAGES: &str = "PRAGMA page_count";
pub(super) const FREE: &str = "PRAGMA freelist_count";

/// Which pages of a database a statement may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Those of the quota.
    Quota,
    /// Some more, without which a full database could neither be emptied (a row's end takes pages of the full-text index
    /// first) nor open a session for whoever wants to.
    Reserve,
}

impl Room {
    /// What a statement gets that removes something, or anything else.
    pub fn of(sql: &str) -> Self {
        let first = sql.split(|letter: char| !letter.is_ascii_alphabetic()).find(|word| !word.is_empty());
        let removes =
            first.is_some_and(|word| ["DELETE", "DROP"].iter().any(|it| word.eq_ignore_ascii_case(it)));
        if removes { Self::Reserve } else { Self::Quota }
    }

    /// The engine's setting for it, of a database that has so many pages: also one that was made smaller than it is has a
    /// reserve.
    pub fn pragma(self, limits: &Limits, there: i64) -> String {
        let most = match self {
            Self::Quota => limits.pages,
            Self::Reserve => {
                let more = self.pages(limits) - limits.pages;
                limits.pages.max(u32::try_from(there).unwrap_or(0)).saturating_add(more)
            }
        };
        format!("PRAGMA max_page_count = {most}")
    }

    /// The largest database with it, in pages.
    pub fn pages(self, limits: &Limits) -> u32 {
        match self {
            Self::Quota => limits.pages,
            Self::Reserve => limits.pages.saturating_add((limits.pages / 32).max(256)),
        }
    }
}
