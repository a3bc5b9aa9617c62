//! The database that every environment starts from: prepared once, then copied.

use std::io::Write as _;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::connection::Connection;
use super::error::Error;
use super::fate::{Fate, fate};
use super::policy::Role;

/// What the name of a database begins with while it is written.
const HALF: &str = "main.db.new-";

/// Marks the file as a database of ours: `STDG` as a big-endian number, in the header's application id.
pub(super) const APPLICATION: i64 = 0x5354_4447;

/// The version of the platform's own tables, in the header's user version. 0 lacks those of the app's users.
pub(super) const LAYOUT: i64 = 6;

/// The platform's own tables and indexes, as the engine keeps their text. The guard keeps callers from them, and each
/// change of the schema is held against this list.
pub(super) const TABLES: [(&str, &str); 28] = [
    (
        "_steading_migration",
        "CREATE TABLE _steading_migration (name TEXT PRIMARY KEY, digest TEXT NOT NULL, sql TEXT NOT NULL, \
         applied_at INTEGER NOT NULL, release INTEGER) STRICT",
    ),
    (
        "_steading_plan",
        "CREATE TABLE _steading_plan (id TEXT PRIMARY KEY, plan TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT",
    ),
    (RELEASE, RELEASES),
    ("_steading_state", "CREATE TABLE _steading_state (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"),
    (
        "_steading_user",
        "CREATE TABLE _steading_user (id TEXT PRIMARY KEY, email TEXT UNIQUE, password TEXT, role TEXT NOT NULL, \
         claims TEXT NOT NULL, disabled INTEGER NOT NULL, created_at INTEGER NOT NULL, last_seen_at INTEGER) STRICT",
    ),
    (SESSION, SESSIONS),
    (
        "_steading_object",
        "CREATE TABLE _steading_object (id TEXT PRIMARY KEY, owner TEXT, bucket TEXT NOT NULL, path TEXT NOT NULL, \
         size INTEGER NOT NULL, content_type TEXT NOT NULL, etag TEXT NOT NULL, content TEXT NOT NULL, \
         metadata TEXT NOT NULL DEFAULT '{}', \
         created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), \
         updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), UNIQUE (bucket, path)) STRICT",
    ),
    ("_steading_object_by_size", "CREATE INDEX _steading_object_by_size ON _steading_object (bucket, size)"),
    (
        "_steading_upload",
        "CREATE TABLE _steading_upload (id TEXT PRIMARY KEY, owner TEXT, bucket TEXT NOT NULL, path TEXT NOT NULL, \
         length INTEGER NOT NULL, content_type TEXT NOT NULL, metadata TEXT, noted TEXT NOT NULL, \
         received INTEGER NOT NULL, done INTEGER NOT NULL, expires_at INTEGER NOT NULL, network INTEGER) STRICT",
    ),
    (
        "_steading_session_by_user",
        "CREATE INDEX _steading_session_by_user ON _steading_session (user, created_at)",
    ),
    (
        "_steading_identity",
        "CREATE TABLE _steading_identity (provider TEXT NOT NULL, subject TEXT NOT NULL, user TEXT NOT NULL, \
         created_at INTEGER NOT NULL, PRIMARY KEY (provider, subject)) STRICT",
    ),
    ("_steading_identity_by_user", "CREATE INDEX _steading_identity_by_user ON _steading_identity (user)"),
    (
        "_steading_code",
        "CREATE TABLE _steading_code (id TEXT PRIMARY KEY, purpose TEXT NOT NULL, email TEXT NOT NULL, user TEXT, \
         code TEXT NOT NULL, link TEXT NOT NULL UNIQUE, password TEXT, redirect TEXT, tries INTEGER NOT NULL, \
         created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL) STRICT",
    ),
    ("_steading_code_by_email", "CREATE INDEX _steading_code_by_email ON _steading_code (email, created_at)"),
    (
        "_steading_mail",
        "CREATE TABLE _steading_mail (id TEXT PRIMARY KEY, email TEXT NOT NULL, subject TEXT NOT NULL, \
         text TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT",
    ),
    (
        "_steading_totp",
        "CREATE TABLE _steading_totp (user TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT, secret TEXT NOT NULL, \
         step INTEGER NOT NULL, active INTEGER NOT NULL, created_at INTEGER NOT NULL, used_at INTEGER) STRICT",
    ),
    (
        "_steading_passkey",
        "CREATE TABLE _steading_passkey (id TEXT PRIMARY KEY, credential TEXT NOT NULL UNIQUE, user TEXT NOT NULL, \
         name TEXT, key TEXT NOT NULL, counter INTEGER NOT NULL, host TEXT NOT NULL, verified INTEGER NOT NULL, backed_up INTEGER NOT NULL, \
         created_at INTEGER NOT NULL, used_at INTEGER) STRICT",
    ),
    (
        "_steading_passkey_by_user",
        "CREATE INDEX _steading_passkey_by_user ON _steading_passkey (user, created_at)",
    ),
    (
        "_steading_recovery",
        "CREATE TABLE _steading_recovery (user TEXT NOT NULL, code TEXT NOT NULL, PRIMARY KEY (user, code)) STRICT",
    ),
    (
        "_steading_ticket",
        "CREATE TABLE _steading_ticket (id TEXT PRIMARY KEY, purpose TEXT NOT NULL, user TEXT, about TEXT NOT NULL, \
         tries INTEGER NOT NULL, expires_at INTEGER NOT NULL) STRICT",
    ),
    ("_steading_ticket_by_time", "CREATE INDEX _steading_ticket_by_time ON _steading_ticket (expires_at)"),
    (
        "_steading_reply",
        "CREATE TABLE _steading_reply (user TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, reply TEXT NOT NULL, \
         created_at INTEGER NOT NULL, PRIMARY KEY (user, key)) STRICT",
    ),
    (
        "_steading_oauth",
        "CREATE TABLE _steading_oauth (id TEXT PRIMARY KEY, stage TEXT NOT NULL, said TEXT NOT NULL, \
         expires_at INTEGER NOT NULL) STRICT",
    ),
    ("_steading_oauth_by_time", "CREATE INDEX _steading_oauth_by_time ON _steading_oauth (expires_at)"),
    (
        "_steading_event",
        "CREATE TABLE _steading_event (seq INTEGER PRIMARY KEY, id TEXT NOT NULL DEFAULT (lower(hex(randomblob(12)))), \
         function TEXT NOT NULL, source TEXT NOT NULL, about TEXT NOT NULL, did TEXT NOT NULL, depth INTEGER NOT NULL, \
         at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), attempt INTEGER NOT NULL DEFAULT 0, \
         due INTEGER NOT NULL DEFAULT 0, failed TEXT, weight INTEGER NOT NULL DEFAULT 0, upto INTEGER NOT NULL DEFAULT 0, \
         new TEXT, old TEXT) STRICT",
    ),
    (
        "_steading_event_by_lane",
        "CREATE INDEX _steading_event_by_lane ON _steading_event (function, source, about) WHERE attempt >= 0",
    ),
    (
        "_steading_event_given_up",
        "CREATE INDEX _steading_event_given_up ON _steading_event (function) WHERE attempt < 0",
    ),
    ("_steading_reply_by_time", "CREATE INDEX _steading_reply_by_time ON _steading_reply (created_at)"),
];

