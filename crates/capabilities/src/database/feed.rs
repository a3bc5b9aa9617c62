//! What changes in the tables of an environment that somebody watches: a bounded log, filled as transactions commit.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::EnvId;
use serde_json::Value;
use tokio::sync::watch;

use super::events::Noted;

/// How many changes the log holds, and how many bytes of what was there before them.
const ENTRIES: usize = 10_000;
const BYTES: usize = 4 << 20;

/// How many rows of one transaction are told one by one, and how many bytes they may be.
pub(super) const ROWS: usize = 1_000;
pub(super) const ROWS_BYTES: usize = 1 << 20;

/// The log of one environment. Filled by the connections that write; nothing is copied while nobody watches.
pub(crate) struct Feed {
    watched: AtomicBool,
    state: Mutex<State>,
    head: watch::Sender<u64>,
    /// Who hears of events that are noted there.
    noted: Option<(EnvId, Arc<Noted>)>,
}

struct State {
    tables: Arc<Watched>,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// Everything after this one is in the log.
    floor: u64,
}

/// The tables that are watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// By their name in lower case.
    tables: HashMap<String, Table>,
    /// The state of the schema that their columns are of.
    schema: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub name: Arc<str>,
    /// The columns as the engine counts them; none where the schema has changed since they were read.
    pub columns: Option<Columns>,
}

/// The names of a table's columns, in the engine's order.
pub(crate) type Columns = Arc<[String]>;

/// One change.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    /// Its number; each is greater than the one before.
    pub seq: u64,
    /// The table, in lower case.
    pub table: Arc<str>,
    /// What has changed there.
    pub what: Changed,
}

/// What a transaction has changed in a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Changed {
    /// The row with this id; `before` is what it was, where it was there.
    Row { id: String, before: Option<Before> },
    /// More than is told one by one, or the table itself.
    Much,
}

/// A row as it was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Before {
    pub columns: Columns,
    pub values: Vec<Value>,
}

/// What comes after a number.
#[derive(Debug, PartialEq)]
pub(crate) enum Since {
    /// These, in order.
    Entries(Vec<Arc<Entry>>),
    /// Some of it is not in the log any more.
    Lost,
}

impl Feed {
    pub(super) fn new() -> Self {
        let state = State { tables: Arc::default(), entries: VecDeque::new(), bytes: 0, floor: 0 };
        let head = watch::Sender::new(0);
        Self { watched: AtomicBool::new(false), state: Mutex::new(state), head, noted: None }
    }

    /// That of an environment; `noted` hears of its events.
    pub(super) fn of(env: EnvId, noted: &Arc<Noted>) -> Self {
        Self { noted: Some((env, Arc::clone(noted))), ..Self::new() }
    }

    /// Events of functions were committed.
    pub(super) fn note(&self) {
        if let Some((env, noted)) = &self.noted {
            noted.ring(*env);
        }
    }

