//! The database that every environment starts from: prepared once, then copied.

use std::io::Write as _;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::error::Error;

/// What the name of a database begins with while it is written.
const HALF: &str = "main.db.new-";

/// Marks the file as a database of ours: `STDG` as a big-endian number, in the header's application id.
pub(super) const APPLICATION: i64 = 0x5354_4447;

/// The platform's own tables. The guard keeps callers from them, and each change of the schema is held against
/// this list.
pub(super) const TABLES: [(&str, &str); 4] = [
    (
        "_steading_migration",
        "CREATE TABLE _steading_migration (name TEXT PRIMARY KEY, digest TEXT NOT NULL, sql TEXT NOT NULL, \
         applied_at INTEGER NOT NULL, release INTEGER) STRICT",
    ),
    (
        "_steading_plan",
        "CREATE TABLE _steading_plan (id TEXT PRIMARY KEY, plan TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT",
    ),
    (
        "_steading_release",
        "CREATE TABLE _steading_release (number INTEGER PRIMARY KEY, manifest TEXT NOT NULL, site TEXT, \
         created_at INTEGER NOT NULL, note TEXT) STRICT",
    ),
    ("_steading_state", "CREATE TABLE _steading_state (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"),
];

/// The bytes of an empty environment's database.
pub(super) async fn prepare() -> Result<Vec<u8>, Error> {
    let directory = tempfile::tempdir().map_err(Error::File)?;
    let path = directory.path().join("main.db");
    let mut connection = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // It is read back at once and thrown away, so that nothing has to wait for the disk.
        .synchronous(SqliteSynchronous::Off)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(Error::Engine)?;
    connection.execute("PRAGMA application_id = 0x53544447").await.map_err(Error::Engine)?;
    for (_, sql) in TABLES {
        connection.execute(sql).await.map_err(Error::Engine)?;
    }
    // The last connection to close moves what is in the log into the file.
    connection.close().await.map_err(Error::Engine)?;
    tokio::fs::read(&path).await.map_err(Error::File)
}

/// Writes `bytes` as the database at `path`, durably, so that it is there whole or not at all.
///
/// # Errors
/// `AlreadyExists` where there is a file.
pub(super) fn place(bytes: &[u8], path: &Path) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(HALF).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|failed| failed.error)?;
    sync(directory)?;
    directory.parent().map_or(Ok(()), sync)
}

/// Removes what an attempt to [`place`] that died has left in `directory`; not to be called while one is under way.
pub(super) fn sweep(directory: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(HALF)) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn sync(directory: &Path) -> std::io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}
