//! The engine's result codes (<https://www.sqlite.org/rescode.html>) as our errors.

use std::ffi::c_int;
use std::time::Duration;

use kernel::EnvId;
use libsqlite3_sys as sys;

use super::error::{CHECK, Error};
use super::policy::Refusal;
use super::postgresisms;
use super::watch::Stop;

/// What is known about the statement that failed.
pub(super) struct Told<'a> {
    pub sql: &'a str,
    pub stop: Option<Stop>,
    pub limit: Duration,
}

impl Told<'_> {
    /// Nothing is known: no statement of a caller is involved.
    pub const fn nothing() -> Self {
        Told { sql: "", stop: None, limit: Duration::ZERO }
    }
}

/// The error for what sqlx reports.
pub(super) fn of_engine(env: EnvId, told: Told<'_>, error: sqlx::Error) -> Error {
    let code = error
        .as_database_error()
        .and_then(|database| database.code())
        .and_then(|code| code.parse::<c_int>().ok());
    match (code, error.as_database_error()) {
        (Some(code), Some(database)) => match of_code(env, told, code, database.message(), None) {
            Error::Disk(_) => Error::Disk(Box::new(error)),
            other => other,
        },
        _ => Error::Engine(error),
    }
}

/// The error for a result code, primary or extended, and the engine's words.
pub(super) fn of_code(env: EnvId, told: Told<'_>, code: c_int, message: &str, at: Option<usize>) -> Error {
    match code & 0xff {
        sys::SQLITE_INTERRUPT => match told.stop {
            Some(Stop::Memory) => Error::TooMuchMemory,
            Some(Stop::Crowd) => Error::Crowded,
            Some(Stop::Cancelled) | None => Error::Cancelled,
            Some(Stop::Deadline | Stop::Long) => Error::TooSlow(told.limit),
        },
        sys::SQLITE_CONSTRAINT => constraint(code, message),
        sys::SQLITE_TOOBIG => Error::ValueTooBig,
        sys::SQLITE_NOMEM => Error::TooMuchMemory,
        sys::SQLITE_BUSY | sys::SQLITE_LOCKED | sys::SQLITE_SCHEMA => Error::Busy,
        sys::SQLITE_FULL => Error::Quota { bytes: 0 },
        sys::SQLITE_IOERR | sys::SQLITE_CANTOPEN | sys::SQLITE_PERM => {
            Error::Disk(format!("result code {code}").into())
        }
        sys::SQLITE_CORRUPT | sys::SQLITE_NOTADB => Error::Damaged(env),
        sys::SQLITE_READONLY => Error::Refused(Refusal::Change),
        sys::SQLITE_AUTH => Error::Refused(Refusal::Kind),
        _ => refused_late(message).unwrap_or_else(|| Error::Statement {
            message: message.to_owned(),
            at,
            hint: postgresisms::hint(told.sql, message),
        }),
    }
}

/// What the engine says by itself of statements that the guard means to stop.
fn refused_late(message: &str) -> Option<Error> {
    let refusal = if message.contains("attached databases") {
        Refusal::Attach
    } else if message.contains("VACUUM") {
        Refusal::Kind
    } else {
        return None;
    };
    Some(Error::Refused(refusal))
}

fn constraint(code: c_int, message: &str) -> Error {
    let what = message.split_once("failed: ").map_or(message, |(_, what)| what);
    match code {
        sys::SQLITE_CONSTRAINT_UNIQUE | sys::SQLITE_CONSTRAINT_PRIMARYKEY | sys::SQLITE_CONSTRAINT_ROWID => {
            Error::Duplicate(what.to_owned())
        }
        sys::SQLITE_CONSTRAINT_FOREIGNKEY => Error::ForeignKey,
        sys::SQLITE_CONSTRAINT_NOTNULL => Error::Value(format!("{what} needs a value")),
        sys::SQLITE_CONSTRAINT_CHECK => match what.strip_prefix(CHECK) {
            Some(column) => Error::Check(column.to_owned()),
            None => Error::Value(format!("the check {what} does not hold")),
        },
        // A type that a STRICT column does not take, or RAISE in a trigger: the words say it.
        _ => Error::Value(message.to_owned()),
    }
}
