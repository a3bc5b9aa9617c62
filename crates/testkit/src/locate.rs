//! Finds programs on the machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::environment::path;

/// The first of `names` that `PATH` has, links followed.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    names.iter().find_map(|name| path().iter().find_map(|directory| executable(&directory.join(name))))
}

/// The directory that holds Postgres's own programs, `initdb` among them: beside the `postgres` of `PATH`, else
/// the newest major version where Debian and Ubuntu install it.
pub fn postgres_directory() -> Option<PathBuf> {
    let beside = program(&["postgres"]).and_then(|postgres| postgres.parent().map(Path::to_path_buf));
    beside.into_iter().chain(debian_versions()).find(|directory| {
        ["initdb", "postgres", "psql"].iter().all(|name| executable(&directory.join(name)).is_some())
    })
}

/// The browser that pages are opened in.
pub fn browser() -> Option<PathBuf> {
    program(&["chromium", "chromium-browser", "google-chrome"])
}

/// The WebDriver server that drives it.
pub fn browser_driver() -> Option<PathBuf> {
    program(&["chromedriver"])
}

/// A Python recent enough for the pinned packages, with the modules that make virtual environments: Debian ships
/// `ensurepip` apart from the rest.
pub fn python() -> Option<PathBuf> {
    let candidates = path().into_iter().filter_map(|directory| executable(&directory.join("python3")));
    candidates.into_iter().find(|python| {
        let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
        let output = Command::new(python).args(["-c", check]).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    })
}

fn debian_versions() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    versions.into_iter().map(|(_, directory)| directory).collect()
}

fn executable(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let found = path.canonicalize().ok()?;
    let metadata = found.metadata().ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_exists_wins_and_links_are_followed() {
        let found = program(&["no-such-program", "sh"]).unwrap();
        assert_eq!(found, Path::new("/bin/sh").canonicalize().unwrap());
        assert_eq!(program(&["no-such-program"]), None);
    }
}
