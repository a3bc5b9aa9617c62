//! What testkit reads of the machine's environment, and the little of it that engines get to see.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// All that an engine inherits. Proxies, certificate bundles, cloud settings, database settings and a developer's
/// own `STEADING_*` would steer it from outside.
const INHERITED: [&str; 11] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "LLVM_PROFILE_FILE",
];

/// The value of an environment variable, where it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration file; this is their one reader")]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The directories of `PATH`.
pub fn path() -> Vec<PathBuf> {
    variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Leaves `command` with the inherited names only, and what its caller sets afterwards.
pub fn scrub(command: &mut Command) {
    command.env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, variable(name)?))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrubbed_child_sees_the_inherited_names_only() {
        let mut command = Command::new("env");
        command.env("AWS_CA_BUNDLE", "/tmp/bundle").env("https_proxy", "http://127.0.0.1:9");
        scrub(&mut command);
        let seen = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let names: Vec<&str> = seen.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(names.contains(&"PATH"));
        assert!(names.iter().all(|name| INHERITED.contains(name)), "{names:?}");
    }
}