pub(super) const RELEASE: &str = "_steading_release";

const RELEASES: &str = "CREATE TABLE _steading_release (number INTEGER PRIMARY KEY, manifest TEXT NOT NULL, site TEXT, \
     created_at INTEGER NOT NULL, note TEXT, functions TEXT) STRICT";

/// The releases of layout 4 and before, as the engine keeps their text.
pub(super) const RELEASES_BEFORE: &str = "CREATE TABLE _steading_release (number INTEGER PRIMARY KEY, \
     manifest TEXT NOT NULL, site TEXT, created_at INTEGER NOT NULL, note TEXT) STRICT";

/// Brings them over: they had no functions.
const ADD_FUNCTIONS: &str = "ALTER TABLE _steading_release ADD COLUMN functions TEXT";

const SESSION: &str = "_steading_session";

const SESSIONS: &str = "CREATE TABLE _steading_session (id TEXT PRIMARY KEY, user TEXT NOT NULL, \
     family TEXT NOT NULL UNIQUE, refresh TEXT NOT NULL, spent TEXT, attempt TEXT, method TEXT NOT NULL, device TEXT, \
     created_at INTEGER NOT NULL, used_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, second INTEGER) STRICT";

/// Brings sessions of layout 1 over, which knew neither how nor where their users had signed in.
const MOVE_SESSIONS: [&str; 4] = [
    "ALTER TABLE _steading_session RENAME TO _steading_session_before",
    SESSIONS,
    "INSERT INTO _steading_session (id, user, family, refresh, method, created_at, used_at, expires_at) \
     SELECT id, user, family, refresh, CASE WHEN EXISTS (SELECT 1 FROM _steading_user u WHERE u.id = user AND \
     u.email IS NOT NULL) THEN 'password' ELSE 'anonymous' END, created_at, created_at, expires_at \
     FROM _steading_session_before",
    "DROP TABLE _steading_session_before",
];

