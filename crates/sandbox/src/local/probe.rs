//! What works on this machine, found out by doing it, and what mends the rest.

use std::io;
use std::path::Path;

use hand::jail::Step;
use serde::{Deserialize, Serialize};

/// How something works here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// As it should.
    Works,
    /// Sandboxes run, but not as well.
    Degraded {
        /// What is not as it should be.
        why: String,
        /// What to do about it.
        mend: String,
    },
    /// No sandbox runs.
    Fails {
        /// What was tried and refused.
        why: String,
        /// What to do about it.
        mend: String,
    },
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// What.
    pub about: String,
    /// How it works.
    pub verdict: Verdict,
}

impl Finding {
    /// Something works.
    pub(super) fn works(about: &str) -> Self {
        Self { about: about.to_owned(), verdict: Verdict::Works }
    }

    /// Something works less well.
    pub(super) fn degraded(about: &str, why: &str, mend: &str) -> Self {
        Self {
            about: about.to_owned(),
            verdict: Verdict::Degraded { why: why.to_owned(), mend: mend.to_owned() },
        }
    }

    /// Something does not work.
    pub(super) fn fails(about: &str, why: String, mend: String) -> Self {
        Self { about: about.to_owned(), verdict: Verdict::Fails { why, mend } }
    }
}

/// A switch of the kernel that closes namespaces to those without privileges, what it says when it does, and the command
/// that opens it.
const SWITCHES: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "run as root, or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "run as root, or `sysctl -w kernel.unprivileged_userns_clone=1`",
    ),
    ("/proc/sys/user/max_user_namespaces", "0", "`sysctl -w user.max_user_namespaces=65536`"),
];

/// What mends a step of making a jail that was refused.
#[must_use]
pub fn mend(step: Step, error: &io::Error) -> String {
    mend_here(step, error, |path| std::fs::read_to_string(Path::new(path)).ok())
}

fn mend_here(step: Step, error: &io::Error, read: impl Fn(&str) -> Option<String>) -> String {
    let no_space = error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error());
    match step {
        Step::Users | Step::Namespaces => {
            let closed = SWITCHES.iter().find(|(path, value, _)| read(path).is_some_and(|text| text.trim() == *value));
            match closed {
                Some((_, _, mend)) => (*mend).to_owned(),
                None if no_space => "raise the limits in /proc/sys/user, which are used up".to_owned(),
                None => "run as root; in a container, give it CAP_SYS_ADMIN and a seccomp profile that lets \
                         it make namespaces (docker: `--cap-add SYS_ADMIN --security-opt seccomp=unconfined`)"
                    .to_owned(),
            }
        }
        Step::Mounts => "in a container, leave /proc whole and mounts allowed (docker: `--security-opt \
                         systempaths=unconfined --security-opt apparmor=unconfined`); the kernel must be 5.12 or newer"
            .to_owned(),
        Step::Workspace => "keep the data directory on ext4, xfs, btrfs or tmpfs; overlays need a kernel from 5.19 \
                            on, and from those without privileges 5.11"
            .to_owned(),
        Step::Groups => "let this process write its control group (systemd: `Delegate=yes`)".to_owned(),
        Step::Network => "let this process make network namespaces: run as root, or in a container that may".to_owned(),
        Step::Privileges | Step::Landlock | Step::Seccomp => {
            "use a kernel with CONFIG_SECCOMP_FILTER, and no profile around this process that forbids prctl(2) or \
             seccomp(2)"
                .to_owned()
        }
        Step::Exec | Step::Spec => "install Steading again: its parts do not fit together".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_that_is_off_is_the_one_that_is_named() {
        let denied = io::Error::from_raw_os_error(1);
        for (path, value, mend) in SWITCHES {
            let read = |asked: &str| (asked == path).then(|| format!("{value}\n"));
            assert_eq!(mend_here(Step::Users, &denied, read), mend);
        }
        let full = io::Error::from_raw_os_error(28);
        assert!(mend_here(Step::Namespaces, &full, |_| None).contains("/proc/sys/user"));
        assert!(mend_here(Step::Namespaces, &denied, |_| None).contains("CAP_SYS_ADMIN"));
    }
}
