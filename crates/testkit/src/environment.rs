//! What testkit reads of the machine's environment, and what it keeps from the engines.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// The value of an environment variable, where it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration file; this is their one reader")]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The directories of `PATH`.
pub fn path() -> Vec<PathBuf> {
    variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Removes what would steer an engine from outside: proxies, certificate bundles, cloud and database settings.
#[expect(clippy::disallowed_methods, reason = "the names have to be listed to be removed")]
pub fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_none_or(steers) {
            command.env_remove(name);
        }
    }
}

fn steers(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name.starts_with("AWS_")
        || name.starts_with("PG")
        || name.starts_with("STEADING_")
        || name.ends_with("_PROXY")
        || name.ends_with("_CA_BUNDLE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_an_engine_is_removed_and_the_rest_stays() {
        let removed = ["AWS_CA_BUNDLE", "AWS_PROFILE", "https_proxy", "NO_PROXY", "CURL_CA_BUNDLE", "PGHOST"];
        let kept = ["PATH", "HOME", "LANG", "TMPDIR"];
        assert_eq!(removed.map(steers), [true; 6]);
        assert_eq!(kept.map(steers), [false; 4]);
    }
}