/// Brings sessions of layout 2 over, which knew no second factor.
const ADD_SECOND: &str = "ALTER TABLE _steading_session ADD COLUMN second INTEGER";

/// Brings the platform's own tables of an older layout up to this one, before anything else uses the connection, in
/// one transaction; whoever opens the same database at the same moment waits for it.
pub(super) async fn upgrade(connection: &mut Connection) -> Result<(), Error> {
    let limit = connection.limits().migration;
    connection.run(Role::Platform, "BEGIN IMMEDIATE", &[], limit).await?;
    let found = "SELECT sql LIKE '%method TEXT%' FROM sqlite_schema WHERE name = ?1 AND sql <> ?2";
    let others = connection.run(Role::Platform, found, &[SESSION.into(), SESSIONS.into()], limit).await?;
    let steps: &[&str] = match others.rows.first().and_then(|row| row.first()?.as_i64()) {
        None => &[],
        Some(0) => &MOVE_SESSIONS,
        Some(_) => &[ADD_SECOND],
    };
    for sql in steps {
        connection.run(Role::Platform, sql, &[], limit).await?;
    }
    let before = "SELECT 1 FROM sqlite_schema WHERE name = ?1 AND sql = ?2";
    let before =
        connection.run(Role::Platform, before, &[RELEASE.into(), RELEASES_BEFORE.into()], limit).await?;
    if !before.rows.is_empty() {
        connection.run(Role::Platform, ADD_FUNCTIONS, &[], limit).await?;
    }
    // What is of use for a moment alone, and had another form, begins anew.
    for (name, sql) in TABLES.iter().filter(|(name, sql)| is_table(sql) && fate(name) == Fate::Passing) {
        let others = connection.run(Role::Platform, found, &[(*name).into(), (*sql).into()], limit).await?;
        if !others.rows.is_empty() {
            connection.run(Role::Platform, &format!("DROP TABLE {name}"), &[], limit).await?;
        }
    }
    let names = connection.run(Role::Platform, "SELECT name FROM sqlite_schema", &[], limit).await?.rows;
    for (name, sql) in TABLES {
        if !names.iter().any(|row| row.first().is_some_and(|found| found == name)) {
            connection.run(Role::Platform, sql, &[], limit).await?;
        }
    }
    let version = format!("PRAGMA user_version = {LAYOUT}");
    for sql in [version.as_str(), "COMMIT"] {
        connection.run(Role::Platform, sql, &[], limit).await?;
    }
    Ok(())
}

fn is_table(sql: &str) -> bool {
    sql.starts_with("CREATE TABLE")
}

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
    let layout = format!("PRAGMA user_version = {LAYOUT}");
    connection.execute(sqlx::AssertSqlSafe(layout)).await.map_err(Error::Engine)?;
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
