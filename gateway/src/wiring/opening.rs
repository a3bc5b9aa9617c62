//! That the data directory can be opened, and what to say where it cannot.

use std::ffi::OsStr;
use std::path::Path;

use control::OpenError;
use kernel::{Code, EnvId, Error, Result};

use crate::config::Config;

/// That a control database which is gone is not made anew over the environments it knew: nobody would reach them.
pub(super) fn known_to_a_control_plane(config: &Config, environments_dir: &Path) -> Result<()> {
    let file = config.data_dir.join("control.db");
    if config.database.url.is_some() || std::fs::metadata(&file).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    let entries = std::fs::read_dir(environments_dir).into_iter().flatten().flatten();
    let is_environment = |name: &OsStr| name.to_str().is_some_and(|name| name.parse::<EnvId>().is_ok());
    match entries.filter(|entry| is_environment(&entry.file_name())).count() {
        0 => Ok(()),
        known => Err(Error::new(
            Code::Unavailable,
            format!(
                "the control database {} is missing or empty, and {} holds {known} environments that it knew",
                file.display(),
                environments_dir.display()
            ),
        )
        .hint("restore it from a backup, or start anew in another directory with --data-dir")),
    }
}

/// What is said of a control plane that does not open.
pub(super) fn closed(error: OpenError) -> Error {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let words = error.to_string();
        // Some errors say their cause themselves.
        if !message.ends_with(&words) {
            message.push_str(&format!(": {words}"));
        }
        cause = error.source();
    }
    let closed = Error::new(Code::Unavailable, message);
    match error.hint() {
        Some(hint) => closed.hint(hint),
        None => closed,
    }
}

/// What is said of a directory that cannot be used.
pub(super) fn unusable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Code::Unavailable, format!("the data directory cannot be used: {}: {error}", path.display()))
        .hint("check its owner and the space on its disk")
}