    /// Whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    /// The number of the last change.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Tells of new heads.
    pub fn heads(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// At most `most` changes after the one with this number.
    pub fn since(&self, seq: u64, most: usize) -> Since {
        let state = self.state();
        if seq < state.floor {
            return Since::Lost;
        }
        let start = state.entries.partition_point(|entry| entry.seq <= seq);
        Since::Entries(state.entries.range(start..).take(most).cloned().collect())
    }

    /// To be called before columns are read for [`Feed::watch`].
    pub(super) fn schema(&self) -> u64 {
        self.tables().schema
    }

    /// Watches a table too, unless the schema has changed since `schema`. What a transaction changes that is open
    /// already may be missed.
    ///
    /// # Returns
    /// Whether it does.
    pub(super) fn watch(&self, schema: u64, table: &str, columns: Columns) -> bool {
        let mut state = self.state();
        if state.tables.schema != schema {
            return false;
        }
        let name: Arc<str> = table.to_ascii_lowercase().into();
        let mut tables = state.tables.tables.clone();
        tables.insert(name.to_string(), Table { name, columns: Some(columns) });
        state.tables = Arc::new(Watched { tables, schema });
        self.watched.store(true, Ordering::Release);
        true
    }

    /// Whether a table is watched and its columns are known.
    pub(super) fn watches(&self, table: &str) -> bool {
        self.state().tables.find(table).is_some_and(|table| table.columns.is_some())
    }

    /// Watches nothing any more, and forgets what was.
    pub fn rest(&self) {
        let mut state = self.state();
        self.watched.store(false, Ordering::Release);
        state.tables = Arc::new(Watched { tables: HashMap::new(), schema: state.tables.schema });
        state.entries = VecDeque::new();
        state.bytes = 0;
        state.floor = self.head();
    }

    /// The tables that are watched.
    pub(super) fn tables(&self) -> Arc<Watched> {
        Arc::clone(&self.state().tables)
    }

    /// To be held while a change of the schema, or of the whole file, becomes visible: every watched table is another one
    /// then. Who has read the schema in between reads it again.
    pub fn reshape(self: Arc<Self>) -> Reshaping {
        self.everything_changed();
        Reshaping(self)
    }

    fn everything_changed(&self) {
        let mut state = self.state();
        let unread = |table: &Table| Table { name: Arc::clone(&table.name), columns: None };
        let tables: HashMap<_, _> =
            state.tables.tables.iter().map(|(name, table)| (name.clone(), unread(table))).collect();
        let all = tables.values().map(|table| (Arc::clone(&table.name), Changed::Much)).collect();
        state.tables = Arc::new(Watched { tables, schema: state.tables.schema + 1 });
        self.append(&mut state, all);
    }

    /// Adds what a transaction has changed, told by `tables`; to be called when others can see it.
    pub(super) fn publish(&self, tables: &Watched, mut changes: Vec<(Arc<str>, Changed)>) {
        let mut state = self.state();
        if !self.is_watched() {
            return;
        }
        // The transaction has changed the schema too, so that what it says of columns may be wrong.
        if tables.schema != state.tables.schema {
            changes.iter_mut().for_each(|(_, what)| *what = Changed::Much);
            changes.dedup();
        }
        self.append(&mut state, changes);
    }

    fn append(&self, state: &mut State, changes: Vec<(Arc<str>, Changed)>) {
        let mut seq = self.head();
        for (table, what) in changes {
            seq += 1;
            state.bytes += what.bytes();
            state.entries.push_back(Arc::new(Entry { seq, table, what }));
        }
        while state.entries.len() > ENTRIES || state.bytes > BYTES {
            let Some(oldest) = state.entries.pop_front() else { break };
            state.bytes = state.bytes.saturating_sub(oldest.what.bytes());
            state.floor = oldest.seq;
        }
        self.head.send_replace(seq);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

/// A change of the schema that is under way.
pub(crate) struct Reshaping(Arc<Feed>);

impl Drop for Reshaping {
    fn drop(&mut self) {
        self.0.everything_changed();
    }
}

impl Watched {
    pub fn find(&self, table: &str) -> Option<&Table> {
        self.tables.get(&table.to_ascii_lowercase())
    }
}

impl Changed {
    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        match self {
            Changed::Row { id, before } => {
                64 + id.len() + before.as_ref().map_or(0, |before| before.values.iter().map(size).sum())
            }
            Changed::Much => 64,
        }
    }
}

/// About how many bytes a value takes.
pub(super) fn size(value: &Value) -> usize {
    32 + match value {
        Value::String(text) => text.len(),
        Value::Object(object) => object.values().map(size).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching() -> Feed {
        let feed = Feed::new();
        assert!(feed.watch(feed.schema(), "Todos", [String::from("id")].into()));
        feed
    }

    fn row(id: &str) -> (Arc<str>, Changed) {
        ("todos".into(), Changed::Row { id: id.to_owned(), before: None })
    }

    fn ids(feed: &Feed, seq: u64) -> Option<Vec<(u64, String)>> {
        let Since::Entries(entries) = feed.since(seq, usize::MAX) else { return None };
        let told = |entry: &Arc<Entry>| match &entry.what {
            Changed::Row { id, .. } => (entry.seq, id.clone()),
            Changed::Much => (entry.seq, "*".to_owned()),
        };
        Some(entries.iter().map(told).collect())
    }

    #[test]
    fn changes_are_numbered_in_order_and_read_from_any_number_on() {
        let feed = watching();
        feed.publish(&feed.tables(), vec![row("a"), row("b")]);
        feed.publish(&feed.tables(), vec![row("c")]);
        assert_eq!(ids(&feed, 1), Some(vec![(2, "b".to_owned()), (3, "c".to_owned())]));
        assert_eq!(ids(&feed, 3), Some(vec![]));
        assert_eq!(feed.head(), 3);
    }

    #[test]
    fn what_nobody_watches_is_not_kept() {
        let feed = Feed::new();
        feed.publish(&feed.tables(), vec![row("a")]);
        assert_eq!((feed.head(), ids(&feed, 0)), (0, Some(vec![])));
    }

    #[test]
    fn what_has_left_the_log_is_said_to_be_lost() {
        let feed = watching();
        feed.publish(&feed.tables(), (0..=ENTRIES).map(|n| row(&n.to_string())).collect());
        assert_eq!(ids(&feed, 0), None);
        assert_eq!(ids(&feed, 1).map(|ids| ids.len()), Some(ENTRIES));
        feed.rest();
        assert_eq!(ids(&feed, 1), None);
        assert_eq!(ids(&feed, feed.head()), Some(vec![]));
    }

    #[test]
    fn bytes_bound_the_log_as_well() {
        let feed = watching();
        let big = Before { columns: [String::from("id")].into(), values: vec!["x".repeat(BYTES / 4).into()] };
        for n in 0..5 {
            let what = Changed::Row { id: n.to_string(), before: Some(big.clone()) };
            feed.publish(&feed.tables(), vec![("todos".into(), what)]);
        }
        assert_eq!(ids(&feed, 1), None);
        assert_eq!(ids(&feed, 2).map(|ids| ids.len()), Some(3));
    }

    #[test]
    fn a_transaction_that_changes_the_schema_tells_of_no_single_rows() {
        let feed = watching();
        let tables = feed.tables();
        feed.everything_changed();
        feed.publish(&tables, vec![row("a"), row("b")]);
        assert_eq!(ids(&feed, 1), Some(vec![(2, "*".to_owned())]));
    }

    #[test]
    fn columns_that_were_read_before_the_schema_changed_are_not_taken() {
        let feed = watching();
        let before = feed.schema();
        feed.everything_changed();
        assert_eq!(ids(&feed, 0), Some(vec![(1, "*".to_owned())]));
        assert!(!feed.watches("todos"));
        assert!(!feed.watch(before, "todos", [String::from("id")].into()));
        assert!(feed.watch(feed.schema(), "todos", [String::from("id")].into()));
        assert!(feed.watches("TODOS"));
    }
}
